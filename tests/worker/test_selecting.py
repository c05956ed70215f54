"""The order of a whole job: likely mislabelled rows last, what is said of it, and who speaks against a row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.db.engine import Database
from service.results.schemas import Summary
from service.results.service import ResultService
from service.settings import Settings
from tests.worker.jobs import (
    NUM_TRAIN,
    claim_job,
    list_messages,
    make_document,
    queue_job,
    read_result,
    read_rows,
    run_claimed,
    run_to_end,
    write_points,
)
from worker.checkpoints import CheckpointStore
from worker.exits import STOPPED
from worker.phases.tracing import import_influences
from worker.stop import StopFlag

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "points.parquet")


def prune(points: Path, **selection: Any) -> dict[str, Any]:
    training = {"epochs": 12, "batch_size": 20, "lr": 0.01}
    selection = {"keep_fraction": 0.6, "noise_cut": 0.5, **selection}
    return make_document(
        points, task="prune", evaluation=None, test=None, training=training, selection=selection, model={"name": "mlp"}
    )


@pytest.mark.parametrize("rule", ["top", "balanced", "coverage"])
def test_likely_mislabelled_rows_stand_last_whatever_the_rule(
    database: Database, settings: Settings, points: Path, rule: str
) -> None:
    job_id = run_to_end(database, settings, prune(points, rule=rule))
    rows = read_rows(database, job_id).to_pydict()
    noise, rank = np.array(rows["noise_score"]), np.array(rows["rank"])
    doubtful = (noise > 0.5) & (np.array(rows["given_label"]) != np.array(rows["suggested_label"]))
    assert 5 < doubtful.sum() < 60
    assert set(rank[doubtful]) == set(range(NUM_TRAIN - int(doubtful.sum()), NUM_TRAIN))
    assert (np.diff(noise[doubtful][np.argsort(rank[doubtful])]) >= 0).all()
    selection = Summary.model_validate(read_result(database, job_id)[0].summary).selection
    assert (selection.rule, selection.noise_cut, selection.n_cut_off) == (rule, 0.5, int(doubtful.sum()))
    assert selection.rule_reason == f"{rule}, as asked for; {doubtful.sum()} likely mislabelled rows last"
    assert f"selection rule {selection.rule_reason}" in list_messages(database, job_id)
    if rule == "top":
        kept, sound = rank < selection.n_kept, ~doubtful
        assert selection.threshold == pytest.approx(np.array(rows["score"])[kept].min())
        assert np.array(rows["score"])[sound & ~kept].max() <= selection.threshold
    else:
        assert selection.threshold is None, "no cut by score"


def test_where_doubtful_rows_are_kept_it_is_said_and_there_is_no_threshold(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = run_to_end(database, settings, prune(points, rule="top", keep_fraction=0.99))
    selection = Summary.model_validate(read_result(database, job_id)[0].summary).selection
    assert f", {selection.n_cut_off - 1} of them kept, since the keep fraction leaves room" in selection.rule_reason
    assert selection.threshold is None
    advised = (100 * (NUM_TRAIN - selection.n_cut_off) // NUM_TRAIN) / 100
    assert selection.rule_reason.endswith(f"; a keep fraction of {advised:g} drops them all")
    drops_all = run_to_end(database, settings, prune(points, rule="top", keep_fraction=advised))
    kept = [row for row in read_rows(database, drops_all).to_pylist() if row["keep"]]
    assert not any(row["noise_score"] > 0.5 and row["suggested_label"] != row["given_label"] for row in kept)


def test_a_noise_score_that_no_trusted_example_calibrated_is_called_a_ranking(
    database: Database, settings: Settings, points: Path
) -> None:
    document = prune(points, noise_cut=None)
    note = "noise_score is a ranking, not a probability."
    aum = {"method": {"name": "aum"}}
    for changed, is_calibrated, notes in (
        ({}, True, []),
        (aum, False, [f"The trusted examples did not calibrate method aum: {note}"]),
        (aum | {"meta": None}, False, [f"No trusted examples: {note}"]),
    ):
        chosen = {name: value for name, value in (document | changed).items() if value is not None}
        result = read_result(database, run_to_end(database, settings, chosen))[0]
        summary = Summary.model_validate(result.summary)
        assert result.manifest["method"]["calibrated"] is summary.calibrated is is_calibrated
        assert [told for told in summary.notes if note in told] == notes
        assert summary.selection.doubt_above == summary.selection.noise_cut == (0.5 if is_calibrated else 0.9)


def test_a_cut_of_one_is_none(database: Database, settings: Settings, points: Path) -> None:
    job_id = run_to_end(database, settings, prune(points, rule="top", noise_cut=1.0))
    selection = Summary.model_validate(read_result(database, job_id)[0].summary).selection
    assert (selection.n_cut_off, selection.rule_reason) == (0, "top, as asked for")


def test_a_class_that_keeps_no_row_is_named(database: Database, settings: Settings, points: Path) -> None:
    job_id = run_to_end(database, settings, prune(points, keep_fraction=0.001, class_floor=1.0))
    summary = Summary.model_validate(read_result(database, job_id)[0].summary)
    (emptied,) = [group for group in summary.classes if group.num_kept == 0]
    note = f"No row is kept of class '{emptied.name}' ({emptied.num_rows} rows)."
    assert note in summary.notes
    assert note not in ResultService(database, settings).summary(job_id, keep_fraction=1.0).notes


def test_auto_prunes_by_coverage(database: Database, settings: Settings, points: Path) -> None:
    document = prune(points) | {"meta": {"self": True}}
    selection = Summary.model_validate(
        read_result(database, run_to_end(database, settings, document))[0].summary
    ).selection
    assert selection.rule == "coverage"
    assert selection.rule_reason.startswith("coverage: 40% of the rows go, and a cut by score alone would keep one")


class StopWhenScored(StopFlag):
    """A stop that is asked for once the rows are scored."""

    def __init__(self, database: Database, job_id: str) -> None:
        super().__init__()
        self._database, self._job_id = database, job_id

    @property
    def is_set(self) -> bool:
        return any(message.startswith("selection rule") for message in list_messages(self._database, self._job_id))


def test_who_speaks_against_the_most_doubtful_rows_is_in_the_checkpoint_after_the_training(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = queue_job(database, make_document(points, training={"epochs": 12, "batch_size": 20, "lr": 0.01}))
    claim = claim_job(database)
    assert run_claimed(database, settings, claim, StopWhenScored(database, job_id)) == STOPPED
    (folder,) = (path.parent for path in settings.data_dir.glob("checkpoints/*/*/*/state.json"))
    store = CheckpointStore(settings.data_dir, job_id, claim.attempt, read_fingerprint(folder))
    saved = store.load(str(folder.relative_to(settings.data_dir)))
    influences = import_influences(saved.tensors)
    assert influences is not None
    noise = saved.tensors["decisions/noise_score"]
    assert influences.rows.tolist() == noise.argsort(descending=True, stable=True)[:50].tolist()
    assert influences.trusted.shape == influences.values.shape == (50, 5)
    told = influences.trusted >= 0
    assert bool((influences.values[told] < 0).all()), "these speak against the row"
    assert bool(told[:10].any(dim=1).all()), "every very doubtful row has its opponents"


def read_fingerprint(folder: Path) -> str:
    fingerprint: str = json.loads((folder / "state.json").read_text())["fingerprint"]
    return fingerprint
