"""The demo: find planted label errors in scikit-learn's handwritten digits, on this machine, and prove it.

Run by `make demo`. It writes the data set and the job document, runs the command `sama curate` as anyone would,
and then, alone knowing which labels it made wrong, counts how many of them were found.
"""

import argparse
import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from service.cli.embedded import LOCK_FILE, lock_data_directory
from service.errors import ServiceError

# The command beside this interpreter, so that what is printed can be run as it stands.
SAMA = Path(sys.executable).with_name("sama")
SEED = 0
NUM_TEST = 500
NUM_TRUSTED = 100
WRONG_SHARE = 0.3
KEEP_FRACTION = 0.7
JOB = f"""\
name: digits with planted label errors
dataset:
  uri: ./digits.parquet
  id: id
  image: image
  label: label
  split: {{column: split, value: train}}
meta:
  split: {{column: split, value: trusted}}
test:
  split: {{column: split, value: test}}
task: prune
selection: {{keep_fraction: {KEEP_FRACTION}}}
evaluation: {{seeds: 3}}
labels: {{demo: digits}}
"""


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description="Curate scikit-learn's digits with planted label errors.")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for everything that is made")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    true_labels = write_data(out)
    (out / "job.yaml").write_text(JOB)
    num_train = len(true_labels)
    print(f"Data    scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, in {out / 'digits.parquet'}")
    print(f"        {num_train:,} to curate, {NUM_TRUSTED} trusted and {NUM_TEST} for the test, both with clean labels")
    print(f"Errors  {round(WRONG_SHARE * num_train)} of the {num_train:,} labels ({WRONG_SHARE:.0%}) were replaced by")
    print(f"        another digit, drawn uniformly (numpy.random.default_rng({SEED}));")
    print(f"        which ones they are is in {out / 'planted.csv'}, which the job never sees")
    bundle, data_dir = out / "bundle", out / "sama-data"
    try:
        clear_data_directory(data_dir)
    except ServiceError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return 2
    command = [
        "sama",
        "curate",
        str(out / "job.yaml"),
        "--out",
        str(bundle),
        "--data-dir",
        str(data_dir),
        "--overwrite",
    ]
    print(f"Run     {' '.join(command)}\n", flush=True)
    # The same command by its module, so that it runs whether or not the environment is activated.
    finished = subprocess.run([sys.executable, "-m", "service.cli", *command[1:]], check=False)
    if finished.returncode != 0:
        return finished.returncode
    report_findings(bundle, true_labels)
    print(f"  on the dashboard  {SAMA} serve --data-dir {data_dir}")
    return 0


def clear_data_directory(data_dir: Path) -> None:
    """Forget the jobs of an earlier demo, also of one that was cut off; refuses while something serves them."""
    with lock_data_directory(data_dir):
        for path in data_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()


def write_data(out: Path) -> dict[int, int]:
    """Write the data set with its planted errors, and the truth to a file of its own; return the truth by id."""
    digits = load_digits()
    generator = np.random.default_rng(SEED)
    order = generator.permutation(len(digits.target))
    split = np.full(len(order), "train", dtype=object)
    split[order[:NUM_TEST]] = "test"
    split[order[NUM_TEST : NUM_TEST + NUM_TRUSTED]] = "trusted"
    train = np.flatnonzero(split == "train")
    wrong = generator.choice(train, size=round(WRONG_SHARE * len(train)), replace=False)
    labels = digits.target.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, size=len(wrong))) % 10
    table = pa.table(
        {
            "id": np.arange(len(order)),
            "image": [encode_png(image) for image in digits.images],
            "label": labels,
            "split": split.tolist(),
        }
    )
    pq.write_table(table, out / "digits.parquet")
    with (out / "planted.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "true_label", "given_label"])
        writer.writerows((row, digits.target[row], labels[row]) for row in sorted(wrong))
    return {int(row): int(digits.target[row]) for row in train}


def encode_png(image: np.ndarray) -> bytes:
    """Return an 8 x 8 image of the values 0 to 16 as a PNG of 8-bit grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def report_findings(bundle: Path, true_labels: dict[int, int]) -> None:
    """Hold the bundle against the truth."""
    rows = pq.read_table(bundle / "rows.parquet").to_pylist()
    is_wrong = np.array([row["given_label"] != true_labels[row["id"]] for row in rows])
    noise_score = np.array([row["noise_score"] for row in rows])
    dropped = np.array([not row["keep"] for row in rows])
    suggested = np.array([row["suggested_label"] == true_labels[row["id"]] for row in rows])
    found = int((is_wrong & dropped).sum())
    print("\nHeld against the truth, which the job did not know")
    share = found / is_wrong.sum()
    print(
        f"  planted errors found in the lowest-ranked {dropped.mean():.0%}: {found} of {is_wrong.sum()} ({share:.1%})"
    )
    print(f"  AUROC of noise_score: {roc_auc_score(is_wrong, noise_score):.4f}")
    print(f"  planted errors whose suggested label is the true one: {suggested[is_wrong].mean():.1%}")
    print(f"\n  bundle            {bundle}")


if __name__ == "__main__":
    sys.exit(main())
