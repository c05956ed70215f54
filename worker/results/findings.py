"""What speaks for another label than the given one, in a sentence for each row where something does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sama_core.neighbours import NUM_NEIGHBOURS, count_neighbours
from service.results.reasons import describe_doubt, describe_suggestion, name_label
from service.storage.labels import LabelMap
from service.wording import write_count, write_probability
from worker.phases.relabelling import NO_LABEL, AddedLabels
from worker.phases.scoring import Outcome

MOST_CLAUSES = 2
# Evidence is told where it speaks clearly against the given label: a probability where it is low and at most half of
# what chance gives, 1 / C; the neighbours where few carry the label, and no larger a share of them than by chance.
_LOW_PROBABILITY = 0.2
_SHARE_OF_CHANCE = 0.5
_FEW_NEIGHBOURS = 1 / 3
_OFTEN_FORGOTTEN = 2
# What is said epoch after epoch: enough of them, the suggested label likelier than not, the given one hardly ever.
_FEWEST_EPOCHS = 3
_STEADY_SPREAD = 0.15
_HARDLY_EVER = 0.1


@dataclass(frozen=True)
class _Clause:
    """One kind of evidence: its name among the decisions', how it speaks against a label, and in what words.

    `speaks` takes the number and chance, 1 / C; `words` the number and the label.
    """

    name: str
    speaks: Callable[[float, float], bool]
    words: Callable[[float, str], str]


class FindingWriter:
    """Writes the findings of a job, row by row."""

    def __init__(self, outcome: Outcome, given: NDArray[np.int64], label_map: LabelMap) -> None:
        self._decisions = outcome.decisions
        self._corrected = outcome.corrected
        self._doubt_above = np.float32(outcome.doubt_above)
        self._given = given
        self._values = label_map.values
        self._clauses = (
            _Clause(
                "trusted_p_given",
                _is_low,
                lambda value, given: f"the trusted examples alone give {given} {write_probability(value)}",
            ),
            _Clause(
                "votes_p_given", _is_low, lambda value, given: f"the votes give {given} {write_probability(value)}"
            ),
            _Clause(
                "neighbour_agreement",
                lambda value, chance: value <= min(_FEW_NEIGHBOURS, chance),
                self._describe_neighbours,
            ),
            _Clause(
                "forgotten",
                lambda value, _: value >= _OFTEN_FORGOTTEN,
                lambda value, given: f"{given} was learned and forgotten {write_count(round(value), 'time')}",
            ),
        )

    def write(self, first: int, after: int) -> Iterator[str]:
        """Yield the findings of some rows with a given label, by place among those; empty where there is nothing."""
        doubtful = self._decisions.noise_score[first:after] > self._doubt_above
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
        chance = 1 / len(self._values)
        known = ((clause, self._read(clause.name, place)) for clause in self._clauses)
        clauses = [
            clause.words(value, name_label(given))
            for clause, value in known
            if value is not None and clause.speaks(value, chance)
        ]
        return "; ".join([doubt, *clauses[:MOST_CLAUSES]])

    def _describe_steadiness(self, place: int) -> str:
        """Say where the model has held the suggested label, and not the given one, all along."""
        names = ("visits", "average_p_suggested", "share_right", "spread")
        visits, suggested, right, spread = (self._read(name, place) for name in names)
        if visits is None or suggested is None or right is None or spread is None:
            return ""
        is_steady = visits >= _FEWEST_EPOCHS and suggested > 0.5 and right <= _HARDLY_EVER and spread <= _STEADY_SPREAD
        return ", epoch after epoch" if is_steady else ""

    def _describe_neighbours(self, share: float, given: str) -> str:
        """Say how many of the nearest neighbours carry the given label, where their number is known."""
        is_mean, is_whole = "seeds" in self._decisions.facts, len(self._given) > NUM_NEIGHBOURS
        if is_mean or not is_whole:
            return f"few of its nearest neighbours carry {given}"
        count = count_neighbours(share, len(self._values))
        verb = "carry" if count > 1 else "carries"
        return f"{count or 'none'} of its {NUM_NEIGHBOURS} nearest neighbours {verb} {given}"

    def _read(self, name: str, place: int) -> float | None:
        """Return one number of the evidence; None where it is not known."""
        column = self._decisions.evidence.get(name)
        if column is None or np.isnan(column[place]):
            return None
        return float(column[place])


def _is_low(probability: float, chance: float) -> bool:
    return probability <= min(_LOW_PROBABILITY, _SHARE_OF_CHANCE * chance)
