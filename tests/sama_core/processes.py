"""Several processes of one solve, real ones, over gloo: each runs a function of a test module by name."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sama_core.distributed import DistributedExchange

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 30.0

Result = dict[str, Tensor]


class Ranks:
    """The processes of one solve, and what they wrote."""

    def __init__(self, folder: Path, task: str, size: int, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "tests.sama_core.processes", task, str(folder), str(size)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.processes = []
        for rank in range(size):
            with (folder / f"{rank}.log").open("wb") as log:
                self.processes.append(
                    subprocess.Popen(
                        [*command, str(rank), json.dumps(settings)], cwd=ROOT, env=environment, stdout=log, stderr=log
                    )
                )

    def wait(self, rank: int, seconds: float = TIMEOUT_SECONDS * 2) -> str:
        """Return a process's output once it has ended."""
        self.processes[rank].wait(seconds)
        return (self.folder / f"{rank}.log").read_text()

    def results(self) -> list[Result]:
        """Return what every process gave, once all have ended well."""
        outputs = [self.wait(rank) for rank in range(len(self.processes))]
        assert not any(process.returncode for process in self.processes), "\n".join(outputs)
        return [load_file(self.folder / f"{rank}.safetensors") for rank in range(len(self.processes))]


@contextmanager
def start_ranks(folder: Path, task: str, size: int, **settings: Any) -> Iterator[Ranks]:
    """Start processes that run a task of ``tests.sama_core.tasks``, or of another module that the settings name.

    Whatever is left at the end is killed.
    """
    ranks = Ranks(folder, task, size, settings)
    try:
        yield ranks
    finally:
        for process in ranks.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def main(task: str, folder: str, size: str, rank: str, settings: str) -> None:
    """Run a task as one of the processes."""
    options = json.loads(settings)
    tasks = import_module(options.pop("module", "tests.sama_core.tasks"))
    seconds = options.pop("timeout_seconds", TIMEOUT_SECONDS)
    path = Path(folder)
    cpu = torch.device("cpu")
    with DistributedExchange.from_file(path / "store", int(rank), int(size), cpu, seconds) as exchange:
        result: Result = getattr(tasks, task)(exchange, path, **options)
    save_file({name: tensor.contiguous() for name, tensor in result.items()}, path / f"{rank}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(0)  # as worker.rank ends: a backend thread may still be about, and would abort the interpreter's own end
