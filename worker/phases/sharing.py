"""Sharing a training among several devices: one process each, this one being the first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sama_core.distributed import DistributedExchange
from sama_core.errors import ExchangeError
from sama_core.exchange import AbstractExchange, Alone
from worker.checkpoints import Checkpoint
from worker.context import AttemptContext
from worker.devices import count_devices, select_device
from worker.phases.reading import JobData
from worker.rank_group import RankGroup
from worker.rank_task import RankTask, choose_settings

# The processes of a job are on one machine and talk to nobody else.
_LOCAL_INTERFACE = "lo"


@contextmanager
def share_training(context: AttemptContext, data: JobData, saved: Checkpoint | None) -> Iterator[AbstractExchange]:
    """Return the context in which the document's devices, or those there are, share the training.

    Raises:
        RankError: another process has failed, or is gone.
    """
    wanted = context.document.resources.devices
    size = min(wanted, count_devices(context.device))
    if wanted > 1:
        fewer = f"; {wanted} were asked for, this worker has {size}" if size < wanted else ""
        context.progress.add_event("devices", f"training on {size} device{'s' if size > 1 else ''}{fewer}")
    if size == 1:
        yield Alone()
        return
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, _LOCAL_INTERFACE)
    num_threads = torch.get_num_threads()
    tasks = _make_tasks(context, data, saved, size)
    with RankGroup(tasks) as ranks:
        try:
            ranks.await_ready(context.stop.check)
            torch.set_num_threads(max(1, num_threads // size))
            with _join(tasks[0], context) as exchange:
                yield exchange
                ranks.finish()
        except ExchangeError as exc:
            raise ranks.explain() from exc
        finally:
            torch.set_num_threads(num_threads)


def _make_tasks(context: AttemptContext, data: JobData, saved: Checkpoint | None, size: int) -> list[RankTask]:
    claim, folder = context.claim, context.folder.path.resolve()
    num_threads = max(1, torch.get_num_threads() // size)
    settings = choose_settings(context.settings, context.device.type, num_threads)
    # A training that begins anew with fewer epochs leaves what its first ranks made where it is.
    suffix = "" if data.cut is None else f"-{data.cut.epochs}"
    return [
        RankTask(
            job_id=claim.job_id,
            attempt=claim.attempt,
            document=claim.document,
            fingerprint=data.fingerprint,
            checkpoint_path=claim.checkpoint_path if saved is not None else None,
            folder=str(folder / f"rank-{rank}{suffix}"),
            store=str(folder / f"ranks{suffix}"),
            rank=rank,
            size=size,
            settings=settings,
            epochs=data.options.epochs,
        )
        for rank in range(1, size)
    ]


def _join(task: RankTask, context: AttemptContext) -> DistributedExchange:
    return DistributedExchange.from_file(Path(task.store), 0, task.size, select_device(context.device, 0))
