"""Why a row is kept, dropped, corrected or left alone, in words that a person can act on.

A reason is a verdict, which depends on how many rows are kept, and a finding, which does not: the finding is stored
with the row, so that the reason can be written again at any keep fraction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.wording import write_probability

DOUBTFUL_NOISE_SCORE = 0.5
UNLABELLED = "unlabelled"
_MOST_CHARACTERS = 40
# By rule: why a row that no doubt speaks against is dropped, and what to add to that.
_CAUSES = {
    "top": ("low score", ""),
    "balanced": ("low score for its class", ""),
    "coverage": ("not needed", "the kept rows are spread over the scores of its class"),
}

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a verdict rests on beside the row itself, the same for all rows of a job.

    Attributes:
        rule: the selection rule in force.
        doubt_above: noise score above which a given label is doubtful.
    """

    rule: str = "top"
    doubt_above: float = DOUBTFUL_NOISE_SCORE


PLAIN_TERMS = Terms()


def write_reasons(batch: pa.RecordBatch, keep: Flags, terms: Terms = PLAIN_TERMS) -> Iterator[str]:
    """Yield the reason of every row of a batch as stored, `keep` being the decision on each."""
    ranked = batch.column("rank").is_valid().to_numpy(zero_copy_only=False)
    given = batch.column("given_label").is_valid().to_numpy(zero_copy_only=False)
    corrected = batch.column("corrected").to_numpy(zero_copy_only=False)
    weightless = batch.column("weight").fill_null(1.0).to_numpy(zero_copy_only=False) == 0
    doubtful, disagrees = find_doubtful(batch, terms), find_disagreeing(batch)
    for place, finding in enumerate(batch.column("finding").to_pylist()):
        done = ("corrected" if given[place] else "labelled") if corrected[place] else None
        if not ranked[place]:
            verdict, cause = UNLABELLED, ""
        elif keep[place]:
            verdict, cause = _tell_kept(done, doubtful=bool(doubtful[place]), weightless=bool(weightless[place]))
        else:
            is_mislabelled = bool(doubtful[place] and disagrees[place])
            verdict, cause = _tell_dropped(done, terms.rule, is_mislabelled=is_mislabelled)
        told = "; ".join(part for part in (cause, finding) if part)
        yield f"{verdict}: {told}" if told else verdict


def find_doubtful(batch: pa.RecordBatch, terms: Terms = PLAIN_TERMS) -> Flags:
    """Return which rows have a doubtful given label, whether or not another one is suggested."""
    noise = batch.column("noise_score").fill_null(0.0).to_numpy(zero_copy_only=False)
    found: Flags = noise > np.float32(terms.doubt_above)
    return found


def find_disagreeing(batch: pa.RecordBatch) -> Flags:
    """Return for which rows another label than the given one is suggested."""
    pairs = zip(batch.column("given_label").to_pylist(), batch.column("suggested_label").to_pylist(), strict=True)
    return np.fromiter((given != suggested for given, suggested in pairs), dtype=np.bool_, count=batch.num_rows)


def describe_suggestion(suggested: object, confidence: float, remark: str = "") -> str:
    """Return what the model holds a row's label to be.

    >>> describe_suggestion(7, 0.98, ", epoch after epoch")
    'the model says 7 with 0.98, epoch after epoch'
    """
    return f"the model says {name_label(suggested)} with {write_probability(confidence)}{remark}"


def describe_doubt(suggested: object, confidence: float, given: object, *, remark: str = "") -> str:
    """Return how the suggested label and the given one differ, or that they do not.

    >>> describe_doubt("spam", 0.876, "ham"), describe_doubt("ham", 0.4, "ham")
    ('the model says spam with 0.88; given ham', 'the model says ham with 0.40, as given')
    """
    told = describe_suggestion(suggested, confidence, remark)
    return f"{told}, as given" if suggested == given else f"{told}; given {name_label(given)}"


def name_label(label: object) -> str:
    """Return a label as it stands in a sentence: whole where it is short.

    >>> name_label(3), name_label("a" * 60)
    ('3', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...')
    """
    text = str(label)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def list_plain_findings(batch: pa.RecordBatch) -> Sequence[str]:
    """Return a finding for every row of a batch that has none stored: of the doubtful ones what the columns say."""
    names = ("suggested_label", "label_confidence", "given_label")
    columns = [batch.column(name).to_pylist() for name in names]
    return [
        describe_doubt(*facts) if doubtful else ""
        for doubtful, *facts in zip(find_doubtful(batch), *columns, strict=True)
    ]


def _tell_kept(done: str | None, *, doubtful: bool, weightless: bool) -> tuple[str, str]:
    """Return the verdict on a kept row and its cause; `done` is what was done to its label, None where nothing was."""
    if done is not None:
        return done, ""
    verdict = "kept, but the label is doubtful" if doubtful else "kept"
    if not weightless:
        return verdict, ""
    return f"{verdict}, weight 0", "" if doubtful else "another label is at least as likely"


def _tell_dropped(done: str | None, rule: str, *, is_mislabelled: bool) -> tuple[str, str]:
    """Return the verdict on a dropped row and its cause."""
    verdict, cause = _CAUSES.get(rule, _CAUSES["top"])
    if done is not None:
        return f"{verdict}, though {done}", cause
    return ("likely mislabelled", "") if is_mislabelled else (verdict, cause)
