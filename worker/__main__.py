"""The worker's process: `python -m worker`, also `sama worker`.

Without a broker it polls the job table. With one it consumes Celery's hints, and still looks at the table now and
then, so that a broker that forgets or a consumer that falls deaf delays a job but never loses it.

This process never loads torch: attempts run in processes of their own.
"""

import signal
import sys
from queue import SimpleQueue
from types import FrameType

from service.db.engine import Database, create_database
from service.logging import configure_logging, get_logger
from service.settings import Settings
from worker.announcer import Announcer
from worker.celery_app import CeleryHintQueue, make_app, run_celery
from worker.identity import make_identity
from worker.loop import Worker
from worker.periodic import PeriodicThread
from worker.sweeper import Sweeper

_log = get_logger(__name__)


def run_polling(worker: Worker, settings: Settings) -> int:
    """Poll the job table until SIGTERM or SIGINT; a second SIGINT ends the process at once."""
    signals: SimpleQueue[int] = SimpleQueue()

    def receive(number: int, _frame: FrameType | None) -> None:
        signals.put(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receive)
    with PeriodicThread("polling", settings.poll_seconds, worker.work, join_seconds=None):
        signals.get()
        worker.stop()
    return 0


def run_on_hints(worker: Worker, database: Database, settings: Settings, broker_url: str, name: str) -> int:
    """Work on hints from the broker until SIGTERM or SIGINT; returns Celery's exit code."""
    app = make_app(broker_url, worker.work)
    announcer = Announcer(database, CeleryHintQueue(app))
    with (
        PeriodicThread("announcing", settings.poll_seconds, announcer.send_new),
        PeriodicThread("announcing again", settings.sweep_seconds, announcer.repeat_lost),
        PeriodicThread("looking without a hint", settings.sweep_seconds, worker.work, join_seconds=None),
    ):
        try:
            return run_celery(app, name, worker.stop)
        finally:
            worker.stop()


def main() -> int:
    """Run a worker with the settings of the environment and return its exit code."""
    settings = Settings()
    configure_logging(settings, "worker")
    identity = make_identity(settings)
    database = create_database(settings)
    worker = Worker(database, settings, identity)
    sweeper = Sweeper(database, identity.hostname)
    _log.info("worker started", worker=identity.id, device=identity.device)
    try:
        with worker, PeriodicThread("sweeping", settings.sweep_seconds, sweeper.sweep):
            if settings.broker_url is None:
                exit_code = run_polling(worker, settings)
            else:
                broker_url = settings.broker_url.get_secret_value()
                exit_code = run_on_hints(worker, database, settings, broker_url, identity.id)
    finally:
        database.dispose()
    _log.info("worker stopped", worker=identity.id, exit_code=exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
