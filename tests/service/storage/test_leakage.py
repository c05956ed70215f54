"""The leakage guard from end to end: what it finds, what it leaves out, what it refuses, and what it tells of it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.cli.inspections import write_inspection
from service.datasets.schemas import InspectionReport
from service.jobs.document import parse_document
from service.settings import Settings
from service.storage import sketches
from service.storage.faults import DataError
from service.storage.inspection import inspect_dataset
from service.storage.role_tables import DatasetTables
from service.storage.roles import read_dataset

NUM_ROWS = 36
PARTS = ["train"] * 20 + ["valid"] * 6 + ["test"] * 10
WORDS = [
    f"{first}{second}" for first in ("lamp", "stone", "river", "cloud", "bread", "tiger") for second in "abcdefghij"
]


def make_texts() -> list[str]:
    generator = np.random.default_rng(4)
    return [" ".join(generator.choice(WORDS, 30)) for _ in range(NUM_ROWS)]


def make_table(**changes: Any) -> dict[str, Any]:
    """Return 20 rows to curate, 6 trusted, 10 for the test: rows 1 and 30 equal, rows 21 and 31 nearly."""
    texts = make_texts()
    texts[30] = texts[1]
    texts[31] = texts[21].replace(texts[21].split()[4], "xylophone", 1)
    labels = [row % 2 for row in range(NUM_ROWS)]
    return {"text": texts, "y": labels, "gold": labels[::-1], "part": PARTS} | changes


def make_document(**fields: Any) -> dict[str, Any]:
    dataset = {"uri": "t.parquet", "text": "text", "label": "y", "split": {"column": "part", "value": "train"}}
    return {
        "dataset": dataset | fields.pop("dataset", {}),
        "meta": {"split": {"column": "part", "value": "valid"}},
        "test": {"split": {"column": "part", "value": "test"}},
    } | fields


class Desk:
    """A folder with a table, and the two ways in which its data are looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.limits = Settings(data_dir=folder / "service", data_roots=(folder,))

    def write(self, table: dict[str, Any], name: str = "t.parquet") -> None:
        pq.write_table(pa.table(table), self.folder / name)

    def inspect(self, document: dict[str, Any], folder: Path | None = None) -> InspectionReport:
        return inspect_dataset(parse_document(document), self.limits, folder=folder)

    def read(self, document: dict[str, Any], **more: Any) -> DatasetTables:
        return read_dataset(parse_document(document), self.limits, self.scratch, **more)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.write(make_table())
    return desk


def count_overlaps(report: InspectionReport) -> dict[tuple[str, str, str], tuple[int, tuple[tuple[int, int], ...]]]:
    return {(item.first, item.second, item.kind): (item.count, item.examples) for item in report.duplicates}


def test_test_rows_that_leak_are_left_out_and_said(desk: Desk) -> None:
    report = desk.inspect(make_document())
    assert report.is_valid
    assert count_overlaps(report) == {
        ("train", "test", "exact"): (1, ((1, 30),)),
        ("meta", "test", "near"): (1, ((21, 31),)),
    }
    assert report.notes == (
        "Leakage: 1 of the test rows stand also among the curated rows, such as rows 30 and 1.",
        "Leakage: 1 of the test rows are near duplicates of rows among the meta set, such as rows 31 and 21.",
        "2 of 10 test rows are left out of the test set, since they stand also among the curated or the trusted rows "
        "(leakage.action: exclude).",
    )
    assert [(role.num_rows, role.num_labelled, role.num_excluded) for role in report.roles] == [
        (20, 20, 0), (6, 6, 0), (10, 8, 2),
    ]  # fmt: skip
    assert report.roles[2].num_unlabelled == 0
    assert [row.num_test for row in report.classes] == [4, 4]
    guard = "exact and near duplicates (similarity from 0.8); 2 test rows found, 2 left out"
    assert f"  leakage guard: {guard}" in write_inspection(report)


def test_the_worker_sees_the_same(desk: Desk) -> None:
    tables = desk.read(make_document())
    assert tables.excluded_test_rows.tolist() == [4, 5]
    assert tables.test is not None
    assert len(tables.test) == 10
    assert tables.test.labels.tolist() == [0, 1, 0, 1, -1, -1, 0, 1, 0, 1]
    assert (tables.train.labels >= 0).all()
    facts = tables.leakage.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "action": "exclude",
        "near": "searched",
        "similarity": 0.8,
        "num_leaking_test_rows": 2,
        "num_excluded_test_rows": 2,
        "overlaps": [
            {"first": "train", "second": "test", "kind": "exact", "count": 1, "examples": [[1, 30]]},
            {"first": "meta", "second": "test", "kind": "near", "count": 1, "examples": [[21, 31]]},
        ],
    }


def test_report_leaves_the_rows_in(desk: Desk) -> None:
    document = make_document(leakage={"action": "report"})
    report = desk.inspect(document)
    assert "These rows stay in the test set (leakage.action: report): accuracy on it may flatter." in report.notes
    tables = desk.read(document)
    assert tables.excluded_test_rows.tolist() == []
    assert tables.leakage.leaking_test_rows.tolist() == [4, 5]
    assert tables.test is not None
    assert (tables.test.labels >= 0).all()


def test_refuse_names_the_first_rows(desk: Desk) -> None:
    document = make_document(leakage={"action": "refuse"})
    (problem,) = desk.inspect(document).problems
    assert problem.param == "test"
    assert problem.message == (
        "test: 2 of 10 test rows stand also among the curated or the trusted rows, such as row 30 of the test rows and "
        "row 1 of the curated rows (exactly); wanted test rows that stand neither among the curated nor among the "
        "trusted rows. Or use leakage.action: exclude."
    )
    with pytest.raises(DataError, match="2 of 10 test rows stand also among"):
        desk.read(document)
    desk.write(make_table(text=make_texts()))
    assert desk.inspect(document).is_valid


def test_a_test_set_that_leaks_as_a_whole_is_refused(desk: Desk) -> None:
    texts = make_texts()
    desk.write(make_table(text=texts[:26] + texts[:10]))
    (problem,) = desk.inspect(make_document()).problems
    assert problem.message.startswith(
        "test: all 10 labelled test rows stand also among the curated or the trusted rows"
    )


def test_exact_duplicates_alone(desk: Desk) -> None:
    report = desk.inspect(make_document(leakage={"near": False}))
    assert list(count_overlaps(report)) == [("train", "test", "exact")]
    assert report.leakage is not None
    assert (report.leakage.similarity, report.leakage.not_searched) == (None, "leakage.near is false")
    assert not any("not looked for" in note for note in report.notes)
    line = "  leakage guard: exact duplicates alone (leakage.near is false); 1 test row found, 1 left out"
    assert line in write_inspection(report)


def test_similarity_is_a_choice(desk: Desk) -> None:
    report = desk.inspect(make_document(leakage={"similarity": 0.99}))
    assert list(count_overlaps(report)) == [("train", "test", "exact")]


def test_near_duplicates_among_the_curated_rows_are_told_and_kept(desk: Desk) -> None:
    texts = make_texts()
    texts[9] = texts[3].upper()
    texts[12] = texts[3]
    desk.write(make_table(text=texts))
    report = desk.inspect(make_document())
    assert count_overlaps(report) == {
        ("train", "train", "exact"): (1, ((3, 12),)),
        ("train", "train", "near"): (1, ((3, 9),)),
    }
    assert "1 of the curated rows nearly repeat an earlier one, such as rows 3 and 9." in report.notes
    assert (desk.read(make_document()).train.labels >= 0).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("MAX_ROWS", 35), "there are 36 rows, more than the limit of 35"),
        (("find_spec", lambda _name: None), "the library datasketch is not installed here (extra: near)"),
    ],
)
def test_what_keeps_the_search_from_being_made_is_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, change: tuple[str, object], reason: str
) -> None:
    monkeypatch.setattr(sketches, *change)
    report = desk.inspect(make_document())
    assert f"Near duplicates are not looked for: {reason}." in report.notes
    assert list(count_overlaps(report)) == [("train", "test", "exact")]
    assert desk.read(make_document()).leakage.describe()["near"] == f"not searched: {reason}"


def test_what_the_inspection_found_is_used_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.inspect(make_document(), folder=desk.scratch).is_valid

    def fail(*_: object) -> None:
        raise AssertionError("searched a second time")

    monkeypatch.setattr("service.storage.roles.build_sketches", fail)
    assert desk.read(make_document()).excluded_test_rows.tolist() == [4, 5]


def test_data_changed_since_the_inspection_are_refused(desk: Desk) -> None:
    desk.inspect(make_document(), folder=desk.scratch)
    desk.write(make_table(text=make_texts()))
    with pytest.raises(DataError) as caught:
        desk.read(make_document())
    assert caught.value.code == "file_changed"
    assert caught.value.message == "The data was changed since it was checked. Start the job again."


def test_a_search_can_be_ended(desk: Desk) -> None:
    class StopError(Exception):
        pass

    def stop(count: int) -> None:
        if count == 0:
            raise StopError

    with pytest.raises(StopError):
        desk.read(make_document(), on_rows=stop)


def test_rows_of_features_are_compared_in_canonical_form(desk: Desk) -> None:
    train = {"a": pa.array(range(40), pa.int8()), "b": ["u", None] * 20, "y": [0, 1] * 20}
    test = {"b": [None, "u", "u"], "a": pa.array([3.0, 2.5, 4.0]), "y": [1, 0, 0]}
    desk.write(train)
    desk.write(test, "test.parquet")
    document = {
        "dataset": {"uri": "t.parquet", "features": ["a", "b"], "label": "y"},
        "meta": {"fraction": 0.2},
        "test": {"uri": "test.parquet"},
    }
    report = desk.inspect(document)
    assert count_overlaps(report) == {("train", "test", "exact"): (2, ((3, 0), (4, 2)))}
    assert desk.read(document).excluded_test_rows.tolist() == [0, 2]
    assert report.leakage is not None
    assert report.leakage.not_searched == "rows of features are compared exactly"


def encode(seed: int, form: str) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, form)
    return buffer.getvalue()


def test_images_encoded_anew_leak(desk: Desk) -> None:
    images = [encode(row, "PNG") for row in range(NUM_ROWS)]
    images[30], images[28] = encode(5, "JPEG"), images[22]
    desk.write(make_table(image=pa.array(images, pa.binary())))
    document = make_document(dataset={"text": None, "image": "image"})
    report = desk.inspect(document)
    assert count_overlaps(report) == {
        ("train", "test", "near"): (1, ((5, 30),)),
        ("meta", "test", "exact"): (1, ((22, 28),)),
    }
    assert desk.read(document).excluded_test_rows.tolist() == [2, 4]


def test_unreadable_images_are_no_duplicates(desk: Desk) -> None:
    desk.write(make_table(image=[b"no"] * NUM_ROWS))
    report = desk.inspect(make_document(dataset={"text": None, "image": "image"}))
    assert [problem.param for problem in report.problems] == ["dataset.image"]
    assert report.duplicates == ()


def test_trusted_rows_are_linked_to_the_curated_rows_of_the_same_content(desk: Desk) -> None:
    texts, labels = make_texts(), [row % 2 for row in range(NUM_ROWS)]
    texts[7] = texts[11] = texts[22]
    texts[5] = texts[25]
    desk.write(make_table(text=texts, y=[-1 if row == 7 else label for row, label in enumerate(labels)]))
    tables = desk.read(make_document(meta={"split": {"column": "part", "value": "valid"}, "label": "gold"}))
    assert tables.meta_train_rows is not None
    # Of the two curated rows with that content the labelled one is named.
    assert tables.meta_train_rows.tolist() == [-1, -1, 11, -1, -1, 5]
    assert tables.meta_given_labels is not None
    assert tables.meta_given_labels.tolist() == labels[20:26]
    assert tables.num_meta_in_train == 2


def test_all_copies_of_a_trusted_row_are_in_one_group(desk: Desk) -> None:
    texts = make_texts()
    texts[7] = texts[11] = texts[24] = texts[22]
    desk.write(make_table(text=texts))
    tables = desk.read(make_document())
    assert tables.meta_groups is not None and tables.train_groups is not None
    assert tables.meta_groups[4] == tables.meta_groups[2]
    assert len(set(tables.meta_groups.tolist())) == 5
    assert np.flatnonzero(tables.train_groups >= 0).tolist() == [7, 11]
    assert set(tables.train_groups[[7, 11]]) == {tables.meta_groups[2]}
    share = desk.read(make_document(meta={"fraction": 0.3}))
    assert share.meta_groups is not None and share.train_groups is not None
    assert share.train_groups[share.trusted_rows].tolist() == share.meta_groups.tolist()
    is_trusted = np.isin(np.arange(20), share.trusted_rows)
    assert share.train_groups[7] == share.train_groups[11]
    assert ((share.train_groups >= 0) == is_trusted | (np.isin(np.arange(20), [7, 11]) & is_trusted[[7, 11]].any())).all()


def test_given_labels_of_trusted_rows_are_unknown_where_nothing_tells_them(desk: Desk) -> None:
    same = desk.read(make_document())
    assert same.meta_given_labels is not None
    assert same.meta_given_labels.tolist() == [-1] * 6
    desk.write({"text": make_texts()[:6], "gold": [0, 1] * 3}, "meta.parquet")
    absent = desk.read(make_document(meta={"uri": "meta.parquet", "label": "gold"}))
    assert absent.meta_given_labels is not None
    assert absent.meta_given_labels.tolist() == [-1] * 6
    assert absent.meta_train_rows is not None
    assert absent.meta_train_rows.tolist() == list(range(6))


def test_given_labels_that_are_no_class_are_unknown(desk: Desk) -> None:
    given = [row % 2 for row in range(NUM_ROWS)]
    given[20:26] = [0, None, 7, -1, 1, 0]
    desk.write(make_table(y=given, gold=[row % 2 for row in range(NUM_ROWS)]))
    gold = {"label": "gold"}
    document = make_document(meta={"split": {"column": "part", "value": "valid"}} | gold)
    document["test"] |= gold
    tables = desk.read(document)
    assert tables.meta_given_labels is not None
    assert tables.meta_given_labels.tolist() == [0, -1, -1, -1, 1, 0]


def test_a_share_is_linked_to_itself(desk: Desk) -> None:
    tables = desk.read(make_document(meta={"fraction": 0.3, "label": "gold"}))
    assert tables.meta_train_rows is not None
    assert tables.meta_train_rows.tolist() == tables.trusted_rows.tolist()
    assert tables.meta_given_labels is not None
    assert tables.meta_given_labels.tolist() == tables.train.labels[tables.trusted_rows].tolist()
    same = desk.read(make_document(meta={"fraction": 0.3}))
    assert same.meta_given_labels is not None
    assert set(same.meta_given_labels.tolist()) == {-1}


def test_without_a_meta_set_there_are_no_links(desk: Desk) -> None:
    tables = desk.read(make_document(meta={"self": True}, task="prune"))
    assert (tables.meta_train_rows, tables.meta_given_labels) == (None, None)
    assert (tables.meta_groups, tables.train_groups) == (None, None)
