"""With how many threads of a CPU a job trains."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.db.engine import Database
from service.settings import Settings
from tests.worker.jobs import make_document, read_result, run_to_end, write_points
from worker.devices import describe_device, limit_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("named", "most", "used"), [(None, 1, 1), (None, None, 2), (2, 1, 2)])
def test_a_small_model_takes_one_thread_unless_the_settings_name_a_number(
    named: int | None, most: int | None, used: int
) -> None:
    with limit_threads(CPU, Settings(num_threads=named), most):
        assert torch.get_num_threads() == used
        assert describe_device(CPU).endswith(f", {used} thread{'s' if used > 1 else ''})")
    assert torch.get_num_threads() == 2


def test_a_gpu_leaves_the_threads_of_the_cpu_as_they_are() -> None:
    with limit_threads(torch.device("cuda"), Settings(), 1):
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("named", "told"), [(None, "1 thread)"), (2, "2 threads)")])
def test_the_manifest_tells_the_threads_of_the_training(
    database: Database, settings: Settings, tmp_path: Path, named: int | None, told: str
) -> None:
    document = make_document(
        write_points(tmp_path / "points.parquet"), evaluation=None, test=None, model={"name": "linear"}
    )
    job_id = run_to_end(database, settings.model_copy(update={"num_threads": named}), document)
    assert read_result(database, job_id)[0].manifest["method"]["device"].endswith(told)
    assert torch.get_num_threads() == 2
