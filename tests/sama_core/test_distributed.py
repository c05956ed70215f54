"""Several processes share a solve: equal among themselves to the bit, and to one process up to rounding."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sama_core.distributed import DistributedExchange
from sama_core.errors import ExchangeError
from sama_core.exchange import Alone
from tests.sama_core.processes import ROOT, Result, start_ranks
from tests.sama_core.tasks import CURATED, MOVED, OF_THREE, SCENES, Branching, decide, list_moved, solve_on

pytestmark = pytest.mark.slow

# The number formats of the sums, and what the finite difference makes of their last digits.
TOLERANCES = {"nudge, finite difference": 1e-5, "every step, no meta set": 1e-6, "float32": 1e-3}
# What a process does to its examples depends on which they are, or on its own random numbers.
OWN_PARTS = {"dropout and BatchNorm", "unused parameters", "float16"}


def take(result: Result, scene: str) -> Result:
    return {name.partition(":")[2]: tensor for name, tensor in result.items() if name.startswith(f"{scene}:")}


@dataclass(frozen=True)
class Work:
    """What some processes wrote, each into a file and together into a folder."""

    folder: Path
    results: list[Result]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Two processes' work."""
    folder = tmp_path_factory.mktemp("ranks") / "two"
    with start_ranks(folder, "work_as_two", 2) as ranks:
        return Work(folder, ranks.results())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, two: Work) -> Work:
    """Three processes' work."""
    folder = tmp_path_factory.mktemp("ranks") / "three"
    with start_ranks(folder, "work_as_three", 3, checkpoints=str(two.folder)) as ranks:
        return Work(folder, ranks.results())


@pytest.fixture
def solved(request: pytest.FixtureRequest) -> list[Result]:
    """What two, or three, processes gave."""
    results: list[Result] = request.getfixturevalue(request.param).results
    return results


SOLVED = [("two", scene) for scene in SCENES] + [("three", scene) for scene in OF_THREE]


@pytest.mark.parametrize(("solved", "scene"), SOLVED, indirect=["solved"])
def test_processes_are_bit_equal_after_every_step(solved: list[Result], scene: str) -> None:
    first, *others = [take(result, scene) for result in solved]
    assert len(first["digests"]) == 15
    assert len(set(first["digests"].tolist())) == 15, "every step changes something"
    for other in others:
        assert torch.equal(other["digests"], first["digests"])


@pytest.mark.parametrize(
    ("solved", "scene"), [case for case in SOLVED if case[1] not in OWN_PARTS], indirect=["solved"]
)
def test_many_processes_equal_one_with_the_joint_batch(solved: list[Result], scene: str) -> None:
    alone, shared = SCENES[scene].run(Alone()), take(solved[0], scene)
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        if name != "digests" and not name.startswith("window"):
            assert difference(shared[name], tensor) < TOLERANCES.get(scene, 1e-9), name


@pytest.mark.parametrize("kind", CURATED)
def test_two_processes_decide_as_one_does(two: Work, kind: str) -> None:
    alone, (first, second) = decide(Alone(), kind), (take(result, f"curated, {kind}") for result in two.results)
    assert alone.keys() == first.keys() == second.keys()
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert difference(first[name], tensor) < 1e-5, name


def difference(left: Tensor, right: Tensor) -> float:
    """Return the largest difference as a share of the largest number."""
    left, right = left.double().nan_to_num(0.0), right.double().nan_to_num(0.0)
    return float((left - right).abs().max() / right.abs().max().clamp_min(1e-12)) if right.numel() else 0.0


@pytest.mark.parametrize("solved", ["two", "three"], indirect=True)
def test_a_parameter_that_no_process_used_stays_as_it_was(solved: list[Result]) -> None:
    result = take(solved[0], "unused parameters")
    before = Branching()
    assert torch.equal(result["network/never.weight"], before.never.weight)
    assert not torch.equal(result["network/sometimes.weight"], before.sometimes.weight)
    states = {name for name in result if name.startswith("base_optimizer/")}
    assert {name.split("/")[1] for name in states} == {"0", "1", "2", "3"}, "never's are numbers 4 and 5"


@pytest.mark.parametrize(("scene", "number"), [(scene, number) for number, scene in enumerate(MOVED)])
def test_a_checkpoint_of_two_processes_goes_on_with_one_and_with_three(
    two: Work, three: Work, scene: str, number: int
) -> None:
    (_, checkpoint) = list_moved(str(two.folder))[number]
    unbroken, tolerance = SCENES[scene].run(Alone()), TOLERANCES.get(scene, 1e-9)
    shared = [take(result, f"went on, {scene}") for result in three.results]
    for result in [solve_on(Alone(), scene, checkpoint), *shared]:
        assert int(result["base_step"]) == 15
        for name, tensor in result.items():
            if not name.startswith("window"):
                assert difference(tensor, unbroken[name]) < tolerance, name


@pytest.mark.parametrize(
    ("struck", "wait_seconds", "limit_seconds"), [(signal.SIGKILL, 60.0, 10.0), (signal.SIGSTOP, 2.0, 12.0)]
)
def test_a_lost_process_ends_the_others_in_bounded_time(
    tmp_path: Path, struck: signal.Signals, wait_seconds: float, limit_seconds: float
) -> None:
    folder = tmp_path / "ranks"
    with start_ranks(folder, "step_on_and_on", 2, timeout_seconds=wait_seconds) as ranks:
        wait_for(folder / "stepping-0")
        ranks.processes[1].send_signal(struck)
        struck_at = time.monotonic()
        ranks.wait(0)
        assert time.monotonic() - struck_at < limit_seconds
        message = (folder / "error-0").read_text()
        assert message == (
            "exchange: another process of the solve is gone or silent; "
            f"wanted an answer within {wait_seconds:g} seconds"
        )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_what_travels_in_a_step(two: Work) -> None:
    for result in two.results:
        # A base step: evidence; gradients; loss. A meta step: meta gradient with the meta loss; hypergradient.
        assert take(result, "counted")["counts"].tolist() == [[2, 1, 0], [4, 1, 0]] * 2


def test_sums_travel_while_the_backward_pass_runs(two: Work) -> None:
    for result in two.results:
        seen = take(result, "overlap")
        assert seen["early"].tolist() == [1, 1], "the last layer's bucket has left before the first layer's turn"
        assert seen["agree"].all()
        assert seen["right"]


def test_what_processes_cannot_share_is_refused(two: Work) -> None:
    one_each = "the smallest batch has 1 examples; wanted at least 2, one for each process"
    for rank in range(2):
        assert json.loads((two.folder / f"messages-{rank}").read_text()) == {
            "batch": f"OptionsError: batch_size: {one_each}",
            "meta batch": f"OptionsError: meta_batch_size: {one_each}",
            "method": "OptionsError: method: cg; wanted sama or sama-na, which more than one process can share",
            "seed": "ExchangeError: exchange: the options and examples differ between the 2 processes; wanted the same",
            "baseline": "OptionsError: method: aum with 2 processes; wanted 1 process, or a method that learns",
        }


def test_the_environment_must_name_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ExchangeError) as caught:
        DistributedExchange.from_environment()
    assert str(caught.value) == (
        "environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT missing; wanted to be started by torchrun"
    )
    with pytest.raises(ExchangeError, match=r"torch\.distributed is not set up"):
        DistributedExchange(torch.device("cpu"))


def test_the_example_of_the_docs_runs_under_torchrun(tmp_path: Path) -> None:
    text = (ROOT / "docs/how-to/several-devices.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "solve.py"
    script.write_text(code)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (share,) = re.findall(r"^(\d+)% of the wrong labels", done.stdout, re.MULTILINE)
    assert int(share) >= 70
