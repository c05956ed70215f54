"""Kills an attempt at a chosen moment. Python loads this file first where its folder is on PYTHONPATH.

SAMA_TEST_KILL_AT names moments, separated by blanks: `training:3` is the third time that the attempt says how far the
phase `training` is, `training:0` the moment at which the phase has begun. Each kills once: a file of that name in
SAMA_TEST_KILL_FOLDER says that it has happened. SAMA_TEST_KILL_WHOM is `attempt` or `worker` (and its attempt).
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_HOOKED = "worker.progress"


def strike(moment: str) -> None:
    """Kill, if this moment was chosen and has not come before."""
    if moment not in os.environ["SAMA_TEST_KILL_AT"].split():
        return
    try:
        (Path(os.environ["SAMA_TEST_KILL_FOLDER"]) / moment).touch(exist_ok=False)
    except FileExistsError:
        return
    if os.environ["SAMA_TEST_KILL_WHOM"] == "worker":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def hook(module: ModuleType) -> None:
    """Let every word about progress pass by `strike`."""
    writer = module.ProgressWriter
    enter_phase: Callable[..., None] = writer.enter_phase
    advance: Callable[..., None] = writer.advance
    counts: dict[str, int] = {}
    current = ""

    def counting_enter_phase(self: Any, phase: str, message: str) -> None:
        nonlocal current
        enter_phase(self, phase, message)
        current = str(phase)
        strike(f"{current}:0")

    def counting_advance(self: Any, *args: Any, **kwargs: Any) -> None:
        advance(self, *args, **kwargs)
        counts[current] = counts.get(current, 0) + 1
        strike(f"{current}:{counts[current]}")

    writer.enter_phase = counting_enter_phase
    writer.advance = counting_advance


class HookingLoader(importlib.abc.Loader):
    """Loads the module as it is, then hooks it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        hook(module)


class HookingFinder(importlib.abc.MetaPathFinder):
    """Finds the one module to be hooked."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _HOOKED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.loader is not None
        spec.loader = HookingLoader(spec.loader)
        return spec


if "SAMA_TEST_KILL_AT" in os.environ and "worker.attempt" in sys.orig_argv:
    sys.meta_path.insert(0, HookingFinder())
