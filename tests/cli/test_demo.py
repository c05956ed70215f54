"""The demo's data is what the demo says it is. The demo as a whole is run by continuous integration."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.digits_demo import JOB, NUM_TEST, NUM_TRUSTED, clear_data_directory, write_data
from service.cli.embedded import lock_data_directory
from service.errors import ServiceError
from service.jobs.document import parse_document


def test_thirty_per_cent_of_the_training_labels_are_wrong_and_no_other(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    true_labels = write_data(tmp_path)
    rows = pq.read_table(tmp_path / "digits.parquet").to_pylist()
    truth = load_digits().target
    wrong = [row for row in rows if row["label"] != truth[row["id"]]]
    assert (len(rows), len(true_labels), len(wrong)) == (1797, 1797 - NUM_TEST - NUM_TRUSTED, 359)
    assert {row["split"] for row in wrong} == {"train"}
    assert {row["id"] for row in rows if row["split"] == "train"} == set(true_labels)
    with (tmp_path / "planted.csv").open() as file:
        assert [int(line["id"]) for line in csv.DictReader(file)] == [row["id"] for row in wrong]


def test_the_job_cannot_see_the_truth_and_the_data_is_always_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_data(tmp_path / name)
    first, second = (tmp_path / name / "digits.parquet" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert pq.read_schema(first).names == ["id", "image", "label", "split"]
    document = parse_document(yaml.safe_load(JOB))
    assert (document.task, document.keep_fraction, document.dataset.image) == ("prune", 0.7, "image")


def test_an_earlier_demo_is_forgotten_unless_it_is_being_served(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    (tmp_path / "sama.db").write_text("old")
    with lock_data_directory(tmp_path), pytest.raises(ServiceError, match="is in use by another `sama serve`"):
        clear_data_directory(tmp_path)
    clear_data_directory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
