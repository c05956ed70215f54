"""Rules of the section `evaluation`, and what stands there where the document says nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.errors import Problem
from service.jobs.document_draft import Draft
from service.jobs.document_names import list_names, refuse
from service.jobs.document_specs import PLAIN_BASELINES

DEFAULT_ARMS = ("full", "curated", "random")
TRUSTED_ARMS = ("meta", "full-and-meta", "curated-and-meta")


def fill_evaluation(raw: dict[str, Any]) -> None:
    """Ask for an evaluation in a raw document that does not say whether it wants one.

    With a test set that is the whole one. Without there is the baseline alone, and where the method is itself no more
    than one plain training not even that: it would be held against its like.
    """
    draft = Draft(raw)
    if draft.has("test"):
        raw["evaluation"] = {}
    elif draft.find("method.name") not in PLAIN_BASELINES:
        raw["evaluation"] = {"baseline": True}


def fill_arms(raw: dict[str, Any]) -> None:
    """Name the arms in a raw document that asks for an evaluation without naming them.

    Three where nothing is trusted; the three with the meta set, too, where something is. A meta set that is a share of
    the curated rows, with its given labels, adds nothing to them: of those arms only the meta set alone is another.
    Without a test set there are none.
    """
    evaluation, draft = raw.get("evaluation"), Draft(raw)
    if not isinstance(evaluation, dict) or "arms" in evaluation:
        return
    if not draft.has("test"):
        evaluation["arms"] = []
    elif not _has_trusted_rows(draft):
        evaluation["arms"] = list(DEFAULT_ARMS)
    elif draft.has("meta.fraction") and draft.find("meta.label") in {None, draft.find("dataset.label")}:
        evaluation["arms"] = [*DEFAULT_ARMS, "meta"]
    else:
        evaluation["arms"] = [*DEFAULT_ARMS, *TRUSTED_ARMS]


def check_evaluation(draft: Draft) -> Iterator[Problem]:
    """Yield every problem of the section."""
    if draft.find("evaluation") is None:
        return
    yield from _check_test(draft)
    yield from _check_arms(draft)
    yield from _check_fractions(draft)
    if draft.find("evaluation.plant.kind") == "confusion" and draft.find("method.name") == "random":
        why = (
            "evaluation.plant.kind is 'confusion', which takes the probabilities that the method finds, but method "
            "'random' finds none; wanted uniform."
        )
        yield refuse("evaluation.plant.kind", "confusion", "uniform", why)


def _check_test(draft: Draft) -> Iterator[Problem]:
    """Only what trains arms needs a test set; the baseline and the audit look at the curated rows alone."""
    alone = draft.find("evaluation.baseline") is True or draft.has("evaluation.plant")
    needing = bool(draft.find("evaluation.arms")) or draft.has("evaluation.keep_fractions")
    if not draft.has("test") and (needing or not alone):
        wanted = "test.split or test.uri beside evaluation"
        why = (
            f"evaluation is asked for, but test is missing; wanted {wanted}, or no evaluation. "
            "Only evaluation.baseline: true and evaluation.plant need no test, where no arms are named."
        )
        yield refuse("test", None, wanted, why)
    elif draft.find("evaluation.arms") == [] and not needing and not alone:
        wanted = "at least 1 arm, or evaluation.baseline: true or evaluation.plant, which need none"
        yield refuse("evaluation.arms", [], wanted)


def _check_arms(draft: Draft) -> Iterator[Problem]:
    found = draft.find("evaluation.arms")
    if not isinstance(found, list | tuple):
        return
    arms = [arm for arm in found if isinstance(arm, str)]
    repeated = sorted({arm for arm in arms if arms.count(arm) > 1})
    if repeated:
        wanted = "each arm once"
        why = f"evaluation.arms names {list_names(repeated)} twice; wanted {wanted}."
        yield refuse("evaluation.arms", found, wanted, why)
    trusting = [arm for arm in dict.fromkeys(arms) if arm in TRUSTED_ARMS]
    if trusting and not _has_trusted_rows(draft):
        wanted = "meta.split, meta.uri or meta.fraction; or other arms"
        lacks = "the document has none" if draft.find("meta") is None else "meta.self trusts no row"
        names = " and ".join(trusting)
        why = f"evaluation.arms names {names}: they train on the meta set, but {lacks}. Wanted {wanted}."
        yield refuse("evaluation.arms", found, wanted, why)


def _check_fractions(draft: Draft) -> Iterator[Problem]:
    fractions = draft.find("evaluation.keep_fractions")
    if not isinstance(fractions, list | tuple):
        return
    task = draft.find_text("task") or "reweight"
    if task != "prune":
        why = f"evaluation.keep_fractions measures how far one can prune; task is {task!r}. Wanted task: prune."
        yield refuse("evaluation.keep_fractions", fractions, "task: prune", why)
    numbers = [fraction for fraction in fractions if isinstance(fraction, int | float)]
    repeated = sorted({fraction for fraction in numbers if numbers.count(fraction) > 1})
    if repeated:
        wanted = "each fraction once"
        why = f"evaluation.keep_fractions names {list_names(map(str, repeated))} twice; wanted {wanted}."
        yield refuse("evaluation.keep_fractions", fractions, wanted, why)


def _has_trusted_rows(draft: Draft) -> bool:
    return isinstance(draft.find("meta"), Mapping) and draft.find("meta.self") is not True
