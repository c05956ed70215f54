"""What a finished job says of itself: the summary that pages, the CLI and the client read."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.document_specs import Arm

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

    arm: Arm
    trained_on: str = Field(description="in words: which rows, which weights")
    num_rows: int
    num_steps: int
    accuracy: list[float] = Field(description="test accuracy of each seed, 0..1")
    mean: float
    interval: tuple[float, float] = Field(description="95% interval of the mean accuracy")
    bootstrap: tuple[float, float] | None = Field(default=None, description="the same by the bootstrap")


class Comparison(_Schema):
    """A curated arm against a control: mean paired difference of test accuracy, with its intervals."""

    subject: Literal["curated", "curated-and-meta"] = "curated"
    arm: Arm = Field(description="the control")
    difference: float
    interval: tuple[float, float] = Field(description="the verdict rests on this one")
    bootstrap: tuple[float, float] | None = Field(default=None, description="the same by the paired bootstrap")

    @property
    def finding(self) -> Literal["better", "not told apart", "worse"]:
        """What the interval says of the curated arm."""
        if self.interval[0] > 0.0:
            return "better"
        return "worse" if self.interval[1] < 0.0 else "not told apart"


class CurvePoint(_Schema):
    """One keep fraction of the prune curve: the best-ranked rows beside as many random ones."""

    keep_fraction: float
    num_rows: int
    curated: ArmSummary
    random: ArmSummary
    comparison: Comparison


class BaselineSummary(_Schema):
    """What one plain training alone would have pointed at, beside what the method points at."""

    name: Literal["loss", "aum"]
    description: str
    num_compared: int = Field(description="k: rows that the method doubts most")
    overlap: float = Field(description="share of these among the k rows that the baseline doubts most")
    rank_correlation: float | None = Field(
        description="Spearman's, of the two noise scores; None where one is constant"
    )


class ReliabilityBin(_Schema):
    """Rows whose noise score lies between `low` and `high`, and how many of them were planted."""

    low: float
    high: float
    count: int
    mean_noise_score: float | None
    share_planted: float | None


class DetectionSummary(_Schema):
    """How well one noise score finds the planted errors."""

    name: str
    auroc: float
    average_precision: float
    precision: float = Field(description="share of planted rows among as many most doubted rows as there are planted")
    reliability: list[ReliabilityBin]


class AuditSummary(_Schema):
    """The audit on planted errors: first the method, then the baselines."""

    kind: Literal["uniform", "confusion"]
    rate: float
    num_judged: int = Field(description="labelled curated rows that are not trusted")
    num_planted: int
    detections: list[DetectionSummary]
    reading: str = Field(description="in words: what the figures can and cannot say")


class EvaluationSummary(_Schema):
    """The proof: arms retrained with equal steps, the prune curve, the baselines, the audit."""

    num_test: int
    seeds: list[int]
    arms: list[ArmSummary]
    comparisons: list[Comparison]
    interval_method: str
    bootstrap_method: str | None = None
    verdict: str = Field(description="in words, 'no better than random' included")
    curve: list[CurvePoint] = Field(default_factory=list)
    baselines: list[BaselineSummary] = Field(default_factory=list)
    audit: AuditSummary | None = None


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
    threshold: float | None = Field(
        description="score from which on rows are kept, likely mislabelled ones apart; None where the keep decision "
        "is no such cut by score"
    )
    noise_cut: float = Field(
        default=1.0, description="rows of a higher noise_score with another suggested label stand last"
    )
    n_cut_off: int = Field(default=0, description="rows that stand last for that reason")
    doubt_above: float = Field(default=0.5, description="noise_score above which reasons call a given label doubtful")


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


class LabelChange(_Schema):
    """How often one label took the place of another; `given` is null for rows that had none."""

    given: str | None
    label: str
    count: int
    mean_confidence: float


class RelabelSummary(_Schema):
    """What task `relabel` did to labels. Probabilities are the method's own."""

    targets: Literal["hard", "soft"]
    min_confidence: float
    min_noise: float
    rule: str = Field(description="when a label is corrected, in words")
    num_corrected: int = Field(description="rows whose label is another than the given one")
    num_labelled: int = Field(description="rows without a given label that now have one")
    num_kept: int = Field(description="rows of both kinds among those to train on")
    expected_right_before: float | None = Field(
        description="mean probability that a given label is right; null where no trusted rows calibrated the scores"
    )
    expected_right_after: float | None = Field(
        description="the same of the labels to train on, rows with a given label alone"
    )
    num_changes: int = Field(description="different pairs of given label and label")
    changes: list[LabelChange] = Field(description="the most frequent pairs")


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
    calibrated: bool | None = Field(
        default=None, description="noise_score is a probability, not a ranking alone; None in results of before"
    )
    num_doubtful: int = Field(
        description="rows with a noise_score above selection.doubt_above whose suggested label is another"
    )
    evaluation: EvaluationSummary | Literal["not evaluated"]
    hypergradient_check: CheckSummary | None = None
    relabel: RelabelSummary | None = Field(None, description="None where the task leaves labels as they are")
    notes: list[str] = Field(description="what the user should know: unlabelled rows, imputed values, overlaps")


class Example(_Schema):
    """What was decided about one row: the columns of `rows.parquet`. Rows without a label have nulls."""

    row: int
    id: int | str | None
    content_sha256: str | None
    source: str | None
    given_label: LabelValue | None
    given_weight: float | None
    given_score: float | None
    weight: float | None
    weight_std: float | None
    score: float | None
    rank: int | None
    noise_score: float | None
    suggested_label: LabelValue | None
    label_confidence: float | None
    label: LabelValue | None
    corrected: bool
    keep: bool
    reason: str


class ExamplePage(_Schema):
    """Rows in the order asked for, and the cursor of the next page."""

    items: list[Example]
    next_cursor: str | None


class Influence(_Schema):
    """A trusted example that speaks against another one: training on that one would make this one less likely."""

    example_id: str
    label: str = Field(description="its trusted label")
    strength: float = Field(description="relative to the strongest of the same example, 0..1")
    value: float | None = Field(default=None, description="the influence, below 0; None in results of before")
    text: str | None
    image: str | None = Field(description="a small image as a data URI")


class Preview(_Schema):
    """One of the examples a page shows first, with its text or a note that it has an image."""

    row: int
    example_id: str
    given_label: str | None
    suggested_label: str
    label_confidence: float
    noise_score: float | None
    weight: float
    score: float | None
    label: str
    corrected: bool
    keep: bool
    reason: str
    text: str | None
    has_image: bool
    influences: list[Influence]
