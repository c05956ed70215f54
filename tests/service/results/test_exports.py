"""Manifest and bundle: right, complete, byte-identical, resumable."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.db.engine import Database
from service.results.rows import FINDING, rows_schema
from service.results.tables import ChunkTable, ExportTable
from service.settings import Settings
from tests.service.seeding import finish_job, make_rows

NUM_ROWS = 60
NUM_KEPT = 40
BUNDLE = [
    "manifest.json", "rows.parquet", "keep.npy", "weights.npy", "report.html", "croissant.json", "SHA256SUMS",
]  # fmt: skip


@pytest.fixture
def job_id(database: Database) -> str:
    """A finished job of 60 rows, 6 of them unlabelled, 40 kept, in four chunks."""
    return finish_job(database, NUM_ROWS)


def _get(client: TestClient, job_id: str, path: str, **headers: str) -> Any:
    answer = client.get(f"/v1/jobs/{job_id}/{path}", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    return answer


def test_parquet_has_every_row_in_order(client: TestClient, job_id: str) -> None:
    table = pq.read_table(io.BytesIO(_get(client, job_id, "manifest").content))
    stored = make_rows(NUM_ROWS).drop_columns([FINDING])
    assert table.schema == rows_schema(stored.schema.field("id").type, stored.schema.field("given_label").type)
    assert table.drop_columns(["keep", "reason"]).equals(stored.drop_columns(["keep", "reason"]))
    rank = [value["rank"] for value in stored.to_pylist()]
    assert table.column("keep").to_pylist() == [value is not None and value < NUM_KEPT for value in rank]
    assert {r for r, place in zip(table.column("reason").to_pylist(), rank, strict=True) if place is None} == {
        "unlabelled"
    }


@pytest.mark.parametrize(("keep_fraction", "num_kept"), [(None, 40), (0.5, 30), (1.0, 54), (0.001, 1)])
def test_arrays_fit_the_rows(client: TestClient, job_id: str, keep_fraction: float | None, num_kept: int) -> None:
    query = "" if keep_fraction is None else f"&keep_fraction={keep_fraction}"
    rows = pq.read_table(io.BytesIO(_get(client, job_id, f"manifest?format=parquet{query}").content))
    kept = rows.column("keep").to_numpy()
    keep = np.load(io.BytesIO(_get(client, job_id, f"manifest?format=npy{query}").content))
    weights = np.load(io.BytesIO(_get(client, job_id, f"bundle/weights.npy?{query[1:]}").content))
    assert keep.dtype == np.uint64
    assert weights.dtype == np.float32
    assert len(keep) == num_kept
    assert keep.tolist() == np.flatnonzero(kept).tolist()
    np.testing.assert_array_equal(weights, np.where(kept, rows.column("weight").fill_null(0).to_numpy(), 0))


def test_csv_defuses_formulas(client: TestClient, job_id: str) -> None:
    answer = _get(client, job_id, "manifest?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}-rows.csv"'
    table = pyarrow.csv.read_csv(io.BytesIO(answer.content))
    ids = table.column("id").to_pylist()
    assert ids[:2] == ["'=cmd(0)", "id-1"]
    assert not [value for value in ids if value[0] in "=+-@"]
    lines = answer.text.splitlines()
    assert len(lines) == NUM_ROWS + 1
    # A negative number is a number, not a formula.
    assert any(value < 0 for value in table.column("score").to_pylist() if value is not None)


def test_jsonl_says_the_same_as_the_pages(client: TestClient, job_id: str) -> None:
    lines = _get(client, job_id, "manifest?format=jsonl").text.splitlines()
    items = client.get(f"/v1/jobs/{job_id}/examples?limit=1000").json()["items"]
    assert [json.loads(line) for line in lines] == items


def test_an_unknown_format_or_file_is_refused(client: TestClient, job_id: str) -> None:
    answer = client.get(f"/v1/jobs/{job_id}/manifest?format=xls")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "format is 'xls'; wanted 'parquet', 'csv', 'jsonl' or 'npy'."
    answer = client.get(f"/v1/jobs/{job_id}/bundle/passwd")
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"There is no file 'passwd' in this bundle; there are {', '.join(BUNDLE)}."
    assert client.get(f"/v1/jobs/{job_id}/bundle?keep_fraction=1.5").status_code == 422


def test_the_bundle_is_complete_and_agrees_with_itself(client: TestClient, job_id: str, tmp_path: Path) -> None:
    answer = _get(client, job_id, "bundle")
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert tar.getnames() == BUNDLE
        assert {entry.mtime for entry in tar} == {0}
        tar.extractall(tmp_path / "bundle", filter="data")
    folder = tmp_path / "bundle"
    for name in BUNDLE:
        assert (folder / name).read_bytes() == _get(client, job_id, f"bundle/{name}").content
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert checked.stdout.count(": OK") == 6
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == "1.2"
    assert manifest["job_id"] == job_id
    assert manifest["selection"]["keep_is"] == "rows to train on"
    assert manifest["selection"]["n_kept"] == NUM_KEPT
    assert manifest["method"]["hyperparameters"] == {"epochs": 2}
    for name, entry in manifest["outputs"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert set(manifest["outputs"]) == set(BUNDLE) - {"manifest.json", "SHA256SUMS"}


def test_another_keep_fraction_is_another_bundle(client: TestClient, job_id: str) -> None:
    whole = json.loads(_get(client, job_id, "bundle/manifest.json").content)
    half = json.loads(_get(client, job_id, "bundle/manifest.json?keep_fraction=0.5").content)
    assert half["selection"]["n_kept"] == 30
    assert half["selection"]["kept_fraction_of_total"] == 0.5
    assert half["outputs"]["keep.npy"] != whole["outputs"]["keep.npy"]
    assert half["evaluation"] == whole["evaluation"]
    assert "not with 30" in half["notes"][-1]
    report = _get(client, job_id, "bundle/report.html?keep_fraction=0.5").text
    assert "not with 30" in report


def test_a_second_export_is_byte_identical(
    client: TestClient, job_id: str, database: Database, settings: Settings
) -> None:
    paths = [f"bundle/{name}" for name in BUNDLE] + ["bundle", "manifest?format=csv", "manifest?format=jsonl"]
    first = {path: _get(client, job_id, path).content for path in paths}
    shutil.rmtree(settings.data_dir / "exports")
    again = {path: _get(client, job_id, path).content for path in paths}
    assert again == first
    with database.write() as session:
        session.query(ExportTable).delete()
    shutil.rmtree(settings.data_dir / "exports")
    assert {path: _get(client, job_id, path).content for path in reversed(paths)} == first


def test_the_same_rows_give_the_same_parquet(client: TestClient, database: Database, job_id: str) -> None:
    other = finish_job(database, NUM_ROWS)
    assert _get(client, other, "manifest").content == _get(client, job_id, "manifest").content


def test_requests_at_once_agree(client: TestClient, job_id: str, settings: Settings) -> None:
    with ThreadPoolExecutor(6) as pool:
        tags = set(pool.map(lambda _: _get(client, job_id, "bundle").headers["etag"], range(6)))
    assert len(tags) == 1
    assert not [path.name for path in (settings.data_dir / "exports").iterdir() if path.name.startswith(".")]


def test_a_file_cut_short_in_the_store_is_made_again(client: TestClient, job_id: str, settings: Settings) -> None:
    answer = _get(client, job_id, "manifest")
    path = settings.data_dir / "exports" / answer.headers["etag"].strip('"')
    path.write_bytes(path.read_bytes()[:100])
    assert _get(client, job_id, "manifest").content == answer.content


@pytest.mark.parametrize(
    ("given", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None), ("bytes=5-99999999", 5, None)],
)
def test_ranges(client: TestClient, job_id: str, given: str, start: int, stop: int | None) -> None:
    whole = _get(client, job_id, "manifest").content
    answer = client.get(f"/v1/jobs/{job_id}/manifest", headers={"Range": given})
    assert answer.status_code == 206
    assert answer.content == whole[start:stop]
    first = start % len(whole)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == f'"{hashlib.sha256(whole).hexdigest()}"'


@pytest.mark.parametrize("given", ["bytes=9-0", "bytes=a-b", "bytes=0-1,3-4", "rows=0-1", "bytes=-"])
def test_a_range_that_says_nothing_gives_the_whole(client: TestClient, job_id: str, given: str) -> None:
    assert _get(client, job_id, "manifest", Range=given)


@pytest.mark.parametrize("given", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0"])
def test_a_range_behind_the_end(client: TestClient, job_id: str, given: str) -> None:
    size = len(_get(client, job_id, "manifest").content)
    answer = client.get(f"/v1/jobs/{job_id}/manifest", headers={"Range": given})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"
    assert answer.json()["code"] == "range_not_satisfiable"
    assert answer.json()["detail"] == f"The range begins behind the end; the file has {size:,} bytes."


def test_conditional_requests(client: TestClient, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/manifest"
    whole = client.get(path)
    etag = whole.headers["etag"]
    for given in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = client.get(path, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.get(path, headers={"Range": "bytes=0-3", "If-Range": etag}).status_code == 206
    other = client.get(path, headers={"Range": "bytes=0-3", "If-Range": '"x"'})
    assert (other.status_code, other.content) == (200, whole.content)


def test_head_and_digest_headers(client: TestClient, job_id: str) -> None:
    answer = _get(client, job_id, "bundle")
    head = client.head(f"/v1/jobs/{job_id}/bundle")
    assert head.status_code == 200
    assert head.content == b""
    for name in ("etag", "content-length", "digest", "repr-digest", "content-disposition", "accept-ranges"):
        assert head.headers[name] == answer.headers[name]
    import base64

    digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
    assert answer.headers["digest"] == f"sha-256={digest}"
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}.tar"'


def test_a_damaged_chunk_is_noticed(client: TestClient, database: Database, job_id: str) -> None:
    with database.write() as session:
        chunk = session.query(ChunkTable).filter_by(index=1).one()
        chunk.data = chunk.data[:-1] + b"x"
    answer = client.get(f"/v1/jobs/{job_id}/manifest")
    assert answer.status_code == 500
    assert answer.json()["code"] == "results_damaged"
    assert "a chunk's digest differs (chunk 1)" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("index", "words"), [(0, "a chunk is missing"), (1, "a chunk is missing"), (3, "the last chunks")]
)
def test_a_missing_chunk_is_noticed(
    client: TestClient, database: Database, job_id: str, settings: Settings, index: int, words: str
) -> None:
    with database.write() as session:
        session.query(ChunkTable).filter_by(index=index).delete()
    answer = client.get(f"/v1/jobs/{job_id}/manifest")
    assert answer.status_code == 500
    assert words in answer.json()["detail"]
    assert not list((settings.data_dir / "exports").iterdir())


def test_the_report_escapes_and_loads_nothing(client: TestClient, job_id: str) -> None:
    report = _get(client, job_id, "bundle/report.html").text
    assert "<script" not in report
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in report
    assert "&lt;b&gt;for sure&lt;/b&gt;" in report
    assert "http-equiv" not in report
    assert 'src="http' not in report
    assert 'src="data:image/png;base64,' in report
    assert report.count("<svg") == 3
    assert 'np.load("keep.npy")' in report


def test_croissant_describes_every_column(client: TestClient, job_id: str) -> None:
    croissant = json.loads(_get(client, job_id, "bundle/croissant.json").content)
    assert croissant["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert [field["name"] for field in croissant["recordSet"][0]["field"]] == rows_schema(
        pa.string(), pa.string()
    ).names
    files = {entry["@id"]: entry["sha256"] for entry in croissant["distribution"]}
    rows = _get(client, job_id, "bundle/rows.parquet").content
    assert files["rows.parquet"] == hashlib.sha256(rows).hexdigest()
    assert {field["dataType"] for field in croissant["recordSet"][0]["field"]} == {
        "sc:Integer", "sc:Text", "sc:Float", "sc:Boolean",
    }  # fmt: skip
