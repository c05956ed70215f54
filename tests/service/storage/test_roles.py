"""The rows of each role, as the worker reads them: the same rows, labels and digests in every format."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from service.jobs.document import parse_document, read_document
from service.settings import Settings
from service.storage.assignment import choose_trusted_rows, match_value
from service.storage.faults import DataError
from service.storage.inspection import inspect_dataset
from service.storage.roles import DatasetTables, read_dataset

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
TABLE = pa.table(
    {
        "key": ["a", "b", "c", "d", "e", "f"],
        "x": pa.array([1, None, 3, 4, 5, 6], pa.int32()),
        "w": ["u", "v", None, "u", "v", "u"],
        "y": pa.array([1, 0, -1, 1, 0, 1], pa.int8()),
        "true": pa.array([1, 1, 0, 1, 0, 1], pa.int8()),
        "from": ["web", "web", "book", None, "web", "book"],
        "part": ["t", "t", "t", "t", "m", "m"],
    }
)


def read(tmp_path: Path, data: dict[str, Any], **more: Any) -> DatasetTables:
    limits = Settings(data_dir=tmp_path / "service", data_roots=(tmp_path,))
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    return read_dataset(parse_document(data), limits, folder, **more)


def document(uri: str = "t.parquet", **fields: Any) -> dict[str, Any]:
    dataset = {"uri": uri, "id": "key", "features": ["x", "w"], "label": "y", "source": "from"}
    return {"dataset": dataset, "meta": {"split": {"column": "part", "value": "m"}, "label": "true"}} | fields


def test_roles_are_read(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    seen: list[int] = []
    data = read(tmp_path, document(), on_rows=seen.append)
    assert sum(seen) == 6
    assert (len(data.train), data.meta is not None and len(data.meta), data.test) == (4, 2, None)
    assert data.features == {"x": "numeric", "w": "categorical"}
    assert data.train.inputs.to_pydict() == {"x": [1.0, None, 3.0, 4.0], "w": ["u", "v", None, "u"]}
    assert data.train.labels.tolist() == [1, 0, -1, 1]
    assert data.train.given_labels.to_pylist() == [1, 0, None, 1]
    assert data.train.ids.to_pylist() == ["a", "b", "c", "d"]
    assert data.train.source.to_pylist() == ["web", "web", "book", None]
    assert data.train.source_rows.to_pylist() == [0, 1, 2, 3]
    expected = hashlib.sha256(b'{"w":"u","x":1}').hexdigest()
    assert data.train.content_sha256[0].as_py() == expected
    assert data.meta is not None
    assert data.meta.labels.tolist() == [0, 1]
    assert data.label_map.values == (0, 1)
    assert [file.sha256 for file in data.files] == [hashlib.sha256((tmp_path / "t.parquet").read_bytes()).hexdigest()]


def test_csv_gives_the_same_examples(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    pa_csv.write_csv(TABLE, tmp_path / "t.csv")
    first = read(tmp_path, document())
    digests, rows = first.train.content_sha256.to_pylist(), first.train.rows_digest
    second = read(tmp_path, document("t.csv"))
    assert second.train.content_sha256.to_pylist() == digests
    assert second.train.rows_digest == rows


def test_another_file_and_row_numbers_for_ids(tmp_path: Path) -> None:
    pq.write_table(TABLE.drop_columns(["part"]), tmp_path / "t.parquet")
    pq.write_table(TABLE.select(["w", "x", "true"]).slice(1), tmp_path / "m.parquet")
    data = document(meta={"uri": "m.parquet", "label": "true"})
    del data["dataset"]["id"]
    tables = read(tmp_path, data)
    assert tables.train.ids.type == pa.int64()
    assert tables.train.ids.to_pylist() == [0, 1, 2, 3, 4, 5]
    assert tables.meta is not None
    assert (len(tables.meta), tables.num_meta_in_train) == (5, 5)
    assert tables.meta.source.null_count == 5


def test_trusted_share_stays_curated(tmp_path: Path) -> None:
    count = 400
    texts, given, gold = [f"text {row}" for row in range(count)], ["a", "b"] * 200, ["a"] * 4 + ["b"] * (count - 4)
    table = pa.table({"t": texts, "y": given, "g": gold})
    pq.write_table(table, tmp_path / "t.parquet")
    data: dict[str, Any] = {
        "dataset": {"uri": "t.parquet", "text": "t", "label": "y"},
        "meta": {"fraction": 0.1, "label": "g"},
        "training": {"seed": 3},
    }
    tables = read(tmp_path, data)
    assert tables.meta is not None
    assert len(tables.train) == count
    assert tables.meta.given_labels.to_pylist().count("a") == 1
    assert len(tables.meta) == 41
    rows = tables.trusted_rows
    assert tables.meta.inputs.column("t").to_pylist() == [f"text {row}" for row in rows]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert read(tmp_path, data).trusted_rows.tolist() == rows.tolist()
    data["training"]["seed"] = 4
    assert read(tmp_path, data).trusted_rows.tolist() != rows.tolist()


def test_trusted_rows_are_labelled_rows() -> None:
    labelled = np.array([True, False, True, True, True])
    codes = np.array([0, 0, 1, -1, 1])
    assert set(choose_trusted_rows(labelled, codes, 0.99, 0).tolist()) == {0, 2, 4}


def test_bad_data_is_raised_with_every_problem(tmp_path: Path) -> None:
    pq.write_table(TABLE.set_column(3, "y", pa.array([1] * 6)), tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        read(tmp_path, document())
    assert caught.value.code == "invalid_data"
    assert "the curated rows bear one class only, 1" in caught.value.message


def test_missing_file_keeps_its_code(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, document())
    assert (caught.value.code, caught.value.param) == ("file_not_found", "dataset.uri")


@pytest.mark.parametrize(
    ("values", "wanted", "rows"),
    [
        (pa.array(["1", "2", None]), 1, [0]),
        (pa.array(["true", "x"]), True, [0]),
        (pa.array([1, 2, None], pa.int8()), "2", [1]),
        (pa.array([1, 2], pa.int8()), 300, []),
        (pa.array([1, 2]), "x", []),
        (pa.array([1, 0]), True, []),
        (pa.array([1.0, None]), 1, [0]),
        (pa.array([True, False, None]), "true", [0]),
        (pa.array([True, False]), False, [1]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "a", [0, 2]),
        (pa.nulls(2), "a", []),
    ],
)
def test_split_value_matches(values: pa.Array, wanted: str | int | bool, rows: list[int]) -> None:
    assert np.flatnonzero(match_value(values, wanted)).tolist() == rows


@pytest.mark.data
@pytest.mark.parametrize("name", ["wrench_youtube", "letter", "adult", "cifar10"])
def test_examples_on_the_real_data(tmp_path: Path, name: str) -> None:
    folder = os.environ.get("SAMA_REAL_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip("SAMA_REAL_DATA names no folder with this data set")
    text = (EXAMPLES / f"{name}.yaml").read_text()
    if name == "cifar10":
        cut = pq.ParquetFile(Path(folder) / name / "train.parquet").read_row_group(0).slice(0, 5000)
        pq.write_table(cut, tmp_path / "train_5000.parquet")
        text = text.replace("DATA_DIR/cifar10/train_5000.parquet", str(tmp_path / "train_5000.parquet"))
    data = parse_document(read_document(text.replace("DATA_DIR", folder)))
    limits = Settings(data_dir=tmp_path / "service", data_roots=(Path(folder), tmp_path))
    report = inspect_dataset(data, limits)
    assert report.problems == ()
    tables = read_dataset(data, limits, tmp_path)
    assert [len(tables.train), tables.label_map.num_classes] == {
        "wrench_youtube": [1586, 2], "letter": [16000, 26], "adult": [32561, 2], "cifar10": [5000, 10],
    }[name]  # fmt: skip
