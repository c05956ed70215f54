"""Influences of a bundle that do not agree are told."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.cli.bundle_influences import check_influences

IDS = ["a", "b", "c"]
LINES = {
    "row": [2, 2, 0],
    "id": ["c", "c", "a"],
    "rank": [1, 2, 1],
    "meta_row": [3, 1, 3],
    "meta_id": ["t3", "t1", "t3"],
    "meta_label": ["ham", "spam", "ham"],
    "influence": pa.array([-0.5, -0.25, -0.5], pa.float32()),
}
MANIFEST = {"influences": {"num_rows": 2}, "labels": {"names": ["ham", "spam"]}}


def list_messages(folder: Path, manifest: dict[str, Any], **columns: Any) -> list[str]:
    """Return what is told of influences that agree, but for the columns given."""
    pq.write_table(pa.table({"id": IDS}), folder / "rows.parquet")
    pq.write_table(pa.table(LINES | columns), folder / "influences.parquet")
    return [problem.message for problem in check_influences(folder, manifest)]


def test_influences_that_agree_are_no_problem(tmp_path: Path) -> None:
    assert list_messages(tmp_path, MANIFEST) == []
    pq.write_table(pq.read_table(tmp_path / "influences.parquet").slice(0, 0), tmp_path / "influences.parquet")
    assert list(check_influences(tmp_path, MANIFEST)) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"row": [2, 2, 3]}, "line 2 names row 3, which rows.parquet has not."),
        ({"id": ["c", "b", "a"]}, "line 1 gives row 2 another id than rows.parquet."),
        ({"rank": [0, 1, 1]}, "line 0 has rank 0 out of order."),
        ({"rank": [1, 3, 1]}, "line 1 has rank 3 out of order."),
        (
            {"influence": [-0.25, -0.5, -0.5]},
            "line 1 has influence -0.5 where it has to be below 0, and no stronger than the one before.",
        ),
        (
            {"influence": [-0.5, -0.25, 0.5]},
            "line 2 has influence 0.5 where it has to be below 0, and no stronger than the one before.",
        ),
        ({"meta_label": ["ham", "eggs", "ham"]}, "line 1 has the trusted label 'eggs', which is no class."),
    ],
)
def test_lines_that_do_not_agree_are_told(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    assert list_messages(tmp_path, MANIFEST, **columns) == [f"influences.parquet: {message}"]


def test_a_table_of_another_form_is_told(tmp_path: Path) -> None:
    (message,) = list_messages(tmp_path, MANIFEST, strength=[1.0, 0.5, 1.0])
    assert message.startswith("influences.parquet has the columns row, id, rank, meta_row, meta_id, meta_label")
    assert list_messages(tmp_path, MANIFEST, rank=[1, None, 1])
    (tmp_path / "influences.parquet").write_bytes(b"no table")
    (problem,) = check_influences(tmp_path, MANIFEST)
    assert problem.message == "influences.parquet cannot be read as a table."
    (tmp_path / "influences.parquet").unlink()
    (problem,) = check_influences(tmp_path, MANIFEST)
    assert problem.message == "influences.parquet cannot be read as a table."


def test_the_file_and_the_manifest_tell_the_same(tmp_path: Path) -> None:
    told = list_messages(tmp_path, MANIFEST | {"influences": {"num_rows": 1}})
    assert told == ["manifest.json says that 1 rows were traced; influences.parquet has 2."]
    for manifest in (MANIFEST | {"influences": None}, {"schema_version": "1.1"}):
        told = list_messages(tmp_path, manifest)
        assert told == ["influences.parquet is there, but manifest.json tells of no influences."]
    (tmp_path / "influences.parquet").unlink()
    assert list(check_influences(tmp_path, {"schema_version": "1.1"})) == []
