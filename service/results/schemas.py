"""What a finished job says of itself: the summary that pages, the CLI and the client read."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LabelValue = int | str


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Histogram(_Schema):
    """Counts of a number over equal bins: bin i spans edges[i] to edges[i + 1]."""

    edges: list[float]
    counts: list[int]


class GroupSummary(_Schema):
    """One class or one source: its rows and how many of them are kept."""

    name: str
    num_rows: int
    num_kept: int
    keep_rate: float = Field(description="num_kept / num_rows")
    mean_weight: float | None
    mean_noise_score: float | None


class ArmSummary(_Schema):
    """One retraining: what it trained on and the test accuracy of each seed."""

    arm: Literal["full", "curated", "random"]
    trained_on: str = Field(description="in words: which rows, which weights")
    num_rows: int
    num_steps: int
    accuracy: list[float] = Field(description="test accuracy of each seed, 0..1")
    mean: float
    interval: tuple[float, float] = Field(description="95% interval of the mean accuracy")


class Comparison(_Schema):
    """The curated arm against a control: mean paired difference of test accuracy, with its interval."""

    arm: Literal["full", "random"]
    difference: float
    interval: tuple[float, float]


class EvaluationSummary(_Schema):
    """The proof: arms retrained with equal steps, compared on the test set."""

    num_test: int
    seeds: list[int]
    arms: list[ArmSummary]
    comparisons: list[Comparison]
    interval_method: str
    verdict: str = Field(description="in words, 'no better than random' included")


class SelectionSummary(_Schema):
    """Which rows to train on, and by what rule."""

    keep_is: Literal["rows to train on"] = "rows to train on"
    n_total: int
    n_labelled: int
    n_kept: int
    kept_fraction_of_total: float
    rule: str
    rule_reason: str
    class_floor: float
    threshold: float | None = Field(description="score of the last kept row; None where the rule is not a cut by score")


class ComparisonSummary(_Schema):
    """A hypergradient estimate of one batch beside automatic differentiation."""

    step: int
    cosine: float = Field(description="to the exact hypergradient through the last base step, -1..1")
    relative_error: float = Field(description="||estimate - exact|| / ||exact|| of the same")
    unrolled_cosine: float = Field(description="to that through all base steps since the last meta step")


class CheckSummary(_Schema):
    """What `method.check` found on the job's own network, in the job's number format and in float64."""

    method: str
    route: str | None
    as_run: list[ComparisonSummary]
    double: list[ComparisonSummary]


class Summary(_Schema):
    """Everything a page needs to show a finished job without its rows."""

    num_rows: int
    num_labelled: int
    num_unlabelled: int
    selection: SelectionSummary
    weight_histogram: Histogram
    noise_histogram: Histogram
    classes: list[GroupSummary]
    sources: list[GroupSummary]
    num_doubtful: int = Field(description="rows with noise_score >= 0.5 whose suggested label is another")
    evaluation: EvaluationSummary | Literal["not evaluated"]
    hypergradient_check: CheckSummary | None = None
    notes: list[str] = Field(description="what the user should know: unlabelled rows, imputed values, overlaps")


class Example(_Schema):
    """What was decided about one row: the columns of `rows.parquet`. Unlabelled rows have nulls."""

    row: int
    id: int | str | None
    content_sha256: str | None
    source: str | None
    given_label: LabelValue | None
    weight: float | None
    weight_std: float | None
    score: float | None
    rank: int | None
    noise_score: float | None
    suggested_label: LabelValue | None
    label_confidence: float | None
    keep: bool
    reason: str


class ExamplePage(_Schema):
    """Rows in the order asked for, and the cursor of the next page."""

    items: list[Example]
    next_cursor: str | None


class Preview(_Schema):
    """One of the examples a page shows first, with its text or a note that it has an image."""

    row: int
    example_id: str
    given_label: str
    suggested_label: str
    label_confidence: float
    noise_score: float
    weight: float
    score: float
    keep: bool
    reason: str
    text: str | None
    has_image: bool
