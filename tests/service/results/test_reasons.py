"""The verdicts: what is said of kept and dropped rows, under every rule and at any keep fraction."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from service.results.reasons import Terms, write_reasons
from service.results.tables import ResultTable
from tests.service.seeding import finish_job

SPREAD = "the kept rows are spread over the scores of its class"
FINDING = "the model says spam with 0.98; given ham"


def judge(keep: bool, terms: Terms = Terms(), **fields: Any) -> str:  # noqa: B008 - frozen
    """Return the reason of one row given ham, of which nothing speaks against it unless `fields` say so."""
    row = {
        "rank": 0, "given_label": "ham", "suggested_label": "ham", "corrected": False, "weight": 1.0,
        "noise_score": 0.1, "finding": "",
    } | fields  # fmt: skip
    types = {"rank": pa.int64(), "corrected": pa.bool_(), "weight": pa.float32(), "noise_score": pa.float32()}
    batch = pa.record_batch({name: pa.array([value], types.get(name, pa.string())) for name, value in row.items()})
    (reason,) = write_reasons(batch, np.array([keep]), terms)
    return reason


WRONG: dict[str, Any] = {"suggested_label": "spam", "noise_score": 0.8, "finding": FINDING}
CORRECTED: dict[str, Any] = WRONG | {"corrected": True}
LABELLED: dict[str, Any] = {
    "given_label": None, "suggested_label": "spam", "noise_score": None, "corrected": True, "finding": "no label",
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "verdict", "cause"),
    [("top", "low score", ""), ("balanced", "low score for its class", ""), ("coverage", "not needed", SPREAD)],
)
def test_a_dropped_row_is_told_the_cause_that_its_rule_has(rule: str, verdict: str, cause: str) -> None:
    terms, then = Terms(rule), f"{cause}; " if cause else ""
    assert judge(False, terms) == (f"{verdict}: {cause}" if cause else verdict)
    assert judge(False, terms, **CORRECTED) == f"{verdict}, though corrected: {then}{FINDING}"
    assert judge(False, terms, **LABELLED) == f"{verdict}, though labelled: {then}no label"
    assert judge(False, terms, **WRONG) == f"likely mislabelled: {FINDING}"


def test_a_kept_row_is_told_of_doubt_and_of_a_weight_of_zero() -> None:
    assert judge(True) == "kept"
    assert judge(True, **WRONG) == f"kept, but the label is doubtful: {FINDING}"
    assert judge(True, **WRONG, weight=0.0) == f"kept, but the label is doubtful, weight 0: {FINDING}"
    assert judge(True, weight=0.0) == "kept, weight 0: another label is at least as likely"
    unsure = {"noise_score": 0.6, "finding": "the model says ham with 0.40, as given"}
    assert judge(True, **unsure) == "kept, but the label is doubtful: the model says ham with 0.40, as given"
    assert judge(False, **unsure) == "low score: the model says ham with 0.40, as given", "nothing else is likelier"


def test_a_label_is_doubtful_above_the_noise_score_of_the_job() -> None:
    ranking = Terms("top", 0.9)
    assert judge(True, ranking, **WRONG | {"finding": ""}) == "kept"
    assert judge(False, ranking, **WRONG | {"finding": ""}) == "low score"
    assert judge(False, ranking, **WRONG | {"noise_score": 0.95}) == f"likely mislabelled: {FINDING}"


def test_reasons_at_another_keep_fraction_are_written_by_the_terms_of_the_job(
    client: TestClient, database: Database
) -> None:
    job_id = finish_job(database)
    with database.write() as session:
        result = session.get_one(ResultTable, job_id)
        chosen = result.summary["selection"] | {"rule": "coverage", "doubt_above": 0.9}
        result.summary = result.summary | {"selection": chosen, "calibrated": False}
    items = client.get(f"/v1/jobs/{job_id}/examples?keep_fraction=0.3&limit=1000").json()["items"]
    dropped = [item for item in items if not item["keep"] and item["rank"] is not None]
    wrong = [item["noise_score"] for item in dropped if item["reason"].startswith("likely mislabelled")]
    assert len(wrong) > 0
    assert min(wrong) > 0.9
    assert {item["reason"].partition(":")[0] for item in dropped} == {"likely mislabelled", "not needed"}
    for path in (f"/jobs/{job_id}", f"/v1/jobs/{job_id}/bundle/report.html"):
        page = client.get(path).text
        assert "a ranking, not a probability" in page
        assert "label is wrong" not in page
