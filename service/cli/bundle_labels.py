"""Whether labels, and what rows are worth under them, agree with themselves, the manifest and the soft labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.client.bundle_listing import SOFT_LABELS_FILE
from service.client.downloads import digest_file
from service.errors import Problem

LABEL_COLUMNS = ("given_label", "suggested_label", "label", "corrected", "keep")
WORTH_COLUMNS = ("given_label", "corrected", "weight", "score", "given_weight", "given_score")
_ROUNDING = 1e-3

Flags = npt.NDArray[np.bool_]


def check_labels(directory: Path, manifest: dict[str, Any], rows: pa.Table) -> Iterator[Problem]:
    """Yield what does not agree; `rows` holds LABEL_COLUMNS."""
    columns = {name: rows.column(name).to_pylist() for name in LABEL_COLUMNS}
    given, suggested, label = (
        np.asarray(columns[name], dtype=object) for name in ("given_label", "suggested_label", "label")
    )
    corrected, keep = (np.asarray(columns[name], dtype=np.bool_) for name in ("corrected", "keep"))
    has_label, was_given = label != None, given != None  # noqa: E711 (element by element)
    faults: dict[str, Flags] = {
        "has a label that is not the given one, yet is not marked as corrected": ~corrected & (label != given),
        "is marked as corrected, yet its label is the given one": corrected & (label == given),
        "is marked as corrected, yet its label is not the suggested one": corrected & (label != suggested),
        "is kept without a label": keep & ~has_label,
    }
    yield from _tell(faults)
    counts = {"num_corrected": int((corrected & was_given).sum()), "num_labelled": int((corrected & ~was_given).sum())}
    yield from _check_counts(manifest.get("relabel"), counts)
    yield from _check_soft_labels(directory, manifest.get("relabel"), label, corrected)


def check_worth(rows: pa.Table) -> Iterator[Problem]:
    """Yield where a row whose label is the given one is worth something else under it; `rows` holds WORTH_COLUMNS."""
    given, corrected = (rows.column(name) for name in ("given_label", "corrected"))
    was_given, unchanged = given.is_valid().to_numpy(), ~corrected.to_numpy().astype(np.bool_)
    weight, score, given_weight, given_score = (
        rows.column(name).to_numpy().astype(np.float64) for name in WORTH_COLUMNS[2:]
    )
    same = was_given & unchanged
    scale = given_weight[same].sum() / max(weight[same].sum(), np.finfo(np.float64).tiny)
    faults: dict[str, Flags] = {
        "has a worth under a given label, yet no label was given": ~was_given
        & ~(np.isnan(given_weight) & np.isnan(given_score)),
        "has another score under its given label, yet that is its label": same & (score != given_score),
        "has another weight under its given label, yet that is its label": same
        & ~np.isclose(given_weight, weight * scale, rtol=_ROUNDING, atol=_ROUNDING),
    }
    yield from _tell(faults)


def _tell(faults: dict[str, Flags]) -> Iterator[Problem]:
    """Yield one problem for each kind of fault, with the first row that has it."""
    for words, where in faults.items():
        if where.any():
            message = f"rows.parquet: row {int(where.argmax())} {words}."
            yield _refuse("rows.parquet", words, "columns that agree", message)


def _check_counts(relabel: Any, counts: dict[str, int]) -> Iterator[Problem]:
    told = relabel if isinstance(relabel, dict) else dict.fromkeys(counts, 0)
    for name, count in counts.items():
        if told.get(name) != count:
            message = f"manifest.json says {name} is {told.get(name)}; rows.parquet has {count}."
            yield _refuse("manifest.json", str(told.get(name)), str(count), message)


def _check_soft_labels(directory: Path, relabel: Any, label: npt.NDArray[Any], corrected: Flags) -> Iterator[Problem]:
    path = directory / SOFT_LABELS_FILE
    described = relabel.get("soft_labels") if isinstance(relabel, dict) else None
    if not isinstance(described, dict):
        if path.exists():
            message = f"{SOFT_LABELS_FILE} is there, but manifest.json tells of no soft labels."
            yield _refuse(SOFT_LABELS_FILE, "a file", "none", message)
        return
    if not path.is_file() or digest_file(path) != described.get("sha256"):
        message = f"{SOFT_LABELS_FILE} is not the file that manifest.json tells of under relabel."
        yield _refuse(SOFT_LABELS_FILE, "another file", str(described.get("sha256")), message)
        return
    try:
        soft = np.load(path)
    except (OSError, ValueError) as exc:
        message = f"{SOFT_LABELS_FILE} cannot be read as an array."
        yield _refuse(SOFT_LABELS_FILE, str(exc), "an array", message)
        return
    classes = relabel.get("class_order") or []
    wanted = (len(label), len(classes))
    if soft.dtype != np.float32 or soft.shape != wanted:
        seen = f"{soft.dtype} of shape {soft.shape}"
        message = f"{SOFT_LABELS_FILE} is {seen}; wanted float32 of shape {wanted}."
        yield _refuse(SOFT_LABELS_FILE, seen, f"float32 of shape {wanted}", message)
    elif not _agrees(soft, classes, label, corrected):
        message = f"{SOFT_LABELS_FILE} does not agree with rows.parquet."
        yield _refuse(SOFT_LABELS_FILE, "other labels", "those of rows.parquet", message)


def _agrees(soft: npt.NDArray[np.float32], classes: list[Any], label: npt.NDArray[Any], corrected: Flags) -> bool:
    """Tell whether rows with a label have probabilities, others zeros, and a corrected label is the likeliest."""
    has_label = np.array([value is not None for value in label], dtype=np.bool_)
    if np.abs(soft.sum(axis=1, dtype=np.float64) - has_label).max(initial=0.0) > _ROUNDING:
        return False
    places = {value: code for code, value in enumerate(classes)}
    codes = np.array([places.get(value, -1) for value in label[corrected]], dtype=np.int64)
    if (codes < 0).any():
        return False
    likeliest = soft[corrected].max(axis=1, initial=0.0)
    return bool((soft[corrected, codes] >= likeliest - _ROUNDING).all())


def _refuse(param: str, seen: str, wanted: str, message: str) -> Problem:
    return Problem(param=param, seen=seen, wanted=wanted, message=message)
