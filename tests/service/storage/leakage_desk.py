"""A table with test rows that leak, and the two ways in which its data are looked at."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.datasets.schemas import InspectionReport
from service.jobs.document import parse_document
from service.settings import Settings
from service.storage.inspection import inspect_dataset
from service.storage.role_tables import DatasetTables
from service.storage.roles import read_dataset

NUM_ROWS = 36
PARTS = ["train"] * 20 + ["valid"] * 6 + ["test"] * 10
WORDS = [
    f"{first}{second}" for first in ("lamp", "stone", "river", "cloud", "bread", "tiger") for second in "abcdefghij"
]


def make_texts() -> list[str]:
    generator = np.random.default_rng(4)
    return [" ".join(generator.choice(WORDS, 30)) for _ in range(NUM_ROWS)]


def make_table(**changes: Any) -> dict[str, Any]:
    """Return 20 rows to curate, 6 trusted, 10 for the test: rows 1 and 30 equal, rows 21 and 31 nearly."""
    texts = make_texts()
    texts[30] = texts[1]
    texts[31] = texts[21].replace(texts[21].split()[4], "xylophone", 1)
    labels = [row % 2 for row in range(NUM_ROWS)]
    return {"text": texts, "y": labels, "gold": labels[::-1], "part": PARTS} | changes


def make_document(**fields: Any) -> dict[str, Any]:
    dataset = {"uri": "t.parquet", "text": "text", "label": "y", "split": {"column": "part", "value": "train"}}
    return {
        "dataset": dataset | fields.pop("dataset", {}),
        "meta": {"split": {"column": "part", "value": "valid"}},
        "test": {"split": {"column": "part", "value": "test"}},
    } | fields


class Desk:
    """A folder with a table, and the two ways in which its data are looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.limits = Settings(data_dir=folder / "service", data_roots=(folder,))

    def write(self, table: dict[str, Any], name: str = "t.parquet") -> None:
        pq.write_table(pa.table(table), self.folder / name)

    def inspect(self, document: dict[str, Any], folder: Path | None = None) -> InspectionReport:
        return inspect_dataset(parse_document(document), self.limits, folder=folder)

    def read(self, document: dict[str, Any], **more: Any) -> DatasetTables:
        return read_dataset(parse_document(document), self.limits, self.scratch, **more)
