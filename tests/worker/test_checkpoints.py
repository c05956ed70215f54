"""Checkpoints: whole or not there, of this job or not used, and only the newest kept."""

from pathlib import Path

import pytest
import torch

from worker.checkpoints import Checkpoint, CheckpointStore, CheckpointUnusableError


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, "job_1", 1, "same")


def make(step: int = 3) -> Checkpoint:
    return Checkpoint("training", step, {"x": torch.arange(4.0), "n": torch.tensor(7)}, {"seed": 1, "part": [0.1]})


def test_what_is_saved_is_read_back_exactly(store: CheckpointStore) -> None:
    loaded = store.load(store.save(make()))
    assert (loaded.stage, loaded.step, loaded.values) == ("training", 3, {"seed": 1, "part": [0.1]})
    assert torch.equal(loaded.tensors["x"], torch.arange(4.0))
    assert loaded.tensors["n"] == 7


def test_paths_are_relative_so_that_the_data_directory_may_move(tmp_path: Path, store: CheckpointStore) -> None:
    path = store.save(make())
    assert path == "checkpoints/job_1/1/3"
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "checkpoints").rename(moved / "checkpoints")
    assert CheckpointStore(moved, "job_1", 2, "same").load(path).step == 3


def test_a_checkpoint_that_is_gone_is_unusable(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointUnusableError, match="not on this machine's disk"):
        store.load("checkpoints/job_1/1/99")


def test_a_damaged_checkpoint_is_unusable(tmp_path: Path, store: CheckpointStore) -> None:
    path = store.save(make())
    weights = tmp_path / path / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointUnusableError, match="damaged"):
        store.load(path)
    (tmp_path / path / "state.json").write_text("{")
    with pytest.raises(CheckpointUnusableError, match="cannot be read"):
        store.load(path)


def test_a_checkpoint_of_something_else_is_unusable(tmp_path: Path, store: CheckpointStore) -> None:
    other = CheckpointStore(tmp_path, "job_1", 2, "other data")
    with pytest.raises(CheckpointUnusableError, match="no longer the same"):
        other.load(store.save(make()))


def test_half_a_checkpoint_never_has_the_name_of_a_whole_one(tmp_path: Path, store: CheckpointStore) -> None:
    with pytest.raises(TypeError):
        store.save(Checkpoint("training", 5, {"x": torch.ones(1)}, {"value": object()}))
    assert not (tmp_path / "checkpoints/job_1/1/5").exists()
    assert store.load(store.save(make(5))).step == 5, "what is left of the first try is not in the way"


def test_only_the_checkpoint_pointed_at_is_kept(tmp_path: Path, store: CheckpointStore) -> None:
    store.save(make(1))
    store.save(make(2))
    later = CheckpointStore(tmp_path, "job_1", 2, "same")
    kept = later.save(make(3))
    later.prune(kept)
    assert [path.parent for path in (tmp_path / "checkpoints").rglob("state.json")] == [tmp_path / kept]
    later.remove_all()
    assert list((tmp_path / "checkpoints").iterdir()) == []
