"""Pages of per-example results: every row once, in order, whatever the order and the filter."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from tests.service.seeding import add_job, claim_job, finish_job, make_rows

NUM_ROWS = 60
NUM_KEPT = 54 * 3 // 4


@pytest.fixture
def job_id(database: Database) -> str:
    """A finished job of 60 rows, 6 of them unlabelled, in four chunks."""
    return finish_job(database, NUM_ROWS)


def _read_all(client: TestClient, job_id: str, **params: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        answer = client.get(f"/v1/jobs/{job_id}/examples", params=params | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


@pytest.mark.parametrize("limit", [7, 60])
@pytest.mark.parametrize("sort", ["row", "weight", "noise_score", "rank"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_pages_hold_every_row_once_in_order(client: TestClient, job_id: str, sort: str, sign: str, limit: int) -> None:
    items = _read_all(client, job_id, sort=sign + sort, limit=limit)
    assert sorted(item["row"] for item in items) == list(range(NUM_ROWS))
    values = [item[sort] for item in items if item[sort] is not None]
    assert values == sorted(values, reverse=bool(sign))
    assert [item[sort] for item in items][len(values) :] == [None] * (NUM_ROWS - len(values))
    ties = [(a, b) for a, b in itertools.pairwise(items) if a[sort] == b[sort]]
    assert all(a["row"] < b["row"] for a, b in ties)


def test_values_are_those_that_were_stored(client: TestClient, job_id: str) -> None:
    items = _read_all(client, job_id)
    stored = make_rows(NUM_ROWS).to_pylist()
    for item, wanted in zip(items, stored, strict=True):
        for name in ("row", "id", "content_sha256", "source", "given_label", "rank", "suggested_label"):
            assert item[name] == wanted[name]
        assert item["weight"] == (None if wanted["weight"] is None else round(wanted["weight"], 2))
        assert item["keep"] == (wanted["rank"] is not None and wanted["rank"] < NUM_KEPT)


Condition = Callable[[dict[str, Any]], bool]


@pytest.mark.parametrize(
    ("params", "condition"),
    [
        ({"class": "spam"}, lambda item: item["given_label"] == "spam"),
        ({"class": "eggs"}, lambda item: False),
        ({"kept": "true"}, lambda item: item["keep"]),
        ({"kept": "false"}, lambda item: not item["keep"]),
        ({"source": "web"}, lambda item: item["source"] == "web"),
        ({"source": "web", "class": "ham", "kept": "true"}, lambda item: item["source"] == "web"
            and item["given_label"] == "ham" and item["keep"]),
    ],
)  # fmt: skip
def test_filters(client: TestClient, job_id: str, params: dict[str, str], condition: Condition) -> None:
    found = _read_all(client, job_id, sort="-weight", limit=4, **params)
    wanted = [item for item in _read_all(client, job_id, sort="-weight") if condition(item)]
    assert found == wanted


def test_another_keep_fraction(client: TestClient, job_id: str) -> None:
    items = _read_all(client, job_id, keep_fraction=0.25)
    assert sum(item["keep"] for item in items) == 15
    assert all(item["rank"] < 15 for item in items if item["keep"])
    kept = _read_all(client, job_id, keep_fraction=0.25, kept="true", limit=4)
    assert [item["row"] for item in kept] == [item["row"] for item in items if item["keep"]]
    assert {item["reason"] for item in items if item["given_label"] is None} == {"unlabelled"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sort=loss", "sort is 'loss'; wanted 'row', 'weight'"),
        ("limit=1001", "limit is '1001'; wanted less than or equal to 1000."),
        ("keep_fraction=0", "keep_fraction is '0'; wanted greater than 0."),
        ("keep_fraction=1.5", "keep_fraction is '1.5'; wanted less than or equal to 1."),
        ("keep_fraction=nan", "keep_fraction is 'nan'; wanted "),
        ("kept=maybe", "kept is 'maybe'; wanted a valid boolean."),
        ("cursor=xxxx", "cursor is not one that this list gave"),
        ("colour=red", "colour is not a parameter of this route."),
    ],
)
def test_a_wrong_query_is_refused(client: TestClient, job_id: str, query: str, words: str) -> None:
    answer = client.get(f"/v1/jobs/{job_id}/examples?{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] in {"invalid_query", "invalid_cursor"}
    assert words in answer.json()["detail"]


def test_a_cursor_belongs_to_its_order(client: TestClient, job_id: str) -> None:
    cursor = client.get(f"/v1/jobs/{job_id}/examples?limit=2&sort=weight").json()["next_cursor"]
    answer = client.get(f"/v1/jobs/{job_id}/examples?limit=2&sort=score&cursor={cursor}")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "cursor belongs to sort=weight, but sort is score."


def test_results_come_once_the_job_has_succeeded(client: TestClient, database: Database) -> None:
    job_id = add_job(database)
    claim_job(database)
    for path in ("examples", "summary", "manifest", "bundle", "bundle/keep.npy", "examples/0/image"):
        answer = client.get(f"/v1/jobs/{job_id}/{path}")
        assert answer.status_code == 409
        assert answer.json()["code"] == "results_not_ready"
        assert answer.json()["detail"] == f"Job {job_id} is validating; results are there once it has succeeded."


def test_images_of_previews(client: TestClient, job_id: str) -> None:
    most = max(
        _read_all(client, job_id, sort="-noise_score"), key=lambda item: (item["noise_score"] or 0, -item["row"])
    )
    answer = client.get(f"/v1/jobs/{job_id}/examples/{most['row']}/image")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["x-content-type-options"] == "nosniff"
    for row in (0, 10**6):
        answer = client.get(f"/v1/jobs/{job_id}/examples/{row}/image")
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"Row {row} of job {job_id} has no preview."
    assert client.get(f"/v1/jobs/{job_id}/examples/{2**63}/image").status_code == 422


def test_the_summary(client: TestClient, job_id: str) -> None:
    summary = client.get(f"/v1/jobs/{job_id}/summary").json()
    assert summary["selection"]["n_kept"] == NUM_KEPT
    assert summary["evaluation"]["verdict"].startswith("Curated beats full")
    assert [group["name"] for group in summary["sources"]] == ["mail", "web", "(none)"]


def test_the_summary_at_another_keep_fraction(client: TestClient, job_id: str) -> None:
    summary = client.get(f"/v1/jobs/{job_id}/summary?keep_fraction=0.25").json()
    items = _read_all(client, job_id, keep_fraction=0.25)
    assert summary["selection"]["n_kept"] == 15
    assert summary["selection"]["kept_fraction_of_total"] == 0.25
    last = next(item for item in items if item["rank"] == 14)
    assert summary["selection"]["threshold"] == pytest.approx(last["score"])
    for group in summary["classes"]:
        kept = [item for item in items if item["given_label"] == group["name"] and item["keep"]]
        assert group["num_kept"] == len(kept)
        assert group["keep_rate"] == pytest.approx(len(kept) / group["num_rows"])
    for group in summary["sources"]:
        name = None if group["name"] == "(none)" else group["name"]
        assert group["num_kept"] == sum(item["source"] == name and item["keep"] for item in items)
    assert summary["notes"][-1].startswith("The evaluation was made with 40 rows kept, not with 15")
