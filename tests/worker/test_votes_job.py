"""Whole jobs in this process: with votes, with a label corrector, and one that ends once its ranking has settled."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.db.engine import Database
from service.settings import Settings
from tests.worker.jobs import (
    NUM_TRAIN,
    claim_job,
    list_messages,
    make_document,
    queue_job,
    read_chunks,
    read_result,
    read_rows,
    release,
    run_claimed,
    run_to_end,
    sqlite_alone,
    write_points,
)
from worker.exits import DONE, STOPPED
from worker.stop import StopFlag

NUM_UNLABELLED = 9
SETTLED = "the ranking settled after epoch "


def write_votes(path: Path) -> Path:
    """Add two labelling functions to the points: one that is nearly always right, one that always says 1."""
    table = pq.read_table(write_points(path, num_unlabelled=NUM_UNLABELLED))
    label = table.column("label").to_numpy()
    good = np.where(np.arange(len(label)) % 13 == 0, 1 - label, label)
    votes = [[None if row % 4 == 3 else int(vote), 1] for row, vote in enumerate(good)]
    pq.write_table(table.append_column("votes", pa.array(votes, pa.list_(pa.int64()))), path)
    return path


def make_votes_document(path: Path, **sections: Any) -> dict[str, Any]:
    document = make_document(path, evaluation=None, **sections)
    document["dataset"]["votes"] = ["votes"]
    return document


class StopOnceTold(StopFlag):
    """A stop that is asked for as soon as an event begins with these words."""

    def __init__(self, database: Database, job_id: str, words: str) -> None:
        super().__init__()
        self._database, self._job_id, self._words = database, job_id, words

    @property
    def is_set(self) -> bool:
        return any(message.startswith(self._words) for message in list_messages(self._database, self._job_id))


@sqlite_alone
def test_the_votes_reach_the_detector_and_the_rows_without_a_label(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    path = write_votes(tmp_path / "points.parquet")
    relabel = {"unlabelled": True, "min_confidence": 0.5}
    document = make_votes_document(path, task="relabel", relabel=relabel, training={"epochs": 12, "batch_size": 20})
    job_id = run_to_end(database, settings, document)
    trust = read_result(database, job_id)[0].manifest["method"]["facts"]["detector"]["trust"]
    assert trust["votes"] > 0.2
    rows, truth = read_rows(database, job_id), pq.read_table(path).column("label").to_pylist()[:NUM_TRAIN]
    given = [row["label"] for row in rows.slice(0, NUM_UNLABELLED).to_pylist()]
    assert np.mean([label == right for label, right in zip(given, truth, strict=False)]) > 0.7

    del document["dataset"]["votes"]
    without = run_to_end(database, settings, document)
    assert "votes" not in read_result(database, without)[0].manifest["method"]["facts"]["detector"]["trust"]


@sqlite_alone
def test_a_label_corrector_curates(database: Database, settings: Settings, tmp_path: Path) -> None:
    points = write_points(tmp_path / "points.parquet")
    document = make_document(
        points,
        evaluation=None,
        method={"learned": "corrector", "unroll_steps": 1, "warmup_steps": 0},
        training={"epochs": 10, "batch_size": 20},
    )
    job_id = run_to_end(database, settings, document)
    manifest, rows = read_result(database, job_id)[0].manifest, read_rows(database, job_id)
    assert manifest["method"]["hyperparameters"]["learned"] == "corrector"
    table = pq.read_table(points).slice(0, NUM_TRAIN)
    is_wrong = np.array(table.column("given").to_pylist()) != np.array(table.column("label").to_pylist())
    weight, noise = (rows.column(name).to_numpy() for name in ("weight", "noise_score"))
    assert noise[is_wrong].mean() > noise[~is_wrong].mean() + 0.2
    assert weight[is_wrong].mean() < weight[~is_wrong].mean()
    assert weight.mean() == pytest.approx(1.0, abs=1e-5)


@sqlite_alone
def test_a_job_ends_once_its_ranking_has_settled_and_resumes_so(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    eager = settings.model_copy(update={"checkpoint_seconds": 0.0, "progress_seconds": 0.0})
    training = {"epochs": 16, "batch_size": 20, "lr": 0.003, "stop_when_settled": True}
    points = write_points(tmp_path / "points.parquet")
    document = make_document(points, evaluation=None, model={"name": "linear"}, training=training)
    whole = run_to_end(database, settings, document)
    told = [message for message in list_messages(database, whole) if message.startswith(SETTLED)]
    assert len(told) == 1
    because = told[0].removesuffix("; training ends with the next one")
    assert because != told[0]
    facts = read_result(database, whole)[0].manifest["method"]["facts"]
    assert facts["ended_early"] == because

    job_id = queue_job(database, document)
    claim = claim_job(database)
    assert run_claimed(database, eager, claim, StopOnceTold(database, job_id, SETTLED)) == STOPPED
    release(database, claim)
    assert run_claimed(database, settings, claim_job(database)) == DONE
    messages = list_messages(database, job_id)
    assert any(message.startswith("resumed from step ") for message in messages)
    assert [message for message in messages if message.startswith(SETTLED)] == told
    assert read_chunks(database, job_id) == read_chunks(database, whole)
