"""What Prometheus reads: requests as they were answered, and jobs and workers as they stand in the database."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.attempts.workers import WorkerRepository
from service.db.engine import Database
from service.jobs.outbox import OutboxRepository
from service.jobs.repository import JobRepository
from service.jobs.state import JobState

_KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class RequestMetrics:
    """Counts and times of HTTP requests, by route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route")
        self._requests = Counter("sama_http_requests", "Requests answered.", (*labels, "status"), registry=registry)
        self._seconds = Histogram(
            "sama_http_request_seconds", "Time to answer a request, streams included.", labels, registry=registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Book one request."""
        # Anyone may invent a method; a label for each would fill the memory.
        method = method if method in _KNOWN_METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class JobCollector(Collector):
    """Jobs by state, the length of the queue and the workers alive, read when asked for."""

    def __init__(self, database: Database, silent_seconds: float) -> None:
        self._database = database
        self._silent_seconds = silent_seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges as the database has them now."""
        with self._database.read() as session:
            counts = JobRepository(session).count_states()
            queued = OutboxRepository(session).count_queued()
            workers = WorkerRepository(session).list_alive(self._silent_seconds)
        jobs = GaugeMetricFamily("sama_jobs", "Jobs in each state.", labels=("state",))
        for state in JobState:
            jobs.add_metric((state,), counts.get(state, 0))
        yield jobs
        yield GaugeMetricFamily("sama_queue_depth", "Jobs that wait for a worker.", queued)
        yield GaugeMetricFamily("sama_workers_alive", "Workers heard of within a lease.", len(workers))
        busy = sum(worker.job_id is not None for worker in workers)
        yield GaugeMetricFamily("sama_workers_busy", "Workers that hold a job.", busy)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: registering must not ask the database."""
        yield from ()
