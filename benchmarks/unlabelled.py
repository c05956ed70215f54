"""How right the labels are that rows without one are given: `python -m benchmarks.unlabelled DATA`.

DATA is the folder of the quality section's data sets. The rows are those on which no labelling function votes; their
true labels are known, and not to the job. Some two minutes on two cores; writes unlabelled.md beside the other results.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.machine import describe_machine
from benchmarks.tables import format_table

RESULTS = Path(__file__).parent / "results" / "unlabelled.md"
VOTED_SETS = ("wrench_youtube", "wrench_sms")


def measure(data: Path, name: str) -> list[str]:
    """Return the line of one set."""
    source = data / name / "data.parquet"
    table = pq.read_table(source)
    document = {
        "dataset": {
            "uri": str(source),
            "text": "text",
            "label": "noisy_label",
            "votes": ["weak_labels"],
            "split": {"column": "split", "value": "train"},
        },
        "meta": {"split": {"column": "split", "value": "valid"}, "label": "label"},
        "task": "relabel",
        "relabel": {"unlabelled": True},
        "evaluation": None,
    }
    with tempfile.TemporaryDirectory(prefix="sama-unlabelled-") as scratch:
        job, bundle = Path(scratch) / "job.json", Path(scratch) / "bundle"
        job.write_text(json.dumps(document))
        command = [sys.executable, "-m", "service.cli", "curate", str(job), "--out", str(bundle)]
        subprocess.run([*command, "--data-root", str(data)], check=True, stdout=subprocess.DEVNULL)
        rows = pq.read_table(bundle / "rows.parquet")
    is_curated = np.array([split == "train" for split in table.column("split").to_pylist()])
    truth = table.column("label").to_numpy()[is_curated]
    asked = rows.column("given_label").is_null().to_numpy()
    suggested, confidence = (
        rows.column(column).to_numpy()[asked] for column in ("suggested_label", "label_confidence")
    )
    largest = np.bincount(truth[asked]).max() / asked.sum()
    right = (suggested == truth[asked]).mean()
    return [name, f"{asked.sum():,}", f"{confidence.mean():.2f}", f"{right:.0%}", f"{largest:.0%}"]


def main() -> None:
    """Measure, print and write."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.unlabelled DATA")
    lines = [measure(Path(sys.argv[1]).resolve(), name) for name in VOTED_SETS]
    header = ["set", "rows without a label", "mean confidence", "right", "share of the largest class"]
    text = (
        f"# Labels for rows without one\n\nMeasured on: {describe_machine()}; one run each.\n\n"
        f"{format_table(header, lines)}\n"
    )
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
