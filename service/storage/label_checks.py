"""Whether the labels of the curated, the trusted and the test rows can be learnt from and judged by."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.jobs.document import META_FREE_BASELINES, JobDocument
from service.jobs.document_names import list_names, show
from service.storage.findings import Findings
from service.storage.labels import LabelColumn, LabelMap
from service.storage.sources import RoleName

MAX_CLASSES_NAMED = 10
_FEW_CLASSES = 100

Codes = npt.NDArray[np.int64]
RowsOf = {"train": "curated rows", "meta": "meta set", "test": "test rows"}


def check_label_column(param: str, name: str, where: str, column: LabelColumn, findings: Findings) -> bool:
    """Refuse a column with fractions, naming the first; note one of whole decimals; tell whether it holds labels."""
    wanted = "whole numbers or text"
    if column.first_fraction is not None:
        row, value = column.first_fraction
        seen = f"{value:g} in row {row}"
        message = (
            f"{param} is {name!r}, a column of decimals (type {column.given_type}) in {where}: {seen}; wanted {wanted}."
        )
        findings.refuse(param, seen, wanted, message)
        return False
    if column.is_float and column.classes:
        note = (
            f"Column {name!r} of {where} is of decimals (type {column.given_type}), all whole: read as whole numbers."
        )
        if note not in findings.notes:
            findings.notes.append(note)
    return True


def check_types(params: Mapping[RoleName, str], columns: Mapping[RoleName, LabelColumn], findings: Findings) -> bool:
    """Refuse trusted or test labels of another type than the given ones; tell whether all agree."""
    given, agree = columns["train"], True
    for role, column in columns.items():
        if column.type != given.type and column.classes and given.classes:
            wanted = f"{_name_type(given.type)}, as in {params['train']}"
            seen = _name_type(column.type)
            message = f"{params[role]}: the labels of the {RowsOf[role]} are {seen}; wanted {wanted}."
            findings.refuse(params[role], seen, wanted, message)
            agree = False
    return agree


def check_classes(
    document: JobDocument, label_map: LabelMap, codes: Mapping[RoleName, Codes], findings: Findings
) -> None:
    """Check what the roles' labels hold: two classes at least, a meta set that knows them all, test labels known."""
    params: dict[RoleName, str] = list_label_params(document)
    _check_given(params["train"], label_map, codes["train"], findings)
    if "meta" in codes:
        _check_meta(document, params["meta"], label_map, codes, findings)
    if "test" in codes and not (codes["test"] >= 0).any():
        wanted = "labelled test rows"
        findings.refuse("test", "no labelled row", wanted, f"test: none of its rows has a label; wanted {wanted}.")


def check_unknown(param: str, column: LabelColumn, label_map: LabelMap, findings: Findings) -> None:
    """Refuse test labels that no curated and no trusted row bears: nothing could ever predict them."""
    known = set(label_map.values)
    unknown = [value for value in column.classes if value not in known]
    if unknown and known:
        seen = _list_values(unknown)
        wanted = f"labels that the curated rows bear: {_list_values(label_map.values)}"
        message = f"{param}: the test rows bear the label {seen}, which no curated row bears; wanted {wanted}."
        findings.refuse(param, seen, wanted, message)


def list_label_params(document: JobDocument) -> dict[RoleName, str]:
    """Return the field of the document that names each role's label column."""
    meta = "meta.label" if document.meta is not None and document.meta.label else "dataset.label"
    test = "test.label" if document.test is not None and document.test.label else "dataset.label"
    return {"train": "dataset.label", "meta": meta, "test": test}


def count_classes(codes: Codes, num_classes: int) -> list[int]:
    """Return how many rows bear each class."""
    return [int(count) for count in np.bincount(codes[codes >= 0], minlength=num_classes)]


def _check_given(param: str, label_map: LabelMap, codes: Codes, findings: Findings) -> None:
    labelled = codes[codes >= 0]
    present = np.unique(labelled)
    wanted = "at least two classes"
    if len(codes) and len(labelled) == 0:
        message = f"{param}: none of the {len(codes):,} curated rows has a label; wanted {wanted}."
        findings.refuse(param, "no labelled row", wanted, message)
    elif len(present) == 1:
        seen = f"one class only, {show(label_map.values[present[0]])}"
        aside = " Rows labelled -1 count as unlabelled." if len(labelled) < len(codes) else ""
        findings.refuse(param, seen, wanted, f"{param}: the curated rows bear {seen}; wanted {wanted}.{aside}")
    elif len(present) > max(_FEW_CLASSES, len(labelled) // 2):
        seen = f"{len(present):,} different labels in {len(labelled):,} rows"
        wanted = "labels that repeat"
        findings.refuse(param, seen, wanted, f"{param}: there are {seen}, as in a column of ids; wanted {wanted}.")


def _check_meta(
    document: JobDocument, param: str, label_map: LabelMap, codes: Mapping[RoleName, Codes], findings: Findings
) -> None:
    trusted = codes["meta"][codes["meta"] >= 0]
    if len(trusted) == 0:
        wanted = "at least one trusted example of each class"
        spec = document.meta
        name = document.dataset.label if spec is None or spec.label is None else spec.label
        is_share = spec is not None and spec.fraction is not None  # drawn from the rows with a label in both columns
        asked = f"the {len(codes['train']):,} curated rows" if is_share else f"its {len(codes['meta']):,} rows"
        message = (
            f"meta: the meta set is empty, since none of {asked} has a label in {name!r} ({param}); wanted {wanted}."
        )
        findings.refuse("meta", "an empty meta set", wanted, message)
        return
    given = np.unique(codes["train"][codes["train"] >= 0])
    absent = [label_map.values[code] for code in np.setdiff1d(given, trusted)]
    if absent:
        seen = f"no example of class {_list_values(absent)}"
        wanted = "at least one trusted example of each class"
        message = f"meta: the meta set has {seen}, so nothing could judge those rows; wanted {wanted}."
        if document.method.name in META_FREE_BASELINES:
            findings.notes.append(f"The meta set has {seen}.")
        else:
            findings.refuse("meta", seen, wanted, f"{message} Use meta.fraction, or a baseline such as aum.")
    extra = [label_map.values[code] for code in np.setdiff1d(trusted, given)]
    if extra:
        findings.notes.append(
            f"No curated row bears the trusted class {_list_values(extra)}; it is a class all the same."
        )


def _list_values(values: list[int | str] | tuple[int | str, ...]) -> str:
    shown = [show(value) for value in values[:MAX_CLASSES_NAMED]]
    rest = len(values) - len(shown)
    return f"{', '.join(shown)} and {rest} more" if rest else list_names(shown).replace(" or ", " and ")


def _name_type(kind: pa.DataType) -> str:
    return "text" if kind == pa.string() else "whole numbers"
