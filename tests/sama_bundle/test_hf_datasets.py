"""Hugging Face data sets: selected, weighted, relabelled; refused where a row differs."""

from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader

from sama_bundle import Bundle, DifferentSourceError, UnreadableSourceError, open_bundle


@pytest.fixture(scope="session")
def dataset(comments: pa.Table) -> datasets.Dataset:
    """The whole file of comments."""
    return datasets.Dataset(comments)


def test_the_kept_rows_are_selected(bundle: Bundle, dataset: datasets.Dataset, curated: pa.Table) -> None:
    wanted = curated.take(bundle.keep).column("key").to_pylist()
    assert bundle.select(dataset)["key"][:] == wanted
    assert bundle.select(datasets.Dataset(curated))["key"][:] == wanted


def test_weights_and_labels_stand_beside_them(bundle: Bundle, dataset: datasets.Dataset) -> None:
    kept = bundle.select(dataset.remove_columns("label"), columns=["weight", "label"])
    assert kept["label"][:] == bundle.labels[bundle.keep].tolist()
    assert (kept.features["weight"].dtype, kept.features["label"].dtype) == ("float32", "string")
    batch = next(iter(DataLoader(kept.with_format("torch", columns=["weight"]), batch_size=5)))
    assert batch["weight"].tolist() == bundle.weights[bundle.keep[:5]].tolist()


def test_a_format_or_transform_does_not_change_what_is_compared(bundle: Bundle, dataset: datasets.Dataset) -> None:
    loud = dataset.with_transform(lambda batch: {"text": [text.upper() for text in batch["text"]]})
    kept = bundle.select(loud)
    assert kept[0]["text"].isupper()


def test_a_data_set_goes_through_the_torch_loaders_too(bundle: Bundle, dataset: datasets.Dataset) -> None:
    kept = bundle.subset(dataset)
    assert [kept[place]["key"] for place in range(len(kept))] == bundle.select(dataset)["key"][:]
    drawn = {dataset[row]["key"] for row in bundle.sampler(dataset)}
    assert drawn <= set(bundle.select(dataset)["key"][:])


def test_a_shuffled_or_mapped_data_set_is_refused(bundle: Bundle, dataset: datasets.Dataset) -> None:
    with pytest.raises(DifferentSourceError, match=r"^curated row 0 \(row 1 of the data set\) differs in its id: 'c07"):
        bundle.select(dataset.select([0, *range(71, 0, -1)]))
    changed = dataset.map(lambda row: {"text": row["text"] + "!" if row["key"] == "c010" else row["text"]})
    with pytest.raises(DifferentSourceError, match=r"^curated row 8 \(row 10 of the data set, id 'c010'\) differs in"):
        bundle.select(changed)
    with pytest.raises(DifferentSourceError, match=r"^curated row 8 \(row 10 of the data set, id 'c010'\) differs in"):
        bundle.subset(changed)


def test_other_kinds_are_refused(bundle: Bundle, dataset: datasets.Dataset) -> None:
    with pytest.raises(
        UnreadableSourceError, match=r"IterableDataset; wanted a datasets.Dataset. A stream of rows goes"
    ):
        bundle.select(dataset.to_iterable_dataset())
    with pytest.raises(UnreadableSourceError, match=r"dataset is DatasetDict; .* Name one of its splits: 'train'."):
        bundle.select(datasets.DatasetDict(train=dataset))
    with pytest.raises(UnreadableSourceError, match=r"dataset is list; wanted a datasets.Dataset."):
        bundle.select([])


def test_images_are_compared_as_they_are_stored(images_folder: Path) -> None:
    images = open_bundle(images_folder / "bundle")
    table = pa.parquet.read_table(images_folder / "images.parquet")
    dataset = datasets.Dataset(table).cast_column("image", datasets.Image())
    kept = images.select(dataset)
    assert len(kept) == 12
    assert kept[0]["image"].size == (8, 8)
