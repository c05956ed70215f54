"""What a curation decides about each example."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core.types import JSON


@dataclass(frozen=True)
class Decisions:
    """One number of each kind per example, in row order; every array has length N.

    Attributes:
        method: name of the method that decided.
        weight: float32, loss multiplier, mean 1 over the examples.
        weight_std: float32, spread of the weight over the averaged checkpoints (0 where there is nothing to spread).
        score: float32, higher = more worth keeping.
        noise_score: float32 in [0, 1], higher = more likely mislabelled.
        suggested: int64, the class the evidence points to.
        label_confidence: float32 in [0, 1], probability of ``suggested``.
        probabilities: float32 (N, C), probability of each class to be the true label; None where the method trains
            nothing.
        evidence: what the decisions rest on, by name, float32 (N,) each; NaN where unknown.
        representation: float32 (N, D), what the network makes of each example before its last layer, projected to
            few dimensions; None where no network was trained.
        facts: how it was done (route and its reason, steps, meta steps), for the manifest.
    """

    method: str
    weight: NDArray[np.float32]
    weight_std: NDArray[np.float32]
    score: NDArray[np.float32]
    noise_score: NDArray[np.float32]
    suggested: NDArray[np.int64]
    label_confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None
    evidence: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    representation: NDArray[np.float32] | None = None
    facts: Mapping[str, JSON] = field(default_factory=dict)


def decide_from_training(
    method: str,
    labels: Tensor,
    probabilities: Tensor,
    checkpoints: Tensor,
    *,
    has_meta_set: bool,
    facts: Mapping[str, JSON],
) -> Decisions:
    """Return the decisions of a learned reweighting.

    - ``weight``: mean over the checkpoints, normalised to mean 1; ``weight_std``: their spread.
    - ``noise_score``: see ``score_noise``.
    - ``score``: where a meta set judged, weight * (1 - noise_score): what training gains by the example, times the
      chance its label is right. Without one the weights were judged by labels as doubtful as their own, so the score
      is 1 - noise_score alone.

    Shapes: labels (N,), probabilities (N, C), checkpoints (K, N), NaN where an example was not seen yet.

    Args:
        method: its name.
        labels: given labels.
        probabilities: averaged over the epochs of the reweighted training.
        checkpoints: weights of every example at K points of the training.
        has_meta_set: whether trusted examples judged.
        facts: for the manifest.

    Example:
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
        >>> checkpoints = torch.tensor([[1.5, 0.5]])
        >>> decided = decide_from_training(
        ...     "sama", torch.tensor([0, 1]), probabilities, checkpoints, has_meta_set=True, facts={}
        ... )
        >>> decided.suggested.tolist(), decided.weight.tolist(), decided.noise_score.round(2).tolist()
        ([0, 0], [1.5, 0.5], [0.10000000149011612, 0.800000011920929])
    """
    weights_N, spreads_N = average_checkpoints(checkpoints.cpu().double())
    noise_N = score_noise(probabilities, labels)
    return make_decisions(
        method,
        probabilities,
        weights=weights_N,
        spreads=spreads_N,
        scores=weights_N * (1.0 - noise_N) if has_meta_set else 1.0 - noise_N,
        noise_scores=noise_N,
        facts=facts,
    )


def decide_from_detection(
    method: str, labels: Tensor, probabilities: Tensor, checkpoints: Tensor, *, facts: Mapping[str, JSON]
) -> Decisions:
    """Return the decisions of a learned reweighting and a detector of wrong labels.

    - ``noise_score``: 1 minus the probability that the given label is the true one.
    - ``weight``: the learned weight, mean over the checkpoints, times the probability of the given label; 0 where
      another class is likelier, since any weight on the given label teaches the wrong thing there. Mean 1.
      ``weight_std``: the spread of the learned part, which stands by itself in ``evidence["learned_weight"]``.
    - ``score``: the probability of the given label. (Times the learned weight it ranked wrong labels better on
      none of five data sets, and on one far worse.)

    Shapes: labels (N,), probabilities (N, C) of each class to be the true label, checkpoints (K, N), NaN where an
    example was not seen yet.

    Args:
        method: its name.
        labels: given labels.
        probabilities: of the detector.
        checkpoints: learned weights of every example at K points of the training.
        facts: for the manifest.

    Example:
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
        >>> decided = decide_from_detection(
        ...     "sama", torch.tensor([0, 1]), probabilities, torch.ones(1, 2), facts={}
        ... )
        >>> decided.weight.tolist(), decided.noise_score.round(2).tolist()
        ([2.0, 0.0], [0.10000000149011612, 0.800000011920929])
    """
    learned_N, spreads_N = average_checkpoints(checkpoints.cpu().double())
    learned_N = learned_N.nan_to_num(1.0)  # never in a batch: a witness under another label
    index_N1 = labels.cpu().unsqueeze(1)
    given_N = probabilities.double().gather(1, index_N1).squeeze(1)
    belief_N = given_N * (given_N > probabilities.double().scatter(1, index_N1, 0.0).amax(1))
    if not bool((belief_N > 0).any()):
        belief_N = given_N
    scale = (learned_N * belief_N).mean()
    decisions = make_decisions(
        method,
        probabilities,
        weights=learned_N * belief_N / scale,
        spreads=spreads_N.nan_to_num(0.0) * belief_N / scale,
        scores=given_N,
        noise_scores=(1.0 - given_N).clamp(0.0, 1.0),
        facts=facts,
    )
    return replace(decisions, evidence={"learned_weight": _to_array(learned_N)})


def describe_evidence(
    decisions: Decisions,
    labels: Tensor,
    average: Tensor,
    dynamics: Mapping[str, Tensor],
    representation: Tensor,
    *,
    trusted: Tensor | None = None,
    neighbours: Tensor | None = None,
    votes: Tensor | None = None,
) -> Decisions:
    """Return the decisions with what they rest on, beside the evidence that they have.

    Shapes: labels (N,); average, trusted, neighbours, votes (N, C); each of dynamics (N,); representation (N, D).

    Args:
        decisions: on N examples.
        labels: given labels.
        average: probabilities averaged over the epochs.
        dynamics: how the training went, by name.
        representation: what the network makes of each example.
        trusted: probabilities by the trainings on trusted examples alone.
        neighbours: share of each class among the labels of the nearest neighbours.
        votes: probabilities by the votes of labelling functions, NaN where none was cast.

    Example:
        >>> probabilities, zeros = torch.tensor([[0.3, 0.7]]), torch.zeros(1)
        >>> decided = make_decisions("sama", probabilities, scores=zeros, noise_scores=zeros, facts={})
        >>> described = describe_evidence(decided, torch.tensor([1]), probabilities, {}, torch.zeros(1, 2))
        >>> {name: values.round(1).tolist() for name, values in described.evidence.items()}
        {'average_p_given': [0.699999988079071], 'average_p_suggested': [0.699999988079071]}
    """
    index_N1 = labels.cpu().unsqueeze(1)
    tables = {
        "average_p_given": average,
        "trusted_p_given": trusted,
        "neighbour_agreement": neighbours,
        "votes_p_given": votes,
    }
    evidence = dict(decisions.evidence) | {
        name: _to_array(table.gather(1, index_N1).squeeze(1)) for name, table in tables.items() if table is not None
    }
    suggested_N1 = torch.from_numpy(decisions.suggested).unsqueeze(1)
    evidence["average_p_suggested"] = _to_array(average.cpu().gather(1, suggested_N1).squeeze(1))
    evidence |= {name: _to_array(values) for name, values in dynamics.items()}
    return replace(decisions, evidence=evidence, representation=_to_array(representation))


def make_decisions(
    method: str,
    probabilities: Tensor,
    *,
    scores: Tensor,
    noise_scores: Tensor,
    weights: Tensor | None = None,
    spreads: Tensor | None = None,
    facts: Mapping[str, JSON],
) -> Decisions:
    """Return decisions with the suggested labels of the averaged probabilities; weights are 1 unless given.

    Shapes: probabilities (N, C); every other tensor (N,).

    Example:
        >>> probabilities, zeros = torch.tensor([[0.3, 0.7]]), torch.zeros(1)
        >>> make_decisions("aum", probabilities, scores=zeros, noise_scores=zeros, facts={}).suggested.tolist()
        [1]
    """
    confidence_N, suggested_N = probabilities.max(dim=1)
    weights_N = torch.ones_like(scores) if weights is None else weights
    spreads_N = torch.zeros_like(scores) if spreads is None else spreads
    return Decisions(
        method=method,
        weight=_to_array(weights_N),
        weight_std=_to_array(spreads_N),
        score=_to_array(scores),
        noise_score=_to_array(noise_scores),
        suggested=suggested_N.cpu().numpy().astype(np.int64),
        label_confidence=_to_array(confidence_N),
        probabilities=_to_array(probabilities),
        facts=facts,
    )


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().numpy().astype(np.float32)


def average_checkpoints(checkpoints: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each example's weight over the checkpoints, the mean scaled to 1.

    Shapes: checkpoints (K, N), NaN where an example was not seen yet -> (N,), (N,).

    Example:
        >>> average_checkpoints(torch.tensor([[1.0, torch.nan], [3.0, 2.0]]))
        (tensor([1., 1.]), tensor([0.5000, 0.0000]))
    """
    mean_N = checkpoints.nanmean(dim=0)
    variance_N = (checkpoints - mean_N).square().nanmean(dim=0)
    scale = mean_N.mean()
    return mean_N / scale, variance_N.sqrt() / scale


def score_noise(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return how likely each given label is wrong, in [0, 1], on the CPU in double precision.

    One minus the probability of the given label, averaged over the epochs: early in training a network has not yet
    memorised a wrong label, and the reweighting keeps it from doing so later.

    Shapes: probabilities (N, C), labels (N,) -> (N,).

    Example:
        >>> score_noise(torch.tensor([[0.25, 0.75]]), torch.tensor([0]))
        tensor([0.7500], dtype=torch.float64)
    """
    average_NC = probabilities.cpu().double()
    return (1.0 - average_NC.gather(1, labels.cpu().unsqueeze(1)).squeeze(1)).clamp(0.0, 1.0)
