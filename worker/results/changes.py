"""Counts of labels that took the place of others, gathered chunk by chunk."""

from collections import Counter

import pyarrow as pa

from service.results.schemas import LabelChange
from worker.results.text import clean_text

MAX_CHANGES = 20

_Label = int | str | None


class LabelChanges:
    """How often each label was corrected to which other one, and how sure of it the method was."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[_Label, int | str]] = Counter()
        self._confidence: Counter[tuple[_Label, int | str]] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a chunk."""
        changed = batch.filter(batch.column("corrected"))
        names = ("given_label", "label", "label_confidence")
        for given, label, confidence in zip(*(changed.column(name).to_pylist() for name in names), strict=True):
            self._counts[given, label] += 1
            self._confidence[given, label] += confidence

    @property
    def num_pairs(self) -> int:
        """Number of different pairs of labels."""
        return len(self._counts)

    def summarise(self) -> list[LabelChange]:
        """Return the most frequent pairs, at most MAX_CHANGES."""
        by_count = sorted(self._counts.items(), key=lambda item: (-item[1], str(item[0])))
        return [
            LabelChange(
                given=None if given is None else clean_text(str(given)),
                label=clean_text(str(label)),
                count=count,
                mean_confidence=self._confidence[given, label] / count,
            )
            for (given, label), count in by_count[:MAX_CHANGES]
        ]
