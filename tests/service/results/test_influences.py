"""Influences taken home: their own file in the bundle, the values in the report; jobs of before have neither."""

import hashlib
import io
import json
import tarfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from service.results.rows import encode_chunk
from service.results.tables import ExportTable, InfluencesTable, PreviewTable
from tests.service.seeding import finish_job, make_influences

BUNDLE = [
    "manifest.json", "rows.parquet", "influences.parquet", "keep.npy", "weights.npy", "report.html", "croissant.json",
    "SHA256SUMS",
]  # fmt: skip


@pytest.fixture
def job_id(database: Database) -> str:
    """A finished job with influences on two rows."""
    return finish_job(database, influences=True)


def _get(client: TestClient, job_id: str, path: str) -> Any:
    answer = client.get(f"/v1/jobs/{job_id}/{path}")
    assert answer.status_code == 200, answer.text
    return answer


def test_the_file_holds_what_was_stored(client: TestClient, job_id: str) -> None:
    answer = _get(client, job_id, "bundle/influences.parquet")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.schema == make_influences().schema
    assert table.to_pylist() == make_influences().to_pylist()


def test_the_bundle_lists_it_with_its_digest(client: TestClient, job_id: str) -> None:
    content = _get(client, job_id, "bundle/influences.parquet").content
    with tarfile.open(fileobj=io.BytesIO(_get(client, job_id, "bundle").content)) as tar:
        assert tar.getnames() == BUNDLE
    manifest = json.loads(_get(client, job_id, "bundle/manifest.json").content)
    sha256 = hashlib.sha256(content).hexdigest()
    assert manifest["influences"] == {"num_rows": 2}
    assert manifest["outputs"]["influences.parquet"] == {"sha256": sha256, "bytes": len(content)}
    assert f"{sha256}  influences.parquet\n" in _get(client, job_id, "bundle/SHA256SUMS").text


def test_it_is_the_same_to_the_byte_at_every_export_and_keep_fraction(
    client: TestClient, database: Database, job_id: str
) -> None:
    first = _get(client, job_id, "bundle/influences.parquet").content
    assert _get(client, job_id, "bundle/influences.parquet?keep_fraction=0.3").content == first
    with database.write() as session:
        session.query(ExportTable).delete()
    assert _get(client, job_id, "bundle/influences.parquet").content == first
    assert _get(client, finish_job(database, influences=True), "bundle/influences.parquet").content == first


def test_influences_of_which_there_are_none_are_a_file_without_lines(client: TestClient, database: Database) -> None:
    job_id = finish_job(database, influences=True)
    with database.write() as session:
        _store(session.query(InfluencesTable).one(), make_influences().slice(0, 0))
    assert pq.read_table(io.BytesIO(_get(client, job_id, "bundle/influences.parquet").content)).num_rows == 0


def test_damaged_influences_are_noticed(client: TestClient, database: Database, job_id: str) -> None:
    with database.write() as session:
        stored = session.query(InfluencesTable).one()
        stored.data = stored.data[:-1] + b"x"
    answer = client.get(f"/v1/jobs/{job_id}/bundle/influences.parquet")
    assert (answer.status_code, answer.json()["code"]) == (500, "results_damaged")
    assert answer.json()["detail"] == f"The stored influences of job {job_id} are damaged."


def test_a_job_that_traced_nothing_has_no_such_file(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    answer = client.get(f"/v1/jobs/{job_id}/bundle/influences.parquet")
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("SHA256SUMS; no influences were traced for the job.")
    with tarfile.open(fileobj=io.BytesIO(_get(client, job_id, "bundle").content)) as tar:
        assert tar.getnames() == [name for name in BUNDLE if name != "influences.parquet"]


def test_croissant_describes_it(client: TestClient, job_id: str) -> None:
    croissant = json.loads(_get(client, job_id, "bundle/croissant.json").content)
    records = croissant["recordSet"][1]
    assert [field["name"] for field in records["field"]] == make_influences().schema.names
    assert {field["source"]["fileObject"]["@id"] for field in records["field"]} == {"influences.parquet"}
    assert records["key"] == [{"@id": "influences/row"}, {"@id": "influences/rank"}]
    assert "influences.parquet" in {file["@id"] for file in croissant["distribution"]}


def test_the_report_shows_the_values_where_they_were_stored(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    assert "(id trusted-5, influence -0.012: a trusted message)" in _get(client, job_id, "bundle/report.html").text
    with database.write() as session:
        for preview in session.query(PreviewTable):
            preview.influences = [
                {name: part for name, part in influence.items() if name != "value"} for influence in preview.influences
            ]
        session.query(ExportTable).delete()
    assert "(id trusted-5: a trusted message)" in _get(client, job_id, "bundle/report.html").text


def _store(row: InfluencesTable, batch: pa.RecordBatch) -> None:
    row.data = encode_chunk(batch)
    row.sha256 = hashlib.sha256(row.data).hexdigest()
