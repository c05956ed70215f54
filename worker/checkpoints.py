"""Checkpoints of an attempt: whole on disk or not at all, and pointed at only once they are safe there.

A checkpoint is a folder `checkpoints/<job>/<attempt>/<step>` under the data directory with `state.safetensors` and
`state.json`; its path is kept relative to the data directory, so that the directory may move.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

_TENSORS = "state.safetensors"
_VALUES = "state.json"
_FORMAT = 1


class CheckpointUnusableError(Exception):
    """A checkpoint that cannot be gone on from; the message says why, in words for an event."""


@dataclass(frozen=True)
class Checkpoint:
    """A state of an attempt: `stage` says of what, `step` how far."""

    stage: str
    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one job, written by one attempt.

    `fingerprint` names everything that a checkpoint depends on; one with another fingerprint is not gone on from.
    """

    def __init__(self, data_dir: Path, job_id: str, attempt: int, fingerprint: str) -> None:
        self._data_dir = data_dir
        self._job_folder = data_dir / "checkpoints" / job_id
        self._attempt_folder = self._job_folder / str(attempt)
        self._fingerprint = fingerprint

    def save(self, checkpoint: Checkpoint) -> str:
        """Write a checkpoint and return its path relative to the data directory."""
        target = self._attempt_folder / str(checkpoint.step)
        if not target.exists():
            with _new_folder(target) as folder:
                save_file(
                    {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()},
                    folder / _TENSORS,
                )
                header = {
                    "format": _FORMAT,
                    "stage": checkpoint.stage,
                    "step": checkpoint.step,
                    "fingerprint": self._fingerprint,
                    "sha256": _digest(folder / _TENSORS),
                    "values": checkpoint.values,
                }
                (folder / _VALUES).write_text(json.dumps(header), encoding="utf-8")
        return str(target.relative_to(self._data_dir))

    def load(self, path: str) -> Checkpoint:
        """Read a checkpoint back.

        Raises:
            CheckpointUnusableError: it is gone, damaged, or of another document, data set or version.
        """
        folder = self._data_dir / path
        try:
            header = json.loads((folder / _VALUES).read_text(encoding="utf-8"))
            intact = header["format"] == _FORMAT and header["sha256"] == _digest(folder / _TENSORS)
        except FileNotFoundError as exc:
            raise CheckpointUnusableError("it is not on this machine's disk") from exc
        except (OSError, ValueError, KeyError) as exc:
            raise CheckpointUnusableError("it cannot be read") from exc
        if not intact:
            raise CheckpointUnusableError("it is damaged")
        if header["fingerprint"] != self._fingerprint:
            raise CheckpointUnusableError("the data, the software or the kind of device is no longer the same")
        return Checkpoint(header["stage"], header["step"], load_file(folder / _TENSORS), header["values"])

    def prune(self, kept: str) -> None:
        """Remove every checkpoint of the job but one. Call once the pointer to that one is committed."""
        kept_folder = self._data_dir / kept
        for attempt_folder in _list_folders(self._job_folder):
            for folder in _list_folders(attempt_folder):
                if folder != kept_folder:
                    shutil.rmtree(folder, ignore_errors=True)
            if attempt_folder != kept_folder.parent:
                shutil.rmtree(attempt_folder, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove every checkpoint of the job."""
        shutil.rmtree(self._job_folder, ignore_errors=True)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when all written into it has reached the disk."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    yield partial
    for file in partial.iterdir():
        _sync(file)
    _sync(partial)
    partial.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _list_folders(folder: Path) -> list[Path]:
    return [inner for inner in folder.iterdir() if inner.is_dir()] if folder.is_dir() else []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
