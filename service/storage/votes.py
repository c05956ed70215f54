"""Votes of labelling functions: from columns, or from one column of lists, to class codes; -1 where one abstained."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.jobs.document_names import list_names, show
from service.storage.arrow_types import Array, Field
from service.storage.findings import Findings
from service.storage.json_tables import NESTED
from service.storage.labels import UNLABELLED_CODE, LabelColumn, LabelMap, find_label_type
from service.wording import write_count

PARAM = "dataset.votes"
WANTED_TYPES = "whole numbers or text, one vote a row, or one column alone of lists of them"
FEWEST_JUDGES = 10  # trusted rows: with fewer no method learns how reliable a labelling function is
MAX_VALUES_NAMED = 10
MAX_CLASSES_NAMED = 10

Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int64]


def holds_votes(column: Field, *, alone: bool) -> bool:
    """Tell whether a column can hold votes: one a row, or a list of them where it stands alone."""
    if _is_nested_json(column):
        return alone
    if _is_list_type(column.type):
        return alone and find_label_type(column.type.value_type) is not None
    return find_label_type(column.type) is not None


class VoteColumns:
    """The votes on the curated rows, gathered batch by batch; faults go to the findings."""

    def __init__(self, names: Sequence[str], schema: pa.Schema, table_name: str, findings: Findings) -> None:
        self.names = tuple(names)
        self._findings = findings
        self._table_name = table_name
        self._fields = {name: schema.field(name) for name in names}
        first = self._fields[self.names[0]]
        self._is_list = _is_list_type(first.type) or _is_nested_json(first)
        self._width = 0 if self._is_list else len(self.names)
        self._columns: dict[str, LabelColumn] = {}
        self._rows: list[Rows] = []
        self._has_votes: list[npt.NDArray[np.bool_]] = []

    @property
    def is_empty(self) -> bool:
        """True where no row held a list of votes."""
        return self._width == 0

    def add(self, batch: pa.RecordBatch, rows: Rows) -> None:
        """Take in the votes of one batch; `rows` are its row numbers in the file."""
        self._rows.append(rows)
        for name in self.names:
            values, voted = batch.column(name), rows
            if self._is_list:
                values, voted = self._flatten(name, values, rows)
            if self._is_list and len(values) == 0:
                continue
            column = self._find_column(name, values.type)
            if find_label_type(values.type) != column.type and not pa.types.is_null(values.type):
                self._refuse(name, int(voted[0]), "text and numbers are mixed", "votes of one type")
                values = pa.array([None] * len(values), column.given_type)
            column.add(values, voted)

    def encode(self, label_map: LabelMap) -> Codes:
        """Return one class code for each row and labelling function, (N, V); a vote that is no label is refused."""
        num_rows = sum(len(rows) for rows in self._rows)
        codes = np.full((num_rows, self._width), UNLABELLED_CODE, dtype=np.int64)
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        if self._width == 0:
            if self._findings.is_clean and num_rows:
                self._refuse(self.names[0], int(rows[0]), "no row holds a list", "votes in some row", count=num_rows)
            return codes
        for at, (name, column) in enumerate(self._columns.items()):
            self._check(name, column, label_map, rows)
            if self._is_list:
                codes[np.concatenate(self._has_votes)] = label_map.encode(column).reshape(-1, self._width)
            else:
                codes[:, at] = label_map.encode(column)
        return codes

    def encode_like(self, others: Codes, label_map: LabelMap) -> Codes | None:
        """Return the class codes (M, V) beside those of other rows (N, V); None where there is no vote at all.

        Another number of votes a row than the others have is refused.
        """
        if self.is_empty:
            return None
        if self._width != others.shape[1]:
            votes, wanted = write_count(self._width, "vote"), f"{others.shape[1]}, as the curated rows have"
            self._refuse(self.names[0], int(self._rows[0][0]), f"a row holds {votes}", wanted)
            return None
        return self.encode(label_map)

    def _find_column(self, name: str, kind: pa.DataType) -> LabelColumn:
        """Return the column of votes so far; one that held none yet takes the type of those that come now."""
        column = self._columns.get(name)
        if column is None or (not column.classes and column.type != find_label_type(kind)):
            num_earlier = 0 if column is None else len(column.get_codes())
            column = self._columns[name] = LabelColumn(kind)
            column.add(pa.array([None] * num_earlier, kind), np.zeros(num_earlier, dtype=np.int64))
        return column

    def _flatten(self, name: str, values: Array, rows: Rows) -> tuple[Array, Rows]:
        """Return the votes of a batch one after the other, and the row of each; a missing list has none."""
        lists = self._parse(name, values, rows) if _is_nested_json(self._fields[name]) else values
        lengths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
        present = lengths >= 0
        if self._width == 0 and present.any():
            self._width = int(lengths[present][0])
            if self._width == 0:
                self._refuse(name, int(rows[present][0]), "the list is empty", "at least one vote")
        faulty = np.flatnonzero(present & (lengths != self._width))
        for position in faulty:
            wanted = f"{self._width}, as in the rows before"
            self._refuse(name, int(rows[position]), f"the list holds {lengths[position]} votes", wanted)
        present[faulty] = False
        self._has_votes.append(present)
        return pc.list_flatten(lists.filter(pa.array(present))), np.repeat(rows[present], self._width)

    def _parse(self, name: str, values: Array, rows: Rows) -> Array:
        """Return lists that were written as JSON as lists."""
        parsed: list[list[object] | None] = []
        for text, row in zip(values.to_pylist(), rows, strict=True):
            value = _load_json(text)
            if text is not None and not isinstance(value, list):
                self._refuse(name, int(row), "it holds no list", "a list of votes")
            parsed.append(value if isinstance(value, list) else None)
        try:
            lists: Array = pa.array(parsed)
            if pa.types.is_list(lists.type) and find_label_type(lists.type.value_type) is not None:
                return lists
        except pa.ArrowInvalid:
            pass
        if any(value is not None for value in parsed):
            self._refuse(name, int(rows[0]), "a list holds something else than labels", "whole numbers or text")
        return pa.nulls(len(parsed), pa.list_(pa.int64()))

    def _check(self, name: str, column: LabelColumn, label_map: LabelMap, rows: Rows) -> None:
        if column.first_fraction is not None:
            row, value = column.first_fraction
            self._refuse(name, row, f"the vote is {value:g}", "whole numbers or text")
        known = set(label_map.values)
        unknown = [code for code, value in enumerate(column.classes) if value not in known]
        if not unknown:
            return
        codes = column.get_codes()
        if self._is_list:
            rows = np.repeat(rows[np.concatenate(self._has_votes)], self._width)
        shown = [show(value) for value in label_map.values[:MAX_CLASSES_NAMED]]
        more = ", ..." if len(label_map.values) > MAX_CLASSES_NAMED else ""
        for code in unknown[:MAX_VALUES_NAMED]:
            found = np.unique(rows[codes == code])
            reason = f"the vote is {show(column.classes[code])}, which is no label"
            wanted = f"{list_names(shown)}{more}; or -1 or nothing where a labelling function abstained"
            self._refuse(name, int(found[0]), reason, wanted, count=len(found))

    def _refuse(self, name: str, row: int, reason: str, wanted: str, *, count: int = 1) -> None:
        where = f"column {name!r} of {self._table_name}"
        self._findings.refuse_row(PARAM, where, row, reason=reason, wanted=wanted, count=count)


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """How many labelling functions there are, on how many rows any votes, and on how many two votes differ."""

    num_rows: int
    num_functions: int
    num_covered: int
    num_disagreeing: int


def count_votes(votes: Codes) -> VoteCounts:
    """Count what a matrix of votes (N, V) holds."""
    highest = votes.max(axis=1, initial=UNLABELLED_CODE)
    differs = (votes >= 0) & (votes != highest[:, None])
    num_rows, num_functions = votes.shape
    return VoteCounts(num_rows, num_functions, int((highest >= 0).sum()), int(differs.any(axis=1).sum()))


def write_note(counts: VoteCounts, why_unused: str | None = None) -> str:
    """Say the counts in words, or why the votes are not used."""
    one = counts.num_functions == 1
    functions = f"{counts.num_functions:,} labelling function{' votes' if one else 's vote'}"
    voted = f"{functions} on {counts.num_covered:,} of {counts.num_rows:,} curated rows"
    if why_unused is not None:
        return f"{voted}; not used, because {why_unused}."
    return f"{voted}; on {counts.num_disagreeing:,} of them two votes differ."


def _load_json(text: str | None) -> object:
    """Return what the JSON holds; None where it is none, such as the text of a column of mixed kinds."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def _is_list_type(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_nested_json(column: Field) -> bool:
    return column.metadata is not None and NESTED.items() <= column.metadata.items()
