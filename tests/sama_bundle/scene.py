"""Small data sets of every kind, and bundles made of them by real jobs."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from service.db.engine import create_database
from service.db.migrate import migrate
from service.results.service import ResultService
from service.settings import Settings
from tests.worker.jobs import run_to_end

NUM_COMMENTS, NUM_TRUSTED = 60, 12
NUM_IMAGES = 24


def write_comments(path: Path) -> Path:
    """Write comments, trusted ones among the others; ids are text, three rows are unlabelled."""
    num_rows = NUM_COMMENTS + NUM_TRUSTED
    labels = ["spam" if row % 2 else "ham" for row in range(num_rows)]
    texts = [f"win money now, offer {row}" if row % 2 else f"see you at home at {row}" for row in range(num_rows)]
    given: list[str | None] = [
        labels[row - 1] if row % 7 == 3 and row % 12 not in (0, 7) else labels[row] for row in range(num_rows)
    ]
    for row in (1, 8, 15):
        given[row] = None
    texts[4] = ""
    columns = {
        "key": [f"c{row:03}" for row in range(num_rows)],
        "text": texts,
        "given": pa.array(given, pa.string()),
        "label": labels,
        "part": ["valid" if row % 12 in (0, 7) else "train" for row in range(num_rows)],
    }
    pq.write_table(pa.table(columns), path)
    return path


def describe_comments(path: Path, **sections: Any) -> dict[str, Any]:
    """Return a job document over the comments."""
    return {
        "dataset": {
            "uri": str(path),
            "id": "key",
            "text": "text",
            "label": "given",
            "split": {"column": "part", "value": "train"},
        },
        "meta": {"split": {"column": "part", "value": "valid"}, "label": "label"},
        "method": {"name": "sama", "unroll_steps": 1, "warmup_steps": 0, "meta_lr": 0.1},
        "training": {"epochs": 6, "batch_size": 20},
        "task": "prune",
        "selection": {"keep_fraction": 0.7},
        "evaluation": None,
    } | sections


def write_points(path: Path) -> Path:
    """Write a table of numbers and words as CSV, without ids; labels are whole numbers, some values are missing."""
    lines = ["width,height,colour,kind"]
    for row in range(40):
        height = "" if row % 9 == 0 else str(row % 5)
        lines.append(f"{(1 if row % 2 else -1) * (1 + row % 3 / 4)},{height},{('red', 'blue', '')[row % 3]},{row % 2}")
    path.write_text("\n".join(lines) + "\n")
    return path


def describe_points(path: Path) -> dict[str, Any]:
    """Return a job document over the points: every other column is a feature, some rows are trusted."""
    return {
        "dataset": {"uri": str(path), "features": ["*"], "label": "kind"},
        "meta": {"fraction": 0.2},
        "training": {"epochs": 2, "batch_size": 20},
        "evaluation": None,
    }


def write_images(path: Path) -> Path:
    """Write small PNG images, dark and bright; ids are whole numbers."""
    generator = np.random.default_rng(0)
    images = []
    for row in range(NUM_IMAGES):
        pixels = generator.integers(0, 100, (8, 8)) + 120 * (row % 2)
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"number": range(100, 100 + NUM_IMAGES), "image": pa.array(images, kind), "label": np.arange(24) % 2}
    pq.write_table(pa.table(columns), path)
    return path


def describe_images(path: Path) -> dict[str, Any]:
    """Return a job document over the images."""
    return {
        "dataset": {"uri": str(path), "id": "number", "image": "image", "label": "label"},
        "method": {"name": "random"},
        "training": {"epochs": 1, "batch_size": 8},
        "task": "prune",
        "selection": {"keep_fraction": 0.5},
        "evaluation": None,
    }


def make_bundle(document: Mapping[str, Any], folder: Path) -> Path:
    """Run a job in this process; return the folder of its bundle."""
    settings = Settings(data_dir=folder / "sama-data", data_roots=(Path(document["dataset"]["uri"]).parent,))
    settings.data_dir.mkdir(parents=True)
    migrate(settings)
    database = create_database(settings)
    try:
        job_id = run_to_end(database, settings, document)
        exported = ResultService(database, settings).export_file(job_id, "bundle.tar")
    finally:
        database.dispose()
    with tarfile.open(exported.stored.path) as tar:
        tar.extractall(folder / "bundle", filter="data")
    return folder / "bundle"
