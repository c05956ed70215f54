"""Section "storage": a million rows of results, written as chunks and exported, on SQLite."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.machine import describe_machine
from benchmarks.tables import format_table
from service.results.rows import CHUNK_ROWS, FINDING, apply_num_kept, decode_chunk, encode_chunk, stored_schema

NUM_ROWS = 1_000_000


def make_batch(start: int, num_rows: int) -> pa.RecordBatch:
    """Return plausible results of some rows: random numbers, digests, ten classes."""
    rng = np.random.default_rng(start)
    numbers = ("weight", "weight_std", "score", "noise_score")
    floats = {name: rng.random(num_rows, dtype=np.float32) for name in numbers}
    floats |= {f"given_{name}": floats[name] for name in ("weight", "score")}
    row = np.arange(start, start + num_rows)
    labels = rng.integers(10, size=num_rows)
    columns = {
        "row": row,
        "id": row,
        "content_sha256": [rng.bytes(32).hex() for _ in range(num_rows)],
        "source": pa.nulls(num_rows, pa.string()),
        "given_label": labels,
        "rank": row,
        "suggested_label": rng.integers(10, size=num_rows),
        "label_confidence": rng.random(num_rows, dtype=np.float32),
        "label": labels,
        "corrected": np.zeros(num_rows, dtype=bool),
        "keep": np.zeros(num_rows, dtype=bool),
        "reason": [""] * num_rows,
        FINDING: ["the model says 3 with 0.98, epoch after epoch; given 1"] * num_rows,
        **floats,
    }
    schema = stored_schema(pa.int64(), pa.int64())
    return pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema)


def run(arguments: Sequence[str] = (), out: Path | None = None) -> str:
    """Measure encoding, decoding and deciding, and return the table; it goes to ``out`` where that is given."""
    argparse.ArgumentParser(prog="python -m benchmarks storage").parse_args(arguments)
    text = f"{describe_machine()}\n\n{measure(NUM_ROWS)}"
    if out is not None:
        out.mkdir(exist_ok=True)
        (out / "storage.md").write_text(f"## storage\n\n{text}\n")
    return text


def measure(num_rows: int) -> str:
    """Return the table of so many rows."""
    batches = [make_batch(start, min(CHUNK_ROWS, num_rows - start)) for start in range(0, num_rows, CHUNK_ROWS)]
    timings: list[tuple[str, float, str]] = []
    start = time.perf_counter()
    chunks = [encode_chunk(batch) for batch in batches]
    size = sum(len(chunk) for chunk in chunks) / 1e6
    timings.append(("encode chunks (Arrow IPC, zstd)", time.perf_counter() - start, f"{size:.0f} MB"))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for index, chunk in enumerate(chunks):
            (Path(folder) / str(index)).write_bytes(chunk)
    timings.append(("write them", time.perf_counter() - start, ""))
    start = time.perf_counter()
    decided = [apply_num_kept(batch, num_rows // 2) for chunk in chunks for batch in decode_chunk(chunk)]
    kept = sum(int(np.sum(batch.column("keep").to_numpy(zero_copy_only=False))) for batch in decided)
    timings.append(("decode and decide at another keep fraction", time.perf_counter() - start, f"{kept} kept"))
    rows = [[what, f"{seconds:.2f}", note] for what, seconds, note in timings]
    return f"{num_rows} rows; one run\n\n{format_table(['step', 'seconds', ''], rows)}"
