"""The selection of a finished job at another keep fraction, without a re-run: keep is `rank < num_kept`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.jobs.document_names import list_names
from service.results.chunks import RowReader
from service.results.rows import name_group
from service.results.schemas import GroupSummary, SelectionSummary, Summary
from service.wording import write_count

_MOST_EMPTIED = 10


def select_again(summary: Summary, reader: RowReader, num_kept: int) -> Summary:
    """Return the summary as it would be with the `num_kept` best-ranked rows kept."""
    classes: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    threshold = _Threshold(summary, num_kept)
    num_corrected_kept = 0
    for batch in reader.batches():
        rank = batch.column("rank")
        kept = rank.fill_null(num_kept).to_numpy(zero_copy_only=False) < num_kept
        _count(classes, batch.column("given_label"), kept)
        _count(sources, batch.column("source"), kept)
        num_corrected_kept += int((kept & batch.column("corrected").to_numpy(zero_copy_only=False)).sum())
        threshold.add(batch)
    emptied = note_emptied_classes(summary.classes)
    groups = [_regroup(group, classes) for group in summary.classes]
    notes = [note for note in summary.notes if note not in emptied] + note_emptied_classes(groups)
    if summary.evaluation != "not evaluated":
        notes.append(
            f"The evaluation was made with {summary.selection.n_kept:,} rows kept, not with {num_kept:,}: "
            "submit a job with this keep fraction to have it evaluated."
        )
    relabel = summary.relabel
    return summary.model_copy(
        update={
            "relabel": relabel and relabel.model_copy(update={"num_kept": num_corrected_kept}),
            "selection": _select(summary.selection, num_kept, threshold.value),
            "classes": groups,
            "sources": [_regroup(group, sources) for group in summary.sources],
            "notes": notes,
        }
    )


def note_emptied_classes(classes: Sequence[GroupSummary]) -> list[str]:
    """Return a note that names the classes of which no row is kept, the largest first; none where none is empty.

    >>> group = GroupSummary(name="spam", num_rows=3, num_kept=0, keep_rate=0, mean_weight=1, mean_noise_score=1)
    >>> note_emptied_classes([group])
    ["No row is kept of class 'spam' (3 rows)."]
    """
    emptied = [group for group in classes if group.num_rows and not group.num_kept]
    if not emptied:
        return []
    told = [
        f"{group.name!r} ({write_count(group.num_rows, 'row')})"
        for group in sorted(emptied, key=lambda group: -group.num_rows)
    ]
    if len(told) > _MOST_EMPTIED:
        told[_MOST_EMPTIED:] = [f"{len(told) - _MOST_EMPTIED:,} more"]
    return [f"No row is kept of class{'' if len(emptied) == 1 else 'es'} {list_names(told)}."]


class _Threshold:
    """The score from which on sound rows are kept, gathered chunk by chunk.

    None where the keep decision is no cut by score: under another rule than `top`, where likely mislabelled rows are
    kept too, and where the class floor has moved a row past a better one.
    """

    def __init__(self, summary: Summary, num_kept: int) -> None:
        self._num_kept, self._num_sound = num_kept, summary.selection.n_labelled - summary.selection.n_cut_off
        self._is_cut = summary.selection.rule == "top" and num_kept <= self._num_sound
        self._lowest_kept, self._highest_dropped = float("inf"), float("-inf")

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a chunk."""
        rank = batch.column("rank").fill_null(self._num_sound).to_numpy(zero_copy_only=False)
        score = batch.column("score").fill_null(float("-inf")).to_numpy(zero_copy_only=False)
        kept, dropped = score[rank < self._num_kept], score[(rank >= self._num_kept) & (rank < self._num_sound)]
        if self._is_cut:
            self._lowest_kept = min(self._lowest_kept, float(kept.min(initial=np.inf)))
            self._highest_dropped = max(self._highest_dropped, float(dropped.max(initial=-np.inf)))

    @property
    def value(self) -> float | None:
        """The threshold once every chunk is in."""
        return self._lowest_kept if self._is_cut and self._highest_dropped <= self._lowest_kept else None


def _count(counts: Counter[str], column: "pa.Array[Any]", kept: npt.NDArray[np.bool_]) -> None:
    for value, count in Counter(column.filter(pa.array(kept, pa.bool_())).to_pylist()).items():
        counts[name_group(value)] += count


def _regroup(group: GroupSummary, counts: Counter[str]) -> GroupSummary:
    num_kept = counts[group.name]
    keep_rate = num_kept / group.num_rows if group.num_rows else 0.0
    return group.model_copy(update={"num_kept": num_kept, "keep_rate": keep_rate})


def _select(selection: SelectionSummary, num_kept: int, threshold: float | None) -> SelectionSummary:
    return selection.model_copy(
        update={
            "n_kept": num_kept,
            "kept_fraction_of_total": num_kept / selection.n_total,
            "threshold": threshold,
        }
    )
