"""Reading the rows of a finished job, chunk by chunk, each checked against its digest."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from service.db.engine import Database
from service.errors import ServiceError
from service.logging import get_logger
from service.results.reasons import Terms
from service.results.repository import ResultRepository
from service.results.rows import apply_num_kept, decode_chunk, take_public
from service.results.schemas import SelectionSummary
from service.results.tables import ResultTable

_log = get_logger(__name__)


class RowReader:
    """The rows of one result, in row order. One chunk is in memory at a time, and no transaction stays open.

    `terms` are those by which the reasons of its rows are written.
    """

    def __init__(self, database: Database, result: ResultTable) -> None:
        self._database = database
        self.result = result
        selection = SelectionSummary.model_validate(result.summary["selection"])
        self.terms = Terms(selection.rule, selection.doubt_above)

    def batches(self, *, first_row: int = 0) -> Iterator[pa.RecordBatch]:
        """Yield the batches as stored, from the chunk that holds `first_row` on.

        Raises:
            ServiceError: `results_damaged`; a chunk is missing or is not what was stored.
        """
        index, next_row = -1, None
        while True:
            with self._database.read() as session:
                chunk = ResultRepository(session).find_next_chunk(self.result, after_index=index, first_row=first_row)
            if chunk is None:
                break
            if chunk.row_start != next_row if next_row is not None else chunk.row_start > first_row:
                raise self._damaged("a chunk is missing", index + 1)
            if hashlib.sha256(chunk.data).hexdigest() != chunk.sha256:
                raise self._damaged("a chunk's digest differs", chunk.index)
            index, next_row = chunk.index, chunk.row_start + chunk.num_rows
            yield from decode_chunk(chunk.data)
        if (next_row is None and first_row < self.result.num_rows) or (
            next_row is not None and next_row != self.result.num_rows
        ):
            raise self._damaged("the last chunks are missing", index + 1)

    def kept_batches(self, num_kept: int) -> Iterator[pa.RecordBatch]:
        """Yield the columns of `rows.parquet`, `keep` and `reason` for the `num_kept` best-ranked rows."""
        for batch in self.batches():
            yield take_public(apply_num_kept(batch, num_kept, self.terms))

    def _damaged(self, what: str, index: int) -> ServiceError:
        _log.error("stored results are damaged", job_id=self.result.job_id, what=what, index=index)
        return ServiceError(
            "results_damaged",
            f"The stored results of job {self.result.job_id} are damaged: {what} (chunk {index}).",
            hint="Restore the database from a backup, or run the job again.",
        )
