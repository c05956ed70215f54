"""Processes that carry out units: a fresh one for each, a few at a time."""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from benchmarks.quality.unit import Unit, Workplace, carry_out

OnDone = Callable[[Unit, dict[str, Any]], None]


class Crew:
    """Carries out units.

    A fresh process for each: its peak memory is its own, and one that is killed takes no other with it.

    Args:
        place: for all of them.
        workers: processes at a time.
    """

    def __init__(self, place: Workplace, workers: int) -> None:
        self._place, self._workers = place, workers
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(place.threads)
        self._context = multiprocessing.get_context("forkserver")
        # what takes long to import is not a cost of the method that is the first to need it
        self._context.set_forkserver_preload(["benchmarks.quality.unit", "cleanlab.filter", "cleanlab.rank"])
        self._running: set[BaseProcess] = set()

    def carry_out(self, units: Sequence[Unit], on_done: OnDone) -> None:
        """Carry out all units; ``on_done`` hears of each in this thread, with its figures or its error."""
        with ThreadPoolExecutor(self._workers) as pool:
            futures = {pool.submit(self._work, unit): unit for unit in units}
            try:
                for future in as_completed(futures):
                    on_done(futures[future], future.result())
            finally:  # nothing is left to cancel or to kill, unless it was interrupted
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._running):
                    process.kill()

    def _work(self, unit: Unit) -> dict[str, Any]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_serve, args=(theirs, unit, self._place))
        started = time.monotonic()
        process.start()
        self._running.add(process)
        theirs.close()
        try:
            figures: dict[str, Any] = ours.recv()
        except EOFError:
            process.join()
            figures = {"error": f"the process ended with exit code {process.exitcode}"}
        process.join()
        self._running.discard(process)
        return {**figures, "wall_seconds": time.monotonic() - started}


def _serve(connection: Connection, unit: Unit, place: Workplace) -> None:
    try:
        figures = carry_out(unit, place)
    except Exception as exc:  # noqa: BLE001 - whatever goes wrong in a unit is a result of it, and shown
        traceback.print_exc()
        figures = {"error": f"{type(exc).__name__}: {exc}"}
    connection.send(figures)
    connection.close()
