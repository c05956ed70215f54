"""Streams of examples with keys, as WebDataset reads them from shards: compared one by one, the kept let through."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from sama_bundle.comparison import describe_difference
from sama_bundle.errors import READ_ERRORS, DifferentSourceError, UnreadableSourceError
from sama_bundle.frames import is_instance
from sama_bundle.reading import Content, ExampleReader
from sama_bundle.recorded import RecordedRows
from service.jobs.document import JobDocument
from service.storage.digests import build_id_keys, find_repeats

Example = dict[str, Any]
ReadKey = Callable[[Example], object]
ReadExample = Callable[[Example], Content]

_KEY = "__key__"
# The members of a WebDataset example that hold its content, by the kind of data.
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "image": ("png", "jpg", "jpeg"),
    "text": ("txt", "text"),
    "features": ("json",),
}


class KeyFilter:
    """Lets those examples through that are to be trained on, after a look at the content of each.

    An example that never comes by is not missed: one of several workers cannot know what the others have seen.

    Args:
        document: the job's document.
        recorded: the rows of the bundle.
        added: columns to put into the examples, one entry per kept row; `weight` comes as `__weight__`, which
            WebDataset does not take for a member to be decoded.
        key: the id of an example; None takes its `__key__`.
        read: its content; None takes the member of the bundle's kind of data (png, jpg, jpeg; txt, text; json).
        drop_others: leave out examples that the bundle does not know, instead of refusing the stream.

    Raises:
        UnreadableSourceError: two rows of the bundle have the same id.
    """

    def __init__(
        self,
        document: JobDocument,
        recorded: RecordedRows,
        added: pa.Table,
        *,
        key: ReadKey | None = None,
        read: ReadExample | None = None,
        drop_others: bool = False,
    ) -> None:
        table = recorded.read(["id", "content_sha256", "keep"])
        self._kind, self._reader = document.dataset.kind, ExampleReader(document)
        self._read_key, self._read, self._drop_others = key, read, drop_others
        self._ids, self._contents = table.column("id"), table.column("content_sha256")
        self._keep = table.column("keep").to_numpy()
        self._added, self._added_rows = added, np.cumsum(self._keep) - 1
        keys = build_id_keys(self._ids.to_pylist())
        repeats = find_repeats(keys, 1)
        if repeats.count:
            first, second = repeats.pairs[0]
            message = f"Rows {first} and {second} of the bundle share the id {self._ids[first].as_py()!r}"
            raise UnreadableSourceError(f"{message}; wanted ids by which a row can be found.", param="key")
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __call__(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield the examples to train on, with the columns asked for.

        Raises:
            DifferentSourceError: at the first example whose content differs, or that the bundle does not know.
            UnreadableSourceError: an example without a key, or without anything that shows its content.
        """
        columns = dict(zip(self._added.column_names, self._added.columns, strict=True))
        for number, example in enumerate(examples):
            key = self._get_key(example)
            row = self._find_row(key)
            if row is None:
                continue
            self._check_content(example, key, row, number)
            if self._keep[row]:
                place = int(self._added_rows[row])
                yield example | {f"__{name}__": values[place].as_py() for name, values in columns.items()}

    def _get_key(self, example: Example) -> object:
        if self._read_key is not None:
            return self._read_key(example)
        if _KEY not in example:
            raise UnreadableSourceError(
                f"An example has no {_KEY}; it has {_list(example)}.",
                param="key",
                hint="Give key=, a function from an example to its id.",
            )
        return example[_KEY]

    def _find_row(self, key: object) -> int | None:
        (wanted,) = build_id_keys([key])
        place = int(np.searchsorted(self._keys, wanted))
        if place < len(self._keys) and self._keys[place] == wanted:
            return int(self._order[place])
        return None if self._drop_others else self._refuse_unknown(key)

    def _refuse_unknown(self, key: object) -> NoReturn:
        first = self._ids[0].as_py()
        message = (
            f"The example with the key {key!r} is none of the {len(self._keys):,} rows of the bundle, whose first has "
            f"the id {first!r}. Give key=, a function from an example to its id, or drop_others=True."
        )
        raise DifferentSourceError(message, row=None, column="id", seen=key, wanted=first)

    def _check_content(self, example: Example, key: object, row: int, number: int) -> None:
        content = self._read_content(example, key)
        found = self._reader.read_contents([content], np.array([number]))
        seen, wanted = found["content_sha256"][0].as_py(), self._contents[row].as_py()
        if seen != wanted:
            message = describe_difference(f"row {row} (key {key!r})", "content_sha256", seen, wanted)
            raise DifferentSourceError(message, row=row, column="content_sha256", seen=seen, wanted=wanted)

    def _read_content(self, example: Example, key: object) -> Content:
        if self._read is None:
            return self._read_member(example, key)
        try:
            return self._read(example)
        except READ_ERRORS as exc:
            message = (
                f"read raised {type(exc).__name__} for the example with the key {key!r}: {exc}; wanted its content."
            )
            raise UnreadableSourceError(message, param="read") from exc

    def _read_member(self, example: Example, key: object) -> Content:
        present = [name for name in _MEMBERS[self._kind] if name in example]
        member = example[present[0]] if len(present) == 1 else None
        if not isinstance(member, bytes):
            raise UnreadableSourceError(
                f"The example with the key {key!r} has no encoded {' or '.join(_MEMBERS[self._kind])}; it has "
                f"{_list(example)}.",
                param="read",
                hint="Filter before decode(), or give read=, a function from an example to its text, image bytes or "
                "mapping of features.",
            )
        try:
            return member if self._kind == "image" else _decode(member, self._kind)
        except ValueError as exc:
            message = f"The {present[0]} of the example with the key {key!r} cannot be read: {exc}."
            raise UnreadableSourceError(message, param="read") from exc


class FilteredStream:
    """Any iterable of examples with a filter behind it, as often as it is iterated."""

    def __init__(self, examples: Iterable[Example], keeper: KeyFilter) -> None:
        self._examples = examples
        self._keeper = keeper

    def __iter__(self) -> Iterator[Example]:
        """Yield the examples to train on."""
        return self._keeper(self._examples)


def filter_stream(examples: Any, keeper: KeyFilter) -> Any:
    """Return the stream with the filter behind it; a WebDataset pipeline stays one."""
    if is_instance(examples, "webdataset", "DataPipeline"):
        return examples.compose(keeper)
    return FilteredStream(examples, keeper)


def _decode(member: bytes, kind: str) -> Content:
    text = member.decode("utf-8")
    if kind == "text":
        return text
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"it holds {type(fields).__name__}, wanted an object")
    return fields


def _list(example: Mapping[str, object]) -> str:
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in example.items())
