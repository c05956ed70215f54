"""The job document as it stands in a file, with what the command line changes in it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from service.errors import ServiceError
from service.jobs.document import JobDocument, anchor_uris, parse_value, read_document, set_field

STANDARD_INPUT = "-"
_MAX_BYTES = 1 << 20


def load_spec(name: str, changes: Sequence[str]) -> dict[str, Any]:
    """Read a job document and apply the `--set` changes; relative paths in it are left as they are.

    Raises:
        ServiceError: `file_not_found`, `invalid_document` or `invalid_option`.
    """
    data = read_document(_read_bytes(name))
    if not isinstance(data, dict):
        raise ServiceError(
            "invalid_document", f"{name} holds no job document; wanted fields such as dataset, meta and task."
        )
    for change in changes:
        path, separator, text = change.partition("=")
        if not separator or not path.strip():
            raise ServiceError("invalid_option", f"--set is {change!r}; wanted FIELD=VALUE, as in training.epochs=5.")
        set_field(data, path.strip(), parse_value(text))
    return data


def anchor_spec(data: dict[str, Any], name: str) -> None:
    """Make relative paths start at the folder of the document's file (standard input: the current folder)."""
    anchor_uris(data, _find_folder(name))


def anchor_existing(data: dict[str, Any], name: str) -> None:
    """Anchor each relative path whose file exists here; the others are left for the server to find."""
    folder = _find_folder(name)
    for section in ("dataset", "meta", "test"):
        fields = data.get(section)
        if isinstance(fields, dict) and isinstance(fields.get("uri"), str) and "://" not in fields["uri"]:
            path = folder / fields["uri"]
            if path.exists():
                fields["uri"] = str(path)


def list_data_folders(document: JobDocument) -> list[Path]:
    """Return the folders of the files that a document names: what an embedded service may read."""
    sections = (document.dataset, document.meta, document.test)
    uris = [section.uri for section in sections if section is not None and section.uri is not None]
    folders = [read_path(uri).parent for uri in uris]
    if document.model.name.startswith("hf:"):
        folders.append(Path(document.model.name.removeprefix("hf:")))
    return sorted({folder.resolve() for folder in folders})


def _find_folder(name: str) -> Path:
    return Path.cwd() if name == STANDARD_INPUT else Path(name).resolve().parent


def read_path(uri: str) -> Path:
    """Return the local path that a URI of a document or of `--data` names."""
    return Path(unquote(urlsplit(uri).path)) if uri.lower().startswith("file://") else Path(uri)


def _read_bytes(name: str) -> bytes:
    if name == STANDARD_INPUT:
        text = sys.stdin.buffer.read(_MAX_BYTES + 1)
    else:
        try:
            with Path(name).open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
        except OSError as exc:
            code = "file_not_found" if isinstance(exc, FileNotFoundError) else "file_not_readable"
            raise ServiceError(code, f"The job document {name!r} cannot be read: {exc.strerror}.") from exc
    if len(text) > _MAX_BYTES:
        raise ServiceError("invalid_document", f"{name} is larger than {_MAX_BYTES:,} bytes; wanted a job document.")
    return text
