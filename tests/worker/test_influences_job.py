"""Influences of a whole job in this process: the table that is stored, and what the manifest says of it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.db.engine import Database
from service.results.influences import read_influences
from service.results.tables import ResultTable
from service.settings import Settings
from tests.worker.jobs import make_document, read_result, read_rows, run_to_end, sqlite_alone, write_points

pytestmark = sqlite_alone


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "points.parquet", num_unlabelled=7)


def read_lines(database: Database, result: ResultTable) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = read_influences(database, result).to_pylist()
    return lines


def test_the_most_suspicious_rows_are_traced_and_named_as_in_the_data(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = run_to_end(database, settings, make_document(points, evaluation=None, test=None))
    result, previews = read_result(database, job_id)
    lines, rows = read_lines(database, result), read_rows(database, job_id)
    noise = rows.column("noise_score").fill_null(-1).to_numpy()
    most = np.argsort(-noise, kind="stable")[:50]
    traced = list(dict.fromkeys(line["row"] for line in lines))
    assert traced == [row for row in most.tolist() if row in traced], "the most suspicious first"
    assert len(traced) > 25
    table = pq.read_table(points)
    trusted = table.filter(pa.array([split == "meta" for split in table.column("split").to_pylist()])).to_pylist()
    for line in lines:
        assert line["id"] == f"p{line['row']}"
        assert line["meta_id"] == trusted[line["meta_row"]]["id"]
        assert line["meta_label"] == trusted[line["meta_row"]]["label"]
    for preview in previews:
        own = [line for line in lines if line["row"] == preview.row]
        assert [line["rank"] for line in own] == list(range(1, len(own) + 1))
        assert [(told["example_id"], told["value"]) for told in preview.influences] == [
            (line["meta_id"], line["influence"]) for line in own[:3]
        ]


def test_the_manifest_says_what_was_computed(database: Database, settings: Settings, points: Path) -> None:
    document = make_document(points, evaluation=None, test=None, method={"seeds": 2})
    result, _previews = read_result(database, run_to_end(database, settings, document))
    described = result.manifest["influences"]
    assert (described["num_rows"], described["num_trusted"], described["top_k"]) == (50, 24, 5)
    assert described["seed"] == 1, "the network of the last seed"
    assert described["unit"].endswith("negative: it raises it")


def test_the_same_job_stores_the_same_bytes(database: Database, settings: Settings, points: Path) -> None:
    digests = set()
    for _ in range(2):
        job_id = run_to_end(database, settings, make_document(points, evaluation=None, test=None))
        digests.add(hashlib.sha256(read_influences(database, read_result(database, job_id)[0]).serialize()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    "sections",
    [
        {"meta": {"self": True}, "task": "prune", "selection": {"keep_fraction": 0.5}},
        {"method": {"name": "loss"}},
    ],
)
def test_a_method_that_learns_nothing_from_trusted_examples_traces_nothing(
    database: Database, settings: Settings, points: Path, sections: dict[str, Any]
) -> None:
    document = make_document(points, evaluation=None, test=None, **sections)
    result, _previews = read_result(database, run_to_end(database, settings, document))
    assert result.manifest["influences"] is None
