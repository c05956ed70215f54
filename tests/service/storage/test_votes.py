"""Votes of labelling functions: in columns or in lists, of every format, and every fault by its own words."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from sama_core.detection.method import FEWEST_TRUSTED
from service.datasets.schemas import InspectionReport
from service.jobs.document import parse_document, read_document
from service.settings import Settings
from service.storage.faults import DataError
from service.storage.inspection import inspect_dataset
from service.storage.roles import DatasetTables, read_dataset
from service.storage.votes import FEWEST_JUDGES, VoteCounts, count_votes, write_note

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
X = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
Y = [0, 1, 0, 1, 0, 1]
LISTS: list[list[int | None] | None] = [[0, 1, -1], [1, None, 1], None, [-1, -1, -1], [0, 0, 0], [1, 1, -1]]
CODES = [[0, 1, -1], [1, -1, 1], [-1] * 3, [-1] * 3, [0, 0, 0], [1, 1, -1]]


def make_document(votes: object, **dataset: Any) -> dict[str, Any]:
    fields = {"uri": "t.parquet", "features": "*", "label": "y", "votes": votes} | dataset
    return {"dataset": fields, "method": {"name": "aum"}}


def make_limits(folder: Path) -> Settings:
    return Settings(data_dir=folder / "service", data_roots=(folder,))


def read(folder: Path, document: dict[str, Any], table: dict[str, Any] | None = None) -> DatasetTables:
    if table is not None:
        pq.write_table(pa.table(table), folder / "t.parquet")
    return read_dataset(parse_document(document), make_limits(folder), folder)


def inspect(folder: Path, document: dict[str, Any], table: dict[str, Any]) -> InspectionReport:
    pq.write_table(pa.table(table), folder / "t.parquet")
    return inspect_dataset(parse_document(document), make_limits(folder))


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.list_(pa.float32(), 3)])
def test_one_column_of_lists(tmp_path: Path, kind: pa.DataType) -> None:
    tables = read(tmp_path, make_document("w"), {"x": X, "y": Y, "w": pa.array(LISTS, kind)})
    assert tables.train.votes is not None
    assert tables.train.votes.dtype == np.int64
    assert tables.train.votes.tolist() == CODES
    assert tables.features == {"x": "numeric"}


def test_lists_of_json_lines(tmp_path: Path) -> None:
    rows = [{"x": x, "y": y, "w": w} for x, y, w in zip(X, Y, LISTS, strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tables = read(tmp_path, make_document("w", uri="t.jsonl"))
    assert tables.train.votes is not None
    assert tables.train.votes.tolist() == CODES


def test_several_columns_of_text(tmp_path: Path) -> None:
    table = {
        "x": X,
        "y": ["ham", "spam"] * 3,
        "short": ["ham", "", None, "-1", "ham", "spam"],
        "link": pa.array(["spam"] * 6).dictionary_encode(),
    }
    data = read(tmp_path, make_document(["short", "link"]), table)
    assert data.train.votes is not None
    assert data.train.votes.tolist() == [[0, 1], [-1, 1], [-1, 1], [-1, 1], [0, 1], [1, 1]]
    assert data.features == {"x": "numeric"}
    pa_csv.write_csv(
        pa.table({name: pa.array(values).cast(pa.string()) for name, values in table.items()}), tmp_path / "t.csv"
    )
    again = read(tmp_path, make_document(["short", "link"], uri="t.csv"))
    assert again.train.votes is not None
    assert again.train.votes.tolist() == data.train.votes.tolist()


def test_one_column_of_single_votes(tmp_path: Path) -> None:
    tables = read(tmp_path, make_document("w"), {"x": X, "y": Y, "w": [0, 1, -1, None, 0, 1]})
    assert tables.train.votes is not None
    assert tables.train.votes.tolist() == [[0], [1], [-1], [-1], [0], [1]]


def test_votes_are_those_of_the_curated_rows(tmp_path: Path) -> None:
    table = {"x": X, "y": Y, "w": LISTS, "part": ["t", "t", "m", "m", "t", "t"]}
    document = make_document("w", split={"column": "part", "value": "t"})
    document["meta"] = {"split": {"column": "part", "value": "m"}}
    tables = read(tmp_path, document, table)
    assert tables.train.votes is not None
    assert tables.train.votes.tolist() == [CODES[row] for row in (0, 1, 4, 5)]
    assert tables.meta is not None
    assert tables.meta.votes is not None
    assert tables.meta.votes.tolist() == [CODES[row] for row in (2, 3)]


def test_the_votes_on_a_trusted_share_are_those_of_the_curated_rows(tmp_path: Path) -> None:
    table = {"x": X * 4, "y": Y * 4, "gold": Y * 4, "w": LISTS * 4}
    document = make_document("w") | {"meta": {"fraction": 0.25, "label": "gold"}}
    tables = read(tmp_path, document, table)
    assert tables.meta is not None
    assert tables.meta.votes is not None
    assert tables.meta.votes.tolist() == [CODES[row % 6] for row in tables.trusted_rows]


@pytest.mark.parametrize(
    ("table", "codes"),
    [
        ({"w": pa.array([[1, 0, -1], None], pa.list_(pa.int64()))}, [[1, 0, -1], [-1, -1, -1]]),
        ({"w": pa.array([None, None], pa.list_(pa.int64()))}, None),
        ({"w": [b"a", b"b"]}, None),
        ({"v": [0, 1]}, None),
    ],
)
def test_the_file_of_the_trusted_rows_may_have_votes(
    tmp_path: Path, table: dict[str, Any], codes: list[list[int]] | None
) -> None:
    pq.write_table(pa.table({"x": [9.5, 8.5], "y": [0, 1]} | table), tmp_path / "m.parquet")
    document = make_document("w") | {"meta": {"uri": "m.parquet"}}
    tables = read(tmp_path, document, {"x": X, "y": Y, "w": LISTS})
    assert tables.meta is not None
    assert (None if tables.meta.votes is None else tables.meta.votes.tolist()) == codes
    report = inspect_dataset(parse_document(document), make_limits(tmp_path))
    used = {column.name: column.used_as for column in report.files[1].columns}
    assert used.get("w", ()) == (("votes",) if isinstance(table.get("w"), pa.Array) else ())


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ([[1, 0], [0, 1]], "row 0 of column 'w' of m.parquet: a row holds 2 votes; wanted 3, as the curated rows"),
        ([1, 0], "row 0 of column 'w' of m.parquet: a row holds 1 vote; wanted 3, as the curated rows have."),
        ([[1, 0, 1], [0, 7, 1]], "row 1 of column 'w' of m.parquet: the vote is 7, which is no label; wanted 0 or 1;"),
    ],
)
def test_bad_votes_on_trusted_rows_are_refused(tmp_path: Path, votes: list[Any], message: str) -> None:
    pq.write_table(pa.table({"x": [9.5, 8.5], "y": [0, 1], "w": votes}), tmp_path / "m.parquet")
    document = make_document("w") | {"meta": {"uri": "m.parquet"}}
    with pytest.raises(DataError) as caught:
        read(tmp_path, document, {"x": X, "y": Y, "w": LISTS})
    assert message in caught.value.problems[0].message


def test_without_votes_there_are_none(tmp_path: Path) -> None:
    assert read(tmp_path, make_document(None), {"x": X, "y": Y}).train.votes is None


def test_votes_are_reported(tmp_path: Path) -> None:
    report = inspect(tmp_path, make_document("w"), {"x": X, "y": Y, "w": LISTS})
    assert report.is_valid
    assert report.votes is not None
    assert report.votes.model_dump() == {"num_functions": 3, "num_covered": 4, "num_disagreeing": 1}
    assert (
        "3 labelling functions vote on 4 of 6 curated rows; not used, because the method 'aum' looks at no votes."
        in report.notes
    )
    assert {column.name: column.used_as for column in report.files[0].columns}["w"] == ("votes",)
    assert InspectionReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("votes", "table", "message"),
    [
        ("v", {}, "dataset.votes is 'v', which is no column of t.parquet; wanted a column of t.parquet: x, y or w."),
        (
            "w",
            {"w": [[0, 7, 1], *LISTS[1:5], [7, 7, 1]]},
            "dataset.votes: rows 0 and 1 more of column 'w' of t.parquet: the vote is 7, which is no label; wanted 0 "
            "or 1; or -1 or nothing where a labelling function abstained.",
        ),
        (
            ["a", "b"],
            {"a": Y, "b": ["0", "1", "", None, "0", "1"]},
            "rows 0 and 1 more of column 'b' of t.parquet: the vote is '0', which is no label; wanted 0 or 1;",
        ),
        ("w", {"w": [*LISTS[:4], [0, 1], [1]]}, "row 4 of column 'w' of t.parquet: the list holds 2 votes; wanted 3"),
        ("w", {"w": [*LISTS[:4], [0, 1], [1]]}, "row 5 of column 'w' of t.parquet: the list holds 1 votes; wanted 3"),
        ("w", {"w": pa.nulls(6, pa.list_(pa.int8()))}, "rows 0 and 5 more of column 'w' of t.parquet: no row"),
        ("w", {"w": [[]] * 6}, "row 0 of column 'w' of t.parquet: the list is empty; wanted at least one vote."),
        ("w", {"w": [0.5, *Y[1:]]}, "row 0 of column 'w' of t.parquet: the vote is 0.5; wanted whole numbers"),
        ("w", {"w": [[1.0, 0.25]] * 6}, "row 0 of column 'w' of t.parquet: the vote is 0.25; wanted whole"),
        (
            ["w", "y2"],
            {"w": LISTS, "y2": Y},
            "dataset.votes is 'w', a column of type list<element: int64> in t.parquet; wanted whole numbers or text, "
            "one vote a row, or one column alone of lists of them.",
        ),
        ("w", {"w": [[[0]]] * 6}, "dataset.votes is 'w', a column of type list<element: list<element: int64>>"),
        ("w", {"w": [b"0"] * 6}, "dataset.votes is 'w', a column of type binary in t.parquet; wanted whole numbers"),
    ],
)  # fmt: skip
def test_fault_of_the_votes(tmp_path: Path, votes: object, table: dict[str, Any], message: str) -> None:
    whole = {"x": X, "y": Y} | (table or {"w": LISTS})
    report = inspect(tmp_path, make_document(votes, features=["x"]), whole)
    assert any(message in problem.message for problem in report.problems), report.problems
    assert {problem.param for problem in report.problems} == {"dataset.votes"}
    with pytest.raises(DataError):
        read(tmp_path, make_document(votes, features=["x"]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"a": 1}] * 6, "4 and 1 more of column 'w' of t.jsonl: it holds no list; wanted a list of votes."),
        ([[0], "abc", *[[1]] * 4], "row 1 of column 'w' of t.jsonl: it holds no list; wanted a list of votes."),
        ([[0, "x"]] * 6, "row 0 of column 'w' of t.jsonl: a list holds something else than labels; wanted whole"),
        ([[{}]] * 6, "row 0 of column 'w' of t.jsonl: a list holds something else than labels; wanted whole"),
    ],
)
def test_fault_of_json_lines(tmp_path: Path, values: list[object], message: str) -> None:
    rows = [{"x": x, "y": y, "w": w} for x, y, w in zip(X, Y, values, strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = inspect_dataset(parse_document(make_document("w", uri="t.jsonl")), make_limits(tmp_path))
    assert any(message in problem.message for problem in report.problems), report.problems


def test_types_that_differ_from_batch_to_batch_are_refused(tmp_path: Path) -> None:
    count = 9000
    rows = [{"x": row, "y": row % 2, "w": [row % 2] if row < 8500 else ["1"]} for row in range(count)]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:8192] + rows[8500:]))
    report = inspect_dataset(parse_document(make_document("w", uri="t.jsonl")), make_limits(tmp_path))
    (problem,) = report.problems
    assert "row 8192 of column 'w' of t.jsonl: text and numbers are mixed; wanted votes of one type." in problem.message


@pytest.mark.parametrize("silent", [None, [None]])
def test_types_show_only_where_somebody_votes(tmp_path: Path, silent: object) -> None:
    rows = [{"x": row, "y": "ab"[row % 2], "w": silent if row < 8200 else ["b"]} for row in range(9000)]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    votes = read(tmp_path, make_document("w", uri="t.jsonl")).train.votes
    assert votes is not None
    assert votes[:, 0].tolist() == [-1] * 8200 + [1] * 800


def test_counts_and_their_words() -> None:
    counts = count_votes(np.array([[0, -1], [1, 0], [-1, -1]]))
    assert counts == VoteCounts(num_rows=3, num_functions=2, num_covered=2, num_disagreeing=1)
    assert write_note(VoteCounts(5, 1, 4, 0)) == (
        "1 labelling function votes on 4 of 5 curated rows; on 0 of them two votes differ."
    )


@pytest.mark.data
def test_votes_of_the_real_data(tmp_path: Path) -> None:
    folder = os.environ.get("SAMA_REAL_DATA")
    if not folder or not (Path(folder) / "wrench_youtube").is_dir():
        pytest.skip("SAMA_REAL_DATA names no folder with this data set")
    data = read_document((EXAMPLES / "wrench_youtube.yaml").read_text().replace("DATA_DIR", folder))
    data["dataset"]["votes"] = "weak_labels"
    limits = Settings(data_dir=tmp_path / "service", data_roots=(Path(folder), tmp_path))
    tables = read_dataset(parse_document(data), limits, tmp_path)
    votes = tables.train.votes
    assert votes is not None
    assert votes.shape == (1586, 10)
    assert round(float((votes >= 0).any(axis=1).mean()), 3) == 0.877


@pytest.mark.parametrize(
    ("sections", "columns", "why"),
    [
        ({"method": {"name": "aum"}}, {}, "the method 'aum' looks at no votes"),
        ({"meta": {"self": True}, "task": "prune"}, {}, "no trusted rows judge them"),
        ({"meta": {"uri": "m.parquet"}}, None, "the file of the trusted rows lacks the columns"),
        (
            {"meta": {"uri": "m.parquet"}},
            {"w": pa.nulls(12, pa.list_(pa.int64()))},
            "there are none on the trusted rows",
        ),
        ({"meta": {"uri": "m.parquet"}}, {"y": [*Y, -1, *[None] * 5]}, "fewer than 10 trusted rows judge them"),
        ({"meta": {"uri": "m.parquet"}}, {}, None),
    ],
)
def test_votes_that_are_not_used_are_told_as_such(
    tmp_path: Path, sections: dict[str, Any], columns: dict[str, Any] | None, why: str | None
) -> None:
    table = {"x": X * 2, "y": Y * 2, "w": LISTS * 2}
    trusted = {"x": X * 2, "y": Y * 2} if columns is None else table | columns
    pq.write_table(pa.table(trusted), tmp_path / "m.parquet")
    report = inspect(tmp_path, make_document("w", features=["x"]) | {"method": {}} | sections, table)
    assert report.is_valid, report.problems
    (told,) = [note for note in report.notes if "labelling functions vote on" in note]
    counts = "3 labelling functions vote on 8 of 12 curated rows; "
    assert told == counts + ("on 2 of them two votes differ." if why is None else f"not used, because {why}.")


def test_as_many_judges_are_wanted_as_a_detector_wants() -> None:
    assert FEWEST_JUDGES == FEWEST_TRUSTED
