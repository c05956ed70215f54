"""Which rows of the curated file are curated, trusted and tested on, by the splits of the document."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.jobs.document import JobDocument, SplitSpec
from service.jobs.document_names import find_nearest, list_names, show
from service.storage.arrow_types import Array
from service.storage.findings import Findings
from service.storage.inputs import is_text_type
from service.storage.sources import RoleName, Sources

Mask = npt.NDArray[np.bool_]

SECTIONS: Mapping[RoleName, str] = {"train": "dataset", "meta": "meta", "test": "test"}
MAX_VALUES_SHOWN = 10
TRUSTED_STREAM = 0x5EED


def assign_rows(document: JobDocument, sources: Sources, findings: Findings) -> dict[RoleName, Mask]:
    """Return which rows of each role's own file belong to the role.

    Without `dataset.split` every row is curated that is neither trusted nor tested on.
    """
    splits = _list_splits(document)
    table = sources.tables["train"]
    masks = _match_splits(splits, sources, findings)
    if "train" not in masks:
        taken = np.zeros(table.num_rows, dtype=np.bool_)
        for mask in masks.values():
            taken |= mask
        masks["train"] = ~taken
    if not masks["train"].any() and (table.num_rows == 0 or "train" not in splits):
        why = "no rows" if table.num_rows == 0 else "no rows besides those of meta.split and test.split"
        findings.refuse("dataset.uri", why, "rows to curate", f"dataset.uri: {table.path.name} has {why}.")
    _check_overlap(masks, splits, table.path.name, findings)
    for role, other in sources.tables.items():
        if role not in masks:
            masks[role] = np.ones(other.num_rows, dtype=np.bool_)
            if other.num_rows == 0:
                param = f"{SECTIONS[role]}.uri"
                findings.refuse(param, "no rows", "at least one row", f"{param}: {other.path.name} has no rows.")
    return masks


def choose_trusted_rows(
    labelled: Mask, codes: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.int64]:
    """Return a seeded, stratified share of the labelled rows, sorted: of each class the share, one row at least.

    `codes` are the trusted classes, -1 for none; the same arguments give the same rows everywhere.
    """
    generator = np.random.default_rng([TRUSTED_STREAM, seed])
    chosen = []
    usable = labelled & (codes >= 0)
    for code in np.unique(codes[usable]):
        rows = np.flatnonzero(usable & (codes == code))
        num_rows = max(1, round(fraction * len(rows)))
        chosen.append(generator.permutation(rows)[:num_rows])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def _list_splits(document: JobDocument) -> dict[RoleName, SplitSpec]:
    sections = {"train": document.dataset, "meta": document.meta, "test": document.test}
    splits: dict[RoleName, SplitSpec] = {}
    for role in SECTIONS:
        section = sections[role]
        if section is not None and section.split is not None:
            splits[role] = section.split
    return splits


def _match_splits(splits: Mapping[RoleName, SplitSpec], sources: Sources, findings: Findings) -> dict[RoleName, Mask]:
    parts: dict[RoleName, list[Mask]] = {role: [] for role in splits}
    present: dict[str, dict[object, None]] = {split.column: {} for split in splits.values()}
    table = sources.tables["train"]
    columns = list(present)
    for batch in table.batches(columns) if columns else ():
        for column, seen in present.items():
            if len(seen) <= MAX_VALUES_SHOWN:
                seen.update(dict.fromkeys(pc.unique(batch.column(column)).to_pylist()[: MAX_VALUES_SHOWN + 1]))
        for role, split in splits.items():
            parts[role].append(match_value(batch.column(split.column), split.value))
    masks = {role: np.concatenate([np.zeros(0, dtype=np.bool_), *found]) for role, found in parts.items()}
    for role, split in splits.items():
        if table.num_rows and not masks[role].any():
            _refuse_empty(role, split, list(present[split.column]), findings)
    return masks


def match_value(values: Array, wanted: str | int | bool) -> Mask:
    """Return where a column of text, whole numbers or booleans holds a split's value."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    plain = pc.cast(values, kind)
    if is_text_type(kind):
        scalar: pa.Scalar[pa.DataType] | None = pa.scalar(
            show(wanted) if isinstance(wanted, bool) else str(wanted), pa.string()
        )
        plain = pc.cast(plain, pa.string())
    else:
        scalar = _read_scalar(kind, wanted)
    if scalar is None:
        return np.zeros(len(values), dtype=np.bool_)
    equal: Array = pc.equal(plain, scalar)
    return np.asarray(equal.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _read_scalar(kind: pa.DataType, wanted: str | int | bool) -> "pa.Scalar[pa.DataType] | None":
    """Return the value in the column's own type, or None where that type cannot hold it."""
    if pa.types.is_boolean(kind):
        words = {"true": True, "false": False}
        value = wanted if isinstance(wanted, bool) else words.get(str(wanted).lower())
        return None if value is None else pa.scalar(value)
    if isinstance(wanted, bool) or pa.types.is_null(kind):
        return None
    try:
        return pa.scalar(int(wanted), kind)
    except (ValueError, OverflowError, pa.ArrowException):
        return None


def _refuse_empty(role: RoleName, split: SplitSpec, present: list[object], findings: Findings) -> None:
    param = f"{SECTIONS[role]}.split.value"
    values = sorted(show(value) for value in present if value is not None)
    shown = list_names(values[:MAX_VALUES_SHOWN]) if values else "no values"
    wanted = f"a value of column {split.column!r}: {shown}" + (" ..." if len(values) > MAX_VALUES_SHOWN else "")
    texts = [value for value in present if isinstance(value, str)]
    message = f"{param} is {show(split.value)}, which matches no row; wanted {wanted}."
    findings.refuse(param, show(split.value), wanted, message, find_nearest(str(split.value), texts))


def _check_overlap(
    masks: Mapping[RoleName, Mask], splits: Mapping[RoleName, SplitSpec], name: str, findings: Findings
) -> None:
    pairs: list[tuple[RoleName, RoleName]] = [("train", "meta"), ("train", "test"), ("meta", "test")]
    for first, second in pairs:
        if first not in masks or second not in splits:
            continue
        both = np.flatnonzero(masks[first] & masks[second])
        if len(both):
            param = f"{SECTIONS[second]}.split"
            seen = f"{len(both)} rows, the first is row {both[0]}"
            wanted = f"rows that {SECTIONS[first]}.split does not name"
            message = f"{param} names rows of {name} that {SECTIONS[first]}.split names too: {seen}; wanted {wanted}."
            findings.refuse(param, seen, wanted, message)
