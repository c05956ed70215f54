"""Counts by class and by source, gathered chunk by chunk."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from service.results.rows import name_group
from service.results.schemas import GroupSummary
from worker.results.text import clean_text

MAX_SOURCES = 1000


@dataclass
class _Group:
    num_rows: int = 0
    num_kept: int = 0
    num_labelled: int = 0
    total_weight: float = 0.0
    total_noise: float = 0.0


class GroupCounts:
    """One group for each value of a column of the rows."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._groups: dict[object, _Group] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a chunk."""
        encoded = batch.column(self._column).dictionary_encode(null_encoding="encode")
        values, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        labelled = batch.column("rank").is_valid().to_numpy(zero_copy_only=False)
        kept = batch.column("keep").to_numpy(zero_copy_only=False)
        weight = np.nan_to_num(batch.column("weight").to_numpy(zero_copy_only=False).astype(np.float64))
        noise = np.nan_to_num(batch.column("noise_score").to_numpy(zero_copy_only=False).astype(np.float64))
        size = len(values)
        counts = [np.bincount(codes, minlength=size), np.bincount(codes[kept], minlength=size)]
        counts.append(np.bincount(codes[labelled], minlength=size))
        totals = [np.bincount(codes, weights=numbers, minlength=size) for numbers in (weight, noise)]
        for code, value in enumerate(values):
            group = self._groups.setdefault(value, _Group())
            group.num_rows += int(counts[0][code])
            group.num_kept += int(counts[1][code])
            group.num_labelled += int(counts[2][code])
            group.total_weight += float(totals[0][code])
            group.total_noise += float(totals[1][code])

    def summarise_classes(self, values: tuple[int | str, ...]) -> list[GroupSummary]:
        """Return the classes in the order of the label map, those without a row included."""
        return [_summarise(value, self._groups.get(value, _Group())) for value in values]

    def summarise_sources(self) -> list[GroupSummary]:
        """Return the sources, the largest first, at most MAX_SOURCES; none where no row has one."""
        if set(self._groups) <= {None}:
            return []
        by_size = sorted(self._groups.items(), key=lambda item: (-item[1].num_rows, name_group(item[0])))
        return [_summarise(value, group) for value, group in by_size[:MAX_SOURCES]]

    @property
    def num_groups(self) -> int:
        """Number of different values."""
        return len(self._groups)


def _summarise(value: object, group: _Group) -> GroupSummary:
    labelled = group.num_labelled
    return GroupSummary(
        name=clean_text(name_group(value)),
        num_rows=group.num_rows,
        num_kept=group.num_kept,
        keep_rate=group.num_kept / group.num_rows if group.num_rows else 0.0,
        mean_weight=group.total_weight / labelled if labelled else None,
        mean_noise_score=group.total_noise / labelled if labelled else None,
    )
