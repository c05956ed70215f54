"""Why a row is kept, dropped, corrected or left alone, in words that a person can act on.

A reason is a verdict, which depends on how many rows are kept, and a finding, which does not: the finding is stored
with the row, so that the reason can be written again at any keep fraction.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.wording import write_probability

DOUBTFUL_NOISE_SCORE = 0.5
UNLABELLED = "unlabelled"
_MOST_CHARACTERS = 40

Flags = npt.NDArray[np.bool_]


def write_reasons(batch: pa.RecordBatch, keep: Flags) -> Iterator[str]:
    """Yield the reason of every row of a batch as stored, `keep` being the decision on each."""
    ranked = batch.column("rank").is_valid().to_numpy(zero_copy_only=False)
    given = batch.column("given_label").is_valid().to_numpy(zero_copy_only=False)
    corrected = batch.column("corrected").to_numpy(zero_copy_only=False)
    doubtful = find_doubtful(batch)
    for place, finding in enumerate(batch.column("finding").to_pylist()):
        verdict = UNLABELLED
        if corrected[place]:
            done = "corrected" if given[place] else "labelled"
            verdict = done if keep[place] else f"low score, though {done}"
        elif ranked[place]:
            verdict = _judge(doubtful=bool(doubtful[place]), keep=bool(keep[place]))
        yield f"{verdict}: {finding}" if finding else verdict


def find_doubtful(batch: pa.RecordBatch) -> Flags:
    """Return which rows have a given label that is rather wrong than right, and another one suggested."""
    noise = batch.column("noise_score").fill_null(0.0).to_numpy(zero_copy_only=False)
    pairs = zip(batch.column("given_label").to_pylist(), batch.column("suggested_label").to_pylist(), strict=True)
    disagrees = np.fromiter((given != suggested for given, suggested in pairs), dtype=np.bool_, count=batch.num_rows)
    found: Flags = disagrees & (noise >= DOUBTFUL_NOISE_SCORE)
    return found


def describe_suggestion(suggested: object, confidence: float, remark: str = "") -> str:
    """Return what the model holds a row's label to be.

    >>> describe_suggestion(7, 0.98, ", epoch after epoch")
    'the model says 7 with 0.98, epoch after epoch'
    """
    return f"the model says {name_label(suggested)} with {write_probability(confidence)}{remark}"


def describe_doubt(suggested: object, confidence: float, given: object, *, remark: str = "") -> str:
    """Return how the suggested label and the given one differ.

    >>> describe_doubt("spam", 0.876, "ham")
    'the model says spam with 0.88; given ham'
    """
    return f"{describe_suggestion(suggested, confidence, remark)}; given {name_label(given)}"


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


def _judge(*, doubtful: bool, keep: bool) -> str:
    if doubtful:
        return "kept, but the label is doubtful" if keep else "likely mislabelled"
    return "kept" if keep else "low score"
