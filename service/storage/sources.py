"""The files a document names, opened, and the columns that must stand in each of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from service.errors import ServiceError
from service.jobs.document import JobDocument
from service.jobs.document_names import find_nearest, list_names
from service.storage.findings import Findings
from service.storage.inputs import (
    DataLimits,
    InputColumns,
    check_columns,
    choose_inputs,
    find_feature_kind,
    is_text_type,
)
from service.storage.labels import find_label_type
from service.storage.roots import resolve_path
from service.storage.tables import AbstractTableSource, open_table
from service.storage.votes import WANTED_TYPES, holds_votes

RoleName = Literal["train", "meta", "test"]


@dataclass(frozen=True, slots=True)
class Sources:
    """The opened files by role, and the input columns of all of them. Roles may share one file."""

    tables: dict[RoleName, AbstractTableSource]
    uris: dict[RoleName, str]
    inputs: InputColumns


@dataclass(frozen=True, slots=True)
class _Need:
    """A column that a field of the document asks of a file, and what it must hold."""

    param: str
    column: str
    holds: Literal["input", "label", "id", "source", "split", "votes", "vote list"]


def open_sources(document: JobDocument, limits: DataLimits, findings: Findings) -> Sources | None:
    """Open every file of the document and check its columns; None where something keeps the data from being read."""
    uris = list_uris(document)
    opened: dict[str, AbstractTableSource | None] = {}
    params = {"train": "dataset.uri", "meta": "meta.uri", "test": "test.uri"}
    for role, uri in uris.items():
        if uri in opened:
            continue
        try:
            path = resolve_path(uri, limits.data_roots, param=params[role])
            opened[uri] = open_table(path, max_bytes=limits.max_dataset_bytes, param=params[role])
        except ServiceError as exc:
            findings.refuse_error(exc, params[role], repr(uri))
            opened[uri] = None
    tables = {role: table for role, uri in uris.items() if (table := opened[uri]) is not None}
    if "train" not in tables:
        return None
    inputs = choose_inputs(document, tables["train"].schema)
    for role, table in tables.items():
        _check_needs(list(_list_needs(document, inputs, role)), table, findings)
        if role == "train" or table is not tables["train"]:
            check_columns(inputs, table.schema, table.path.name, findings)
    return Sources(tables, uris, inputs) if findings.is_clean else None


def list_uris(document: JobDocument) -> dict[RoleName, str]:
    """Return the file that each role's rows lie in; the trusted rows have none where they are a share, or the same."""
    uris: dict[RoleName, str] = {"train": document.dataset.uri}
    if document.meta is not None and (document.meta.split is not None or document.meta.uri is not None):
        uris["meta"] = document.meta.uri or document.dataset.uri
    if document.test is not None:
        uris["test"] = document.test.uri or document.dataset.uri
    return uris


def _list_needs(document: JobDocument, inputs: InputColumns, role: RoleName) -> Iterator[_Need]:
    dataset, meta, test = document.dataset, document.meta, document.test
    for name in inputs.names:
        yield _Need(f"dataset.{inputs.kind}", name, "input")
    meta_need = _Need(
        "meta.label" if meta is not None and meta.label else "dataset.label", document.meta_label, "label"
    )
    if role == "meta":
        yield meta_need
    elif role == "test":
        param = "test.label" if test is not None and test.label else "dataset.label"
        yield _Need(param, document.test_label, "label")
    else:
        yield _Need("dataset.label", dataset.label, "label")
        if meta is not None and meta.fraction is not None and meta.label is not None:
            yield meta_need
        if dataset.id is not None:
            yield _Need("dataset.id", dataset.id, "id")
        if dataset.source is not None:
            yield _Need("dataset.source", dataset.source, "source")
        for name in dataset.votes or ():
            yield _Need("dataset.votes", name, "vote list" if len(dataset.votes or ()) == 1 else "votes")
        for section, spec in (("dataset", dataset), ("meta", meta), ("test", test)):
            if spec is not None and spec.split is not None:
                yield _Need(f"{section}.split.column", spec.split.column, "split")


def _check_needs(needs: list[_Need], table: AbstractTableSource, findings: Findings) -> None:
    names = table.schema.names
    for need in needs:
        if need.column not in names:
            wanted = f"a column of {table.path.name}: {list_names(names[:20])}" + (" ..." if len(names) > 20 else "")
            message = f"{need.param} is {need.column!r}, which is no column of {table.path.name}; wanted {wanted}."
            findings.refuse(need.param, repr(need.column), wanted, message, find_nearest(need.column, names))
            continue
        kind = table.schema.field(need.column).type
        fits, wanted = _judge(need, table.schema.field(need.column))
        if not fits:
            message = f"{need.param} is {need.column!r}, a column of type {kind} in {table.path.name}; wanted {wanted}."
            findings.refuse(need.param, f"{need.column!r} of type {kind}", wanted, message)


def _judge(need: _Need, column: "pa.Field[pa.DataType]") -> tuple[bool, str]:
    if need.holds == "label":
        return find_label_type(column.type) is not None and find_feature_kind(
            column
        ) is not None, "whole numbers or text"
    if need.holds == "id":
        inner = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        return pa.types.is_integer(inner) or is_text_type(inner), "whole numbers or text"
    if need.holds in {"source", "split"}:
        return find_feature_kind(column) is not None, "text, whole numbers, or true and false"
    if need.holds in {"votes", "vote list"}:
        return holds_votes(column, alone=need.holds == "vote list"), WANTED_TYPES
    return True, ""
