"""The benchmark of the engine runs, and says what it leaves out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engine.plan import Plan, parse_plan
from benchmarks.engine.record import Record
from benchmarks.engine.report import format_report
from benchmarks.engine.setting import Setting
from benchmarks.engine.timing import compose_period

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_quick_run_prints_every_table_and_says_that_betty_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "BETTY"}
    command = [sys.executable, "-m", "benchmarks", "engine", "--quick", "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| ours, automatic route ")]
    _, _, each, tenth, memory, added, cosine, _ = [cell.strip() for cell in row.split("|")]
    assert float(each.split()[0]) > float(tenth.split()[0]) > 0.5
    assert 0.5 < float(memory.split()[0]) < 2.0
    assert float(added.split()[0]) > 0.0
    assert float(cosine.split()[0]) > 0.9999
    assert "Betty's arms are left out: the environment variable BETTY is not set" in done.stdout


def test_a_checkout_of_betty_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.engine.arms import find_arms

    monkeypatch.setenv("BETTY", str(tmp_path))
    arms, (note,) = find_arms(("plain", "betty-sama"))
    assert arms == ["plain"]
    assert f"BETTY: {tmp_path} holds no betty/engine.py; wanted the path of a checkout of Betty" in note


def _plan(*arguments: str) -> Plan:
    return parse_plan(arguments, None)


def test_the_main_arms_run_everywhere_and_the_others_where_their_problem_has_them() -> None:
    plan = _plan()
    assert [(s.problem, s.optimizer) for s in plan.settings] == [
        (problem, optimizer) for problem in ("mlp", "bert", "resnet") for optimizer in ("sgd", "adamw")
    ]
    by_key = {(s.problem, s.optimizer): plan.choose_arms(s) for s in plan.settings}
    assert by_key["resnet", "adamw"] == ("plain", "auto", "betty-sama")
    assert {"ghost", "betty-cg"} < set(by_key["resnet", "sgd"]) == set(by_key["mlp", "adamw"])


def test_the_arms_named_are_measured_at_the_repeats_named() -> None:
    plan = _plan("--problems", "resnet", "--arms", "auto,betty-cg", "--repeats", "7")
    setting = plan.settings[0]
    assert plan.choose_arms(setting) == ("plain", "auto", "betty-cg")
    assert [plan.count_repeats(setting, arm) for arm in plan.choose_arms(setting)] == [7, 7, 7]


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _plan("--problems", "mlp,vgg")
    assert "unknown vgg; wanted names of mlp, bert, resnet, bert-base" in capsys.readouterr().err


def test_a_period_is_nine_ordinary_steps_and_one_with_a_meta_step() -> None:
    assert compose_period([1.0, 1.0], [2.0, 4.0, 9.0]) == pytest.approx([1.1, 1.3])


def test_a_record_comes_back_from_its_file_as_it_was_and_shows_its_targets() -> None:
    record = Record(Setting("mlp", "sgd"), "MLP", "a machine", plain_ms=[1.0], ratios={1: {"auto": [2.0, 3.0, 2.5]}})
    record.cosines = {"auto": [0.99995]}
    again = Record.from_json(record.to_json())
    assert again == record
    assert "2.50 (<= 2.40)" in format_report([again])


def test_only_a_run_that_measures_everything_of_its_settings_writes_results_by_itself(tmp_path: Path) -> None:
    assert parse_plan(("--problems", "mlp"), tmp_path).out == tmp_path
    for partial in (("--quick",), ("--arms", "auto"), ("--repeats", "3"), ("--parts", "time"), ("--clock", "cpu")):
        assert parse_plan(partial, tmp_path).out is None
    assert parse_plan(("--quick", "--out", str(tmp_path)), None).out == tmp_path
