"""Names for Arrow types whose type parameters exist for the type checker alone."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    Array = pa.Array[Any]
    ChunkedArray = pa.ChunkedArray[Any]
    Field = pa.Field[Any]
else:
    Array = pa.Array
    ChunkedArray = pa.ChunkedArray
    Field = pa.Field
