"""The storage benchmark's rows are those that the service stores."""

import pyarrow as pa

from benchmarks.storage import make_batch, measure
from service.results.rows import stored_schema


def test_the_rows_have_the_columns_of_a_stored_chunk() -> None:
    assert make_batch(0, 10).schema.equals(stored_schema(pa.int64(), pa.int64()))


def test_half_of_the_rows_are_kept_at_half_the_fraction() -> None:
    assert "500 kept" in measure(1000)
