"""A whole attempt in this process: what it stores, that it repeats itself to the byte, that it resumes to the byte."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import update

from sama_core import METHOD_NAMES
from service.attempts.repository import AttemptRepository
from service.db.engine import Database
from service.jobs.repository import JobRepository
from service.jobs.state import JobState
from service.jobs.tables import JobTable
from service.results.schemas import EvaluationSummary, Summary
from service.settings import Settings
from service.storage.roles import read_dataset
from tests.worker.jobs import (
    NUM_META,
    NUM_TEST,
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
from worker.exits import DONE, FAILED, STALE, STOPPED
from worker.stop import StopFlag

NUM_STEPS = 3 * 6
NUM_CURATION_STEPS = 3 * 40 + 3 * 8  # on the trusted rows alone, then on all, the trusted among them


class CountingStop(StopFlag):
    """A stop that is asked for the n-th time that somebody looks."""

    def __init__(self, num_looks: int) -> None:
        super().__init__()
        self.num_left = num_looks

    @property
    def is_set(self) -> bool:
        self.num_left -= 1
        return self.num_left <= 0


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "points.parquet")


@pytest.fixture
def eager(settings: Settings) -> Settings:
    """Settings with a checkpoint at every step and every number written at once."""
    return settings.model_copy(update={"checkpoint_seconds": 0.0, "progress_seconds": 0.0})


def read_error(database: Database, job_id: str) -> tuple[str, str | None, str | None]:
    with database.read() as session:
        job = JobRepository(session).get(job_id)
        return job.state, job.error_code, job.error_message


def fail_with(database: Database, settings: Settings, document: dict[str, Any]) -> tuple[str | None, str]:
    """Run a job that must fail and return its code and message."""
    job_id = queue_job(database, document)
    assert run_claimed(database, settings, claim_job(database)) == FAILED
    state, code, message = read_error(database, job_id)
    assert state == JobState.FAILED
    assert read_chunks(database, job_id) == []
    assert not (settings.data_dir / "encoded").exists() or not list((settings.data_dir / "encoded").iterdir())
    return code, message or ""


def test_a_job_ends_in_success_with_everything_in_its_place(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = run_to_end(database, settings, make_document(points))
    rows = read_rows(database, job_id)
    assert rows.num_rows == NUM_TRAIN
    assert rows["row"].to_pylist() == list(range(NUM_TRAIN))
    assert rows["id"].to_pylist()[:2] == ["p0", "p1"]
    assert np.mean(rows["weight"].to_numpy()) == pytest.approx(1.0, abs=1e-5)
    assert sorted(rows["rank"].to_pylist()) == list(range(NUM_TRAIN))
    assert all(rows["keep"].to_pylist()), "reweight keeps every labelled row by default"
    result, previews = read_result(database, job_id)
    summary = Summary.model_validate(result.summary)
    assert summary.num_rows == summary.selection.n_kept == result.num_kept == NUM_TRAIN
    assert [group.name for group in summary.classes] == ["0", "1"]
    assert {group.name: group.num_rows for group in summary.sources} == {"mail": 60, "web": 60}
    assert sum(summary.noise_histogram.counts) == sum(summary.weight_histogram.counts) == NUM_TRAIN
    assert len(previews) == NUM_TRAIN, "there are fewer rows than previews wanted"
    suspicious = rows["noise_score"].to_numpy()[[preview.row for preview in previews]]
    assert (np.diff(suspicious) <= 0).all()
    assert previews[0].text is not None
    assert previews[0].text.startswith("first=")
    assert sorted(path.name for path in settings.data_dir.glob("*/*")) == [], "no checkpoint, no encoded data is left"


@sqlite_alone
def test_the_evaluation_is_summed_up_with_equal_steps(database: Database, settings: Settings, points: Path) -> None:
    job_id = run_to_end(database, settings, make_document(points))
    evaluation = Summary.model_validate(read_result(database, job_id)[0].summary).evaluation
    assert isinstance(evaluation, EvaluationSummary)
    assert evaluation.num_test == NUM_TEST
    assert evaluation.seeds == [1, 2]
    assert [arm.arm for arm in evaluation.arms] == ["full", "curated", "random"]
    assert {arm.num_steps for arm in evaluation.arms} == {NUM_STEPS}
    assert all(arm.mean == pytest.approx(np.mean(arm.accuracy)) for arm in evaluation.arms)
    assert {comparison.arm for comparison in evaluation.comparisons} == {"full", "random"}
    assert evaluation.verdict.startswith("From 2 seeds alone: they hardly show how much trainings differ. Curated is ")


@sqlite_alone
def test_the_manifest_says_what_was_done(database: Database, settings: Settings, points: Path) -> None:
    document = make_document(points, training={"epochs": 2, "seed": 5})
    manifest = read_result(database, run_to_end(database, settings, document))[0].manifest
    json.dumps(manifest, allow_nan=False)
    assert manifest["source"]["rows"] == NUM_TRAIN
    assert manifest["source"]["files"][0]["name"] == "points.parquet"
    assert manifest["method"]["hyperparameters"]["epochs"] == 2
    assert manifest["method"]["seed"] == 5
    assert manifest["method"]["model"]["name"] == "mlp"
    assert manifest["method"]["facts"]["route"] == "ghost"
    assert manifest["method"]["facts"]["route_reason"].startswith("ghost: exact, inside the base backward")
    assert manifest["meta_set"] | {"digest": ""} == {
        "kind": "split", "digest": "", "n": NUM_META, "overlap_with_train": 0, "overlap_with_test": 0,
    }  # fmt: skip
    assert manifest["labels"] == {"names": [0, 1], "type": "int64"}


@sqlite_alone
def test_unlabelled_rows_are_reported_and_never_trained_on(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    points = write_points(tmp_path / "points.parquet", num_unlabelled=7)
    job_id = run_to_end(database, settings, make_document(points, evaluation=None))
    rows = read_rows(database, job_id).slice(0, 7).to_pylist()
    for row in rows:
        assert row["reason"] == "unlabelled"
        assert row["keep"] is False
        absent = ("given_label", "weight", "weight_std", "score", "rank", "noise_score", "suggested_label")
        assert all(row[name] is None for name in absent)
    result, previews = read_result(database, job_id)
    assert (result.num_labelled, result.num_kept) == (NUM_TRAIN - 7, NUM_TRAIN - 7)
    assert min(preview.row for preview in previews) == 7
    assert result.summary["evaluation"] == "not evaluated"
    assert any("7 of 120 curated rows are unlabelled" in note for note in result.summary["notes"])


@sqlite_alone
def test_pruning_keeps_a_share_of_all_rows_and_trains_on_it_unweighted(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_document(points, task="prune", selection={"keep_fraction": 0.5, "rule": "top"})
    job_id = run_to_end(database, settings, document)
    rows = read_rows(database, job_id)
    summary = Summary.model_validate(read_result(database, job_id)[0].summary)
    assert sum(rows["keep"].to_pylist()) == summary.selection.n_kept == NUM_TRAIN // 2
    scores = rows["score"].to_numpy()
    kept = np.array(rows["keep"].to_pylist())
    assert scores[kept].min() == summary.selection.threshold
    assert scores[kept].min() >= scores[~kept].max()
    assert isinstance(summary.evaluation, EvaluationSummary)
    assert summary.evaluation.arms[1].trained_on == "the 60 kept rows, each counting alike"


@sqlite_alone
@pytest.mark.parametrize("method", [name for name in METHOD_NAMES if name != "sama"])
def test_every_other_method_gives_rows_too(database: Database, settings: Settings, points: Path, method: str) -> None:
    job_id = run_to_end(database, settings, make_document(points, method={"name": method}, evaluation=None))
    assert read_rows(database, job_id)["score"].null_count == 0


@sqlite_alone
@pytest.mark.parametrize("optimizer", ["nadam", "rmsprop"])
def test_training_may_be_set_in_every_way(database: Database, settings: Settings, points: Path, optimizer: str) -> None:
    training = {
        "epochs": 2, "batch_size": 20, "optimizer": optimizer, "precision": "bfloat16", "clip_norm": 0.5,
        "accumulate": 2,
    }  # fmt: skip
    method = {"name": "sama", "unroll_steps": 2, "every_step": True, "nudge": 0.01}
    document = make_document(points, training=training, method=method)
    job_id = run_to_end(database, settings, document)
    assert read_rows(database, job_id)["score"].null_count == 0
    used = read_result(database, job_id)[0].manifest["method"]["hyperparameters"]
    assert {name: used[name] for name in training} == training
    assert (used["every_step"], used["nudge"]) == (True, 0.01)


@sqlite_alone
def test_one_weight_for_each_source_can_be_learned(database: Database, settings: Settings, points: Path) -> None:
    method = {"name": "sama", "learned": "sources", "unroll_steps": 1, "warmup_steps": 2}
    rows = read_rows(database, run_to_end(database, settings, make_document(points, method=method, evaluation=None)))
    learned: dict[str, list[float]] = {"mail": [], "web": []}
    for row in rows.to_pylist():
        if row["weight"]:  # the learned weight times the belief in the given label, 0 where another is likelier
            learned[row["source"]].append(row["weight"] / (1.0 - row["noise_score"]))
    assert min(len(found) for found in learned.values()) > 20
    for found in learned.values():
        assert max(found) == pytest.approx(min(found), rel=1e-4), "examples of one source have one learned weight"
    assert learned["mail"][0] != pytest.approx(learned["web"][0], rel=1e-3)


@sqlite_alone
def test_a_check_of_the_hypergradients_stands_in_the_summary(
    database: Database, settings: Settings, points: Path
) -> None:
    method = {"name": "sama", "check": True, "warmup_steps": 2}
    job_id = run_to_end(database, settings, make_document(points, method=method, evaluation=None))
    result = read_result(database, job_id)[0]
    check = Summary.model_validate(result.summary).hypergradient_check
    assert check is not None
    assert (check.method, check.route, len(check.as_run)) == ("sama", "ghost", 3)
    assert all(found.relative_error < 1e-10 for found in check.double)
    assert any(note.startswith("Hypergradients of 3 batches beside") for note in result.summary["notes"])
    assert result.manifest["method"]["facts"]["hypergradient_check"]["route"] == "ghost"


@sqlite_alone
def test_the_same_job_gives_the_same_bytes(database: Database, settings: Settings, points: Path) -> None:
    first, second = (run_to_end(database, settings, make_document(points)) for _ in range(2))
    assert read_chunks(database, first) == read_chunks(database, second)
    assert read_result(database, first)[0].summary == read_result(database, second)[0].summary


@pytest.mark.parametrize("num_looks", [3, 5, 15, 25, 70])
def test_stopped_anywhere_a_job_resumes_to_the_same_bytes(
    database: Database, settings: Settings, points: Path, num_looks: int
) -> None:
    document = make_document(points)
    undisturbed = run_to_end(database, settings, document)
    job_id = queue_job(database, document)
    claim = claim_job(database)
    code = run_claimed(database, settings, claim, CountingStop(num_looks))
    assert code == STOPPED
    release(database, claim)
    assert run_claimed(database, settings, claim_job(database)) == DONE
    assert read_chunks(database, job_id) == read_chunks(database, undisturbed)
    assert read_result(database, job_id)[0].summary == read_result(database, undisturbed)[0].summary


def test_stopped_again_and_again_it_gets_there_and_repeats_no_finished_arm(
    database: Database, eager: Settings, points: Path
) -> None:
    document = make_document(points, evaluation={"arms": ["full", "random"], "seeds": 1})
    undisturbed = run_to_end(database, eager, document)
    job_id = queue_job(database, document)
    num_attempts = 0
    while True:
        claim = claim_job(database)
        num_attempts += 1
        if run_claimed(database, eager, claim, CountingStop(24)) == DONE:
            break
        release(database, claim)
    assert num_attempts > 3
    messages = list_messages(database, job_id)
    assert sum(message.startswith("arm full, seed 1:") for message in messages) == 1
    assert any(message.startswith("resumed from step ") for message in messages)
    assert read_chunks(database, job_id) == read_chunks(database, undisturbed)
    with database.read() as session:
        steps = [point.step for point in JobRepository(session).list_metrics(job_id)]
    assert steps == list(range(1, NUM_CURATION_STEPS + 1)), "the curve is whole, with no step twice"


@sqlite_alone
def test_a_lost_checkpoint_means_from_the_beginning_and_is_said(
    database: Database, eager: Settings, points: Path
) -> None:
    document = make_document(points, evaluation=None)
    job_id = queue_job(database, document)
    claim = claim_job(database)
    assert run_claimed(database, eager, claim, CountingStop(20)) == STOPPED
    release(database, claim)
    for state in (eager.data_dir / "checkpoints").glob("*/*/*/state.json"):
        state.unlink()
    assert run_claimed(database, eager, claim_job(database)) == DONE
    assert (
        "the checkpoint cannot be used (it is not on this machine's disk); starting from the beginning"
        in list_messages(database, job_id)
    )


@sqlite_alone
def test_a_checkpoint_of_other_data_is_not_gone_on_from(database: Database, eager: Settings, points: Path) -> None:
    job_id = queue_job(database, make_document(points, evaluation=None))
    claim = claim_job(database)
    assert run_claimed(database, eager, claim, CountingStop(20)) == STOPPED
    release(database, claim)
    table = pq.read_table(points)
    changed = table["given"].to_pylist()
    changed[0] = 1 - changed[0]
    pq.write_table(table.set_column(4, "given", [changed]), points)
    assert run_claimed(database, eager, claim_job(database)) == DONE
    assert any("is no longer the same" in message for message in list_messages(database, job_id))


@sqlite_alone
def test_each_phase_is_entered_once_and_told(database: Database, settings: Settings, points: Path) -> None:
    job_id = run_to_end(database, settings, make_document(points))
    with database.read() as session:
        events = JobRepository(session).list_events(job_id)
    assert [event.message.split(" ")[0] for event in events if event.kind == "phase"] == [
        "checking", "reading", "training", "scoring", "training", "storing",
    ]  # fmt: skip
    told = {event.kind: event.message for event in events}
    assert told["model"] == "model mlp: the examples are rows of numbers and categories"
    assert told["route"].startswith("directional derivatives by ghost: exact")
    assert told["selection"].startswith("selection rule top: every labelled row is kept")


def test_an_attempt_that_lost_its_job_writes_nothing(database: Database, settings: Settings, points: Path) -> None:
    job_id = queue_job(database, make_document(points))
    claim = claim_job(database)
    release(database, claim)
    newer = claim_job(database)
    assert run_claimed(database, settings, claim) == STALE
    assert run_claimed(database, settings, newer) == DONE
    assert run_claimed(database, settings, newer) == STALE, "the job is over"
    assert list_messages(database, job_id).count("succeeded") == 1


def test_a_cancel_in_the_last_moment_wins(database: Database, settings: Settings, points: Path) -> None:
    job_id = queue_job(database, make_document(points, evaluation=None))
    claim = claim_job(database)
    with database.write() as session:
        session.execute(update(JobTable).where(JobTable.id == job_id).values(state=JobState.CANCELLING))
    assert run_claimed(database, settings, claim) == STALE
    with database.write() as session:
        AttemptRepository(session).cancel(claim.job_id, claim.attempt)
    assert read_chunks(database, job_id) == []


@sqlite_alone
def test_bad_data_fails_the_job_with_every_problem(database: Database, settings: Settings, points: Path) -> None:
    table = pq.read_table(points)
    first = table["first"].to_pylist()
    first[17] = float("inf")
    pq.write_table(table.set_column(1, "first", [first]).set_column(0, "id", [["twin"] * len(first)]), points)
    code, message = fail_with(database, settings, make_document(points))
    assert code == "bad_data"
    assert "row 17" in message
    assert "'first' is infinite" in message
    assert "dataset.id" in message


@sqlite_alone
def test_a_missing_file_is_named(database: Database, settings: Settings, tmp_path: Path) -> None:
    code, message = fail_with(database, settings, make_document(tmp_path / "gone.parquet"))
    assert code == "bad_data"
    assert "gone.parquet" in message


@sqlite_alone
def test_a_loss_that_is_not_finite_is_told_with_its_step(database: Database, settings: Settings, points: Path) -> None:
    training = {"epochs": 6, "batch_size": 16, "optimizer": "sgd", "lr": 100.0, "weight_decay": 100.0}
    document = make_document(points, training=training, model={"name": "linear"})
    code, message = fail_with(database, settings, document)
    assert code == "non_finite_loss"
    assert "at step" in message


@sqlite_alone
def test_cuda_where_there_is_none_is_a_failure_in_words(database: Database, settings: Settings, points: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code, message = fail_with(database, settings.model_copy(update={"device": "cuda"}), make_document(points))
    assert (code, message) == (
        "device_unavailable", "The worker is set to train on CUDA, but it has no CUDA device.",
    )  # fmt: skip


@sqlite_alone
def test_the_rows_digest_is_that_of_the_data(database: Database, settings: Settings, points: Path) -> None:
    from service.jobs.document import parse_document

    document = make_document(points, evaluation=None)
    manifest = read_result(database, run_to_end(database, settings, document))[0].manifest
    folder = settings.data_dir / "again"
    folder.mkdir()
    assert (
        read_dataset(parse_document(document), settings, folder).train.rows_digest == manifest["source"]["rows_digest"]
    )
