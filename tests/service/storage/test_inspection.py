"""Inspection: what it reports of good data, and every fault of bad data by its own words."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.datasets.schemas import InspectionReport
from service.datasets.service import check_files, inspect
from service.jobs.document import parse_document
from service.settings import Settings

NUM_ROWS = 60


def columns(**changes: Any) -> dict[str, Any]:
    """Return a small good table: 40 rows to curate, 10 trusted, 10 for the test, three classes."""
    generator = np.random.default_rng(0)
    table: dict[str, Any] = {
        "key": [f"r{row}" for row in range(NUM_ROWS)],
        "age": generator.normal(40, 9, NUM_ROWS).round(2).tolist(),
        "job": generator.choice(["clerk", "cook", "pilot"], NUM_ROWS).tolist(),
        "text": [f"words of row {row}" for row in range(NUM_ROWS)],
        "y": [row % 3 for row in range(NUM_ROWS)],
        "origin": ["web", "book"] * (NUM_ROWS // 2),
        "part": ["train"] * 40 + ["valid"] * 10 + ["test"] * 10,
    }
    return table | changes


def put(values: list[Any], row: int, value: Any) -> list[Any]:
    return [*values[:row], value, *values[row + 1 :]]


@pytest.fixture
def limits(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "service", data_roots=(tmp_path,), max_image_pixels=10_000)


def document(**fields: Any) -> dict[str, Any]:
    dataset = {"uri": "t.parquet", "id": "key", "features": ["age", "job"], "label": "y", "source": "origin"}
    dataset["split"] = {"column": "part", "value": "train"}
    data = {
        "dataset": dataset,
        "meta": {"split": {"column": "part", "value": "valid"}},
        "test": {"split": {"column": "part", "value": "test"}},
    }
    dataset.update(fields.pop("dataset", {}))
    return data | fields


def look(
    tmp_path: Path, limits: Settings, data: dict[str, Any], table: dict[str, Any] | None = None
) -> InspectionReport:
    pq.write_table(pa.table(columns() if table is None else table), tmp_path / "t.parquet")
    return inspect(parse_document(data), limits)


def test_report_of_good_data(tmp_path: Path, limits: Settings) -> None:
    table = columns(age=put(columns()["age"], 4, None), y=put(columns()["y"], 5, -1))
    report = look(tmp_path, limits, document(), table)
    assert report.is_valid
    assert report.features == {"age": "numeric", "job": "categorical"}
    assert [(role.role, role.num_rows, role.num_labelled) for role in report.roles] == [
        ("train", 40, 39), ("meta", 10, 10), ("test", 10, 10),
    ]  # fmt: skip
    assert [(row.label, row.code, row.num_train, row.num_meta, row.num_test) for row in report.classes] == [
        (0, 0, 14, 3, 3), (1, 1, 13, 4, 3), (2, 2, 12, 3, 4),
    ]  # fmt: skip
    (file,) = report.files
    assert (file.uri, file.roles, file.num_rows) == ("t.parquet", ("train", "meta", "test"), NUM_ROWS)
    uses = {column.name: column.used_as for column in file.columns}
    assert uses["age"] == ("numeric",)
    assert uses["y"] == ("label (train)", "label (meta)", "label (test)")
    assert (uses["key"], uses["origin"], uses["part"], uses["text"]) == (("id",), ("source",), ("split",), ())
    assert report.estimate is not None
    assert report.estimate.model == "mlp"
    assert "39 labelled rows x 20 epochs (assumed)" in report.estimate.basis
    assert report.notes == (
        "1 of 40 curated rows are unlabelled: never trained on, reported as such.",
        "Column 'age' has no value in 1 of 40 curated rows; read as median and an indicator.",
    )


def test_rows_without_a_label_are_told_with_what_becomes_of_them(tmp_path: Path, limits: Settings) -> None:
    wanted = document(task="relabel", relabel={"unlabelled": True})
    none = "relabel.unlabelled has no effect: every curated row has a label."
    assert look(tmp_path, limits, wanted).notes == (none,)
    assert look(tmp_path, limits, document(task="relabel")).notes == ()
    some = look(tmp_path, limits, wanted, columns(y=put(columns()["y"], 5, -1))).notes
    fate = "labelled where a label is probable enough (relabel.unlabelled), else never trained on"
    assert some == (f"1 of 40 curated rows are unlabelled: {fate}.",)


def test_report_goes_through_json(tmp_path: Path, limits: Settings) -> None:
    for data in (document(), document(dataset={"label": "yy"})):
        report = look(tmp_path, limits, data)
        assert InspectionReport.model_validate_json(report.model_dump_json()) == report


def test_duplicates_and_leakage(tmp_path: Path, limits: Settings) -> None:
    text = columns()["text"]
    text = put(put(put(text, 7, text[3]), 41, text[3]), 55, text[9])
    table = columns(text=text)
    report = look(tmp_path, limits, document(dataset={"features": None, "text": "text"}), table)
    found = {(item.first, item.second): (item.count, item.examples) for item in report.duplicates}
    assert found == {
        ("train", "train"): (1, ((3, 7),)),
        ("train", "meta"): (1, ((3, 41),)),
        ("train", "test"): (1, ((9, 55),)),
    }
    assert "1 of the trusted rows stand also among the curated rows, such as rows 41 and 3." in report.notes
    assert "Leakage: 1 of the test rows stand also among the curated rows, such as rows 55 and 9." in report.notes
    assert "1 curated rows repeat an earlier one with another given label." in report.notes


Y = columns()["y"]
AGE = columns()["age"]
KEY = columns()["key"]


@pytest.mark.parametrize(
    ("table", "data", "param", "message"),
    [
        (
            {},
            document(dataset={"label": "yy"}),
            "dataset.label",
            "is 'yy', which is no column of t.parquet; wanted a column",
        ),
        (
            {},
            document(dataset={"features": ["aeg", "job"]}),
            "dataset.features",
            "is 'aeg', which is no column of t.parquet",
        ),
        ({}, document(dataset={"id": "kee"}), "dataset.id", "Did you mean 'key'?"),
        ({}, document(meta={"split": {"column": "prt", "value": 1}}), "meta.split.column", "Did you mean 'part'?"),
        (
            {"y": [0.5 + value for value in Y]},
            document(),
            "dataset.label",
            "0.5 in row 0; wanted whole numbers or text.",
        ),
        ({"y": [[value] for value in Y]}, document(), "dataset.label", "a column of type list<element: int64>"),
        (
            {"y": [0] * NUM_ROWS},
            document(),
            "dataset.label",
            "the curated rows bear one class only, 0; wanted at least two",
        ),
        (
            {"y": [value % 2 * 2 - 1 for value in Y]},
            document(),
            "dataset.label",
            "Rows labelled -1 count as unlabelled.",
        ),
        ({"y": [None] * 40 + Y[40:]}, document(), "dataset.label", "none of the 40 curated rows has a label"),
        (
            {"y": [*Y[:40], *([None] * 10), *Y[50:]]},
            document(),
            "meta",
            "the meta set is empty, since none of its 10 rows has a label in 'y' (dataset.label); wanted",
        ),
        (
            {"gold": [-1] * NUM_ROWS},
            document(meta={"fraction": 0.5, "label": "gold"}),
            "meta",
            "the meta set is empty, since none of the 40 curated rows has a label in 'gold' (meta.label); wanted",
        ),
        (
            {"y": [*Y[:40], *([0, 1] * 5), *Y[50:]]},
            document(),
            "meta",
            "the meta set has no example of class 2, so nothing",
        ),
        ({"y": [*Y[:50], *([None] * 10)]}, document(), "test", "none of its rows has a label"),
        (
            {"y": put(Y, 55, 7)},
            document(),
            "dataset.label",
            "the test rows bear the label 7, which no curated row bears",
        ),
        (
            {"y2": [str(value) for value in Y]},
            document(meta={"split": {"column": "part", "value": "valid"}, "label": "y2"}),
            "meta.label",
            "the labels of the meta set are text; wanted whole numbers, as in dataset.label.",
        ),
        (
            {"age": put(AGE, 4, float("inf"))},
            document(),
            "dataset.features",
            "row 4 of column 'age' of t.parquet: 'age' is inf",
        ),
        (
            {"age": [[value] for value in AGE]},
            document(),
            "dataset.features",
            "'age', which holds list<element: double>",
        ),
        (
            {"age": [None] * NUM_ROWS},
            document(dataset={"features": ["age"]}),
            "dataset.features",
            "every column is empty",
        ),
        ({"key": put(KEY, 9, "r3")}, document(), "dataset.id", "where ids repeat in t.parquet: rows 3 and 9; wanted"),
        ({"key": put(KEY, 9, None)}, document(), "dataset.id", "row 9 of column 'key' of t.parquet: the id is missing"),
        ({"key": AGE}, document(), "dataset.id", "a column of type double in t.parquet; wanted whole numbers or text."),
        (
            {},
            document(dataset={"features": None, "text": "age"}),
            "dataset.text",
            "which holds double in t.parquet; wanted text.",
        ),
        (
            {},
            document(dataset={"features": None, "image": "age"}),
            "dataset.image",
            "wanted bytes, the struct {bytes, path}",
        ),
        (
            {},
            document(dataset={"split": {"column": "part", "value": "trian"}}),
            "dataset.split.value",
            "matches no row; wanted a value of column 'part': 'test', 'train' or 'valid'. Did you mean 'train'?",
        ),
        (
            {},
            document(dataset={"split": None}, meta={"split": {"column": "origin", "value": "web"}}),
            "test.split",
            "names rows of t.parquet that meta.split names too: 5 rows, the first is row 50",
        ),
    ],
)
def test_fault_of_the_data(
    tmp_path: Path, limits: Settings, table: dict[str, Any], data: dict[str, Any], param: str, message: str
) -> None:
    report = look(tmp_path, limits, data, columns(**table))
    assert not report.is_valid
    assert param in [problem.param for problem in report.problems]
    assert any(message in problem.message for problem in report.problems), report.problems
    assert not any(str(tmp_path) in problem.message for problem in report.problems)


def test_several_faults_at_once(tmp_path: Path, limits: Settings) -> None:
    table = columns(age=put(AGE, 4, float("inf")), key=put(KEY, 9, "r3"), y=[0] * NUM_ROWS)
    report = look(tmp_path, limits, document(), table)
    assert {problem.param for problem in report.problems} == {"dataset.features", "dataset.id", "dataset.label"}
    data = document(dataset={"label": "yy", "id": "kk"}, test={"uri": "none.csv"})
    report = look(tmp_path, limits, data)
    assert {problem.param for problem in report.problems} == {"dataset.label", "dataset.id", "test.uri"}


def test_roles_that_share_a_file_tell_its_fault_once(tmp_path: Path, limits: Settings) -> None:
    report = look(tmp_path, limits, document(dataset={"features": ["aeg"]}))
    assert [problem.param for problem in report.problems] == ["dataset.features"]


def test_class_absent_from_the_meta_set_is_a_note_for_baselines(tmp_path: Path, limits: Settings) -> None:
    table = columns(y=[*Y[:40], *([0, 1] * 5), *Y[50:]])
    report = look(tmp_path, limits, document(method={"name": "aum"}), table)
    assert report.is_valid
    assert "The meta set has no example of class 2." in report.notes


def test_trusted_class_that_no_curated_row_bears_is_a_note(tmp_path: Path, limits: Settings) -> None:
    report = look(tmp_path, limits, document(), columns(y=put(Y, 45, 9)))
    assert report.is_valid
    assert [row.label for row in report.classes] == [0, 1, 2, 9]
    assert "No curated row bears the trusted class 9; it is a class all the same." in report.notes


def test_missing_values_are_said(tmp_path: Path, limits: Settings) -> None:
    table = columns(age=[None] * 39 + AGE[39:], job=put(columns()["job"], 0, None), empty=[float("nan")] * NUM_ROWS)
    report = look(tmp_path, limits, document(dataset={"features": ["age", "job", "empty"]}), table)
    assert report.is_valid
    assert report.features == {"age": "numeric", "job": "categorical"}
    assert "Column 'age' has no value in 39 of 40 curated rows; read as median and an indicator." in report.notes
    assert "Column 'job' has no value in 1 of 40 curated rows; read as a category of its own." in report.notes
    assert "Column 'empty' has no value in any curated row; it is left out." in report.notes


def test_star_takes_what_can_be_a_feature(tmp_path: Path, limits: Settings) -> None:
    table = columns(votes=[[1, 2]] * NUM_ROWS, flag=[True] * NUM_ROWS)
    report = look(tmp_path, limits, document(dataset={"features": "*"}), table)
    assert report.features == {"age": "numeric", "job": "categorical", "text": "categorical", "flag": "categorical"}
    assert "dataset.features '*' leaves out columns that hold neither numbers nor text: votes." in report.notes


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_star_leaves_row_numbers_out(tmp_path: Path, limits: Settings, name: str) -> None:
    report = look(tmp_path, limits, document(dataset={"features": "*"}), columns(**{name: list(range(NUM_ROWS))}))
    assert report.features == {"age": "numeric", "job": "categorical", "text": "categorical"}
    assert any("row numbers" in note and note.endswith(f"columns: {name!r}.") for note in report.notes)


def test_trusted_share_is_said(tmp_path: Path, limits: Settings) -> None:
    report = look(tmp_path, limits, document(meta={"fraction": 0.25}))
    assert report.is_valid
    assert [row.num_meta for row in report.classes] == [4, 3, 3]
    assert "10 curated rows are taken as trusted (meta.fraction) and stay curated." in report.notes


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("none.parquet", "dataset.uri is 'none.parquet': there is no such file."),
        ("../other.parquet", "dataset.uri is '../other.parquet', which lies outside of the allowed folders."),
        ("folder", "dataset.uri is 'folder', which is a folder; wanted a file."),
        ("bad.csv", "bad.csv line 3 has 1 values; the header has 2."),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, limits: Settings, uri: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    report = look(tmp_path, limits, document(dataset={"uri": uri}))
    (problem,) = report.problems
    assert problem.message.startswith(message)
    found = check_files(parse_document(document(dataset={"uri": uri})), limits)
    assert [item.param for item in found] == ([] if uri == "bad.csv" else ["dataset.uri"])


def test_model_folder_is_checked(tmp_path: Path, limits: Settings) -> None:
    data = document(dataset={"features": None, "text": "text"}, model={"name": "hf:./model"})
    assert "there is no such file" in look(tmp_path, limits, data).problems[0].message
    (tmp_path / "model").mkdir()
    assert (
        "which holds no model; wanted a folder with a config.json" in look(tmp_path, limits, data).problems[0].message
    )
    (tmp_path / "model" / "config.json").write_text("{}")
    assert look(tmp_path, limits, data).is_valid


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).save(buffer, "PNG")
    return buffer.getvalue()


def test_unreadable_images_are_named_by_row(tmp_path: Path, limits: Settings) -> None:
    images: list[bytes | None] = [png() for _ in range(NUM_ROWS)]
    images[2], images[17], images[21], images[40] = images[2][:-20], None, b"GIF89a", png((101, 100))  # type: ignore[index]
    data = document(dataset={"features": None, "image": "pixels"})
    report = look(tmp_path, limits, data, columns(pixels=pa.array(images, pa.binary())))
    messages = [problem.message for problem in report.problems]
    where = "of column 'pixels' of t.parquet"
    assert messages == [
        f"dataset.image: row 2 {where}: it is damaged or cut off; wanted a PNG or JPEG image.",
        f"dataset.image: row 17 {where}: it is missing; wanted a PNG or JPEG image.",
        f"dataset.image: row 21 {where}: it is neither PNG nor JPEG; wanted a PNG or JPEG image.",
        f"dataset.image: row 40 {where}: it has 101 x 100 pixels; the limit is 10,000 (SAMA_MAX_IMAGE_PIXELS); "
        "wanted a PNG or JPEG image.",
    ]


def test_many_unreadable_images_are_one_problem(tmp_path: Path, limits: Settings) -> None:
    data = document(dataset={"features": None, "image": "pixels"})
    report = look(tmp_path, limits, data, columns(pixels=[b"no"] * NUM_ROWS))
    assert "rows 0, 1, 2, 3, 4 and 55 more of column" in report.problems[0].message


def test_image_files_beside_the_table(tmp_path: Path, limits: Settings) -> None:
    (tmp_path / "images").mkdir()
    for row in range(NUM_ROWS):
        (tmp_path / "images" / f"{row}.png").write_bytes(png((4 + row % 2, 4)))
    names = [f"images/{row}.png" for row in range(NUM_ROWS)]
    data = document(dataset={"features": None, "image": "file"})
    report = look(tmp_path, limits, data, columns(file=names))
    assert report.is_valid
    assert "The images have 2 different sizes; 4 x 4 is the commonest (20 of 40)." in report.notes
    report = look(tmp_path, limits, data, columns(file=put(names, 3, "images/none.png")))
    assert (
        "row 3 of column 'file' of t.parquet: its file 'images/none.png' does not exist" in report.problems[0].message
    )


def test_data_past_the_limit_is_refused(tmp_path: Path) -> None:
    limits = Settings(data_dir=tmp_path / "service", data_roots=(tmp_path,), max_dataset_bytes=1000)
    report = look(tmp_path, limits, document())
    assert "more than 1,000 bytes once decoded; that is the limit here." in report.problems[0].message


@pytest.mark.parametrize("has_splits", [False, True])
def test_table_without_rows(tmp_path: Path, limits: Settings, has_splits: bool) -> None:
    empty = pa.table(columns()).slice(0, 0)
    pq.write_table(empty, tmp_path / "t.parquet")
    data = document()
    if not has_splits:
        data = document(dataset={"split": None}, meta={"fraction": 0.5})
        del data["test"]
    report = inspect(parse_document(data), limits)
    assert [problem.message for problem in report.problems] == ["dataset.uri: t.parquet has no rows."]
