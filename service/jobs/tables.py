"""Tables of jobs: the row that is the truth, its labels, its events and metrics, and the outbox."""

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base, db_now
from service.jobs.state import JobState

# SQLite numbers rows by itself only for INTEGER keys; Postgres wants the wide type.
_WIDE_KEY = BigInteger().with_variant(Integer, "sqlite")


class JobTable(Base):
    """One request for curation. `attempt` is the fencing token: it grows by one with every claim."""

    __tablename__ = "job"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(200))
    document: Mapped[str] = mapped_column(Text)
    document_digest: Mapped[str] = mapped_column(String(80))
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)

    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    phase: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    rate: Mapped[float | None] = mapped_column(Float)
    rate_unit: Mapped[str | None] = mapped_column(String(32))
    eta_seconds: Mapped[float | None] = mapped_column(Float)

    priority: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lost_attempts: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer)
    max_seconds: Mapped[float] = mapped_column(Float)
    used_seconds: Mapped[float] = mapped_column(Float, default=0.0)
    worker_id: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[float | None] = mapped_column(Float)
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)

    checkpoint_path: Mapped[str | None] = mapped_column(Text)
    checkpoint_step: Mapped[int | None] = mapped_column(Integer)
    result_attempt: Mapped[int | None] = mapped_column(Integer)

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_hint: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[float] = mapped_column(Float, default=db_now())
    queued_at: Mapped[float] = mapped_column(Float, default=db_now())
    validating_at: Mapped[float | None] = mapped_column(Float)
    running_at: Mapped[float | None] = mapped_column(Float)
    evaluating_at: Mapped[float | None] = mapped_column(Float)
    cancelling_at: Mapped[float | None] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (
        Index(None, "state", "priority", "id"),
        Index(None, "state", "lease_expires_at"),
    )


class JobLabelTable(Base):
    """A user's key/value on a job, to filter by."""

    __tablename__ = "job_label"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))

    __table_args__ = (Index(None, "key", "value"),)


class EventTable(Base):
    """Something that happened to a job, in words. Ids grow in commit order within one job."""

    __tablename__ = "job_event"

    id: Mapped[int] = mapped_column(_WIDE_KEY, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    attempt: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Float, default=db_now())

    __table_args__ = (Index(None, "job_id", "id"),)


class MetricTable(Base):
    """One point of the training curves of a job."""

    __tablename__ = "job_metric"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    base_loss: Mapped[float | None] = mapped_column(Float)
    meta_loss: Mapped[float | None] = mapped_column(Float)
    hypergradient_norm: Mapped[float | None] = mapped_column(Float)
    effective_sample_size: Mapped[float | None] = mapped_column(Float)
    examples_per_second: Mapped[float | None] = mapped_column(Float)


class OutboxTable(Base):
    """A job still to be announced to the queue. Written with the job, deleted once the message is sent."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(_WIDE_KEY, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(Float, default=db_now())
