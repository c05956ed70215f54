"""Small data sets, jobs over them, and attempts run in this very process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim
from service.db.engine import Database
from service.jobs.document import canonical_json, document_digest, parse_document
from service.jobs.repository import JobRepository, NewJob
from service.results.rows import decode_chunk
from service.results.tables import ChunkTable, PreviewTable, ResultTable
from service.settings import Settings
from worker.attempt import run_attempt
from worker.stop import StopFlag

# What does not touch the database differently is looked at on one of the two kinds alone.
sqlite_alone = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NUM_TRAIN, NUM_META, NUM_TEST = 120, 24, 40


def write_points(path: Path, *, num_unlabelled: int = 0) -> Path:
    """Write points of two classes; every fifth curated label is wrong, the first `num_unlabelled` are missing."""
    generator = np.random.default_rng(0)
    num_rows = NUM_TRAIN + NUM_META + NUM_TEST
    label = generator.integers(0, 2, num_rows)
    first = generator.normal(size=num_rows) + 3.0 * label
    second = [None if row % 11 == 0 else float(value) for row, value in enumerate(generator.normal(size=num_rows))]
    given: list[int | None] = [int(1 - k) if row % 5 == 0 else int(k) for row, k in enumerate(label)]
    given[:num_unlabelled] = [None] * num_unlabelled
    table = pa.table(
        {
            "id": [f"p{row}" for row in range(num_rows)],
            "first": first,
            "second": second,
            "colour": [("red", "blue", None)[row % 3] for row in range(num_rows)],
            "given": pa.array(given, pa.int64()),
            "label": pa.array(label, pa.int64()),
            "source": [("web", "mail")[row % 2] for row in range(num_rows)],
            "split": ["train"] * NUM_TRAIN + ["meta"] * NUM_META + ["test"] * NUM_TEST,
        }
    )
    pq.write_table(table, path)
    return path


def make_document(path: Path, **sections: Any) -> dict[str, Any]:
    """Return a job document over such points; each section given replaces the usual one, None leaves it out.

    `evaluation` None is no evaluation.
    """
    usual: dict[str, Any] = {
        "dataset": {
            "uri": str(path),
            "id": "id",
            "features": ["first", "second", "colour"],
            "label": "given",
            "source": "source",
            "split": {"column": "split", "value": "train"},
        },
        "meta": {"split": {"column": "split", "value": "meta"}, "label": "label"},
        "test": {"split": {"column": "split", "value": "test"}, "label": "label"},
        "training": {"epochs": 3, "batch_size": 20},
        "evaluation": {"arms": ["full", "curated", "random"], "seeds": 2},
    }
    return {
        name: section for name, section in (usual | sections).items() if section is not None or name == "evaluation"
    }


def queue_job(database: Database, document: Mapping[str, Any]) -> str:
    """Queue a job and return its id."""
    parsed = parse_document(document)
    new = NewJob(canonical_json(parsed), document_digest(parsed), max_attempts=100, max_seconds=600.0)
    with database.write() as session:
        return JobRepository(session).add(new).id


def claim_job(database: Database) -> Claim:
    """Claim the queued job."""
    with database.write() as session:
        claim = AttemptRepository(session).claim("w", 600.0)
    assert claim is not None
    return claim


def run_claimed(database: Database, settings: Settings, claim: Claim, stop: StopFlag | None = None) -> int:
    """Carry out a claimed attempt and return its exit code."""
    return run_attempt(database, settings, claim.job_id, claim.attempt, stop or StopFlag())


def release(database: Database, claim: Claim) -> None:
    """Give a stopped job back, as its supervisor does."""
    with database.write() as session:
        AttemptRepository(session).release(claim.job_id, claim.attempt, "stopped")


def run_to_end(database: Database, settings: Settings, document: Mapping[str, Any]) -> str:
    """Run a job from the queue to its end, which must be success, and return its id."""
    job_id = queue_job(database, document)
    assert run_claimed(database, settings, claim_job(database)) == 0, list_messages(database, job_id)
    return job_id


def list_messages(database: Database, job_id: str) -> list[str]:
    """Return the messages of all events of a job."""
    with database.read() as session:
        return [event.message for event in JobRepository(session).list_events(job_id)]


def read_chunks(database: Database, job_id: str) -> list[bytes]:
    """Return the stored chunks."""
    with database.read() as session:
        query = select(ChunkTable).where(ChunkTable.job_id == job_id).order_by(ChunkTable.index)
        return [chunk.data for chunk in session.scalars(query)]


def read_rows(database: Database, job_id: str) -> pa.Table:
    """Return the stored rows."""
    return pa.Table.from_batches([batch for data in read_chunks(database, job_id) for batch in decode_chunk(data)])


def read_result(database: Database, job_id: str) -> tuple[ResultTable, list[PreviewTable]]:
    """Return the result and its previews, most suspicious first."""
    with database.read() as session:
        result = session.get_one(ResultTable, job_id)
        previews = session.scalars(
            select(PreviewTable).where(PreviewTable.job_id == job_id).order_by(PreviewTable.suspicion_rank)
        )
        return result, list(previews)


def compare_results(database: Database, job_id: str, other_id: str) -> None:
    """Hold the results of two jobs against each other: the same but for rounding."""
    left, right = read_rows(database, job_id), read_rows(database, other_id)
    for name in ("weight", "score", "noise_score"):
        numbers = [np.asarray(rows[name], dtype=np.float64) for rows in (left, right)]
        assert np.abs(numbers[0] - numbers[1]).max() < 1e-4, name
    for name in ("row", "suggested_label"):
        assert left[name] == right[name]
