"""Roughly how long a job takes and how much memory, from its rows and its model."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.jobs.document import BASELINES, JobDocument, MethodSpec
from service.jobs.evaluation_plan import plan_evaluation

ASSUMED_EPOCHS = 20
ASSUMED_PIXELS = 32 * 32
TYPICAL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Seconds of one CPU core for one example in one epoch, and bytes that the model takes whatever the data."""

    seconds: float
    memory_bytes: int


# Forward, backward and AdamW in float32, measured with torch 2.13 on one core of a 2-core machine, batch 128
# (resnet18: 8); images of 32 x 32, 50 features, 200 n-grams a text. hf is a guess for a BERT of 110 million.
COSTS: Mapping[str, ModelCost] = {
    "linear": ModelCost(2e-6, 300_000_000),
    "mlp": ModelCost(1.1e-5, 350_000_000),
    "text": ModelCost(3.3e-4, 600_000_000),
    "cnn": ModelCost(3e-3, 700_000_000),
    "resnet18": ModelCost(3e-2, 1_500_000_000),
    "hf": ModelCost(0.5, 4_000_000_000),
}
AUTO = {"features": "mlp", "text": "text", "image": "cnn"}
META_STEP_COST = 1.5  # of one plain step, the others too: measured on small networks, on two cores
ENSEMBLE_COST = 0.3  # the small trainings on trusted examples, and their self-training, as a share of the base steps
SOLVER_TERM_COST = 2.0  # one more Hessian-vector product
UNROLLED_STEP_COST = 5.0  # one more base step that is differentiated through
EARLIER_STEP_COST = 0.35  # one more forward pass, over the batch of an earlier base step


# Of a plain training. What learns from trusted rows alone depends on how many there are: here a few hundred that are
# no curated rows themselves; where they are, trusted-model and self-training cost several times that.
BASELINE_COSTS: Mapping[str, float] = {
    "random": 0.0,
    "el2n": 0.3,
    "grand": 0.8,
    "trusted-model": 0.5,
    "recalibrated": 2.5,
    "self-training": 3.5,
    "confident-learning": 4.1,
    "confident-learning-trusted": 4.3,
}


def count_plain_steps(method: MethodSpec) -> float:
    """Return what a base step of a method costs on average, in steps of plain training."""
    if method.name in BASELINES:
        return BASELINE_COSTS.get(method.name, 1.0)
    cost = META_STEP_COST
    if method.name in {"neumann", "cg"}:
        cost += SOLVER_TERM_COST * method.terms
    elif method.name == "unrolled":
        cost += UNROLLED_STEP_COST * method.unroll_steps
    elif method.every_step:
        cost += EARLIER_STEP_COST * (method.unroll_steps - 1)
    return 1.0 + ENSEMBLE_COST + cost / method.unroll_steps


def count_plain_trainings(method: MethodSpec) -> float:
    """Return what a method costs from all its seeds, in plain trainings of the same length."""
    return count_plain_steps(method) * method.seeds


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rough forecast and the sentence that says what it rests on."""

    model: str
    seconds: float
    memory_bytes: int
    basis: str


def estimate_job(document: JobDocument, num_train: int, num_input_bytes: int, num_pixels: int | None) -> Estimate:
    """Forecast the time on one CPU core and the memory of a job.

    `num_train` counts the labelled curated rows, `num_input_bytes` their inputs, `num_pixels` those of an image
    of the commonest size.
    """
    named = document.model.name
    model = AUTO[document.dataset.kind] if named == "auto" else named.partition(":")[0]
    cost = COSTS[model]
    epochs = document.training.epochs or ASSUMED_EPOCHS
    scale = (num_pixels or ASSUMED_PIXELS) / ASSUMED_PIXELS if model in {"cnn", "resnet18"} else 1.0
    per_pass = num_train * epochs * cost.seconds * scale
    method = count_plain_trainings(document.method)
    evaluation = plan_evaluation(document)
    seconds = per_pass * (method * (1 + evaluation.num_method) + evaluation.num_plain)
    decoded = num_train * (num_pixels or 0) * 3 * 4 if document.dataset.kind == "image" else 4 * num_input_bytes
    chosen = f"model {model}" + (" (chosen by auto on a CPU)" if named == "auto" else "")
    assumed = "" if document.training.epochs else " (assumed)"
    seeds = f" from {document.method.seeds} seeds" if document.method.seeds > 1 else ""
    basis = (
        f"{num_train:,} labelled rows x {epochs} epochs{assumed} x {cost.seconds * scale:.2g} s an example on one CPU "
        f"core for {chosen}, x {method:.2f} for method {document.method.name}{seeds}, and {evaluation.describe()}. "
        "Right within a factor of about three; a GPU is faster."
    )
    return Estimate(model, round(seconds, 1), cost.memory_bytes + decoded, basis)
