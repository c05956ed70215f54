"""The benchmark of the decisions measures what it says, resumes, and holds its figures against the targets."""

import doctest
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.quality import detection, summary
from benchmarks.quality.correction import measure_correction
from benchmarks.quality.curation import choose_arms, choose_controls
from benchmarks.quality.journal import Journal, JournalError
from benchmarks.quality.output import refresh_document
from benchmarks.quality.plan import parse_plan
from benchmarks.quality.reading import prepare_set
from benchmarks.quality.report import format_report
from benchmarks.quality.samplings import draw_by_beta, draw_strata
from benchmarks.quality.sets import SETS, Size
from benchmarks.quality.summary import Summary
from benchmarks.quality.targets import judge_targets
from benchmarks.quality.unit import Unit, Workplace, carry_out
from sama_core import Decisions

ROOT = Path(__file__).parents[2]
NUM_TRAIN, NUM_VALID, NUM_TEST = 80, 20, 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with texts of two classes, a fifth of the training labels wrong."""
    rng = np.random.default_rng(0)
    num_rows = NUM_TRAIN + NUM_VALID + NUM_TEST
    label = rng.integers(2, size=num_rows).astype(np.int8)
    noisy = label.copy()
    noisy[: NUM_TRAIN // 5] = 1 - noisy[: NUM_TRAIN // 5]
    noisy[NUM_TRAIN // 5] = -1
    words = (("good", "fine", "great"), ("bad", "poor", "awful"))
    columns = {
        "text": [" ".join(rng.choice(words[one], 4)) for one in label],
        "label": label,
        "noisy_label": noisy,
        "weak_labels": [[int(one), -1] for one in noisy],
        "split": ["train"] * NUM_TRAIN + ["valid"] * NUM_VALID + ["test"] * NUM_TEST,
    }
    table = pa.table(columns).replace_schema_metadata({"class_names": json.dumps(["good", "bad"])})
    folder = tmp_path / "data" / "wrench_youtube"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "data.parquet")
    return folder.parent


def _unit(method: str = "sama", kind: Any = "curation", seed: int = 0) -> Unit:
    return Unit(kind, "letter", "audited", method, seed, True)


def _record(unit: Unit, **figures: Any) -> dict[str, Any]:
    fields = {"kind": unit.kind, "set_name": unit.set_name, "mode": unit.mode, "method": unit.method}
    return {"key": unit.key, "unit": {**fields, "seed": unit.seed, "has_arms": True}, **figures}


def _detected(method: str, auroc: float, **accuracy: float) -> dict[str, Any]:
    figures = {"auroc": auroc, "average_precision": auroc, "precision": auroc, "brier": 0.1, "bins": [[30, 0.2, 0.1]]}
    size = {"train": 10, "trusted": 2, "test": 5, "wrong": 3}
    training = {"epochs": 1, "batch_size": 5, "steps": 2}
    return _record(_unit(method), detection=figures, accuracy=accuracy, rows=size, training=training)


@pytest.mark.parametrize("module", [detection, summary], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried and not failed


def test_detection_of_a_perfect_score() -> None:
    found = detection.measure_detection(np.array([0.95, 0.85, 0.15], dtype=np.float32), np.array([True, True, False]))
    assert found is not None
    assert (found.auroc, found.average_precision, found.precision, found.num_wrong) == (1.0, 1.0, 1.0, 2)
    assert [place for place, (count, *_) in enumerate(found.bins) if count] == [1, 8, 9]


def test_detection_without_a_wrong_label_is_none() -> None:
    assert detection.measure_detection(np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.bool_)) is None


def test_correction_counts_what_is_mended_and_what_is_broken() -> None:
    given, gold, labels = np.array([0, 0, 1, 1]), np.array([1, 1, 1, 1]), np.array([1, 0, 1, 0])
    found = measure_correction(labels, given, gold)
    assert found is not None
    assert (found.mended, found.broken, found.changed, found.right) == (0.5, 0.5, 0.5, 0.5)


def test_a_set_is_read_with_its_trusted_split_beside_the_curated_rows(data: Path, tmp_path: Path) -> None:
    prepared = prepare_set(SETS["wrench_youtube"], Size(), "text", 0, data=data, scratch=tmp_path / "scratch")
    train, meta = prepared.make_train(), prepared.make_meta()
    assert (len(train), len(meta), len(prepared.test)) == (NUM_TRAIN - 1, NUM_VALID, NUM_TEST)
    assert train.votes is not None and train.votes[:, 0].equal(train.labels)
    assert meta.given_labels is not None and meta.train_rows is None
    alone = prepared.separate().make_meta()
    assert alone.given_labels is None


def test_trusted_rows_drawn_from_the_curated_ones_are_named_and_left_out_when_separate(
    data: Path, tmp_path: Path
) -> None:
    (data / "wrench_youtube").rename(data / "sst2")
    size = Size(num_train=60, num_trusted=10)
    prepared = prepare_set(SETS["sst2"], size, "text", 3, data=data, scratch=tmp_path / "scratch")
    meta = prepared.make_meta()
    assert meta.train_rows is not None and meta.given_labels is not None
    assert prepared.make_train().labels[meta.train_rows].equal(meta.given_labels)
    separate = prepared.separate()
    assert len(separate.make_train()) == 50
    assert separate.make_meta().train_rows is None and separate.make_meta().given_labels is None
    assert (prepared.find_untrusted().sum(), separate.find_untrusted().sum()) == (50, 50)


def test_arms_take_the_method_at_its_word_and_trust_the_trusted(data: Path, tmp_path: Path) -> None:
    (data / "wrench_youtube").rename(data / "sst2")
    size = Size(num_train=60, num_trusted=10)
    prepared = prepare_set(SETS["sst2"], size, "text", 3, data=data, scratch=tmp_path / "scratch")
    given, gold = prepared.given, prepared.gold
    wrong = given != gold
    weight = np.where(wrong, 0.5, 1.5).astype(np.float32)
    right = np.eye(2, dtype=np.float32)[gold]
    decisions = Decisions(
        "oracle", weight, weight * 0, weight, wrong.astype(np.float32), gold, weight * 0 + 1, probabilities=right
    )
    arms = choose_arms(decisions, prepared, seed=0)
    untrusted = prepared.find_untrusted()
    assert set(arms) == {"kept", "suggested", "weights", "relabelled"}
    assert arms["kept"].rows.tolist() == np.flatnonzero(~(wrong & untrusted)).tolist()
    assert arms["suggested"].labels.tolist() == gold.tolist()
    trusting = choose_arms(replace(decisions, method="sama", probabilities=right * 0.5 + 0.25), prepared, seed=0)
    soft = trusting["soft"].soft
    assert set(trusting) == {*arms, "soft"}
    assert soft is not None and trusting["soft"].weights is None
    assert soft[untrusted].max() == 0.75 and soft[~untrusted].tolist() == right[~untrusted].tolist()
    weights = arms["weights"].weights
    assert weights is not None and weights[untrusted].mean() == pytest.approx(1.0)
    assert set(weights[~untrusted].tolist()) == {1.0}
    assert arms["weights"].labels[~untrusted].tolist() == gold[~untrusted].tolist()
    controls = choose_controls(prepared)
    assert controls["given"].labels.tolist() == given.tolist()
    assert controls["meta"].rows.tolist() == prepared.trusted_rows.tolist()


def test_a_journal_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"device": "cpu"}, "here", resume=False)
    journal.add(_unit("aum"), {"accuracy": {}})
    journal.add(_unit("loss"), {"error": "killed"})
    with (tmp_path / "units.jsonl").open("a") as file:
        file.write('{"key": "curation letter aud')
    again = Journal(tmp_path, {"device": "cpu"}, "there", resume=True)
    again.add(_unit("random"), {"accuracy": {}})
    third = Journal(tmp_path, {"device": "cpu"}, "here", resume=True)
    assert [third.lacks(_unit(name)) for name in ("aum", "loss", "random", "dual")] == [False, True, False, True]
    assert third.origins == ["here", "there"]


def test_results_are_neither_mixed_nor_written_over(tmp_path: Path) -> None:
    Journal(tmp_path, {"device": "cpu"}, "here", resume=False)
    with pytest.raises(JournalError, match=r"holds results already; pass --resume, or another --out"):
        Journal(tmp_path, {"device": "cpu"}, "here", resume=False)
    with pytest.raises(JournalError, match=r"made with .*cpu.*; wanted .*cuda"):
        Journal(tmp_path, {"device": "cuda"}, "here", resume=True)


def test_targets_are_judged_by_the_figures() -> None:
    controls = _record(_unit("", "controls"), accuracy={"given": 0.7, "meta": 0.72, "given+meta": 0.75, "gold": 0.9})
    tenth = _record(_unit("sama"), cost={"time_ratio": 1.6, "memory_ratio": 1.1})
    ours = _detected("sama", 0.898, weights=0.8, relabelled=0.69)
    verdicts = judge_targets(Summary([ours, _detected("aum", 0.9, kept=0.79, suggested=0.6), controls, tenth]))
    found = {(verdict.target, verdict.where): verdict for verdict in verdicts}
    detected = found["AUROC within 0.005 of the best baseline", "letter"]
    assert (detected.word, detected.figures) == ("PASS", "0.898 against 0.900 (aum): -0.002")
    reweighted = found["accuracy after reweight above every baseline and both controls", "letter"]
    assert (reweighted.word, reweighted.figures) == ("PASS", "0.800 against 0.790 (aum, kept): +0.010")
    assert found["accuracy after relabel above all of them on 75% of the sets", "all"].word == "MISSED"
    assert found["accuracy after relabel never below given labels", "all"].figures == "below on letter -0.010"
    longer = _record(_unit("sama", "cost"), cost={"time_ratio": 1.4}, training={"epochs": 9})
    own = judge_targets(Summary([longer]))[-1]
    assert own.target == "time at most 1.5, where the product chooses the number of epochs"
    assert (own.where, own.word, own.figures) == ("letter", "PASS", "1.40 times")
    cost = found["time at most 1.5 plain trainings, a meta step after each tenth", "letter"]
    assert (cost.word, cost.figures) == ("MISSED", "1.60 times, memory 1.10 times")


def test_failures_stand_in_the_report() -> None:
    text = format_report(Summary([_detected("sama", 0.9), _record(_unit("aum"), error="it broke")]), ["a machine"])
    assert "- curation letter audited aum 0: it broke" in text
    assert "Measured on: a machine" in text


def test_a_document_without_marks_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("nothing here")
    with pytest.raises(ValueError, match="no <!-- begin: quality, written by"):
        refresh_document("quality", tmp_path, document)


def test_the_plan_compares_every_baseline_and_prunes_by_the_named_ones() -> None:
    plan = parse_plan(["--plan"])
    kinds = {(unit.kind, unit.set_name) for unit in plan.units}
    assert ("controls", "letter") in kinds and ("controls", "letter_sym40") not in kinds
    assert {unit.method for unit in plan.units if unit.kind == "pruning"} >= {"random", "aum", "sama"}
    at_own_length = {unit.set_name for unit in plan.units if unit.kind == "cost"}
    assert at_own_length == {"cifar10_worse", "wrench_youtube", "sst2"}
    assert plan.is_whole and not parse_plan(["--plan", "--rows", "100"]).is_whole
    ablation = parse_plan(["--plan", "--ablate"])
    by_set = {name: {unit.method for unit in ablation.units if unit.set_name == name} for name in ("sst2", "adult")}
    assert {"sama", "sama:without-margin", "sama:loss-alone", "sama:without-trusted-features"} <= by_set["sst2"]
    assert by_set["adult"] - by_set["sst2"] == {"sama:without-votes-features", "sama:without-votes-evidence"}
    assert not any(unit.has_arms for unit in ablation.units)


def test_an_unknown_method_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_plan(["--plan", "--methods", "aum,magic"])
    assert "unknown magic; wanted names of sama, random" in capsys.readouterr().err


def test_units_of_every_kind_give_their_figures(data: Path, tmp_path: Path) -> None:
    sizes = {"wrench_youtube": Size(epochs=2)}
    threads = torch.get_num_threads()  # a unit sets it for its process, which is this one
    place = Workplace(data, tmp_path / "cache", device="cpu", model="", threads=threads, sizes=sizes)
    separate = carry_out(Unit("curation", "wrench_youtube", "separate", "sama", 0, False), place)
    assert separate["detection"]["auroc"] > 0.5 and "accuracy" not in separate
    assert separate["training"]["epochs"] == 2
    own = carry_out(Unit("cost", "wrench_youtube", "audited", "aum", 0, False), place)
    assert own["training"]["epochs"] > 2 and own["cost"]["time_ratio"] > 0
    assert set(own) == {"rows", "training", "cost"}
    controls = carry_out(Unit("controls", "wrench_youtube", "audited", "", 0, True), place)
    assert set(controls["accuracy"]) == {"given", "meta", "given+meta", "gold"}


@pytest.mark.slow
def test_a_short_run_prints_tables_and_resumes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = ["--methods", "sama,aum,random", "--seeds", "1", "--epochs", "2", "--sets", "wrench_youtube"]
    command = [sys.executable, "-m", "benchmarks", "quality", "--data", str(data), "--out", str(out), *methods]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=180, env=environment)
    assert "4 of 4 units were carried out now" in done.stdout
    assert "### Detection: AUROC" in done.stdout and "### What failed" not in done.stdout
    lines = (out / "units.jsonl").read_text().splitlines()
    (out / "units.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    again = subprocess.run(
        [*command, "--resume"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=180, env=environment
    )
    assert "1 of 4 units were carried out now" in again.stdout
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, env=environment)
    assert refused.returncode == 1 and "holds results already" in refused.stderr


@pytest.mark.parametrize(("removed", "cut"), [(0.3, 0.0), (0.7, 0.1), (0.9, 0.3)])
def test_strata_of_the_margin_get_equal_places_after_the_hardest_rows_are_cut(removed: float, cut: float) -> None:
    margin = np.linspace(-1.0, 1.0, 1000, dtype=np.float32) ** 3
    count = round(1000 * (1.0 - removed))
    rows = draw_strata(margin, count, removed, seed=0)
    assert len(np.unique(rows)) == count
    assert rows.min() >= 1000 * cut
    crowded = np.histogram(margin, bins=20)[0].argmax()
    kept, there = (np.histogram(margin[some], bins=20, range=(-1, 1))[0] for some in (rows, np.arange(1000)))
    shares = kept[there > 0] / there[there > 0]
    assert shares[crowded] < np.median(shares[shares > 0]) + 1e-9
    assert not np.array_equal(rows, draw_strata(margin, count, removed, seed=1))


def test_the_beta_density_moves_to_easier_rows_the_more_is_removed() -> None:
    rng = np.random.default_rng(0)
    mean = rng.random(4000).astype(np.float32)
    score = ((1.0 - mean) * mean).astype(np.float32)
    few, many = (draw_by_beta(score, mean, round(4000 * (1 - removed)), removed, seed=0) for removed in (0.9, 0.3))
    assert (len(np.unique(few)), len(np.unique(many))) == (400, 2800)
    assert mean[few].mean() > mean[many].mean() + 0.05
    assert score[many].mean() > score.mean()
