"""What reading gives: the rows of every role as memory-mapped tables, and what links them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.storage.arrow_types import Array, ChunkedArray
from service.storage.inputs import FeatureKind
from service.storage.labels import LabelMap
from service.storage.leakage import Leakage
from service.storage.scanning import CONTENT, ID, SOURCE, SOURCE_ROW
from service.storage.sources import RoleName

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the data set, as the manifest names it."""

    uri: str
    format: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class RoleTable:
    """The rows of one role, memory-mapped for random access; everything in input order.

    `labels` are class codes, -1 where unlabelled: the given labels of the curated rows, the trusted labels of
    the meta set; -1 also for test rows that are left out. `votes` of the curated rows, and of the trusted ones
    where their file has the columns, are class codes, one for each labelling function, -1 where it abstained; None
    where the document names none. `table` holds the input columns;
    text is string, an image its encoded bytes, a numeric feature float64 with null for missing, a categorical feature
    string.
    """

    role: RoleName
    table: pa.Table
    labels: Codes
    label_map: LabelMap
    input_names: tuple[str, ...]
    rows_digest: str
    votes: Codes | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def inputs(self) -> pa.Table:
        """The input columns under their own names."""
        return self.table.select(list(self.input_names))

    @property
    def ids(self) -> ChunkedArray:
        """The ids, int64 or string; the row numbers where the document names no id column."""
        return self.table.column(ID)

    @property
    def source(self) -> ChunkedArray:
        """Where each example came from; null where the document names no source column."""
        return self.table.column(SOURCE)

    @property
    def content_sha256(self) -> ChunkedArray:
        """The digest of each example's inputs, 64 hexadecimal digits."""
        return self.table.column(CONTENT)

    @property
    def source_rows(self) -> ChunkedArray:
        """The row number of each example in its own file."""
        return self.table.column(SOURCE_ROW)

    @property
    def given_labels(self) -> Array:
        """The labels in the type of the data, null where unlabelled."""
        return self.label_map.decode(self.labels)


@dataclass(frozen=True, slots=True)
class DatasetTables:
    """The data of a job, ready to train on.

    `meta` is None for `meta.self` and for no meta set. `trusted_rows` are the curated rows that are trusted too
    (`meta.fraction`); they stay among the curated rows. `features` leaves out columns without any value.

    `meta_train_rows` (M,) tells for each trusted row which curated row it is, or has the same content as (a labelled
    one, where there is one), -1 none. `meta_given_labels` (M,) is its class code in the column `dataset.label`, -1
    where that is empty, absent, or the very column of the trusted label. `meta_groups` (M,) and `train_groups` (N,) are
    equal where the content is; a curated row that no trusted one equals has -1. All four are None without a meta set.
    `excluded_test_rows` are positions among the test rows; their labels are -1.
    """

    kind: Literal["text", "image", "features"]
    features: Mapping[str, FeatureKind]
    label_map: LabelMap
    train: RoleTable
    meta: RoleTable | None
    test: RoleTable | None
    trusted_rows: Codes
    meta_train_rows: Codes | None
    meta_given_labels: Codes | None
    meta_groups: Codes | None
    train_groups: Codes | None
    leakage: Leakage
    files: tuple[SourceFile, ...]
    num_meta_in_train: int
    num_meta_in_test: int
    notes: tuple[str, ...]

    @property
    def excluded_test_rows(self) -> Codes:
        """Test rows that are left out: they stand also among the curated or the trusted rows."""
        return self.leakage.test.excluded
