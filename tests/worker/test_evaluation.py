"""The evaluation of whole jobs: every arm, the prune curve, the baselines, the audit, and the same after any stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.db.engine import Database
from service.results.schemas import EvaluationSummary, Summary
from service.settings import Settings
from tests.worker.jobs import (
    NUM_META,
    NUM_TEST,
    NUM_TRAIN,
    claim_job,
    list_messages,
    make_document,
    queue_job,
    read_result,
    release,
    run_claimed,
    run_to_end,
    sqlite_alone,
    write_points,
)
from tests.worker.test_attempt import CountingStop
from worker.exits import DONE, STOPPED

ARMS = ("full", "curated", "random", "loss", "meta", "full-and-meta", "curated-and-meta")
NUM_STEPS = 3 * 6


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "points.parquet")


def make_whole(points: Path, **evaluation: Any) -> dict[str, Any]:
    """Return a prune job with everything that an evaluation can have."""
    section = {"arms": list(ARMS), "seeds": 2, "keep_fractions": [0.3, 0.7], "plant": {"rate": 0.2}} | evaluation
    return make_document(points, task="prune", selection={"keep_fraction": 0.7, "rule": "top"}, evaluation=section)


def evaluate(database: Database, settings: Settings, document: dict[str, Any]) -> EvaluationSummary:
    """Run a job to its end and return its evaluation."""
    return read_evaluation(database, run_to_end(database, settings, document))


def read_evaluation(database: Database, job_id: str) -> EvaluationSummary:
    evaluation = Summary.model_validate(read_result(database, job_id)[0].summary).evaluation
    assert isinstance(evaluation, EvaluationSummary)
    return evaluation


@sqlite_alone
def test_everything_is_measured_and_told(database: Database, settings: Settings, points: Path) -> None:
    job_id = run_to_end(database, settings, make_whole(points))
    evaluation = read_evaluation(database, job_id)
    num_kept = round(0.7 * NUM_TRAIN)
    assert [arm.arm for arm in evaluation.arms] == list(ARMS)
    assert [arm.num_rows for arm in evaluation.arms] == [
        NUM_TRAIN, num_kept, num_kept, num_kept, NUM_META, NUM_TRAIN + NUM_META, num_kept + NUM_META,
    ]  # fmt: skip
    assert {arm.num_steps for arm in evaluation.arms} == {NUM_STEPS}
    assert all(arm.bootstrap is not None for arm in evaluation.arms)
    assert len(evaluation.comparisons) == 7
    assert evaluation.num_test == NUM_TEST
    for words in ("random", "full data", "lowest loss", "meta set alone", "without reweighting", "planted errors"):
        assert words in evaluation.verdict
    assert [point.keep_fraction for point in evaluation.curve] == [0.3, 0.7]
    assert [point.num_rows for point in evaluation.curve] == [36, num_kept]
    assert evaluation.curve[1].curated == evaluation.arms[1], "the arm itself is that point"
    assert evaluation.curve[1].comparison == evaluation.comparisons[1]
    assert [found.name for found in evaluation.baselines] == ["loss", "aum"]
    assert all(0 <= found.overlap <= 1 for found in evaluation.baselines)
    audit = evaluation.audit
    assert audit is not None
    assert (audit.num_judged, audit.num_planted) == (NUM_TRAIN, 24)
    assert [found.name for found in audit.detections] == ["sama", "loss", "aum"]
    assert all(sum(found.count for found in one.reliability) == NUM_TRAIN for one in audit.detections)
    assert "lower bound" in audit.reading
    told = [message for message in list_messages(database, job_id) if " of 20)" in message]
    assert len(told) == 20
    assert told[0].startswith("arm full, seed 1: test accuracy 0.")
    assert told[-1] == "method sama on planted errors: done (20 of 20)"


@sqlite_alone
def test_the_loss_arm_and_the_baseline_go_by_the_scores_of_the_method_loss(
    database: Database, settings: Settings, points: Path
) -> None:
    """The arm `full` is trained with seed 1, and so is this job of the method `loss`."""
    training = {"epochs": 3, "batch_size": 20, "seed": 1}
    by_method = make_document(points, method={"name": "loss"}, training=training, evaluation=None)
    scores = read_scores(database, run_to_end(database, settings, by_method))
    whole = make_document(
        points,
        task="prune",
        method={"name": "loss"},
        training={**training, "seed": 0},
        selection={"keep_fraction": 0.5, "rule": "top", "class_floor": 0.0},
        evaluation={"arms": ["full", "loss"], "seeds": 1},
    )
    job_id = run_to_end(database, settings, whole)
    found = read_evaluation(database, job_id).baselines[0]
    ours = read_scores(database, job_id)
    k = found.num_compared
    same = set(np.argsort(ours, kind="stable")[:k]) & set(np.argsort(scores, kind="stable")[:k])
    assert found.overlap == pytest.approx(len(same) / k)


def read_scores(database: Database, job_id: str) -> np.ndarray:
    from tests.worker.jobs import read_rows

    return np.array(read_rows(database, job_id)["score"].to_pylist())


@sqlite_alone
def test_without_a_test_set_the_audit_and_the_baseline_still_run(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_document(points, test=None, evaluation={"plant": {"kind": "confusion"}})
    job_id = run_to_end(database, settings, document)
    evaluation = read_evaluation(database, job_id)
    assert (evaluation.arms, evaluation.curve, evaluation.num_test) == ([], [], 0)
    assert evaluation.verdict.startswith("Of 12 planted errors ")
    assert [found.name for found in evaluation.baselines] == ["loss", "aum"]
    assert any(message.startswith("plain training: done (1 of 3)") for message in list_messages(database, job_id))


@sqlite_alone
@pytest.mark.parametrize(("sections", "num_arms"), [({}, 6), ({"test": None}, 0)])
def test_a_job_that_does_not_ask_is_evaluated_beside_a_baseline(
    database: Database, settings: Settings, points: Path, sections: dict[str, Any], num_arms: int
) -> None:
    document = make_document(points, **sections)
    del document["evaluation"]
    evaluation = evaluate(database, settings, document)
    assert len(evaluation.arms) == num_arms
    assert [found.name for found in evaluation.baselines] == ["loss", "aum"]


@sqlite_alone
def test_a_baseline_that_is_not_wanted_is_not_trained(database: Database, settings: Settings, points: Path) -> None:
    section = {"arms": ["curated", "random"], "seeds": 1, "baseline": False, "plant": {}}
    job_id = run_to_end(database, settings, make_document(points, evaluation=section))
    evaluation = read_evaluation(database, job_id)
    assert evaluation.baselines == []
    assert evaluation.audit is not None
    assert [found.name for found in evaluation.audit.detections] == ["sama"]
    assert any("(3 of 3)" in message for message in list_messages(database, job_id))


@sqlite_alone
def test_trusted_rows_among_the_curated_ones_are_trained_on_once_and_never_planted_in(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_document(
        points,
        meta={"fraction": 0.2, "label": "label"},
        evaluation={"arms": ["full", "meta", "full-and-meta", "curated-and-meta"], "seeds": 1, "plant": {"rate": 0.5}},
    )
    evaluation = evaluate(database, settings, document)
    full, meta, both, curated = evaluation.arms
    assert (full.num_rows, both.num_rows, curated.num_rows) == (NUM_TRAIN, NUM_TRAIN, NUM_TRAIN)
    assert evaluation.audit is not None
    assert evaluation.audit.num_judged == NUM_TRAIN - meta.num_rows
    assert evaluation.audit.num_planted == round(0.5 * evaluation.audit.num_judged)


@sqlite_alone
def test_the_curated_arm_of_a_relabel_job_trains_on_corrected_labels(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_document(
        points,
        task="relabel",
        relabel={"min_confidence": 0.5, "min_noise": 0.5},
        evaluation={"arms": ["curated", "curated-and-meta"], "seeds": 1},
    )
    job_id = run_to_end(database, settings, document)
    summary = Summary.model_validate(read_result(database, job_id)[0].summary)
    assert summary.relabel is not None
    assert summary.relabel.num_corrected > 0
    for arm in read_evaluation(database, job_id).arms:
        assert f"({summary.relabel.num_corrected} with a corrected label)" in arm.trained_on


@sqlite_alone
def test_a_trusted_row_with_the_content_of_a_curated_one_counts_as_that_row(
    database: Database, settings: Settings, points: Path
) -> None:
    table = pq.read_table(points)
    split, first = table["split"].to_pylist(), table.schema.get_field_index("split")
    repeated = pa.concat_tables(
        [table.slice(5, 3).set_column(first, "split", [["meta"] * 3]), table, table.slice(5, 1)]
    )
    ids = pa.array([f"r{row}" for row in range(len(repeated))])
    pq.write_table(repeated.set_column(table.schema.get_field_index("id"), "id", ids), points)
    assert split.count("meta") == NUM_META
    section = {"arms": ["meta", "full-and-meta"], "seeds": 1, "plant": {"rate": 0.1}}
    evaluation = evaluate(database, settings, make_document(points, evaluation=section))
    assert [arm.num_rows for arm in evaluation.arms] == [NUM_META + 3, NUM_TRAIN + 1 + NUM_META]
    assert evaluation.audit is not None
    assert evaluation.audit.num_judged == NUM_TRAIN - 3, "nor is an error planted in a second copy"


@sqlite_alone
def test_arms_that_would_be_the_same_training_are_trained_once(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_document(points, method={"name": "aum"}, evaluation={"arms": list(ARMS), "seeds": 2})
    job_id = run_to_end(database, settings, document)
    evaluation = read_evaluation(database, job_id)
    arms = {arm.arm: arm for arm in evaluation.arms}
    assert tuple(arms) == ARMS
    assert arms["full"].accuracy == arms["curated"].accuracy == arms["random"].accuracy
    assert arms["curated"].trained_on == "the same as full, trained once"
    assert [(found.subject, found.arm) for found in evaluation.comparisons] == [
        ("curated", "meta"),
        ("curated", "full-and-meta"),
        ("curated-and-meta", "meta"),
    ]
    assert "Nothing was dropped or weighted: full is also what" in evaluation.verdict
    assert sum(message.endswith(" of 6)") for message in list_messages(database, job_id)) == 6


@sqlite_alone
def test_few_planted_errors_and_few_seeds_are_told(database: Database, settings: Settings, points: Path) -> None:
    section = {"arms": ["full", "curated"], "seeds": 1, "plant": {"rate": 0.01}}
    evaluation = evaluate(database, settings, make_document(points, evaluation=section))
    assert evaluation.verdict.startswith("From 1 seed alone: ")
    assert evaluation.audit is not None
    assert evaluation.audit.reading.startswith("Only 1 error planted, which is too few")


@sqlite_alone
def test_the_same_job_gives_the_same_evaluation(database: Database, settings: Settings, points: Path) -> None:
    first, second = (evaluate(database, settings, make_whole(points, seeds=1)) for _ in range(2))
    assert first == second


@sqlite_alone
def test_stopped_in_any_training_it_resumes_to_the_same_numbers(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_whole(points, seeds=1, keep_fractions=[0.5])
    undisturbed, never = queue_job(database, document), CountingStop(10**9)
    assert run_claimed(database, settings, claim_job(database), never) == DONE
    num_looks = 10**9 - never.num_left
    for share in (0.3, 0.6, 0.8, 0.9, 0.99):
        job_id = queue_job(database, document)
        claim = claim_job(database)
        assert run_claimed(database, settings, claim, CountingStop(round(share * num_looks))) == STOPPED
        release(database, claim)
        assert run_claimed(database, settings, claim_job(database)) == DONE
        assert read_result(database, job_id)[0].summary == read_result(database, undisturbed)[0].summary


@sqlite_alone
def test_no_finished_training_is_done_again(database: Database, settings: Settings, points: Path) -> None:
    eager = settings.model_copy(update={"checkpoint_seconds": 0.0, "progress_seconds": 0.0})
    document = make_whole(points, arms=["full", "curated"], seeds=1, keep_fractions=None)
    undisturbed = run_to_end(database, eager, document)
    job_id = queue_job(database, document)
    while True:
        claim = claim_job(database)
        if run_claimed(database, eager, claim, CountingStop(120)) == DONE:
            break
        release(database, claim)
    messages = list_messages(database, job_id)
    for title in ("arm full, seed 1", "arm curated, seed 1", "plain training on planted errors", "method sama on pla"):
        assert sum(message.startswith(title) for message in messages) == 1
    assert read_result(database, job_id)[0].summary == read_result(database, undisturbed)[0].summary


@sqlite_alone
def test_an_arm_that_diverges_fails_the_job(database: Database, settings: Settings, points: Path) -> None:
    from tests.worker.test_attempt import fail_with

    training = {"epochs": 6, "batch_size": 16, "optimizer": "sgd", "lr": 100.0, "weight_decay": 100.0}
    document = make_document(
        points, method={"name": "random"}, training=training, model={"name": "linear"}, meta=None,
        evaluation={"arms": ["full"], "seeds": 1},
    )  # fmt: skip
    code, message = fail_with(database, settings, document)
    assert code == "non_finite_loss"
    assert "at step" in message
