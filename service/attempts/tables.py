"""The table of workers: who is alive, on what, at which job."""

from sqlalchemy import Float, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base, db_now


class WorkerTable(Base):
    """One worker process, by its last heartbeat. A row too old to be alive is swept away."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    hostname: Mapped[str] = mapped_column(String(200))
    process_id: Mapped[int] = mapped_column(Integer)
    device: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(40))
    started_at: Mapped[float] = mapped_column(Float, default=db_now())
    heartbeat_at: Mapped[float] = mapped_column(Float, default=db_now())
    worked_at: Mapped[float | None] = mapped_column(Float)
