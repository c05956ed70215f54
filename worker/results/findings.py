"""What speaks for another label than the given one, in a sentence for each row where something does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sama_core import Decisions
from service.results.reasons import DOUBTFUL_NOISE_SCORE, describe_doubt, describe_suggestion, name_label
from service.storage.labels import LabelMap
from service.wording import write_count, write_probability, write_share
from worker.phases.relabelling import NO_LABEL, AddedLabels
from worker.phases.scoring import Outcome

MOST_CLAUSES = 2
# Evidence is told where it speaks clearly against the given label.
_LOW_PROBABILITY = 0.2
_STEADY_SPREAD = 0.15
_FEW_NEIGHBOURS = 1 / 3
_OFTEN_FORGOTTEN = 2


@dataclass(frozen=True)
class _Clause:
    """One kind of evidence: its name among the decisions', whether it speaks against a label, and in what words."""

    name: str
    speaks: Callable[[float], bool]
    words: Callable[[float, str], str]


_CLAUSES = (
    _Clause(
        "trusted_p_given",
        lambda value: value <= _LOW_PROBABILITY,
        lambda value, given: f"the trusted examples alone give {given} {write_probability(value)}",
    ),
    _Clause(
        "votes_p_given",
        lambda value: value <= _LOW_PROBABILITY,
        lambda value, given: f"the votes give {given} {write_probability(value)}",
    ),
    _Clause(
        "neighbour_agreement",
        lambda value: value <= _FEW_NEIGHBOURS,
        lambda value, given: f"{write_share(value, 0)} of its nearest neighbours carry {given}",
    ),
    _Clause(
        "forgotten",
        lambda value: value >= _OFTEN_FORGOTTEN,
        lambda value, given: f"{given} was learned and forgotten {write_count(round(value), 'time')}",
    ),
)


class FindingWriter:
    """Writes the findings of a job, row by row."""

    def __init__(self, outcome: Outcome, given: NDArray[np.int64], label_map: LabelMap) -> None:
        self._decisions: Decisions = outcome.decisions
        self._corrected = outcome.corrected
        self._given = given
        self._values = label_map.values

    def write(self, first: int, after: int) -> Iterator[str]:
        """Yield the findings of some rows with a given label, by place among those; empty where there is nothing."""
        decisions = self._decisions
        disagrees = decisions.suggested[first:after] != self._given[first:after]
        doubtful = disagrees & (decisions.noise_score[first:after] >= DOUBTFUL_NOISE_SCORE)
        told = doubtful | self._corrected[first:after]
        for place, is_told in enumerate(told, first):
            yield self._describe(place) if is_told else ""

    def write_added(self, added: AddedLabels, first: int, after: int) -> Iterator[str]:
        """Yield the findings of some rows without a given label, by place among those."""
        suggested, confidence = added.suggestions.suggested, added.suggestions.confidence
        for place in range(first, after):
            words = describe_suggestion(self._values[suggested[place]], float(confidence[place]))
            if added.labels[place] == NO_LABEL:
                yield f"{words}, too little to take it over"
            else:
                yield f"no label was given; {words}"

    def _describe(self, place: int) -> str:
        decisions = self._decisions
        given = self._values[self._given[place]]
        suggested, confidence = self._values[decisions.suggested[place]], float(decisions.label_confidence[place])
        doubt = describe_doubt(suggested, confidence, given, remark=self._describe_steadiness(place))
        known = ((clause, self._read(clause.name, place)) for clause in _CLAUSES)
        clauses = [
            clause.words(value, name_label(given))
            for clause, value in known
            if value is not None and clause.speaks(value)
        ]
        return "; ".join([doubt, *clauses[:MOST_CLAUSES]])

    def _describe_steadiness(self, place: int) -> str:
        """Say where the given label had little probability in every epoch, not in the last ones alone."""
        average, spread = self._read("average_p_given", place), self._read("spread", place)
        is_low = average is not None and average <= _LOW_PROBABILITY
        is_steady = spread is None or spread <= _STEADY_SPREAD
        return ", epoch after epoch" if is_low and is_steady else ""

    def _read(self, name: str, place: int) -> float | None:
        """Return one number of the evidence; None where it is not known."""
        column = self._decisions.evidence.get(name)
        if column is None or np.isnan(column[place]):
            return None
        return float(column[place])
