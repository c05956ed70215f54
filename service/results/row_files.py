"""The per-example table as files: Parquet, CSV, JSON lines, and NumPy arrays for training.

Every writer takes batches in row order, holds one of them at a time, and writes the same bytes for the same
rows: no time stamps, no names of machines, fixed options.
"""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from service.results.rows import CHUNK_ROWS, SOFT_LABEL
from service.results.values import list_values, shorten_floats

# A spreadsheet would run a cell that begins so as a formula.
_FORMULA_START = r"^[=+\-@\t\r]"


def write_parquet(file: BinaryIO, batches: Iterator[pa.RecordBatch]) -> None:
    """Write `rows.parquet`, one row group for each batch."""
    first = next(batches)
    with pq.ParquetWriter(
        file,
        first.schema,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=True,
        write_page_index=False,
    ) as writer:
        writer.write_batch(first, row_group_size=CHUNK_ROWS)
        for batch in batches:
            writer.write_batch(batch, row_group_size=CHUNK_ROWS)


def write_csv(file: BinaryIO, batches: Iterator[pa.RecordBatch]) -> None:
    """Write the rows as CSV with a header. Text that a spreadsheet would take for a formula gets a `'` before it."""
    writer: pa.csv.CSVWriter | None = None
    for batch in batches:
        safe = _defuse_formulas(shorten_floats(batch))
        if writer is None:
            writer = pa.csv.CSVWriter(file, safe.schema)
        writer.write_batch(safe)
    if writer is not None:
        writer.close()


def write_jsonl(file: BinaryIO, batches: Iterator[pa.RecordBatch]) -> None:
    """Write the rows as JSON, one object on a line."""
    for batch in batches:
        for values in list_values(batch):
            line = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            file.write(line.encode() + b"\n")


def write_keep(file: BinaryIO, batches: Iterator[pa.RecordBatch], num_kept: int) -> None:
    """Write `keep.npy`: the row numbers to train on, ascending, uint64."""
    _write_npy_header(file, np.dtype(np.uint64), num_kept)
    num_written = 0
    for batch in batches:
        rows = batch.column("row").filter(batch.column("keep")).to_numpy().astype("<u8")
        num_written += len(rows)
        file.write(rows.tobytes())
    assert num_written == num_kept, "ranks must be 0..n_labelled-1, each once"


def write_weights(file: BinaryIO, batches: Iterator[pa.RecordBatch], num_rows: int) -> None:
    """Write `weights.npy`: one float32 for each row, 0 where the row is dropped."""
    _write_npy_header(file, np.dtype(np.float32), num_rows)
    for batch in batches:
        weight = batch.column("weight").fill_null(0.0).to_numpy(zero_copy_only=False)
        keep = batch.column("keep").to_numpy(zero_copy_only=False)
        file.write(np.where(keep, weight, np.float32(0)).astype("<f4").tobytes())


def write_soft_labels(file: BinaryIO, batches: Iterator[pa.RecordBatch], num_rows: int) -> None:
    """Write `soft_labels.npy`: the probability of each class for each row; zeros where a row has no label at all.

    The batches are as stored.
    """
    num_classes = 0
    for batch in batches:
        soft: Any = batch.column(SOFT_LABEL)
        if not num_classes:
            num_classes = soft.type.list_size
            _write_npy_header(file, np.dtype(np.float32), num_rows, num_classes)
        numbers = np.zeros((batch.num_rows, num_classes), dtype="<f4")
        numbers[soft.is_valid().to_numpy(zero_copy_only=False)] = soft.flatten().to_numpy().reshape(-1, num_classes)
        file.write(numbers.tobytes())


def _write_npy_header(file: BinaryIO, dtype: np.dtype[Any], *shape: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _defuse_formulas(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns: list[Any] = []
    for column in batch.columns:
        if pa.types.is_string(column.type):
            risky = pc.match_substring_regex(column, _FORMULA_START)
            columns.append(pc.if_else(risky, pc.replace_substring_regex(column, r"\A", "'"), column))
        else:
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
