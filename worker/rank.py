"""One of several processes of a training: `python -m worker.rank`, started by the attempt, which is rank 0.

Standard input gives the task as one line and closes when the attempt is gone; this process then ends at once. On
standard output it says when it is ready to join, or why it failed. It writes to no database.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog

from service.errors import ServiceError
from service.logging import configure_logging, get_logger
from worker.exits import DONE, FAILED, STALE
from worker.failures import describe_failure
from worker.rank_task import RankTask
from worker.stop import watch_parent

_log = get_logger(__name__)

Report = Callable[[dict[str, Any]], None]


def main() -> int:
    """Carry out the task that standard input gives."""
    report = _take_output()
    task = RankTask.read(sys.stdin.readline())
    watch_parent(STALE)
    # Threads that spin while they wait slow each other down on a busy machine; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    configure_logging(task.make_settings(), f"rank {task.rank}")
    structlog.contextvars.bind_contextvars(job_id=task.job_id, attempt=task.attempt)
    try:
        _take_part(task, report)
    except Exception as exc:  # noqa: BLE001 (the outermost guard of the rank's process)
        _log.error("rank failed", exc_info=exc)
        report({"failure": asdict(describe_failure(exc))})
        return FAILED
    return DONE


def _take_output() -> Report:
    """Keep standard output for reports; whatever else is printed goes to standard error."""
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda note: print(json.dumps(note), file=output, flush=True)


def _take_part(task: RankTask, report: Report) -> None:
    from sama_core.distributed import DistributedExchange
    from worker.checkpoints import CheckpointStore
    from worker.data.arrays import ArrayFolder
    from worker.devices import prepare_device, select_device
    from worker.phases.reading import DataRequest, load_data
    from worker.phases.training import start_method

    settings = task.make_settings()
    device = select_device(prepare_device(settings), task.rank)
    with ArrayFolder(Path(task.folder), lambda: None) as folder:
        data = load_data(DataRequest(task.document, settings, device, folder, lambda: None), [], lambda _choice: None)
        if data.fingerprint != task.fingerprint:
            raise ServiceError("bad_data", "The data changed while the job was reading it.", param="dataset.uri")
        if task.epochs is not None:
            data = replace(data, options=replace(data.options, epochs=task.epochs))
        saved = None
        if task.checkpoint_path is not None:
            saved = CheckpointStore(settings.data_dir, task.job_id, task.attempt, data.fingerprint).load(
                task.checkpoint_path
            )
        report({"ready": True})
        with DistributedExchange.from_file(Path(task.store), task.rank, task.size, device) as exchange:
            method, state = start_method(data, device, saved, exchange)
            while not method.is_done(state):
                method.step(state)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Past the interpreter's own end: a backend thread that is still about then would abort a process that has done
    # its work ("terminate called without an active exception").
    os._exit(code)
