"""WebDataset shards and other streams: the kept examples come through, the first that differs ends the stream."""

import gc
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import webdataset
from torch.utils.data import DataLoader

from sama_bundle import Bundle, DifferentSourceError, UnreadableSourceError, open_bundle

# WebDataset leaves the shards that it has read to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

NO_SHUFFLE = {"shardshuffle": False, "empty_check": False}


def write_shard(path: Path, examples: Sequence[tuple[str, Mapping[str, bytes]]]) -> str:
    """Write a shard as WebDataset reads it: members of one key in a row."""
    with tarfile.open(path, "w") as tar:
        for key, members in examples:
            for name, data in members.items():
                entry = tarfile.TarInfo(f"{key}.{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return str(path)


@pytest.fixture(autouse=True)
def _collect_shards() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def shards(tmp_path: Path, curated: pa.Table) -> list[str]:
    """The curated comments in two shards, the last ones first."""
    rows = curated.to_pylist()
    halves = (rows[40:][::-1], rows[:40])
    return [
        write_shard(tmp_path / f"{number}.tar", [(row["key"], {"txt": row["text"].encode()}) for row in half])
        for number, half in enumerate(halves)
    ]


@pytest.fixture
def images(images_folder: Path) -> Bundle:
    """The bundle of the images."""
    return open_bundle(images_folder / "bundle")


def _list_images(folder: Path) -> list[dict[str, Any]]:
    return pa.parquet.read_table(folder / "images.parquet").to_pylist()


def test_the_kept_examples_come_through_with_columns(bundle: Bundle, shards: list[str], curated: pa.Table) -> None:
    pipeline = bundle.filter_keys(webdataset.WebDataset(shards, **NO_SHUFFLE), columns=["weight", "label"])
    assert isinstance(pipeline, webdataset.WebDataset)
    found = {key: (text, weight, label) for key, text, weight, label in pipeline.decode().to_tuple(
        "__key__", "txt", "__weight__", "__label__"
    )}  # fmt: skip
    kept = curated.take(bundle.keep).to_pylist()
    assert found == {
        row["key"]: (row["text"], float(bundle.weights[number]), bundle.labels[number])
        for row, number in zip(kept, bundle.keep, strict=True)
    }


def test_weights_reach_a_batch_of_two_loader_processes(bundle: Bundle, shards: list[str]) -> None:
    pipeline = bundle.filter_keys(webdataset.WebDataset(shards, **NO_SHUFFLE), columns=["weight"]).decode()
    loader = DataLoader(pipeline.to_tuple("__key__", "__weight__"), batch_size=8, num_workers=2)
    found = {key: float(weight) for keys, weights in loader for key, weight in zip(keys, weights, strict=True)}
    ids = bundle.read_rows(["id"]).column("id").to_pylist()
    assert found == {ids[row]: pytest.approx(float(bundle.weights[row])) for row in bundle.keep}


def test_a_changed_example_ends_the_stream(bundle: Bundle, tmp_path: Path, shards: list[str]) -> None:
    changed = write_shard(tmp_path / "changed.tar", [("c002", {"txt": b"changed"})])
    pipeline = bundle.filter_keys(webdataset.WebDataset([*shards, changed], **NO_SHUFFLE))
    with pytest.raises(
        DifferentSourceError, match=r"^row 1 \(key 'c002'\) differs in its content: '[0-9a-f]{64}', but"
    ):
        list(pipeline)


def test_an_unknown_example_ends_the_stream_or_is_left_out(bundle: Bundle, tmp_path: Path, shards: list[str]) -> None:
    other = write_shard(tmp_path / "other.tar", [("c000", {"txt": b"a trusted row"})])
    stream = webdataset.WebDataset([other, *shards], **NO_SHUFFLE)
    with pytest.raises(DifferentSourceError) as caught:
        list(bundle.filter_keys(stream))
    assert str(caught.value) == (
        "The example with the key 'c000' is none of the 60 rows of the bundle, whose first has the id 'c001'. Give "
        "key=, a function from an example to its id, or drop_others=True."
    )
    assert len(list(bundle.filter_keys(stream, drop_others=True))) == len(bundle.keep)


def test_any_iterable_of_mappings_can_be_filtered(bundle: Bundle, curated: pa.Table) -> None:
    rows = curated.to_pylist()
    stream = bundle.filter_keys(rows, key=lambda row: row["key"], read=lambda row: row["text"])
    assert [row["key"] for row in stream] == [rows[row]["key"] for row in bundle.keep]
    assert len(list(stream)) == len(bundle.keep), "a second pass sees the same"


def test_what_read_raises_is_told_with_the_key(bundle: Bundle, curated: pa.Table) -> None:
    stream = bundle.filter_keys(curated.to_pylist(), key=lambda row: row["key"], read=lambda row: row["words"])
    with pytest.raises(
        UnreadableSourceError, match=r"read raised KeyError for the example with the key 'c001': 'words'"
    ):
        list(stream)


def test_images_are_compared_before_they_are_decoded(images: Bundle, images_folder: Path, tmp_path: Path) -> None:
    rows = _list_images(images_folder)
    examples = [(f"{row['number']:08}", {"png": row["image"]["bytes"], "cls": b"0"}) for row in rows]
    stream = webdataset.WebDataset(write_shard(tmp_path / "images.tar", examples), **NO_SHUFFLE)
    kept = images.filter_keys(stream, key=lambda example: int(example["__key__"]))
    assert len(list(kept.decode("pil").to_tuple("png", "cls"))) == 12
    late = images.filter_keys(stream.decode("pil"), key=lambda example: int(example["__key__"]))
    with pytest.raises(
        UnreadableSourceError, match=r"has no encoded png or jpg or jpeg; .* Filter before decode\(\), or"
    ):
        list(late)


def test_features_are_read_from_json(points_folder: Path, tmp_path: Path) -> None:
    points = open_bundle(points_folder / "bundle")
    lines = [line.split(",") for line in (points_folder / "points.csv").read_text().splitlines()[1:]]
    examples = [
        (str(row), {"json": json.dumps(
            {"width": float(width), "height": int(height) if height else None, "colour": colour or None, "kind": kind}
        ).encode()})
        for row, (width, height, colour, kind) in enumerate(lines)
    ]  # fmt: skip
    stream = webdataset.WebDataset(write_shard(tmp_path / "points.tar", examples), **NO_SHUFFLE)
    assert len(list(points.filter_keys(stream))) == 40
    for data, message in ((b"[1]", "it holds list, wanted an object"), (b"{", "Expecting property name")):
        broken = [{"__key__": "3", "json": data}]
        with pytest.raises(UnreadableSourceError, match=f"The json of the example with the key '3' cannot .*{message}"):
            list(points.filter_keys(broken))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"txt": b"x"}, "An example has no __key__; it has txt .bytes.. Give key=, a function from an example to its"),
        ({"__key__": "c001", "jpg": b"x"}, "The example with the key 'c001' has no encoded txt or text; it has __key_"),
        ({"__key__": "c001", "txt": b"\xff"}, "The txt of the example with the key 'c001' cannot be read: 'utf-8'"),
    ],
)
def test_an_example_that_shows_nothing_is_refused(bundle: Bundle, example: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableSourceError, match=message):
        list(bundle.filter_keys([example]))
