"""A whole job from several seeds in this process: spread, facts, arms of other seeds, and an exact resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.db.engine import Database
from service.results.schemas import Summary
from service.settings import Settings
from tests.worker.jobs import (
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

EVALUATION = {"arms": ["full", "curated", "random"], "seeds": 2, "plant": {"rate": 0.2}}


def make_seeds_document(path: Path, seeds: int, **sections: Any) -> dict[str, Any]:
    return make_document(path, **{"method": {"seeds": seeds}, "training": {"epochs": 4, "batch_size": 20}} | sections)


class StopAfterBoundaries(StopFlag):
    """A stop that is asked for at the K-th look."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    @property
    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@sqlite_alone
def test_decisions_of_several_seeds_are_averaged_and_their_spread_is_told(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    points = write_points(tmp_path / "points.parquet")
    alone = [
        read_rows(
            database,
            run_to_end(
                database,
                settings,
                make_seeds_document(points, 1, evaluation=None, training={"epochs": 4, "batch_size": 20, "seed": seed}),
            ),
        )
        for seed in (0, 1)
    ]
    job_id = run_to_end(database, settings, make_seeds_document(points, 2, evaluation=EVALUATION))
    rows, (result, _previews) = read_rows(database, job_id), read_result(database, job_id)
    for name in ("weight", "noise_score", "score"):
        mean = np.mean([part.column(name).to_numpy() for part in alone], axis=0)
        np.testing.assert_allclose(rows.column(name).to_numpy(), mean, rtol=1e-4, atol=1e-6, err_msg=name)
    weights = np.stack([part.column("weight").to_numpy() for part in alone])
    within = np.square([part.column("weight_std").to_numpy() for part in alone]).mean(axis=0)
    spread = np.sqrt(within + weights.var(axis=0))
    np.testing.assert_allclose(rows.column("weight_std").to_numpy(), spread, rtol=1e-3, atol=1e-5)
    assert result.manifest["weights"]["seeds"] == [0, 1]
    assert result.manifest["method"]["hyperparameters"]["seeds"] == 2
    evaluation = Summary.model_validate(result.summary).evaluation
    assert evaluation is not None
    assert list(evaluation.seeds) == [2, 3], "arms start from other seeds than the curation"
    assert evaluation.audit is not None


@sqlite_alone
def test_each_seed_tells_that_it_ends_once_its_ranking_has_settled(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    training = {"epochs": 16, "batch_size": 20, "lr": 0.003, "stop_when_settled": True}
    points = write_points(tmp_path / "points.parquet")
    document = make_seeds_document(points, 2, evaluation=None, model={"name": "linear"}, training=training)
    messages = list_messages(database, run_to_end(database, settings, document))
    told = [text for text in messages if text.endswith("; training ends with the next one")]
    assert [text.split(":")[0] for text in told] == ["seed 0", "seed 1"]


@sqlite_alone
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_stopped_in_either_seed_it_decides_the_same(
    database: Database, settings: Settings, tmp_path: Path, share: float
) -> None:
    eager = settings.model_copy(update={"checkpoint_seconds": 0.0})
    document = make_seeds_document(write_points(tmp_path / "points.parquet"), 2, evaluation=None)
    whole = run_to_end(database, settings, document)
    num_steps = read_result(database, whole)[0].manifest["method"]["facts"]["num_base_steps"]
    job_id = queue_job(database, document)
    claim = claim_job(database)
    assert run_claimed(database, eager, claim, StopAfterBoundaries(int(share * num_steps))) == STOPPED
    release(database, claim)
    assert run_claimed(database, settings, claim_job(database)) == DONE
    resumed = [text.split()[3] for text in list_messages(database, job_id) if text.startswith("resumed from step ")]
    assert [abs(int(step) - share * num_steps) < 0.1 * num_steps for step in resumed] == [True]
    assert read_chunks(database, job_id) == read_chunks(database, whole)
