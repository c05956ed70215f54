"""A base network divided among processes gives what a whole one gives, and gets its own bits back."""

import json
from pathlib import Path

import pytest

from tests.sama_core.processes import Result, start_ranks
from tests.sama_core.sharded_tasks import OPTIMIZERS, REFUSED
from tests.sama_core.test_distributed import difference

pytestmark = pytest.mark.slow

NUM_STEPS, NUM_WARMUP = 10, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded") / "two"


@pytest.fixture(scope="module")
def results(folder: Path) -> list[Result]:
    """What two processes gave."""
    with start_ranks(folder, "work_sharded", 2, module="tests.sama_core.sharded_tasks") as ranks:
        return ranks.results()


@pytest.mark.parametrize("case", [*OPTIMIZERS, "pieces", "not adapted"])
def test_a_divided_network_gives_what_a_whole_one_gives(results: list[Result], case: str) -> None:
    for result in results:
        whole = {name: t for name, t in result.items() if name.startswith(f"{case}:whole/")}
        assert len(whole) == 14
        for name, tensor in whole.items():
            # The finite difference makes more of the last digits than the rest of the solve does.
            assert difference(result[name.replace(":whole/", ":divided/")], tensor) < 5e-5, name


def test_an_estimate_gives_every_bit_back(results: list[Result]) -> None:
    for result in results:
        assert result["kept"].tolist() == [True] * (NUM_STEPS - NUM_WARMUP)


def test_each_process_holds_its_part_alone(results: list[Result]) -> None:
    whole = [16 * 2, 16, 16, 16, 3 * 16, 3]
    held = [result["sizes"].tolist() for result in results]
    assert [sum(sizes) for sizes in zip(*held, strict=True)] == whole
    assert held[0] == [16, 8, 8, 8, 2 * 16, 2]


def test_what_a_divided_network_does_not_allow_is_refused(results: list[Result], folder: Path) -> None:
    for rank in range(len(results)):
        messages = json.loads((folder / f"messages-{rank}").read_text())
        assert messages == {
            name: f"{name}: {value!r} with a divided network; wanted it left out" for name, value in REFUSED.items()
        }
