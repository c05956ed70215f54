"""What follows the last step of a training: the decisions, which take their time whatever the number of epochs."""

import time
from collections.abc import Callable

import torch
from torch import nn

from sama_core import AbstractExamples
from sama_core.neighbours import MOST_REFERENCES, share_of_neighbours
from sama_core.representation import represent
from sama_core.views import SubsetExamples

_NUM_SHOWN, _NUM_COMPARED, _NUM_TIMES = 16, 2000, 3


def time_decisions(
    network: nn.Module,
    examples: AbstractExamples,
    device: torch.device,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Return about how many seconds the decisions of one curation take, from doing the longest parts on a few examples.

    These are the forward pass over all examples and the search for everyone's nearest neighbours.

    Args:
        network: any of those to be trained; not edited.
        examples: to be decided on.
        device: where to compute.
        clock: seconds.
    """
    num_all, network = len(examples), network.to(device)
    shown = SubsetExamples(examples, torch.arange(min(num_all, _NUM_SHOWN)))
    rows = torch.arange(min(num_all, _NUM_COMPARED))
    vectors = represent(network, shown, device).vectors[rows % len(shown)]

    def compare() -> None:
        share_of_neighbours(vectors, examples.labels[rows], examples.num_classes, seed=0)

    showing = _time(lambda: represent(network, shown, device), clock)
    comparing = _time(compare, clock)
    return showing * num_all / len(shown) + comparing * num_all * min(num_all, MOST_REFERENCES) / len(rows) ** 2


def _time(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds of the fastest of three times: what slows one of them down need not slow down the whole."""
    seconds = []
    for _ in range(_NUM_TIMES):
        began_at = clock()
        work()
        seconds.append(clock() - began_at)
    return min(seconds)
