"""Tables of results. A row counts only when its attempt is the job's `result_attempt`."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base, db_now


class ChunkTable(Base):
    """An immutable run of per-example results: Arrow IPC, zstd, in row order."""

    __tablename__ = "result_chunk"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    row_start: Mapped[int] = mapped_column(BigInteger)
    num_rows: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(String(64))
    data: Mapped[bytes] = mapped_column(LargeBinary)


class PreviewTable(Base):
    """One of the examples that a page shows first: the most suspicious, the lightest, the newly labelled."""

    __tablename__ = "result_preview"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    row: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    suspicion_rank: Mapped[int] = mapped_column(Integer)
    example_id: Mapped[str] = mapped_column(Text)
    given_label: Mapped[str | None] = mapped_column(Text)
    suggested_label: Mapped[str] = mapped_column(Text)
    label_confidence: Mapped[float] = mapped_column(Float)
    noise_score: Mapped[float | None] = mapped_column(Float)
    weight: Mapped[float] = mapped_column(Float)
    score: Mapped[float | None] = mapped_column(Float)
    label: Mapped[str] = mapped_column(Text)
    corrected: Mapped[bool] = mapped_column(Boolean)
    keep: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)
    image: Mapped[bytes | None] = mapped_column(LargeBinary)
    image_type: Mapped[str | None] = mapped_column(String(32))
    influences: Mapped[list[Any]]


class InfluencesTable(Base):
    """The traced influences of a job, all in one: Arrow IPC, zstd."""

    __tablename__ = "result_influences"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    data: Mapped[bytes] = mapped_column(LargeBinary)


class ResultTable(Base):
    """What a finished job says as a whole: the summary for pages and the facts for the manifest."""

    __tablename__ = "result"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    num_rows: Mapped[int] = mapped_column(BigInteger)
    num_labelled: Mapped[int] = mapped_column(BigInteger)
    num_kept: Mapped[int] = mapped_column(BigInteger)
    summary: Mapped[dict[str, Any]]
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(Float, default=db_now())


class ExportTable(Base):
    """A file made from a finished job, addressed by the digest of its content."""

    __tablename__ = "result_export"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    file_name: Mapped[str] = mapped_column(String(64), primary_key=True)
    num_kept: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
