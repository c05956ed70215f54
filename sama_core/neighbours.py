"""What the nearest neighbours of an example, in the network's own representation, are labelled.

Shape suffixes: N examples, B of a block, R references, D dimensions, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from sama_core.randomness import permute
from sama_core.representation import represent
from sama_core.types import AbstractExamples

NUM_NEIGHBOURS = 15
MOST_REFERENCES = 20_000
_BLOCK = 1024
_SPREAD = 0.5  # of a neighbour, over all classes


def share_of_neighbours(vectors: Tensor, labels: Tensor, num_classes: int, seed: int) -> Tensor:
    """Return the share of each class among the labels of the 15 nearest other examples, smoothed, (N, C).

    Nearest by the cosine of the centred vectors. Above 20,000 examples the neighbours are looked for among that many,
    drawn at random: N x 20,000 x D products in all.

    Args:
        vectors: (N, D).
        labels: (N,) given labels, -1 where there is none: such an example is nobody's neighbour.
        num_classes: C.
        seed: of the draw.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.1]])
        >>> share_of_neighbours(vectors, torch.tensor([0, 0, 1, 1]), 2, seed=0).argmax(1).tolist()
        [1, 1, 0, 0]
    """
    directions_ND = normalize(vectors.float() - vectors.float().mean(0), dim=1)
    references_R = torch.nonzero(labels >= 0).flatten()
    if len(references_R) > MOST_REFERENCES:
        chosen = permute(len(references_R), seed, "neighbours")[:MOST_REFERENCES]
        references_R = references_R[chosen.sort().values]
    place_N = torch.full((len(vectors),), -1, dtype=torch.int64)
    place_N[references_R] = torch.arange(len(references_R))
    num_neighbours = min(NUM_NEIGHBOURS, len(references_R) - 1)
    votes_RC = one_hot(labels[references_R], num_classes).float()
    parts = []
    for rows in torch.split(torch.arange(len(vectors)), _BLOCK):
        nearness_BR = directions_ND[rows] @ directions_ND[references_R].T
        own = place_N[rows]
        inside = torch.nonzero(own >= 0).flatten()
        nearness_BR[inside, own[inside]] = -torch.inf
        parts.append(votes_RC[nearness_BR.topk(num_neighbours, dim=1).indices].sum(1))
    return (torch.cat(parts) + _SPREAD / num_classes) / (num_neighbours + _SPREAD)


def find_agreement(
    network: nn.Module, examples: AbstractExamples, labels: Tensor, *, seed: int, device: torch.device
) -> Tensor:
    """Return the smoothed share of each example's own label among those of its nearest neighbours, (N,) on the CPU.

    Args:
        network: in whose representation the neighbours are near; on ``device``, not edited.
        examples: N of them.
        labels: (N,), on any device.
        seed: of the draw, where there are many examples.
        device: where to compute.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> points, labels = torch.tensor([[1.0], [1.1], [-1.0], [-1.1]]), torch.tensor([0, 0, 1, 1])
        >>> examples, device = TensorExamples(points, labels), torch.device("cpu")
        >>> find_agreement(nn.Linear(1, 2), examples, labels, seed=0, device=device).shape
        torch.Size([4])
    """
    labels_N = labels.cpu()
    vectors_ND = represent(network, examples, device).vectors
    shares_NC = share_of_neighbours(vectors_ND, labels_N, examples.num_classes, seed)
    return shares_NC.gather(1, labels_N.unsqueeze(1)).squeeze(1)


def count_neighbours(share: float, num_classes: int) -> int:
    """Return how many of 15 neighbours bear a class, given its smoothed share of them.

    Example:
        >>> [count_neighbours((count + 0.5 / 26) / 15.5, 26) for count in (0, 1, 15)]
        [0, 1, 15]
    """
    return round(share * (NUM_NEIGHBOURS + _SPREAD) - _SPREAD / num_classes)
