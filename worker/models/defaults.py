"""The one table of training defaults, by model, and what a document's choices make of it."""

from dataclasses import dataclass
from typing import get_args

from sama_core import CurationOptions
from sama_core.options import FeatureName
from service.jobs.document import JobDocument


@dataclass(frozen=True)
class TrainingDefaults:
    """What a model trains with where the document leaves it open.

    Epochs follow the data: as many as `num_steps` needs, within [min_epochs, max_epochs]. `num_threads` is set where
    the steps on a CPU are too short to be shared: threads that sleep between two pieces of work wake too late, and
    threads that spin take turns with those of the next process. On two cores, letters by the perceptron took 2.7 times
    as long with two threads as with one, texts 1.3 times, and small images as long.
    """

    num_steps: int
    min_epochs: int
    max_epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    num_threads: int | None = None


TRAINING_DEFAULTS = {
    "linear": TrainingDefaults(1500, 10, 40, 64, 1e-2, 1e-4, num_threads=1),
    "mlp": TrainingDefaults(2000, 10, 40, 128, 2e-3, 1e-2, num_threads=1),
    "text": TrainingDefaults(600, 6, 30, 64, 3e-3, 1e-2, num_threads=1),
    "cnn": TrainingDefaults(800, 10, 40, 64, 2e-3, 1e-2),
    "resnet18": TrainingDefaults(2000, 10, 30, 128, 1e-3, 5e-2),
    "hf": TrainingDefaults(500, 3, 10, 16, 5e-5, 1e-2),
}


def find_defaults(model_name: str) -> TrainingDefaults:
    """Return the defaults of a model by its full name, a folder's after a colon."""
    return TRAINING_DEFAULTS[model_name.partition(":")[0]]


def resolve_options(document: JobDocument, model_name: str, num_train: int, *, judges_itself: bool) -> CurationOptions:
    """Return every hyperparameter of a job: the document's, else the model's default, else the method's.

    Where there is no meta set the rows judge each other, so a batch leaves at least half of them to be judged by.
    """
    training, method = document.training, document.method
    defaults = find_defaults(model_name)
    largest = max(1, num_train // 2) if judges_itself else num_train
    batch_size = min(training.batch_size or defaults.batch_size, largest)
    usual = CurationOptions()
    return CurationOptions(
        epochs=training.epochs or _choose_epochs(defaults, batch_size, num_train),
        batch_size=batch_size,
        optimizer=training.optimizer,
        lr=training.lr or defaults.lr,
        weight_decay=_first(training.weight_decay, defaults.weight_decay),
        momentum=_first(training.momentum, usual.momentum),
        precision="float32" if training.precision == "auto" else training.precision,
        clip_norm=training.clip_norm,
        accumulate=training.accumulate,
        compile=training.compile,
        stop_when_settled=training.stop_when_settled,
        seed=training.seed,
        seeds=method.seeds,
        learned=method.learned,
        features=get_args(FeatureName) if method.neighbours else usual.features,
        meta_lr=method.meta_lr or usual.meta_lr,
        meta_batch_size=method.meta_batch_size,
        unroll_steps=method.unroll_steps,
        every_step=method.every_step,
        terms=method.terms,
        damping=method.damping,
        nudge=method.nudge,
        warmup_steps=method.warmup_steps,
        route=method.route,
        perturbation_scale=method.perturbation_scale,
        averaged_checkpoints=method.averaged_checkpoints,
        ema_decay=_first(method.ema_decay, usual.ema_decay),
    )


def _first(given: float | None, default: float) -> float:
    return default if given is None else given


def _choose_epochs(defaults: TrainingDefaults, batch_size: int, num_train: int) -> int:
    steps_per_epoch = -(-num_train // batch_size)
    wanted = -(-defaults.num_steps // steps_per_epoch)
    return max(defaults.min_epochs, min(wanted, defaults.max_epochs))
