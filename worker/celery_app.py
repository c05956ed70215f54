"""Celery: one task without arguments, `worker.look`, which means "look at the job table"."""

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_shutting_down

QUEUE = "sama.look"
_TASK = "worker.look"
_CONNECT_SECONDS = 5.0
_HEALTH_CHECK_SECONDS = 10


def make_app(broker_url: str, look: Callable[[], None]) -> Celery:
    """Return the Celery application whose only task calls `look`."""
    app = Celery("sama", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        # A hint carries no work: lost or doubled, it does no harm, so it is acknowledged at once and never retried.
        task_acks_late=False,
        task_ignore_result=True,
        task_publish_retry=False,
        task_serializer="json",
        accept_content=["json"],
        # A busy worker leaves hints to those that are free.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Redis may go away and come back as often as it likes; a running attempt does not depend on it.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_CONNECT_SECONDS,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options={
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK_SECONDS,
            "retry_on_timeout": True,
            "max_retries": 1,
        },
    )

    def take_hint() -> None:
        look()  # through a plain function: Celery counts the `self` of a bound method as an argument

    app.task(name=_TASK, shared=False)(take_hint)
    return app


class CeleryHintQueue:
    """Hints as Celery messages."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self) -> None:
        """Send one hint; raises if the broker does not take it."""
        self._app.tasks[_TASK].apply_async(retry=False)

    def count(self) -> int:
        """Return how many hints wait to be taken."""
        with self._app.connection_for_write() as connection:
            declared = connection.default_channel.queue_declare(queue=QUEUE, durable=True, auto_delete=False)
            return int(declared.message_count)


def run_celery(app: Celery, hostname: str, stop: Callable[[], None]) -> int:
    """Consume hints until SIGTERM or SIGINT; `stop` is called as soon as the signal arrives.

    Returns the exit code that Celery wants: not 0 where it gave up.
    """

    def on_shutdown(**_: Any) -> None:
        stop()

    def keep_logging(**_: Any) -> None:
        """Leave the logging as it is: a receiver of this signal is how Celery is told so."""

    worker_shutting_down.connect(on_shutdown)
    setup_logging.connect(keep_logging)
    consumer = app.Worker(
        hostname=hostname,
        pool="threads",
        concurrency=1,
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    consumer.start()
    return int(consumer.exitcode or 0)
