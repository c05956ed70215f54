"""One unit of work: a method, or the controls, on one set with one seed; a process of its own carries it out."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.quality.curation import choose_arms, choose_controls, curate_set, judge
from benchmarks.quality.methods import OURS, VARIANTS, forecast_cost
from benchmarks.quality.prepared import Mode, PreparedSet, load_prepared, store_prepared
from benchmarks.quality.pruning import REMOVED, list_rules, prune
from benchmarks.quality.reading import prepare_set
from benchmarks.quality.sets import SETS, Size
from benchmarks.quality.trainer import ArmTrainer, Choice
from sama_core import CurationOptions
from service.jobs.document import parse_document
from worker.models.defaults import resolve_options
from worker.models.registry import create_builder

PREPARED = "sets"
"""Folder in the cache for the sets that processes of one run hand on to each other."""
_GAUGING = 0.2

UnitKind = Literal["curation", "controls", "pruning", "whole", "cost"]


@dataclass(frozen=True)
class Unit:
    """What to do.

    Attributes:
        kind: curation: a method's decisions on noisy labels; controls: the trainings beside them; pruning: a method
            on true labels; whole: the training on all of these; cost: a method trained for as many epochs as the
            product would.
        set_name: of ``SETS``.
        mode: what is known of the trusted rows.
        method: of ``VARIANTS``; empty for trainings without a method.
        seed: of everything.
        has_arms: whether networks are trained on what the method decides.
    """

    kind: UnitKind
    set_name: str
    mode: Mode
    method: str
    seed: int
    has_arms: bool

    @property
    def key(self) -> str:
        """Name the unit within a results file."""
        return " ".join((self.kind, self.set_name, self.mode, self.method or "-", str(self.seed)))

    def forecast(self, num_steps: int) -> float:
        """Return how many plain trainings, of so many steps, the unit takes, more or less."""
        if self.kind == "controls":
            return 4.0
        if self.kind == "whole":
            return 1.0
        cost = forecast_cost(self.method, num_steps, has_trusted=SETS[self.set_name].has_trusted) + _GAUGING
        if self.kind == "cost":
            return cost
        if self.kind == "pruning":
            return cost + len(REMOVED) * len(list_rules(self.method))
        return cost + ((4 if self.method == OURS else 2) if self.has_arms else 0)


@dataclass(frozen=True)
class Workplace:
    """Where and how units are carried out, the same for all of a run.

    Attributes:
        data: folder of all data sets.
        cache: folder for what units share.
        device: cpu or cuda.
        model: network for every set; empty takes each set's own.
        threads: of torch.
        sizes: of the sets by name.
    """

    data: Path
    cache: Path
    device: str
    model: str
    threads: int
    sizes: dict[str, Size]


def carry_out(unit: Unit, place: Workplace) -> dict[str, Any]:
    """Return the unit's figures as JSON values."""
    torch.set_num_threads(place.threads)
    prepared = _take_up(unit, place)
    if unit.mode == "separate":
        prepared = prepared.separate()
    options = choose_options(unit, place, prepared)
    builder = create_builder(_name_model(unit, place), prepared.shape, prepared.num_classes)
    key = f"{unit.set_name} {place.sizes[unit.set_name]} {_name_model(unit, place)} {place.device}"
    trainer = ArmTrainer(key, prepared, options, builder, device=place.device, cache=place.cache / "arms")
    found = _describe(prepared, options, trainer)
    if unit.kind == "whole":
        return {**found, "accuracy": {"whole": trainer.test(Choice(prepared.given, prepared.train_rows))}}
    if unit.kind == "controls":
        return {**found, "accuracy": {name: trainer.test(it) for name, it in choose_controls(prepared).items()}}
    curation = curate_set(VARIANTS[unit.method], prepared, options, builder, trainer, device=place.device)
    found["cost"] = curation.cost
    if unit.kind == "cost":
        return found
    if unit.kind == "pruning":
        return {**found, **prune(unit.method, curation.decisions, prepared, trainer, unit.seed)}
    found |= judge(curation.decisions, prepared)
    if unit.has_arms:
        arms = choose_arms(curation.decisions, prepared, unit.seed)
        found["accuracy"] = {name: trainer.test(it) for name, it in arms.items()}
    return found


def choose_options(unit: Unit, place: Workplace, prepared: PreparedSet) -> CurationOptions:
    """Return the product's defaults for the set's network, with the set's own number of epochs where it has one.

    Not for the kind cost, which takes the product's number.
    """
    judges_itself = len(prepared.trusted_rows) == 0
    column = {"column": "split", "value": "valid"}
    document = parse_document(
        {
            "dataset": {"uri": "data.parquet", "features": ["*"], "label": "given"},
            "meta": {"self": True} if judges_itself else {"split": column},
            "task": "prune" if judges_itself else "reweight",
            "model": {"name": "mlp"},
            "training": {"seed": unit.seed},
        }
    )
    num_train = len(prepared.train_rows)
    options = resolve_options(document, _name_model(unit, place), num_train, judges_itself=judges_itself)
    epochs = None if unit.kind == "cost" else place.sizes[unit.set_name].epochs
    return options if epochs is None else replace(options, epochs=epochs)


def _name_model(unit: Unit, place: Workplace) -> str:
    return place.model or SETS[unit.set_name].model


def _take_up(unit: Unit, place: Workplace) -> PreparedSet:
    """Return the unit's set, prepared by the first unit that needs it."""
    path = place.cache / PREPARED / f"{unit.set_name}-{unit.seed}.pickle"
    if not path.exists():
        scratch = Path(tempfile.mkdtemp(prefix="sama-quality-"))
        try:
            store_prepared(
                path,
                prepare_set(
                    SETS[unit.set_name],
                    place.sizes[unit.set_name],
                    _name_model(unit, place),
                    unit.seed,
                    data=place.data,
                    scratch=scratch / "arrays",
                ),
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return load_prepared(path)


def _describe(prepared: PreparedSet, options: CurationOptions, trainer: ArmTrainer) -> dict[str, Any]:
    train = prepared.train_rows
    wrong = prepared.given[train] != prepared.gold[train]
    return {
        "rows": {
            "train": len(train),
            "trusted": len(prepared.trusted_rows),
            "test": len(prepared.test),
            "wrong": int(wrong.sum()),
        },
        "training": {"epochs": options.epochs, "batch_size": options.batch_size, "steps": trainer.num_steps},
    }
