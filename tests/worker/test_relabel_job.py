"""A whole job with task relabel in this process: what it stores, and that it repeats and resumes to the byte."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.db.engine import Database
from service.jobs.document import parse_document
from service.results.schemas import Summary
from service.results.service import ResultService
from service.settings import Settings
from service.storage.roles import read_dataset
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
from worker.data.arrays import ArrayFolder
from worker.data.examples import Part
from worker.data.tabular import TabularEncoder
from worker.data.unlabelled import encode_unlabelled
from worker.exits import DONE, STOPPED
from worker.stop import StopFlag


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "points.parquet", num_unlabelled=5)


def make_relabel_document(path: Path, **relabel: Any) -> dict[str, Any]:
    """Return a job that trains long enough to be sure of some labels."""
    training = {"epochs": 12, "batch_size": 20}
    return make_document(path, task="relabel", relabel=relabel or None, training=training, evaluation=None)


@sqlite_alone
def test_wrong_labels_are_corrected_and_every_row_is_kept(database: Database, settings: Settings, points: Path) -> None:
    job_id = run_to_end(database, settings, make_relabel_document(points, min_confidence=0.7))
    truth = pq.read_table(points).column("label").to_pylist()[:NUM_TRAIN]
    rows = read_rows(database, job_id).to_pylist()
    corrected = [row for row in rows if row["corrected"]]
    assert len(corrected) >= 8
    assert np.mean([row["label"] == truth[row["row"]] for row in corrected]) >= 0.8
    assert all(row["label"] == row["suggested_label"] != row["given_label"] for row in corrected)
    assert all(row["reason"].startswith("corrected: the model says ") for row in corrected)
    labelled = [row for row in rows if row["label"] is not None]
    assert (len(labelled), all(row["keep"] for row in labelled)) == (NUM_TRAIN - 5, True)
    assert np.mean([row["weight"] for row in labelled]) == pytest.approx(1.0, abs=1e-5)
    assert {row["reason"] for row in rows if row["label"] is None} == {"unlabelled"}
    result, previews = read_result(database, job_id)
    relabel = Summary.model_validate(result.summary).relabel
    assert relabel is not None
    assert relabel.num_corrected == relabel.num_kept == len(corrected)
    assert sum(change.count for change in relabel.changes) == len(corrected)
    assert relabel.expected_right_before is not None and relabel.expected_right_after is not None
    assert relabel.expected_right_after > relabel.expected_right_before
    assert not any("uncalibrated" in note for note in Summary.model_validate(result.summary).notes)
    assert f"{len(corrected)} labels corrected" in list_messages(database, job_id)
    assert {preview.row for preview in previews if preview.corrected} == {row["row"] for row in corrected}
    json.dumps(result.manifest, allow_nan=False)


@sqlite_alone
def test_undone_it_is_what_reweighting_gives(database: Database, settings: Settings, points: Path) -> None:
    document = make_relabel_document(points, unlabelled=True)
    changed = read_rows(database, run_to_end(database, settings, document))
    plain = read_rows(
        database,
        run_to_end(
            database,
            settings,
            {name: section for name, section in document.items() if name != "relabel"} | {"task": "reweight"},
        ),
    )
    corrected = changed.column("corrected").to_numpy(zero_copy_only=False)
    assert 8 <= corrected.sum() < NUM_TRAIN
    for name in ("given_label", "given_weight", "given_score"):
        assert changed.column(name).equals(plain.column(name)), name
        assert plain.column(name).equals(plain.column({"given_label": "label"}.get(name, name[6:]))), name
    weights = changed.column("weight").to_numpy()[corrected], changed.column("given_weight").to_numpy()[corrected]
    assert np.nanmean(weights[0]) > 2 * np.nanmean(weights[1]), "they were overwritten"
    assert changed.column("weight_std").is_null().to_numpy()[corrected].all(), (
        "no one knows that of a taken-over weight"
    )
    assert plain.column("weight_std").null_count == 5


@sqlite_alone
@pytest.mark.parametrize("rule", ["top", "coverage"])
def test_rows_labelled_for_the_first_time_take_their_place_by_score_at_every_keep_fraction(
    database: Database, settings: Settings, points: Path, rule: str
) -> None:
    document = make_relabel_document(points, unlabelled=True, min_noise=0.95)
    selection = {"rule": rule, "class_floor": 0.0}
    job_id = run_to_end(database, settings, document | {"selection": selection | {"keep_fraction": 0.8}})
    rows = read_rows(database, job_id).to_pydict()
    rank, score = (np.array(rows[name], dtype=np.float64) for name in ("rank", "score"))
    summary = Summary.model_validate(read_result(database, job_id)[0].summary)
    num_sound = summary.selection.n_labelled - summary.selection.n_cut_off
    pairs = zip(rows["given_label"], rows["label"], strict=True)
    new = np.array([given is None and label is not None for given, label in pairs])
    assert (new.sum(), summary.selection.n_cut_off > 0) == (5, True)
    assert any(note.startswith("How sure the labels of rows without a given label are") for note in summary.notes)
    assert any(note.startswith("noise_score beside the given labels of trusted rows") for note in summary.notes)
    assert (rank[new] < num_sound).all(), "ahead of the likely mislabelled ones"
    assert rank[new].min() < 0.8 * NUM_TRAIN
    if rule == "top":
        sound = np.argsort(rank)[:num_sound]
        assert (np.diff(score[sound]) <= 0).all()
    half = run_to_end(database, settings, document | {"selection": selection | {"keep_fraction": 0.5}})
    derived = ResultService(database, settings).summary(job_id, keep_fraction=0.5)
    own = Summary.model_validate(read_result(database, half)[0].summary)
    assert read_rows(database, half).column("rank").to_pylist() == rows["rank"]
    assert (derived.relabel, derived.classes) == (own.relabel, own.classes)
    assert derived.selection.threshold == own.selection.threshold
    assert (own.selection.threshold is None) == (rule == "coverage")


@sqlite_alone
@pytest.mark.parametrize(
    ("sections", "remedy"),
    [
        ({"meta": {"fraction": 0.05}}, "at least ten trusted examples make them probabilities."),
        ({"method": {"name": "aum"}}, "method sama with at least ten trusted examples makes them probabilities."),
    ],
)
def test_corrections_by_scores_that_are_no_probabilities_say_so(
    database: Database, settings: Settings, points: Path, sections: dict[str, Any], remedy: str
) -> None:
    job_id = run_to_end(database, settings, make_relabel_document(points) | sections)
    summary = Summary.model_validate(read_result(database, job_id)[0].summary)
    warning = f"The corrections rest on uncalibrated scores: look at them before use; {remedy}"
    assert warning in list_messages(database, job_id)
    assert warning in summary.notes
    assert summary.relabel is not None
    assert (summary.relabel.expected_right_before, summary.relabel.expected_right_after) == (None, None)


@sqlite_alone
def test_a_higher_bar_corrects_fewer_labels(database: Database, settings: Settings, points: Path) -> None:
    corrected = []
    for bar in (0.6, 0.8, 1.0):
        rows = read_rows(database, run_to_end(database, settings, make_relabel_document(points, min_confidence=bar)))
        corrected.append({row["row"] for row in rows.to_pylist() if row["corrected"]})
    assert corrected[0] > corrected[1] >= corrected[2] == set()


@sqlite_alone
def test_soft_labels_are_the_probabilities_that_the_decision_rests_on(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = run_to_end(database, settings, make_relabel_document(points, targets="soft", min_confidence=0.7))
    for row in read_rows(database, job_id).to_pylist():
        if row["label"] is None:
            assert row["soft_label"] is None
            continue
        assert sum(row["soft_label"]) == pytest.approx(1.0, abs=1e-4)
        assert max(row["soft_label"]) == pytest.approx(row["label_confidence"], abs=1e-6)
        assert int(np.argmax(row["soft_label"])) == row["suggested_label"]


@sqlite_alone
def test_the_proof_of_soft_labels_trains_on_them(database: Database, settings: Settings, points: Path) -> None:
    document = make_relabel_document(points, targets="soft", min_confidence=0.7)
    arms = ["full", "curated", "random", "full-and-meta", "curated-and-meta"]
    proofs = {}
    for targets in ("soft", "hard"):
        document["relabel"]["targets"] = targets
        job_id = run_to_end(database, settings, document | {"evaluation": {"arms": arms, "seeds": 2}})
        evaluation = Summary.model_validate(read_result(database, job_id)[0].summary).evaluation
        assert evaluation is not None
        proofs[targets] = {arm.arm: arm for arm in evaluation.arms}
    soft = {name: arm.trained_on for name, arm in proofs["soft"].items()}
    kept = "the 115 kept rows, with their soft labels"
    assert soft["curated"] == f"{kept}, each counting alike"
    assert soft["curated-and-meta"] == f"{kept}, and the 24 trusted ones, each counting alike"
    assert soft["random"] == "115 rows drawn at random, each counting alike"
    assert "soft" not in proofs["hard"]["curated"].trained_on
    assert proofs["soft"]["curated"].mean >= proofs["soft"]["full"].mean


class StopOnceRelabelled(StopFlag):
    """A stop that is asked for as soon as the job's events tell of corrected labels."""

    def __init__(self, database: Database, job_id: str) -> None:
        super().__init__()
        self._database, self._job_id = database, job_id

    @property
    def is_set(self) -> bool:
        return any("corrected" in message for message in list_messages(self._database, self._job_id))


def test_stopped_after_its_training_it_corrects_the_same_labels(
    database: Database, settings: Settings, points: Path
) -> None:
    document = make_relabel_document(points, targets="soft", min_confidence=0.7, unlabelled=True)
    document["selection"] = {"keep_fraction": 0.7}
    undisturbed = run_to_end(database, settings, document)
    job_id = queue_job(database, document)
    claim = claim_job(database)
    assert run_claimed(database, settings, claim, StopOnceRelabelled(database, job_id)) == STOPPED
    release(database, claim)
    assert run_claimed(database, settings, claim_job(database)) == DONE
    assert any("(evaluating)" in message for message in list_messages(database, job_id))
    assert read_chunks(database, job_id) == read_chunks(database, undisturbed)
    assert read_result(database, job_id)[0].summary == read_result(database, undisturbed)[0].summary


@sqlite_alone
def test_suspicious_rows_are_shown_with_the_trusted_examples_that_speak_against_them(
    database: Database, settings: Settings, points: Path
) -> None:
    previews = read_result(database, run_to_end(database, settings, make_relabel_document(points)))[1]
    told = [influence for preview in previews[:10] for influence in preview.influences]
    assert told
    assert {influence["label"] for influence in told} <= {"0", "1"}
    assert all(influence["text"].startswith("first=") for influence in told)
    for preview in previews:
        strengths = [influence["strength"] for influence in preview.influences]
        assert strengths == sorted(strengths, reverse=True)
        assert not strengths or strengths[0] == 1.0


@pytest.mark.parametrize("wanted", [True, False])
def test_rows_without_a_label_are_encoded_where_the_document_asks_for_them(
    tmp_path: Path, points: Path, wanted: bool
) -> None:
    document = parse_document(make_relabel_document(points, unlabelled=wanted))
    with ArrayFolder(tmp_path / "encoded", lambda: None) as folder:
        tables = read_dataset(document, Settings(data_dir=tmp_path, data_roots=(tmp_path,)), folder.path)
        rows = np.flatnonzero(tables.train.labels >= 0)
        part = Part("train", tables.train.inputs, rows, tables.train.labels[rows])
        encoder = TabularEncoder.fit(part)
        found = encode_unlabelled(document, tables.train, encoder, 2, folder)
        if not wanted:
            assert found is None
            return
        assert found is not None
        assert found.rows.tolist() == [0, 1, 2, 3, 4]
        assert len(found.examples) == 5
