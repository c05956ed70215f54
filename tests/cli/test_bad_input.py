"""What a person sees for every kind of bad input: what is wrong, where, and what was wanted; nothing else."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.cli.conftest import Sama, SeededServer

WriteSpec = Callable[..., Path]
FEATURES = {
    "uri": "./data.csv",
    "features": ["a", "b"],
    "label": "label",
    "split": {"column": "split", "value": "train"},
}


def _write_csv(folder: Path, rows: list[str], header: str = "id,a,b,label,split") -> None:
    (folder / "data.csv").write_text("\n".join([header, *rows]) + "\n")


def _rows(
    num_rows: int = 20, split: Callable[[int], str] = lambda row: "valid" if row % 4 == 3 else "train"
) -> list[str]:
    return [f"r{row},{row / 10},{row % 3},{'up' if row // 4 % 2 else 'down'},{split(row)}" for row in range(num_rows)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"selection": {"keep_fraction": 0}}, "selection.keep_fraction is 0; wanted more than 0 and at most 1."),
        ({"selection": {"keep_fraction": 1.5}}, "selection.keep_fraction is 1.5; wanted more than 0 and at most 1."),
        ({"model": {"name": "resnet81"}}, "Did you mean 'resnet18'?"),
        ({"method": {"name": "samma"}}, "Did you mean 'sama'?"),
        ({"dataset": {"uri": "s3://bucket/data.csv"}}, "not available in this version"),
        ({"method": {"name": "trusted-model"}, "meta": {"self": True}}, "trusted-model"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_document_is_refused_before_anything_is_started(
    sama: Sama, write_spec: WriteSpec, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    outcome = sama("curate", write_spec(**fields), "--out", tmp_path / "out")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.errors == outcome.err.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_every_problem_of_a_document_has_a_line(sama: Sama, write_spec: WriteSpec, tmp_path: Path) -> None:
    spec = write_spec(task="prun", selection={"keep_fraction": 2}, training={"epochs": 0, "optimizer": "adamm"})
    outcome = sama("curate", spec, "--out", tmp_path / "out")
    assert outcome.code == 2
    for param in ("task", "selection.keep_fraction", "training.epochs", "training.optimizer"):
        assert sum(param in line for line in outcome.errors) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML at line"),
        ("just text", "holds no job document"),
        ("name: a\nname: b\n", "stands twice"),
    ],
)
def test_a_file_that_is_no_document_is_refused(sama: Sama, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    outcome = sama("curate", tmp_path / "job.yaml", "--out", tmp_path / "out")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert message in outcome.err


def test_a_document_that_is_not_there_is_refused(sama: Sama, tmp_path: Path) -> None:
    outcome = sama("validate", tmp_path / "none.yaml")
    assert outcome.code == 2
    assert "none.yaml' cannot be read: No such file or directory." in outcome.err


@pytest.mark.parametrize("change", ["training.epochs", "=5", " =5"])
def test_a_change_that_is_none_is_refused(sama: Sama, write_spec: WriteSpec, change: str) -> None:
    outcome = sama("validate", write_spec(), "--set", change)
    assert outcome.code == 2
    assert f"--set is {change!r}; wanted FIELD=VALUE, as in training.epochs=5." in outcome.err


def _ragged(folder: Path) -> None:
    _write_csv(folder, [*_rows(10), "r10,1,2,up", *_rows(10)])


def _float_labels(folder: Path) -> None:
    _write_csv(folder, [row.replace("up", "0.5").replace("down", "1.5") for row in _rows()])


def _one_class(folder: Path) -> None:
    _write_csv(folder, [row.replace("up", "down") for row in _rows()])


def _empty_meta(folder: Path) -> None:
    _write_csv(folder, _rows(split=lambda _row: "train"))


def _class_absent_from_meta(folder: Path) -> None:
    _write_csv(folder, [row.replace("up,valid", "down,valid") for row in _rows()])


def _repeated_ids(folder: Path) -> None:
    _write_csv(folder, [row.replace("r5,", "r4,") for row in _rows()])


def _missing_column(folder: Path) -> None:
    _write_csv(folder, _rows(), header="id,a,bb,label,split")


def _infinite_feature(folder: Path) -> None:
    _write_csv(folder, [row.replace("r6,0.6", "r6,inf") for row in _rows()])


@pytest.mark.parametrize(
    ("write", "dataset", "messages"),
    [
        (None, FEATURES, ["dataset.uri", "there is no such file"]),
        (_ragged, FEATURES, ["line 12", "4 values", "header has 5"]),
        (_float_labels, FEATURES, ["dataset.label", "double", "whole numbers or text"]),
        (_one_class, FEATURES, ["class"]),
        (_empty_meta, FEATURES, ["meta.split.value is 'valid', which matches no row"]),
        (_class_absent_from_meta, FEATURES, ["up", "meta"]),
        (_repeated_ids, FEATURES | {"id": "id"}, ["dataset.id is 'id', where ids repeat in data.csv: rows 4 and 5"]),
        (_missing_column, FEATURES, ["'b', which is no column of data.csv", "Did you mean 'bb'?"]),
        (_infinite_feature, FEATURES, ["row 6", "infinite"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_data_is_told_as_the_user_has_to_find_it(
    sama: Sama,
    server: SeededServer,
    write_spec: WriteSpec,
    tmp_path: Path,
    write: Callable[[Path], None] | None,
    dataset: dict[str, Any],
    messages: list[str],
) -> None:
    if write is not None:
        write(tmp_path)
    spec = write_spec(dataset=dataset | {"uri": str(tmp_path / "data.csv")})
    outcome = sama("validate", spec)
    assert outcome.code == 2
    assert outcome.out == ""
    assert any(all(message in line for message in messages) for line in outcome.errors), outcome.err
    assert "Traceback" not in outcome.err


def test_missing_values_are_reported_not_refused(
    sama: Sama, server: SeededServer, write_spec: WriteSpec, tmp_path: Path
) -> None:
    _write_csv(tmp_path, [row.replace("r6,0.6", "r6,nan") for row in _rows()])
    outcome = sama("validate", write_spec(dataset=FEATURES | {"uri": str(tmp_path / "data.csv")}))
    assert outcome.code == 0
    assert "note: " in outcome.out
    assert "missing" in outcome.out


def test_an_unreadable_image_is_told_by_its_row(
    sama: Sama, server: SeededServer, write_spec: WriteSpec, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    images = [buffer.getvalue()] * 20
    images[13] = b"not an image"
    splits = ["valid" if row % 4 == 3 else "train" for row in range(20)]
    table = pa.table({"image": images, "label": [row // 4 % 2 for row in range(20)], "split": splits})
    pq.write_table(table, tmp_path / "data.parquet")
    dataset = {
        "uri": str(tmp_path / "data.parquet"),
        "image": "image",
        "label": "label",
        "split": {"column": "split", "value": "train"},
    }
    outcome = sama("validate", write_spec(dataset=dataset, model={"name": "cnn"}))
    assert outcome.code == 2
    assert "row 13" in outcome.err
    assert "dataset.image" in outcome.err
