"""The per-example table of a job: its columns, and the keep decision at any keep fraction."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.results.reasons import PLAIN_TERMS, Terms, list_plain_findings, write_reasons

CHUNK_ROWS = 65_536
FINDING, SOFT_LABEL = "finding", "soft_label"
STORED_ALONE = (FINDING, SOFT_LABEL)
_SOFT_LABEL_NUMBERS = 1 << 24


def rows_schema(id_type: pa.DataType, label_type: pa.DataType) -> pa.Schema:
    """Return the columns of `rows.parquet`. Ids and labels keep the type that the user's data has."""
    return pa.schema(
        [
            ("row", pa.int64()),
            ("id", id_type),
            ("content_sha256", pa.string()),
            ("source", pa.string()),
            ("given_label", label_type),
            ("given_weight", pa.float32()),
            ("given_score", pa.float32()),
            ("weight", pa.float32()),
            ("weight_std", pa.float32()),
            ("score", pa.float32()),
            ("rank", pa.int64()),
            ("noise_score", pa.float32()),
            ("suggested_label", label_type),
            ("label_confidence", pa.float32()),
            ("label", label_type),
            ("corrected", pa.bool_()),
            ("keep", pa.bool_()),
            ("reason", pa.string()),
        ]
    )


def stored_schema(id_type: pa.DataType, label_type: pa.DataType, num_soft: int = 0) -> pa.Schema:
    """Return the columns of a chunk: those of `rows.parquet`, the finding, and soft labels of `num_soft` classes."""
    schema = rows_schema(id_type, label_type).append(pa.field(FINDING, pa.string()))
    return schema.append(pa.field(SOFT_LABEL, pa.list_(pa.float32(), num_soft))) if num_soft else schema


def limit_chunk_rows(num_soft: int) -> int:
    """Return how many rows a chunk may have so that soft labels of `num_soft` classes fit into memory and database.

    >>> limit_chunk_rows(0), limit_chunk_rows(10), limit_chunk_rows(1024)
    (65536, 65536, 16384)
    """
    return max(1, min(CHUNK_ROWS, _SOFT_LABEL_NUMBERS // max(num_soft, 1)))


def name_group(value: object) -> str:
    """Return the name under which a class or source is counted.

    >>> name_group(3), name_group("web"), name_group(None)
    ('3', 'web', '(none)')
    """
    # Postgres refuses zero bytes, so the summary cannot hold them.
    return "(none)" if value is None else str(value).replace("\0", "\ufffd")


def count_kept(keep_fraction: float, num_total: int, num_labelled: int) -> int:
    """Return how many rows a keep fraction of the total keeps: never an unlabelled row, never none.

    >>> count_kept(0.7, 10, 10), count_kept(1.0, 10, 8), count_kept(0.001, 10, 10)
    (7, 8, 1)
    """
    wanted = int((Decimal(repr(keep_fraction)) * num_total).quantize(Decimal(1), ROUND_HALF_UP))
    return max(1, min(wanted, num_labelled))


def apply_num_kept(batch: pa.RecordBatch, num_kept: int, terms: Terms = PLAIN_TERMS) -> pa.RecordBatch:
    """Return the batch with `keep` and `reason`, by the terms of the job, for its `num_kept` best-ranked rows."""
    rank = batch.column("rank")
    labelled = rank.is_valid().to_numpy(zero_copy_only=False)
    keep = labelled & (rank.fill_null(num_kept).to_numpy(zero_copy_only=False) < num_kept)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["keep"] = pa.array(keep, pa.bool_())
    columns["reason"] = pa.array(write_reasons(batch, keep, terms), pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in batch.schema.names], schema=batch.schema)


def take_public(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns of `rows.parquet` alone."""
    return batch.select([name for name in batch.schema.names if name not in STORED_ALONE])


def encode_chunk(batch: pa.RecordBatch) -> bytes:
    """Return one chunk as an Arrow IPC stream, compressed with zstd; the same bytes for the same rows."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode_chunk(data: bytes) -> Iterable[pa.RecordBatch]:
    """Return the record batches of a stored chunk."""
    with pa.ipc.open_stream(data) as reader:
        return [_complete(batch) for batch in reader]


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with the columns that rows did not have in earlier versions."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if "given_weight" in columns:
        return batch
    given = columns["given_label"]
    if FINDING not in columns:
        columns |= {
            "label": given,
            "corrected": pa.array(np.zeros(batch.num_rows, dtype=np.bool_)),
            FINDING: pa.array(list_plain_findings(batch), pa.string()),
        }
    # What a corrected row was worth under its given label was not kept then.
    known = pc.and_(given.is_valid(), pc.invert(columns["corrected"]))
    unknown = pa.scalar(None, pa.float32())
    columns |= {f"given_{name}": pc.if_else(known, columns[name], unknown) for name in ("weight", "score")}
    num_soft = columns[SOFT_LABEL].type.list_size if SOFT_LABEL in columns else 0
    schema = stored_schema(columns["id"].type, given.type, num_soft)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
