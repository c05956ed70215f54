"""The sections of a job document, as pydantic models: what each field is and the range it may take.

`None` in `training` and `method` means "sensible for the model"; the worker resolves it and records it in the
manifest. Rules that span several fields stand in `document_rules`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ColumnName = Annotated[str, Field(min_length=1, max_length=256)]
Uri = Annotated[str, Field(min_length=1, max_length=4096)]
Task = Literal["reweight", "relabel", "prune"]
LeakageAction = Literal["exclude", "refuse", "report"]
Arm = Literal["full", "curated", "random", "loss", "meta", "full-and-meta", "curated-and-meta"]
MethodName = Literal[
    "sama", "sama-na", "neumann", "cg", "unrolled", "random", "loss", "el2n", "grand", "forgetting", "aum", "dual",
    "trusted-model", "recalibrated", "self-training", "confident-learning", "confident-learning-trusted",
]  # fmt: skip
OptimizerName = Literal["sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adamax", "adadelta"]

ALL_OTHER_COLUMNS = "*"
META_FREE_BASELINES = ("random", "loss", "el2n", "grand", "forgetting", "aum", "dual", "confident-learning")
TRUSTING_BASELINES = ("trusted-model", "recalibrated", "self-training", "confident-learning-trusted")
BASELINES = META_FREE_BASELINES + TRUSTING_BASELINES
HARDNESS_BASELINES = ("el2n", "grand", "forgetting", "dual")  # scores of what is hard to learn, not of what is wrong
PLAIN_BASELINES = ("random", "loss", "el2n", "grand", "forgetting", "aum", "dual")  # one plain training, or less
SHARED_METHODS = ("sama", "sama-na")


class AbstractSpec(BaseModel):
    """A section of the document: unknown fields refused, nothing converted silently, never edited."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


class SplitSpec(AbstractSpec):
    """The rows whose `column` holds `value`."""

    column: ColumnName
    value: str | int | bool


class DatasetSpec(AbstractSpec):
    """Where the examples lie and which column is what."""

    uri: Uri
    id: ColumnName | None = None
    text: ColumnName | None = None
    image: ColumnName | None = None
    features: Annotated[tuple[ColumnName, ...], Field(strict=False, min_length=1)] | None = None
    label: ColumnName
    source: ColumnName | None = None
    votes: Annotated[tuple[ColumnName, ...], Field(strict=False, min_length=1)] | None = None
    split: SplitSpec | None = None

    @property
    def kind(self) -> Literal["text", "image", "features"]:
        """Which of the three kinds of input the examples have."""
        if self.text is not None:
            return "text"
        return "image" if self.image is not None else "features"


class MetaSpec(AbstractSpec):
    """The trusted examples: exactly one of `split`, `uri`, `fraction` and `self`."""

    split: SplitSpec | None = None
    uri: Uri | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    self_: Annotated[Literal[True] | None, Field(alias="self")] = None
    label: ColumnName | None = None


class TestSpec(AbstractSpec):
    """The examples that only `evaluation` sees: exactly one of `split` and `uri`."""

    __test__ = False  # not a test class, whatever its name says to pytest

    split: SplitSpec | None = None
    uri: Uri | None = None
    label: ColumnName | None = None


class LeakageSpec(AbstractSpec):
    """What happens to test rows that also stand, exactly or nearly, among the curated or the trusted rows.

    `exclude` leaves them out of the test set: no row of the user's is lost from the curation, and accuracy is measured
    on examples that nothing was trained on. `trusted` says the same of trusted rows that also stand among the curated
    ones; None is `report`. `similarity` None is `DEFAULT_SIMILARITY` of the kind of input.
    """

    action: LeakageAction = "exclude"
    trusted: LeakageAction | None = None
    near: bool = True
    similarity: Annotated[float, Field(ge=0.5, le=1)] | None = None


class ModelSpec(AbstractSpec):
    """The network, by name: auto, linear, mlp, cnn, resnet18, text, or `hf:` and a local folder."""

    name: Annotated[str, Field(min_length=1, max_length=4096)] = "auto"


class MethodSpec(AbstractSpec):
    """The curation method and its own settings."""

    name: MethodName = "sama"
    learned: Literal["network", "logits", "sources", "corrector"] = "network"
    unroll_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    every_step: bool = False
    terms: Annotated[int, Field(ge=0, le=1000)] = 5
    damping: Annotated[float, Field(ge=0, le=1e6)] | None = None
    nudge: Annotated[float, Field(gt=0, le=1e6)] | None = None
    neighbours: bool = False
    check: bool = False
    meta_lr: Annotated[float, Field(gt=0, le=100)] | None = None
    meta_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    perturbation_scale: Annotated[float, Field(gt=0, le=10)] | None = None
    route: Literal["auto", "ghost", "finite-difference", "forward-mode"] = "auto"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    averaged_checkpoints: Annotated[int, Field(ge=1, le=100)] = 5
    seeds: Annotated[int, Field(ge=1, le=20)] = 1


class TrainingSpec(AbstractSpec):
    """How the base network is trained."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    optimizer: OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=100)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    compile: bool = False
    stop_when_settled: bool = False
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0


class SelectionSpec(AbstractSpec):
    """Which share of all curated rows is kept, and by which rule; can be changed after the job."""

    keep_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    rule: Literal["auto", "top", "balanced", "coverage"] = "auto"
    class_floor: Annotated[float, Field(ge=0, le=1)] = 0.3
    noise_cut: Annotated[float, Field(ge=0, le=1)] | None = None


class RelabelSpec(AbstractSpec):
    """When a label is corrected; a section of task `relabel` alone.

    A label is corrected where the suggested one is more probable than the given one: then, and only then, the change
    raises the expected number of right labels. `min_confidence` 0.5 asks besides that the new label is more likely
    right than not. Higher bars were tried and left more accuracy than they saved: a doubtful label that stays is as
    wrong as before, and the weights already make little of labels that are about as likely wrong as right.
    `min_noise` 0.5 leaves alone every row that is not counted among the doubtful ones.
    """

    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_noise: Annotated[float, Field(ge=0, le=1)] = 0.5
    unlabelled: bool = False
    targets: Literal["hard", "soft"] = "hard"


class PlantSpec(AbstractSpec):
    """The audit: a share of the labels is made wrong in a copy of the rows, to see how many of them are found."""

    rate: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    kind: Literal["uniform", "confusion"] = "uniform"


class EvaluationSpec(AbstractSpec):
    """The proof: retrainings compared on the test set, a cheap baseline beside the method, and the audit.

    `arms` are filled in by `evaluation_rules` where a document names none.
    """

    arms: Annotated[tuple[Arm, ...], Field(strict=False)] = ("full", "curated", "random")
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    baseline: bool = True
    keep_fractions: (
        Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False, min_length=1, max_length=9)]
        | None
    ) = None
    plant: PlantSpec | None = None


class LimitsSpec(AbstractSpec):
    """What ends a job that does not end by itself."""

    max_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3


class ResourcesSpec(AbstractSpec):
    """What a job may occupy."""

    devices: Annotated[int, Field(ge=1, le=16)] = 1
