"""The names a document may use, the known ones that this version lacks, and the closest one to a slip."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

from service.errors import Problem
from service.jobs.document_specs import Arm, LeakageAction, MethodName, OptimizerName

NUM_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Choice:
    """The names that a field takes, and the known names that it does not take yet."""

    available: tuple[str, ...]
    later: tuple[str, ...] = ()


CHOICES: Mapping[str, Choice] = {
    "task": Choice(("reweight", "relabel", "prune")),
    "relabel.targets": Choice(("hard", "soft")),
    "leakage.action": Choice(get_args(LeakageAction)),
    "leakage.trusted": Choice(get_args(LeakageAction)),
    "model.name": Choice(("auto", "linear", "mlp", "cnn", "resnet18", "text", "hf:FOLDER")),
    "method.name": Choice(get_args(MethodName)),
    "method.learned": Choice(("network", "logits", "sources", "corrector")),
    "method.route": Choice(("auto", "ghost", "finite-difference", "forward-mode")),
    "training.optimizer": Choice(get_args(OptimizerName)),
    "training.precision": Choice(("auto", "float32", "bfloat16", "float16")),
    "selection.rule": Choice(("auto", "top", "balanced", "coverage")),
    "evaluation.arms": Choice(get_args(Arm)),
    "evaluation.plant.kind": Choice(("uniform", "confusion")),
}
URI_SCHEMES = Choice(("a local path", "file://"), ("s3", "gs", "https", "http", "hf", "upload"))


def show(value: object) -> str:
    """Return `value` as a person would want to see it in a message: short, and with its type visible."""
    shown = f"a value of type {type(value).__name__}"
    if value is None:
        shown = "nothing"
    elif isinstance(value, bool):
        shown = "true" if value else "false"
    elif isinstance(value, str):
        shown = repr(value if len(value) <= NUM_SHOWN_CHARACTERS else value[: NUM_SHOWN_CHARACTERS - 3] + "...")
    elif isinstance(value, int | float):
        shown = str(value)[:NUM_SHOWN_CHARACTERS]
    elif isinstance(value, Mapping):
        shown = f"a mapping of {len(value)} fields"
    elif isinstance(value, Sequence):
        shown = f"a list of {len(value)}"
    return shown


def list_names(names: Iterable[str]) -> str:
    """Return names as `a, b or c`."""
    *head, last = list(names)
    return f"{', '.join(head)} or {last}" if head else last


def find_nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to `name`, or None where none is close."""
    spelled = {candidate.lower(): candidate for candidate in valid}
    close = get_close_matches(name.lower(), spelled, n=1, cutoff=0.6)
    return spelled[close[0]] if close else None


def refuse(param: str, seen: object, wanted: str, why: str | None = None, nearest: str | None = None) -> Problem:
    """Build the problem of one field; the sentence is made from its parts unless `why` says more."""
    sentence = why or f"{param} is {show(seen)}; wanted {wanted}."
    if nearest is not None:
        sentence += f" Did you mean {nearest!r}?"
    return Problem(param=param, seen=show(seen), wanted=wanted, message=sentence, nearest=nearest)


def refuse_name(param: str, seen: object, choice: Choice) -> Problem:
    """Build the problem of a name that is not to be had: not in this version, or not known at all."""
    wanted = list_names(choice.available)
    if isinstance(seen, str) and seen in choice.later:
        return refuse(
            param,
            seen,
            wanted,
            f"{param}: {show(seen)} is not available in this version; available: {wanted}.",
        )
    nearest = find_nearest(seen, choice.available) if isinstance(seen, str) else None
    return refuse(param, seen, wanted, f"{param} is {show(seen)}; available: {wanted}.", nearest)
