"""Torch: the subset, the weights that reach the loss, the sampler, and what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sama_bundle import Bundle, DifferentSourceError, UnreadableSourceError, open_bundle
from sama_bundle.torch_datasets import build_sampler
from sama_core.errors import OptionsError


@pytest.fixture(scope="session")
def texts(curated: pa.Table) -> list[str]:
    """The curated texts, in order."""
    return curated.column("text").to_pylist()


@pytest.fixture(scope="session")
def counting(bundle: Bundle) -> np.ndarray[Any, Any]:
    """The numbers of the kept rows of a weight above 0."""
    return bundle.keep[bundle.weights[bundle.keep] > 0]


@pytest.fixture(scope="session")
def scaled(bundle: Bundle, counting: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The weight of every row, scaled to mean 1 over those that count."""
    return bundle.weights / bundle.weights[counting].mean()


@pytest.fixture(scope="session")
def pairs(bundle: Bundle) -> TensorDataset:
    """A data set of (row number, class code) as someone would train on."""
    return TensorDataset(torch.arange(bundle.num_rows), torch.from_numpy(bundle.label_codes))


def test_the_subset_holds_the_kept_rows(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    kept = bundle.subset(pairs, read=texts.__getitem__)
    assert len(kept) == len(bundle.keep) == 42
    assert [int(row) for row, _ in DataLoader(kept, batch_size=None)] == bundle.keep.tolist()


def test_labels_to_train_on_are_put_into_the_examples(bundle: Bundle, texts: list[str]) -> None:
    wrong = TensorDataset(torch.arange(60), torch.full((60,), 7))
    kept = bundle.subset(wrong, read=texts.__getitem__, relabel=lambda pair, code: (pair[0], code))
    assert [code for _, code in (kept[place] for place in range(len(kept)))] == bundle.label_codes[bundle.keep].tolist()


def test_weights_reach_the_loss_exactly(
    bundle: Bundle,
    pairs: TensorDataset,
    texts: list[str],
    counting: np.ndarray[Any, Any],
    scaled: np.ndarray[Any, Any],
) -> None:
    losses = torch.rand(bundle.num_rows, generator=torch.Generator().manual_seed(0))
    examples = bundle.weighted(pairs, read=texts.__getitem__)
    assert len(examples) == len(counting)
    seen = []
    for rows, labels, weight in DataLoader(examples, batch_size=6, collate_fn=bundle.collate()):
        assert weight.dtype == torch.float32
        assert labels.tolist() == bundle.label_codes[rows].tolist()
        assert weight.tolist() == pytest.approx(scaled[rows].tolist(), rel=1e-6)
        seen += (losses[rows] * weight).tolist()
    by_hand = (losses.double().numpy() * scaled)[counting].mean()
    assert len(set(bundle.weights[bundle.keep].tolist())) > 10
    assert np.mean(seen) == pytest.approx(by_hand, rel=1e-6)


def test_rows_of_weight_zero_are_in_no_batch(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    other = open_bundle(bundle.directory)
    weights = bundle.weights.copy()
    weights[bundle.keep[:5]] = 0
    other.weights = weights
    batch = next(
        iter(DataLoader(other.weighted(pairs, read=texts.__getitem__), batch_size=60, collate_fn=other.collate()))
    )
    assert batch[0].tolist() == bundle.keep[5:].tolist()
    assert batch[2].mean().item() == pytest.approx(1.0)


def test_collate_of_mappings_of_tensors_and_by_another_function(
    bundle: Bundle, texts: list[str], counting: np.ndarray[Any, Any], scaled: np.ndarray[Any, Any]
) -> None:
    def load(dataset: Any, **options: Any) -> Any:
        examples = bundle.weighted(dataset, read=texts.__getitem__)
        return next(iter(DataLoader(examples, batch_size=4, collate_fn=bundle.collate(**options))))

    first = counting[:4]
    wanted = pytest.approx(scaled[first].tolist(), rel=1e-6)
    mapping = load([{"text": text} for text in texts])
    assert list(mapping) == ["text", "weight"]
    assert mapping["weight"].tolist() == wanted
    batch, weight = load(torch.arange(60))
    assert (batch.tolist(), weight.tolist()) == (first.tolist(), wanted)
    lengths, weight = load(texts, inner=lambda examples: torch.tensor([len(text) for text in examples]))
    assert (lengths.tolist(), weight.tolist()) == ([len(texts[row]) for row in first], wanted)


def test_collate_without_weights_or_with_two_of_them_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UnreadableSourceError, match=r"collate got int, an example without a weight; wanted those of"):
        bundle.collate()([1, 2])
    examples = bundle.weighted([{"weight": row} for row in range(60)], ids=bundle.read_rows(["id"])["id"].to_pylist())
    with pytest.raises(UnreadableSourceError, match=r"The batch holds 'weight' already; rename that column."):
        bundle.collate()([examples[0]])


def test_loader_processes_get_the_same(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    examples = bundle.weighted(pairs, read=texts.__getitem__)
    loaders = [DataLoader(examples, 20, num_workers=number, collate_fn=bundle.collate()) for number in (0, 2)]
    alone, shared = ([[part.tolist() for part in batch] for batch in loader] for loader in loaders)
    assert alone == shared


def test_the_sampler_draws_kept_rows_in_proportion(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    sampler = bundle.sampler(pairs, read=texts.__getitem__, seed=3, num_draws=60_000)
    counts = Counter(sampler)
    assert set(counts) == set(bundle.keep[bundle.weights[bundle.keep] > 0].tolist())
    for row in bundle.keep:
        share = float(bundle.weights[row]) / float(bundle.weights.sum(dtype=np.float64))
        assert counts[int(row)] / 60_000 == pytest.approx(share, abs=0.006)
    loader = DataLoader(pairs, batch_size=7, sampler=bundle.sampler(pairs, read=texts.__getitem__))
    assert sum(len(rows) for rows, _ in loader) == len(bundle.keep)


def test_two_ranks_partition_the_stream(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    def draw(epoch: int = 0, **options: int) -> list[int]:
        sampler = bundle.sampler(pairs, read=texts.__getitem__, seed=5, **options)
        sampler.set_epoch(epoch)
        return list(sampler)

    whole = draw()
    first, second = draw(rank=0, num_ranks=2), draw(rank=1, num_ranks=2)
    assert [row for pair in zip(first, second, strict=True) for row in pair] == whole
    assert len(first) == len(second) == len(whole) // 2
    assert draw(epoch=1) != whole
    with pytest.raises(OptionsError, match=r"rank: 2; wanted a number from 0 to 1"):
        draw(rank=2, num_ranks=2)


def test_the_sampler_is_exact_past_two_to_the_twenty_four_rows() -> None:
    size = 2**24 + 10
    positions = np.array([2**24 + 3, 2**24 + 8])
    sampler = build_sampler(np.array([3, 1], np.float32), positions, size, 4000, seed=0, rank=0, num_ranks=1)
    counts = Counter(sampler)
    assert set(counts) == set(positions.tolist())
    assert counts[2**24 + 3] == pytest.approx(3000, abs=120)


def test_a_changed_content_is_refused(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    changed = [*texts[:9], "changed", *texts[10:]]
    with pytest.raises(DifferentSourceError, match=r"^row 9 of the data set \(id 'c011'\) differs in its content: '"):
        bundle.weighted(pairs, read=changed.__getitem__)
    with pytest.raises(DifferentSourceError, match=r"^row 9 of the data set \(id 'c011'\) differs in its content: '"):
        bundle.sampler(pairs, read=changed.__getitem__)


def test_ids_are_compared_alone_or_beside_the_content(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    ids = bundle.read_rows(["id"]).column("id").to_pylist()
    assert len(bundle.subset(pairs, ids=ids)) == 42
    swapped = [ids[1], ids[0], *ids[2:]]
    for read in (None, texts.__getitem__):
        with pytest.raises(DifferentSourceError, match=r"row 0 of the data set differs in its id: 'c002', but 'c001'"):
            bundle.subset(pairs, ids=swapped, read=read)


def test_another_length_is_refused(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    shorter = TensorDataset(*pairs[:59])
    with pytest.raises(DifferentSourceError, match=r"^row 59 \(id 'c071'\) is missing: the data set has 59 curated ro"):
        bundle.subset(shorter, read=texts.__getitem__)
    longer = TensorDataset(torch.arange(61))
    with pytest.raises(DifferentSourceError, match=r"^row 60 of the data set is one too many: the bundle has 60"):
        bundle.subset(longer, read=[*texts, "more"].__getitem__)


def test_without_any_proof_a_data_set_is_refused(bundle: Bundle, pairs: TensorDataset) -> None:
    with pytest.raises(
        UnreadableSourceError, match=r"its length alone proves little. Give read=, a function from a row"
    ):
        bundle.subset(pairs)
    with pytest.raises(UnreadableSourceError, match=r"ids has 3 entries for 60 rows; wanted one a row."):
        bundle.subset(pairs, ids=[1, 2, 3])
    with pytest.raises(UnreadableSourceError, match=r"ids has None for row 0; wanted a whole number or text."):
        bundle.subset(pairs, ids=[None] * 60)


def test_contents_of_another_kind_are_refused(bundle: Bundle, pairs: TensorDataset, points_folder: Path) -> None:
    with pytest.raises(UnreadableSourceError, match=r"read gave bytes for row 0; wanted text, of which the bundle was"):
        bundle.subset(pairs, read=lambda _row: b"text")
    points = open_bundle(points_folder / "bundle")
    with pytest.raises(
        UnreadableSourceError, match=r"read gave int for row 0; wanted a mapping of column names to val"
    ):
        points.subset(range(40), read=lambda row: row)
    with pytest.raises(UnreadableSourceError, match=r"What read gave cannot be put into columns: "):
        points.subset(range(40), read=lambda row: {"width": "wide" if row else 1})


def test_what_read_raises_is_told_with_the_row(bundle: Bundle, pairs: TensorDataset, texts: list[str]) -> None:
    message = r"read raised IndexError for row 40: list index out of range; wanted the content of each of 60 rows"
    with pytest.raises(UnreadableSourceError, match=message):
        bundle.subset(pairs, read=texts[:40].__getitem__)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 1, "num_ranks": 2}, "num_draws: 1; wanted"),
        ({"num_draws": -3}, "num_draws: -3; wanted"),
        ({"num_draws": 2.5}, "num_draws: 2.5; wanted"),
        ({"num_ranks": 0}, "num_ranks: 0; wanted"),
    ],
)
def test_bad_numbers_of_a_sampler_are_refused(
    bundle: Bundle, pairs: TensorDataset, texts: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        bundle.sampler(pairs, read=texts.__getitem__, **options)


def test_features_and_images_are_read_by_row(points_folder: Path, images_folder: Path) -> None:
    points = open_bundle(points_folder / "bundle")
    lines = [line.split(",") for line in (points_folder / "points.csv").read_text().splitlines()[1:]]
    rows = [
        {"width": float(width), "height": float(height) if height else None, "colour": colour or None}
        for width, height, colour, _ in lines
    ]
    assert len(points.subset(rows, read=rows.__getitem__)) == 40
    assert len(points.subset(rows, ids=range(40))) == 40, "rows without ids have their numbers"
    images = open_bundle(images_folder / "bundle")
    cells = pa.parquet.read_table(images_folder / "images.parquet").column("image").to_pylist()
    assert len(images.subset(cells, read=lambda row: cells[row]["bytes"], ids=np.arange(100, 124))) == 12
    with pytest.raises(DifferentSourceError, match=r"row 0 of the data set \(id 100\) differs in its content"):
        images.subset(cells, read=lambda row: cells[row]["bytes"][:-1])
