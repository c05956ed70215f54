"""The leakage guard from end to end: what it finds, what it leaves out, what it refuses, and what it tells of it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from service.cli.inspections import write_inspection
from service.datasets.schemas import InspectionReport
from service.storage import sketches
from service.storage.faults import DataError
from tests.service.storage.leakage_desk import NUM_ROWS, Desk, make_document, make_table, make_texts


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
        "Leakage: 1 of the test rows are near duplicates of rows among the trusted rows, such as rows 31 and 21.",
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
        "trusted": "report",
        "near": "searched",
        "similarity": 0.8,
        "num_leaking_test_rows": 2,
        "num_excluded_test_rows": 2,
        "leaking_test_rows": [30, 31],
        "num_leaking_trusted_rows": 0,
        "num_excluded_trusted_rows": 0,
        "leaking_trusted_rows": [],
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
    assert tables.leakage.test.rows.tolist() == [4, 5]
    assert tables.test is not None
    assert (tables.test.labels >= 0).all()


def test_refuse_names_the_first_rows(desk: Desk) -> None:
    document = make_document(leakage={"action": "refuse"})
    (problem,) = desk.inspect(document).problems
    assert problem.param == "test"
    assert problem.message == (
        "test: 2 of 10 test rows stand also among the curated or the trusted rows, such as row 30 of t.parquet, "
        "exactly row 1 of t.parquet among the curated rows; wanted test rows that do not stand among the curated or "
        "the trusted rows. Or use leakage.action: exclude."
    )
    with pytest.raises(DataError, match="2 of 10 test rows stand also among"):
        desk.read(document)
    desk.write(make_table(text=make_texts()))
    assert desk.inspect(document).is_valid


def test_every_test_row_left_out_is_named_by_its_row_of_the_file(desk: Desk) -> None:
    texts = make_texts()
    texts[27:35] = texts[:8]
    desk.write(make_table(text=texts))
    facts = desk.read(make_document()).leakage.describe()
    assert facts["leaking_test_rows"] == list(range(27, 35))
    assert facts["num_excluded_test_rows"] == 8


def make_repeated() -> dict[str, Any]:
    """Return a table whose trusted rows 22 and 23 are the curated row 3, exactly, and 24 is row 5, nearly."""
    texts = make_texts()
    texts[22] = texts[23] = texts[3]
    texts[24] = texts[5].replace(texts[5].split()[4], "xylophone", 1)
    return make_table(text=texts)


@pytest.mark.parametrize("trusted", [None, "report"])
def test_trusted_rows_among_the_curated_ones_stay_by_default_and_are_told(desk: Desk, trusted: str | None) -> None:
    desk.write(make_repeated())
    document = make_document(leakage={"trusted": trusted})
    report = desk.inspect(document)
    assert report.is_valid
    assert report.notes == (
        "2 of the trusted rows stand also among the curated rows, such as rows 22 and 3.",
        "1 of the trusted rows are near duplicates of rows among the curated rows, such as rows 24 and 5.",
        "1 of the trusted rows repeat an earlier one exactly, such as rows 22 and 23.",
    )
    assert any(
        line.endswith("; 3 trusted rows found among the curated ones, 0 left out") for line in write_inspection(report)
    )
    tables = desk.read(document)
    assert tables.meta is not None
    assert (tables.meta.labels >= 0).all()
    facts = tables.leakage.describe()
    assert (facts["trusted"], facts["leaking_trusted_rows"], facts["num_excluded_trusted_rows"]) == (
        "report",
        [22, 23, 24],
        0,
    )
    assert tables.num_meta_in_train == 2


def test_trusted_rows_among_the_curated_ones_can_be_left_out(desk: Desk) -> None:
    desk.write(make_repeated())
    document = make_document(leakage={"trusted": "exclude"})
    report = desk.inspect(document)
    assert report.is_valid
    assert report.notes[-1] == (
        "3 of 6 trusted rows are left out of the meta set, since they stand also among the curated rows "
        "(leakage.trusted: exclude)."
    )
    assert [(role.num_rows, role.num_labelled, role.num_excluded) for role in report.roles[:2]] == [
        (20, 20, 0),
        (6, 3, 3),
    ]
    tables = desk.read(document)
    assert tables.meta is not None
    assert np.flatnonzero(tables.meta.labels >= 0).tolist() == [0, 1, 5]
    assert tables.leakage.describe()["num_excluded_trusted_rows"] == 3
    assert tables.num_meta_in_train == 0


def test_trusted_rows_among_the_curated_ones_can_be_refused(desk: Desk) -> None:
    desk.write(make_repeated())
    document = make_document(leakage={"trusted": "refuse"})
    (problem,) = desk.inspect(document).problems
    assert problem.message == (
        "meta: 3 of 6 trusted rows stand also among the curated rows, such as row 22 of t.parquet, exactly row 3 of "
        "t.parquet among the curated rows; wanted trusted rows that do not stand among the curated rows. Or use "
        "leakage.trusted: exclude."
    )
    desk.write(make_table(text=make_texts()))
    assert desk.inspect(document).is_valid


def test_a_meta_set_that_leaks_as_a_whole_is_refused(desk: Desk) -> None:
    texts = make_texts()
    desk.write(make_table(text=[*texts[:20], *texts[:6], *texts[26:]]))
    (problem,) = desk.inspect(make_document(leakage={"trusted": "exclude"})).problems
    assert problem.message.startswith("meta: all 6 labelled trusted rows stand also among the curated rows; wanted")


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
