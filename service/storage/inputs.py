"""The input columns of the examples, brought to one form for every file: text, image bytes, numbers, categories."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from service.jobs.document import ALL_OTHER_COLUMNS, JobDocument
from service.storage.arrow_types import Array, Field
from service.storage.digests import digest_contents, digest_features
from service.storage.faults import DataError
from service.storage.findings import Findings
from service.storage.images import decode_image, is_binary_type, is_image_type, read_encoded
from service.storage.json_tables import NESTED
from service.storage.sketches import AbstractSketches

FeatureKind = Literal["numeric", "categorical"]
Rows = npt.NDArray[np.int64]

# How pandas names the row numbers it writes beside the columns, and what it makes of such a name on the way back.
_ROW_NUMBERS = re.compile(r"(Unnamed: 0(\.\d+)?|__index_level_\d+__)?")


class DataLimits(Protocol):
    """The settings that reading a data set heeds."""

    @property
    def data_roots(self) -> tuple[Path, ...]:
        """Folders that every file must lie in."""

    @property
    def max_dataset_bytes(self) -> int:
        """Largest table once decoded."""

    @property
    def max_image_pixels(self) -> int:
        """Largest image."""


@dataclass(frozen=True, slots=True)
class InputColumns:
    """Which columns the model reads, and what kind of feature each one is; what `*` left out, and why."""

    kind: Literal["text", "image", "features"]
    names: tuple[str, ...]
    features: dict[str, FeatureKind]
    left_out: tuple[str, ...] = ()
    row_numbers: tuple[str, ...] = ()


@dataclass
class InputCounts:
    """What was seen in the input columns of one role."""

    num_bytes: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def find_feature_kind(column: Field) -> FeatureKind | None:
    """Return what a column is as a feature, or None where it cannot be one."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.metadata is not None and NESTED.items() <= column.metadata.items():
        return None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return "numeric"
    if pa.types.is_boolean(kind) or is_text_type(kind):
        return "categorical"
    return None


def is_text_type(kind: pa.DataType) -> bool:
    """Tell whether a column holds text."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_large_string(inner) or inner == pa.string_view()


def choose_inputs(document: JobDocument, schema: pa.Schema) -> InputColumns:
    """Return the input columns of a document, `*` spread over the columns that can be features."""
    dataset = document.dataset
    if dataset.kind != "features":
        return InputColumns(dataset.kind, (dataset.text or dataset.image or "",), {})
    names = dataset.features or ()
    left_out: list[str] = []
    row_numbers: list[str] = []
    if names == (ALL_OTHER_COLUMNS,):
        others = [name for name in schema.names if name not in list_reserved(document)]
        row_numbers = [name for name in others if _ROW_NUMBERS.fullmatch(name)]
        others = [name for name in others if name not in row_numbers]
        left_out = [name for name in others if find_feature_kind(schema.field(name)) is None]
        names = tuple(name for name in others if name not in left_out)
    kinds = {name: find_feature_kind(schema.field(name)) for name in names if name in schema.names}
    features = {name: kind for name, kind in kinds.items() if kind is not None}
    return InputColumns("features", names, features, tuple(left_out), tuple(row_numbers))


def list_reserved(document: JobDocument) -> set[str]:
    """Return the columns that have a part of their own in the document and so are no features."""
    sections = (document.dataset, document.meta, document.test)
    splits = {section.split.column for section in sections if section is not None and section.split is not None}
    named = {
        document.dataset.id,
        document.dataset.label,
        document.dataset.source,
        document.meta_label,
        document.test_label,
    }
    return {name for name in named | splits | set(document.dataset.votes or ()) if name is not None}


class InputReader:
    """Brings the input columns of one file to their common form, and counts what stands in them."""

    def __init__(
        self,
        inputs: InputColumns,
        limits: DataLimits,
        table: Path,
        findings: Findings,
        *,
        decode: bool,
        sketches: AbstractSketches[Any] | None = None,
    ) -> None:
        self.inputs = inputs
        self.counts = InputCounts()
        self._limits = limits
        self._table = table
        self._findings = findings
        self._decode = decode
        self._sketches = sketches

    def read(self, batch: pa.RecordBatch, rows: Rows) -> tuple[pa.RecordBatch, list[bytes]]:
        """Return the input columns of a batch in their common form, and the digest of every example.

        Text is string, an image its encoded bytes, a numeric feature float64 with null for missing, a
        categorical feature string. `rows` are row numbers in the file, for what is found on the way.
        """
        if self.inputs.kind == "text":
            arrays, digests = self._read_text(batch.column(self.inputs.names[0]))
        elif self.inputs.kind == "image":
            arrays, digests = self._read_images(batch.column(self.inputs.names[0]), rows)
        else:
            arrays = [self._read_feature(name, batch.column(name), rows) for name in self.inputs.features]
            digests = digest_features(pa.RecordBatch.from_arrays(arrays, names=list(self.inputs.features)))
        names = list(self.inputs.features) or [self.inputs.names[0]]
        self.counts.num_bytes += sum(array.nbytes for array in arrays)
        return pa.RecordBatch.from_arrays(arrays, names=names), digests

    def _read_text(self, values: Array) -> tuple[list[Array], list[bytes]]:
        self.counts.missing[self.inputs.names[0]] += values.null_count
        texts = pc.cast(values, pa.large_string()).fill_null("")
        plain = [str(text) for text in texts.to_pylist()]
        if self._sketches is not None:
            self._sketches.add(plain)
        return [texts], digest_contents(text.encode() for text in plain)

    def _read_images(self, values: Array, rows: Rows) -> tuple[list[Array], list[bytes]]:
        encoded: list[bytes] = []
        for position, given in enumerate(read_encoded(values, self._table.parent, self._limits.data_roots)):
            fault = self._look_at_image(given)
            if fault is not None:
                where = f"column {self.inputs.names[0]!r} of {self._table.name}"
                wanted = "a PNG or JPEG image"
                row = int(rows[position])
                self._findings.refuse_row("dataset.image", where, row, reason=fault.message, wanted=wanted)
            encoded.append(b"" if isinstance(given, DataError) else given)
        return [pa.array(encoded, pa.large_binary())], digest_contents(encoded)

    def _look_at_image(self, given: bytes | DataError) -> DataError | None:
        """Decode an image where its size or its sketch is asked for; return what is wrong with it."""
        image: Image.Image | None = None
        fault = given if isinstance(given, DataError) else None
        if isinstance(given, bytes) and (self._decode or self._sketches is not None):
            try:
                image = decode_image(given, self._limits.max_image_pixels)
                self.counts.image_sizes[image.size] += 1
            except DataError as exc:
                fault = exc
        if self._sketches is not None:
            self._sketches.add([image])
        return fault

    def _read_feature(self, name: str, values: Array, rows: Rows) -> Array:
        if self.inputs.features[name] == "categorical":
            words = _write_words(values)
            self.counts.missing[name] += words.null_count
            return words
        if not (pa.types.is_null(values.type) or find_feature_kind(pa.field(name, values.type)) == "numeric"):
            # The same column holds text in this file; said once for the file, see check_columns.
            return pa.nulls(len(values), pa.float64())
        plain = pc.cast(values, values.type.value_type) if pa.types.is_dictionary(values.type) else values
        numbers = pc.cast(plain, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        infinite = np.flatnonzero(np.isinf(numbers))
        if len(infinite):
            first = int(infinite[0])
            where, wanted = f"column {name!r} of {self._table.name}", "a finite number, or nothing where unknown"
            reason, count = f"{name!r} is infinite", len(infinite)
            self._findings.refuse_row(
                "dataset.features", where, int(rows[first]), reason=reason, wanted=wanted, count=count
            )
        missing = np.isnan(numbers)
        self.counts.missing[name] += int(missing.sum())
        return pa.array(numbers, pa.float64(), mask=missing)


def _write_words(values: Array) -> Array:
    """Return a categorical feature as text; whole numbers without a decimal point, whatever type the file has."""
    if pa.types.is_floating(values.type):
        present = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        numbers = present.to_pylist()
        words = [str(int(number)) if number is not None and number.is_integer() else number for number in numbers]
        return pa.array([None if word is None else str(word) for word in words], pa.string())
    plain = pc.cast(values, values.type.value_type) if pa.types.is_dictionary(values.type) else values
    text: Array = pc.cast(plain, pa.string())
    return text


def check_columns(inputs: InputColumns, schema: pa.Schema, where: str, findings: Findings) -> None:
    """Check the types of the input columns of one file; columns that are missing are told elsewhere."""
    for name in inputs.names:
        if name not in schema.names:
            continue
        column = schema.field(name)
        nested = column.metadata is not None and NESTED.items() <= column.metadata.items()
        seen = "lists or objects" if nested else str(column.type)
        param, wanted, fits = _judge_column(inputs, column)
        if nested or not fits:
            message = f"{param} names {name!r}, which holds {seen} in {where}; wanted {wanted}."
            findings.refuse(param, f"{name!r} of type {seen}", wanted, message)
    if inputs.kind == "features" and not inputs.names:
        wanted = "at least one column of numbers or text"
        seen = f"no such column in {where}"
        findings.refuse(
            "dataset.features", seen, wanted, f"dataset.features: there is {seen} besides those named otherwise."
        )


def _judge_column(inputs: InputColumns, column: Field) -> tuple[str, str, bool]:
    if inputs.kind == "text":
        return "dataset.text", "text", is_text_type(column.type) or pa.types.is_null(column.type)
    if inputs.kind == "image":
        wanted = "bytes, the struct {bytes, path}, or paths as text"
        return "dataset.image", wanted, is_image_type(column.type) or is_binary_type(column.type)
    expected = inputs.features.get(column.name)
    found = find_feature_kind(column)
    if expected is None or found is None:
        return "dataset.features", "numbers, text, or true and false", found is not None
    wanted = "numbers, as in dataset.uri" if expected == "numeric" else "numbers, text, or true and false"
    return "dataset.features", wanted, expected == "categorical" or found == "numeric"


def list_input_names(inputs: InputColumns) -> Sequence[str]:
    """Return the names of the input columns as they come out of `InputReader.read`."""
    return list(inputs.features) if inputs.kind == "features" else list(inputs.names)
