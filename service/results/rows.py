"""The per-example table of a job: its columns, and the keep decision at any keep fraction."""

from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CHUNK_ROWS = 65_536
DOUBTFUL_NOISE_SCORE = 0.5
UNLABELLED = "unlabelled"


def rows_schema(id_type: pa.DataType, label_type: pa.DataType) -> pa.Schema:
    """Return the columns of `rows.parquet`. Ids and labels keep the type that the user's data has."""
    return pa.schema(
        [
            ("row", pa.int64()),
            ("id", id_type),
            ("content_sha256", pa.string()),
            ("source", pa.string()),
            ("given_label", label_type),
            ("weight", pa.float32()),
            ("weight_std", pa.float32()),
            ("score", pa.float32()),
            ("rank", pa.int64()),
            ("noise_score", pa.float32()),
            ("suggested_label", label_type),
            ("label_confidence", pa.float32()),
            ("keep", pa.bool_()),
            ("reason", pa.string()),
        ]
    )


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


def apply_num_kept(batch: pa.RecordBatch, num_kept: int) -> pa.RecordBatch:
    """Return the batch with `keep` and `reason` for the `num_kept` best-ranked rows of the whole job."""
    rank = batch.column("rank")
    labelled = rank.is_valid().to_numpy(zero_copy_only=False)
    keep = labelled & (rank.fill_null(num_kept).to_numpy(zero_copy_only=False) < num_kept)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["keep"] = pa.array(keep, pa.bool_())
    columns["reason"] = pa.array(_give_reasons(batch, labelled, keep), pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in batch.schema.names], schema=batch.schema)


def _give_reasons(batch: pa.RecordBatch, labelled: npt.NDArray[np.bool_], keep: npt.NDArray[np.bool_]) -> Iterator[str]:
    noise = batch.column("noise_score").to_numpy(zero_copy_only=False)
    confidence = batch.column("label_confidence").to_numpy(zero_copy_only=False)
    given, suggested = batch.column("given_label").to_pylist(), batch.column("suggested_label").to_pylist()
    for position in range(batch.num_rows):
        if not labelled[position]:
            yield UNLABELLED
            continue
        disagrees = given[position] != suggested[position]
        if disagrees and noise[position] >= DOUBTFUL_NOISE_SCORE:
            verdict = "kept, but the label is doubtful" if keep[position] else "likely mislabelled"
            yield f"{verdict}: model says {suggested[position]} ({confidence[position]:.2f}), given {given[position]}"
        else:
            yield "kept" if keep[position] else "low score"


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
        return list(reader)
