"""The sets by name: one column of given labels of one data set each, and how much of it a run takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

InputKind = Literal["image", "text", "features"]


@dataclass(frozen=True)
class Size:
    """How much of a set is taken, and how long networks train on it.

    Attributes:
        num_train: curated rows, drawn anew by each seed; None takes all.
        num_trusted: of them, with their true label known, where the data have no split of trusted rows of their own.
        num_test: test rows; None takes all.
        epochs: of every training; None takes the product's default for the model and the number of rows.
        side: images are brought to at most so many pixels a side; None takes the product's default.
    """

    num_train: int | None = None
    num_trusted: int = 500
    num_test: int | None = None
    epochs: int | None = None
    side: int | None = None


@dataclass(frozen=True, kw_only=True)
class SetSpec:
    """One set.

    Attributes:
        title: for the tables.
        noise: where the wrong labels come from.
        folder: of the data; it holds train.parquet and test.parquet, or data.parquet with a column `split`.
        kind: of the inputs.
        model: network of the CPU-sized run.
        given: column of the given labels, -1 where there is none.
        size: of the CPU-sized run.
        num_labelled: curated rows with a given label that the data have; for the forecast alone.
        step_ms: milliseconds of a step of plain training on one core of an AMD EPYC; likewise.
        has_votes: whether the given labels are made from the column `weak_labels`.
        has_trusted: whether the data have a split `valid`, which is taken as the trusted rows.
        is_main: whether trainings on what each method decides are compared too.
        is_pruned: gold labels, for the comparison of prunings alone.
    """

    title: str = ""
    noise: str = "planted"
    folder: str
    kind: InputKind
    model: str
    given: str = "noisy_label"
    size: Size
    num_labelled: int
    step_ms: float
    has_votes: bool = False
    has_trusted: bool = False
    is_main: bool = False
    is_pruned: bool = False


_CIFAR = SetSpec(
    folder="cifar10",
    kind="image",
    model="cnn",
    size=Size(num_train=2500, num_test=2000, epochs=6, side=16),
    num_labelled=50_000,
    step_ms=10.0,
)
_MNIST = replace(
    _CIFAR,
    folder="mnist",
    size=Size(num_train=2500, num_test=2000, epochs=6, side=14),
    num_labelled=60_000,
    step_ms=9.0,
)
_LETTER = SetSpec(
    folder="letter", kind="features", model="mlp", size=Size(num_train=8000), num_labelled=16_000, step_ms=0.85
)
_ADULT = replace(_LETTER, folder="adult", size=Size(num_train=8000, num_test=4000), num_labelled=31_350, step_ms=0.95)
_YOUTUBE = SetSpec(
    title="YouTube comments, ten rules",
    noise="rules",
    folder="wrench_youtube",
    kind="text",
    model="text",
    size=Size(epochs=16),
    num_labelled=1_391,
    step_ms=5.0,
    has_votes=True,
    has_trusted=True,
    is_main=True,
)

SETS: Mapping[str, SetSpec] = {
    "cifar10_worse": replace(_CIFAR, title="CIFAR-10, worst of three annotators", noise="people", is_main=True),
    "cifar10_aggre": replace(
        _CIFAR, title="CIFAR-10, majority of three annotators", noise="people", given="aggre_label"
    ),
    "cifar10_random1": replace(_CIFAR, title="CIFAR-10, first annotator", noise="people", given="random_label1"),
    "mnist_sym40": replace(_MNIST, title="MNIST, 40% symmetric", is_main=True),
    "mnist_asym20": replace(_MNIST, title="MNIST, 20% class to class", given="noisy_asym40"),
    "letter": replace(_LETTER, title="Letter, 30% instance-dependent", is_main=True),
    "letter_sym40": replace(_LETTER, title="Letter, 40% symmetric", given="noisy_sym40"),
    "adult": replace(_ADULT, title="Adult, sixteen rules", noise="rules", has_votes=True, is_main=True),
    "adult_planted": replace(_ADULT, title="Adult, 30% instance-dependent", given="noisy_idn30"),
    "wrench_youtube": _YOUTUBE,
    "wrench_sms": replace(_YOUTUBE, title="SMS, 73 rules", folder="wrench_sms", num_labelled=1_783, step_ms=5.5),
    "sst2": replace(
        _YOUTUBE,
        title="SST-2, 20% symmetric",
        noise="planted",
        folder="sst2",
        size=Size(num_train=4000, epochs=5),
        num_labelled=67_349,
        step_ms=5.5,
        has_votes=False,
        has_trusted=False,
    ),
    "cifar10_gold": replace(_CIFAR, title="CIFAR-10, true labels", noise="none", given="label", is_pruned=True),
}

EXTRA_SETS = ("mnist_asym20", "letter_sym40", "adult_planted")
"""Further columns of the same data, taken where they are named or everything is asked for."""

FULL_SETS = ("cifar10_worse", "cifar10_aggre", "cifar10_random1", "cifar10_gold")
FULL_MODEL = "resnet18"
SEPARATE_SETS = ("letter",)
"""Those shown a second time with trusted rows whose given label nobody knows."""
COST_SETS = ("cifar10_worse", "wrench_youtube", "sst2")
"""Those whose cost is measured a second time, at the product's own number of epochs: one of each kind that is cut."""
