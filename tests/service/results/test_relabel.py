"""Corrected labels in all that is exported, listed and shown; nothing of it lost, all of it to be undone by hand."""

import hashlib
import io
import json
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from service.results.rows import FINDING, apply_num_kept, decode_chunk, encode_chunk
from service.results.tables import ResultTable
from service.settings import Settings
from tests.service.seeding import CLASSES, finish_job, make_rows

NUM_ROWS = 60
SOFT = {"task": "relabel", "relabel": {"targets": "soft"}}
SOFT_BUNDLE = [
    "manifest.json", "rows.parquet", "keep.npy", "weights.npy", "soft_labels.npy", "report.html", "croissant.json",
    "SHA256SUMS",
]  # fmt: skip


@pytest.fixture
def job_id(database: Database) -> str:
    """A finished job with corrected labels, one row labelled for the first time, and soft labels."""
    return finish_job(database, NUM_ROWS, **SOFT)


def _get(client: TestClient, job_id: str, path: str) -> Any:
    answer = client.get(f"/v1/jobs/{job_id}/{path}")
    assert answer.status_code == 200, answer.text
    return answer


def _read_rows(client: TestClient, job_id: str, query: str = "") -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(_get(client, job_id, f"manifest{query}").content)).to_pylist()


def test_the_rows_keep_the_given_label_beside_the_one_to_train_on(client: TestClient, job_id: str) -> None:
    rows = _read_rows(client, job_id)
    changed = [row for row in rows if row["corrected"]]
    assert len(changed) > 10
    assert all(row["label"] == row["suggested_label"] != row["given_label"] for row in changed)
    assert all(row["label"] == row["given_label"] for row in rows if not row["corrected"])
    stored = make_rows(NUM_ROWS).to_pylist()
    assert [row["given_label"] for row in rows] == [row["given_label"] for row in stored], "nothing was lost"
    reasons = {row["reason"].partition(":")[0] for row in changed}
    assert reasons <= {"corrected", "labelled", "low score, though corrected", "low score, though labelled"}


def test_corrected_rows_are_no_pruned_rows(client: TestClient, job_id: str) -> None:
    rows = _read_rows(client, job_id, "?keep_fraction=1")
    assert all(row["keep"] for row in rows if row["corrected"])
    assert [row["row"] for row in rows if not row["keep"]] == [row["row"] for row in rows if row["label"] is None]
    row = rows[11]
    assert (row["given_label"], row["label"], row["keep"], row["rank"]) == (None, "ham", True, 54)
    assert row["reason"].startswith("labelled")


def test_soft_labels_have_a_row_of_probabilities_for_every_row(client: TestClient, job_id: str) -> None:
    soft = np.load(io.BytesIO(_get(client, job_id, "bundle/soft_labels.npy").content))
    rows = _read_rows(client, job_id)
    assert (soft.dtype, soft.shape) == (np.float32, (NUM_ROWS, 2))
    for row, shares in zip(rows, soft, strict=True):
        assert shares.sum() == pytest.approx(0.0 if row["label"] is None else 1.0)
        assert row["label"] is None or CLASSES[int(shares.argmax())] == row["label"]


def test_the_manifest_tells_of_the_labels(client: TestClient, job_id: str) -> None:
    manifest = _get(client, job_id, "bundle/manifest.json").json()
    rows = _read_rows(client, job_id)
    relabel = manifest["relabel"]
    assert relabel["num_corrected"] == sum(row["corrected"] and row["given_label"] is not None for row in rows)
    assert relabel["num_labelled"] == 1
    assert relabel["num_kept"] == sum(row["corrected"] and row["keep"] for row in rows)
    assert (relabel["min_confidence"], relabel["min_noise"], relabel["targets"]) == (0.6, 0.5, "soft")
    assert relabel["class_order"] == list(CLASSES)
    soft = _get(client, job_id, "bundle/soft_labels.npy").content
    assert relabel["soft_labels"] == {
        "file": "soft_labels.npy",
        "sha256": hashlib.sha256(soft).hexdigest(),
        "shape": [NUM_ROWS, 2],
        "dtype": "float32",
    }
    assert manifest["outputs"]["soft_labels.npy"]["sha256"] == relabel["soft_labels"]["sha256"]
    assert f"{relabel['soft_labels']['sha256']}  soft_labels.npy" in _get(client, job_id, "bundle/SHA256SUMS").text


def test_counts_follow_the_keep_fraction(client: TestClient, job_id: str) -> None:
    rows = _read_rows(client, job_id, "?keep_fraction=0.2")
    summary = _get(client, job_id, "summary?keep_fraction=0.2").json()
    assert summary["relabel"]["num_kept"] == sum(row["corrected"] and row["keep"] for row in rows)
    assert summary["relabel"]["num_kept"] < _get(client, job_id, "summary").json()["relabel"]["num_kept"]


def test_a_class_of_which_no_row_is_kept_is_named_at_that_keep_fraction_alone(client: TestClient, job_id: str) -> None:
    notes = {share: _get(client, job_id, f"summary?keep_fraction={share}").json()["notes"] for share in (0.001, 1)}
    num_rows = {group["name"]: group["num_rows"] for group in _get(client, job_id, "summary").json()["classes"]}
    (kept,) = [row["given_label"] for row in _read_rows(client, job_id, "?keep_fraction=0.001") if row["keep"]]
    (other,) = set(CLASSES) - {kept}
    assert f"No row is kept of class '{other}' ({num_rows[other]} rows)." in notes[0.001]
    assert not any("No row is kept" in note for note in notes[1])


def test_every_file_is_byte_identical_when_made_again(client: TestClient, job_id: str, settings: Settings) -> None:
    paths = ["bundle", *(f"bundle/{name}" for name in SOFT_BUNDLE)]
    first = {path: _get(client, job_id, path).content for path in paths}
    shutil.rmtree(settings.data_dir / "exports")
    assert {path: _get(client, job_id, path).content for path in reversed(paths)} == first


def test_a_job_without_soft_labels_has_no_file_of_them(client: TestClient, database: Database) -> None:
    job_id = finish_job(database, NUM_ROWS, task="relabel")
    manifest = _get(client, job_id, "bundle/manifest.json").json()
    assert manifest["relabel"]["soft_labels"] is None
    assert "soft_labels.npy" not in manifest["outputs"]
    answer = client.get(f"/v1/jobs/{job_id}/bundle/soft_labels.npy")
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("; relabel.targets of the job is not 'soft'.")


def test_a_job_of_another_task_has_labels_as_given(client: TestClient, database: Database) -> None:
    job_id = finish_job(database, NUM_ROWS)
    assert _get(client, job_id, "bundle/manifest.json").json()["relabel"] is None
    rows = _read_rows(client, job_id)
    assert not any(row["corrected"] for row in rows)
    assert all(row["label"] == row["given_label"] for row in rows)


@pytest.mark.parametrize("wanted", [True, False])
def test_examples_are_filtered_by_correction_and_sorted_by_confidence(
    client: TestClient, job_id: str, wanted: bool
) -> None:
    query = f"examples?corrected={str(wanted).lower()}&sort=label_confidence&limit=1000"
    items = _get(client, job_id, query).json()["items"]
    assert {item["row"] for item in items} == {r["row"] for r in _read_rows(client, job_id) if r["corrected"] == wanted}
    confidence = [item["label_confidence"] for item in items if item["label_confidence"] is not None]
    assert confidence == sorted(confidence)
    assert FINDING not in items[0]
    answer = client.get(f"/v1/jobs/{job_id}/examples?corrected=perhaps")
    assert answer.status_code == 422
    assert "corrected is 'perhaps'; wanted a valid boolean." in answer.json()["detail"]


def test_the_report_shows_the_corrections_and_escapes_them(client: TestClient, job_id: str) -> None:
    report = _get(client, job_id, "bundle/report.html").text
    assert "Labels, before and after" in report
    assert "<td>none</td><td>&lt;b&gt;spam&lt;/b&gt;</td>" in report
    assert "70.0% of the given labels are right, and 90.0% of the labels to train on" in report
    assert "trusted examples against it:" in report
    assert "&lt;i&gt;ham&lt;/i&gt; (id trusted-5, influence -0.012: a trusted message)" in report
    assert 'soft = np.load("soft_labels.npy")[keep]' in report
    assert "<b>spam" not in report


def test_croissant_describes_the_soft_labels(client: TestClient, job_id: str) -> None:
    croissant = json.loads(_get(client, job_id, "bundle/croissant.json").content)
    assert {entry["@id"] for entry in croissant["distribution"]} == {
        "rows.parquet", "keep.npy", "weights.npy", "soft_labels.npy",
    }  # fmt: skip
    fields = {field["name"]: field["dataType"] for field in croissant["recordSet"][0]["field"]}
    assert (fields["label"], fields["corrected"]) == ("sc:Text", "sc:Boolean")


def test_rows_stored_before_labels_could_be_corrected_are_read_like_the_others() -> None:
    now = make_rows(NUM_ROWS)
    before = (
        now.drop_columns(["label", "corrected", "given_weight", "given_score", FINDING])
        .combine_chunks()
        .to_batches()[0]
    )
    (read,) = decode_chunk(encode_chunk(before))
    assert read.schema == now.schema
    assert pa.Table.from_batches([read]).equals(now)
    reasons = set(apply_num_kept(read, 40).column("reason").to_pylist())
    assert {"kept", "low score", "unlabelled"} <= reasons
    assert any(reason.startswith("likely mislabelled: the model says ") for reason in reasons)


@pytest.mark.parametrize("soft", [True, False])
def test_of_rows_stored_before_the_worth_under_the_given_label_it_is_known_where_the_label_stayed(soft: bool) -> None:
    now = make_rows(NUM_ROWS, relabel=True, soft=soft)
    before = now.drop_columns(["given_weight", "given_score"]).combine_chunks().to_batches()[0]
    (read,) = decode_chunk(encode_chunk(before))
    assert read.schema == now.schema
    for row, was in zip(read.to_pylist(), now.to_pylist(), strict=True):
        known = not was["corrected"] and was["given_label"] is not None
        assert row["given_weight"] == (was["weight"] if known else None)
        assert row["given_score"] == (was["score"] if known else None)


def test_where_no_trusted_examples_calibrated_the_scores_no_share_of_right_labels_is_told(
    client: TestClient, database: Database, job_id: str
) -> None:
    with database.write() as session:
        result = session.get_one(ResultTable, job_id)
        unknown = {"expected_right_before": None, "expected_right_after": None}
        result.summary = result.summary | {"relabel": result.summary["relabel"] | unknown}
    assert "of the given labels are right" not in _get(client, job_id, "bundle/report.html").text
    assert _get(client, job_id, "bundle/manifest.json").json()["relabel"]["expected_right_after"] is None
    page = client.get(f"/jobs/{job_id}")
    assert page.status_code == 200
    assert "How many labels are right is not known: no trusted examples calibrated the scores." in page.text
