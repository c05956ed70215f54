"""What is said against a label, by which evidence, and where the evidence says nothing against it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sama_core import Decisions
from service.storage.labels import LabelMap
from worker.phases.scoring import Outcome
from worker.results.findings import FindingWriter

SAYS = "the model says spam with 0.98"
STEADY = {"visits": 3.0, "average_p_suggested": 0.7, "share_right": 0.0, "spread": 0.1}


def tell(
    evidence: Mapping[str, float],
    *,
    names: tuple[str, ...] = ("ham", "spam"),
    noise: float = 0.98,
    num_rows: int = 20,
    facts: Mapping[str, Any] | None = None,
    **fields: Any,
) -> str:
    """Return the finding on the first of some rows given ham, for which spam is suggested unless `fields` differ."""
    values = {name: np.full(num_rows, value, dtype=np.float32) for name, value in evidence.items()}
    ones = np.ones(num_rows, dtype=np.float32)
    given = np.zeros(num_rows, dtype=np.int64)
    decisions = Decisions(
        method="sama",
        weight=ones,
        weight_std=0 * ones,
        score=ones,
        noise_score=noise * ones,
        suggested=given + fields.pop("suggested", 1),
        label_confidence=fields.pop("confidence", 0.98) * ones,
        evidence=values,
        facts=facts or {},
    )
    outcome = Outcome(
        decisions=decisions,
        decided=decisions,
        labels=given,
        corrected=np.zeros(num_rows, dtype=np.bool_),
        added=None,
        rank=given,
        num_kept=num_rows,
        rule="top",
        rule_reason="top, as asked for",
        last_step=1,
        **fields,
    )
    return next(FindingWriter(outcome, given, LabelMap(names, pa.string())).write(0, 1))


@pytest.mark.parametrize(
    ("evidence", "clauses"),
    [
        ({}, ""),
        ({"trusted_p_given": 0.04}, "; the trusted examples alone give ham 0.04"),
        ({"trusted_p_given": 0.5}, ""),
        ({"votes_p_given": 0.1, "neighbour_agreement": 0.6}, "; the votes give ham 0.10"),
        ({"neighbour_agreement": 1.25 / 15.5}, "; 1 of its 15 nearest neighbours carries ham"),
        ({"neighbour_agreement": 4.25 / 15.5}, "; 4 of its 15 nearest neighbours carry ham"),
        ({"neighbour_agreement": 6.25 / 15.5}, ""),
        ({"forgotten": 3.0}, "; ham was learned and forgotten 3 times"),
        (
            {"trusted_p_given": 0.001, "neighbour_agreement": 0.25 / 15.5, "forgotten": 9.0},
            "; the trusted examples alone give ham under 0.01; none of its 15 nearest neighbours carries ham",
        ),
        ({"trusted_p_given": float("nan"), "votes_p_given": float("nan")}, ""),
        ({"something_new": 0.0}, ""),
    ],
)
def test_a_finding_tells_the_evidence_that_speaks_against_the_label(evidence: dict[str, float], clauses: str) -> None:
    assert tell(evidence) == f"{SAYS}; given ham{clauses}"


@pytest.mark.parametrize(
    ("evidence", "clauses"),
    [
        ({"trusted_p_given": 0.03}, ""),
        ({"votes_p_given": 1 / 26}, ""),
        ({"neighbour_agreement": (1 + 0.5 / 26) / 15.5}, ""),
        ({"trusted_p_given": 0.015}, "; the trusted examples alone give ham 0.01"),
        ({"neighbour_agreement": 0.5 / 26 / 15.5}, "; none of its 15 nearest neighbours carries ham"),
    ],
)
def test_what_chance_gives_among_many_classes_is_nothing_against_a_label(
    evidence: dict[str, float], clauses: str
) -> None:
    names = ("ham", "spam", *(f"class {number}" for number in range(24)))
    assert tell(evidence, names=names) == f"{SAYS}; given ham{clauses}"


@pytest.mark.parametrize(
    "changed",
    [{"visits": 1.0}, {"average_p_suggested": 0.4}, {"share_right": 0.5}, {"spread": 0.3}, {"visits": float("nan")}],
)
def test_epoch_after_epoch_is_said_only_where_the_model_held_the_suggested_label_all_along(
    changed: dict[str, float],
) -> None:
    assert tell(STEADY) == f"{SAYS}, epoch after epoch; given ham"
    assert tell(STEADY | changed) == f"{SAYS}; given ham"


@pytest.mark.parametrize(("num_rows", "facts"), [(12, {}), (20, {"seeds": [0, 1]})])
def test_no_number_of_neighbours_is_told_where_it_is_not_known(num_rows: int, facts: dict[str, Any]) -> None:
    told = tell({"neighbour_agreement": 0.1}, num_rows=num_rows, facts=facts)
    assert told == f"{SAYS}; given ham; few of its nearest neighbours carry ham"


def test_a_label_that_is_unsure_though_the_model_agrees_is_told_of() -> None:
    assert tell({}, suggested=0, noise=0.6, confidence=0.4) == "the model says ham with 0.40, as given"
    assert tell({}, suggested=0, noise=0.4, confidence=0.6) == ""


def test_where_noise_scores_are_a_ranking_a_label_is_doubted_from_the_noise_cut_on() -> None:
    uncalibrated = {"is_calibrated": False, "noise_cut": 0.9}
    assert tell({}, noise=0.8, **uncalibrated) == ""
    assert tell({}, noise=0.95, **uncalibrated) == f"{SAYS}; given ham"
    assert tell({}, noise=0.8, noise_cut=0.9) == f"{SAYS}; given ham", "a probability above one half"
