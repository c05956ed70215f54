"""Paths that a document may name: real files inside the allowed folders, opened without following links."""

import io
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.storage.faults import DataError

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_OUTSIDE_HINT = "Allowed folders are set by SAMA_DATA_ROOTS."


def resolve_path(uri: str, roots: Sequence[Path], *, param: str = "dataset.uri") -> Path:
    """Return the real path of the regular file that `uri` names; a relative path starts at an allowed folder.

    Raises:
        DataError: `path_not_allowed`, `file_not_found` or `not_a_file`. What lies outside of the allowed
            folders is refused alike whether it exists or not.
    """
    path = _resolve_inside(uri, roots, param)
    if not stat.S_ISREG(_read_mode(path, uri, param)):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise DataError("not_a_file", f"{param} is {uri!r}, which is {kind}; wanted a file.", param=param)
    return path


def resolve_folder(uri: str, roots: Sequence[Path], *, param: str) -> Path:
    """Return the real path of the folder that `uri` names, inside the allowed folders.

    Raises:
        DataError: `path_not_allowed`, `file_not_found` or `not_a_folder`.
    """
    path = _resolve_inside(uri, roots, param)
    if not stat.S_ISDIR(_read_mode(path, uri, param)):
        raise DataError("not_a_folder", f"{param} is {uri!r}, which is no folder; wanted a folder.", param=param)
    return path


def open_readonly(path: Path) -> io.BufferedReader:
    """Open a real path for reading, component by component, so that a link put there meanwhile is not followed.

    Raises:
        OSError: some part of the path is missing, is a link, or may not be read.
    """
    parts = path.parts
    folder = os.open(parts[0], os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[1:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Without O_NONBLOCK a named pipe put in the file's place would hold the process for ever.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(f"{path.name} is no regular file")
    return os.fdopen(file, "rb")


def _resolve_inside(uri: str, roots: Sequence[Path], param: str) -> Path:
    given = _parse_uri(uri, param)
    real_roots = [root.resolve() for root in roots]
    starts = [given] if given.is_absolute() else [root / given for root in real_roots]
    inside = [real for real in map(_resolve, starts) if any(real.is_relative_to(root) for root in real_roots)]
    if not inside:
        message = f"{param} is {uri!r}, which lies outside of the allowed folders."
        raise DataError("path_not_allowed", message, param=param, hint=_OUTSIDE_HINT)
    return next((path for path in inside if path.exists()), inside[0])


def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        # A loop of links has no real path: the empty one lies in no allowed folder.
        return Path()


def _parse_uri(uri: str, param: str) -> Path:
    text = uri
    if _SCHEME.match(uri):
        parts = urlsplit(uri)
        if parts.scheme.lower() != "file" or parts.netloc not in {"", "localhost"}:
            message = f"{param} is {uri!r}; available: a local path or file:///absolute/path."
            raise DataError("path_not_allowed", message, param=param)
        text = unquote(parts.path)
    if not text or "\0" in text:
        raise DataError("path_not_allowed", f"{param} is {uri!r}, which is no path.", param=param)
    return Path(text)


def _read_mode(path: Path, uri: str, param: str) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise DataError("file_not_found", f"{param} is {uri!r}: there is no such file.", param=param) from exc
    except OSError as exc:
        raise DataError("file_not_found", f"{param} is {uri!r}, which cannot be opened.", param=param) from exc
