"""The influences of a finished job as a table: which trusted examples speak against its most suspicious rows."""

import hashlib

import pyarrow as pa

from service.db.engine import Database
from service.errors import ServiceError
from service.results.repository import ResultRepository
from service.results.tables import ResultTable


def influences_schema(id_type: pa.DataType, meta_id_type: pa.DataType, label_type: pa.DataType) -> pa.Schema:
    """Return the columns of `influences.parquet`. Ids and labels keep the type that the user's data has."""
    return pa.schema(
        [
            ("row", pa.int64()),
            ("id", id_type),
            ("rank", pa.int64()),
            ("meta_row", pa.int64()),
            ("meta_id", meta_id_type),
            ("meta_label", label_type),
            ("influence", pa.float32()),
        ]
    )


def read_influences(database: Database, result: ResultTable) -> pa.RecordBatch:
    """Return the influences of a job that has some, the most suspicious row first, of each row the strongest first.

    Raises:
        ServiceError: `results_damaged`; they are missing or are not what was stored.
    """
    with database.read() as session:
        stored = ResultRepository(session).find_influences(result)
    if stored is None or hashlib.sha256(stored.data).hexdigest() != stored.sha256:
        raise ServiceError(
            "results_damaged",
            f"The stored influences of job {result.job_id} are damaged.",
            hint="Restore the database from a backup, or run the job again.",
        )
    with pa.ipc.open_stream(stored.data) as reader:
        return reader.read_next_batch()
