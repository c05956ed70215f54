"""What is compared: the baselines, ours, and ours with one thing changed at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from sama_core import METHOD_NAMES, CurationOptions
from sama_core.features import JUDGES
from sama_core.hypergradient.choice import HYPERGRADIENT_NAMES
from sama_core.options import DEFAULT_FEATURES, EvidenceName, FeatureName
from service.storage.estimates import BASELINE_COSTS

OURS = "sama"
BASELINES = tuple(name for name in METHOD_NAMES if name not in HYPERGRADIENT_NAMES)
TRUSTING = tuple(
    name
    for name in METHOD_NAMES
    if name in {OURS, "trusted-model", "recalibrated", "self-training", "confident-learning-trusted"}
)
"""Those that use the trusted rows."""
PRUNING = tuple(name for name in ("random", "el2n", "forgetting", "aum", "dual", OURS) if name in METHOD_NAMES)

_PAIRS = {pair[0]: (f"{judge}-features", pair) for judge, pair in JUDGES.items()}
"""Features that say much the same are left out together."""


@dataclass(frozen=True)
class Variant:
    """A method, and how its options differ from the defaults.

    Attributes:
        name: in tables and results.
        method: name of the curation method.
        changes: options by name.
    """

    name: str
    method: str
    changes: Mapping[str, Any]

    def change(self, options: CurationOptions) -> CurationOptions:
        """Return the options of this variant."""
        return replace(options, **self.changes)


def _list_feature_ablations() -> dict[str, Mapping[str, Any]]:
    names = DEFAULT_FEATURES
    seconds = {second for _, (_, second) in _PAIRS.values()}
    groups = dict(_PAIRS.get(name, (name, (name,))) for name in names if name not in seconds)
    by_name: dict[str, Mapping[str, Any]] = {
        f"{OURS}:without-{group}": {"features": tuple(name for name in names if name not in left_out)}
        for group, left_out in groups.items()
    }
    return by_name | {
        f"{OURS}:loss-alone": {"features": ("loss",)},
        f"{OURS}:with-neighbours-feature": {"features": get_args(FeatureName)},
    }


FEATURE_ABLATIONS: Mapping[str, Mapping[str, Any]] = _list_feature_ablations()
"""Ours with less for the weight network to see: name -> options that differ."""

EVIDENCE_ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    f"{OURS}:without-{left_out}-evidence": {
        "evidence": tuple(name for name in get_args(EvidenceName) if name != left_out)
    }
    for left_out in get_args(EvidenceName)
}
"""Ours with less for the detector to see."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {**FEATURE_ABLATIONS, **EVIDENCE_ABLATIONS}


def is_of_votes(name: str) -> bool:
    """Return whether an ablation leaves out the votes of labelling functions: the same as ours where there are none."""
    return name.startswith(f"{OURS}:without-votes")


def _list_variants() -> dict[str, Variant]:
    known = {field.name for field in fields(CurationOptions)}
    changed = ABLATIONS
    unknown = {option for changes in changed.values() for option in changes} - known
    assert not unknown, f"no options: {', '.join(sorted(unknown))}"
    plain = {name: Variant(name, name, {}) for name in (OURS, *BASELINES)}
    return plain | {name: Variant(name, OURS, changes) for name, changes in changed.items()}


VARIANTS: Mapping[str, Variant] = _list_variants()

_LEAST_TRUSTED_STEPS = 500
_NUM_TRUSTED_MODELS, _NUM_CHAINS, _NUM_ROUNDS = 6, 3, 3


def forecast_cost(name: str, num_steps: int, *, has_trusted: bool) -> float:
    """Return how many trainings of ``num_steps`` a method takes, more or less.

    Args:
        name: of the variant.
        num_steps: of a plain training.
        has_trusted: whether the trusted rows are a split of their own; if not, they are cross-fitted.
    """
    own = min(1.0, _LEAST_TRUSTED_STEPS / num_steps)
    trusting = {
        "trusted-model": own * (1 if has_trusted else _NUM_TRUSTED_MODELS),
        "recalibrated": own * _NUM_TRUSTED_MODELS,
        "self-training": (own + _NUM_ROUNDS) * (1 if has_trusted else _NUM_CHAINS),
        **dict.fromkeys((OURS, *ABLATIONS), 1.5),
    }
    return trusting.get(name, BASELINE_COSTS.get(name, 1.0))
