"""A linear softmax classifier: logits W x, so that d(-log p_c)/dW = (p - onehot_c) x^T.

Coefficients a class and example, c_ic, cover both kinds: a weight times the given label's onehot, and a soft label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import SGD, Adam

from sama_core.exchange import AbstractExchange
from sama_core.losses import LossFunction, class_losses, given_label_losses
from sama_core.problem import BilevelProblem
from tests.conformance.row import EVERY, IMPLICIT, PLAIN, STEP, UNROLLED, Row
from tests.conformance.scene import ALONE, CPU, Array, Scene, TableLearned, build_batch, build_linear

X = np.array([[1.0, -0.5], [0.3, 2.0], [-1.2, 0.7], [0.8, 0.1]])
Y: NDArray[np.int64] = np.array([0, 1, 1, 0])
META_X, META_Y = np.array([[0.9, -0.2], [-0.4, 1.1]]), np.array([0, 1])
WEIGHT = np.array([[0.2, -0.1], [0.4, 0.3]])
LOGITS = np.array([0.3, -0.7, 0.1, 1.1])
SCORES = np.array([[1.2, -0.3], [0.4, 0.9], [-0.5, 0.2], [0.1, 0.6]])
EPSILON, DAMPING = 1e-2, 0.1


@dataclass(frozen=True)
class Kind:
    """What is learned of a row: its start, its coefficients (B, C) and their derivatives (B, C, numbers learned)."""

    start: Array
    coefficients: Callable[[Array], Array]
    derivatives: Callable[[Array], Array]
    in_torch: Callable[[Tensor], Tensor]
    terms: LossFunction


def _weigh(logits: Array) -> Array:
    weights: Array = (2 / (1 + np.exp(-logits)))[:, None] * np.eye(2)[Y]
    return weights


def _weigh_derivatives(logits: Array) -> Array:
    shares = 1 / (1 + np.exp(-logits))
    slopes = 2 * shares * (1 - shares)
    return np.einsum("i,ic,ij->icj", slopes, np.eye(2)[Y], np.eye(4))


def _correct(scores: Array) -> Array:
    return _softmax(scores.reshape(4, 2))


def _correct_derivatives(scores: Array) -> Array:
    labels = _correct(scores)
    own = np.einsum("ic,ck->ick", labels, np.eye(2)) - np.einsum("ic,ik->ick", labels, labels)
    return np.einsum("ick,ij->icjk", own, np.eye(4)).reshape(4, 2, 8)


WEIGHTS = Kind(LOGITS, _weigh, _weigh_derivatives, lambda logits: 2.0 * logits.sigmoid(), given_label_losses)
LABELS = Kind(SCORES, _correct, _correct_derivatives, lambda scores: scores.softmax(1), class_losses)


def _softmax(logits: Array) -> Array:
    shares: Array = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return shares


def term_gradients(weight: Array, inputs: Array) -> Array:
    """Return d(-log p_ic)/dW for each example and class, (B, C, C * D)."""
    errors = _softmax(inputs @ weight.T)[:, None, :] - np.eye(2)
    return np.einsum("ick,id->ickd", errors, inputs).reshape(len(inputs), 2, 4)


def build_hessian(weight: Array, totals: Array) -> Array:
    """Return the Hessian (C * D, C * D) of the base loss; ``totals`` are the sums of the coefficients over classes."""
    shares = _softmax(X @ weight.T)
    inner = np.einsum("ic,ck->ick", shares, np.eye(2)) - np.einsum("ic,ik->ick", shares, shares)
    return np.einsum("i,ick,id,ie->cdke", totals, inner, X, X).reshape(4, 4) / len(X)


def _gradient(weight: Array, coefficients: Array) -> Array:
    return np.einsum("ic,icp->p", coefficients, term_gradients(weight, X)) / len(X)


def meta_gradient(weight: Array) -> Array:
    """Return the gradient of the meta loss, flat."""
    mean: Array = term_gradients(weight, META_X)[np.arange(2), META_Y].mean(0)
    return mean


def _update(gradient: Array, rate: float, *, is_adam: bool) -> Array:
    """Return the first step: Adam's is rate * g / (|g| + eps)."""
    return rate * gradient / (np.abs(gradient) + EPSILON) if is_adam else rate * gradient


def _meta_loss(values: Array, kind: Kind, rate: float, is_adam: bool) -> float:
    update = _update(_gradient(WEIGHT, kind.coefficients(values)), rate, is_adam=is_adam)
    shares = _softmax(META_X @ (WEIGHT - update.reshape(2, 2)).T)
    return float(-np.log(shares[np.arange(2), META_Y]).mean())


def _build(kind: Kind, rate: float, *, is_adam: bool, num_passes: int, exchange: AbstractExchange = ALONE) -> Scene:
    network, learned = build_linear(WEIGHT), TableLearned(kind.start, kind.in_torch, kind.terms)
    problem = BilevelProblem(network, learned, CPU, exchange=exchange)
    params = network.parameters()
    optimizer = Adam(params, lr=rate, eps=EPSILON) if is_adam else SGD(params, lr=rate)
    batch, meta = build_batch(X, Y, exchange), build_batch(META_X, META_Y, exchange)
    return Scene(problem, optimizer, batch, meta, num_passes=num_passes)


def build_row(name: str, kind: Kind, rate: float, *, is_adam: bool = False, num_passes: int = 1) -> Row:
    """Return the row of one first step of SGD or Adam."""
    coefficients, derivatives = kind.coefficients(kind.start), kind.derivatives(kind.start)
    gradient = _gradient(WEIGHT, coefficients)
    adaptation = rate * EPSILON / (np.abs(gradient) + EPSILON) ** 2 if is_adam else np.full(4, rate)
    after = WEIGHT - _update(gradient, rate, is_adam=is_adam).reshape(2, 2)
    meta = meta_gradient(after)

    def pull(weight: Array, direction: Array) -> Array:
        answer: Array = -np.einsum("icp,p,icl->l", term_gradients(weight, X), direction, derivatives) / len(X)
        return answer

    hessian = build_hessian(after, coefficients.sum(1))
    step = pull(WEIGHT, adaptation * meta)
    return Row(
        name=name,
        build=partial(_build, kind, rate, is_adam=is_adam, num_passes=num_passes),
        start=kind.start,
        answers={
            STEP: step,
            EVERY: step,
            UNROLLED: step,
            PLAIN: pull(WEIGHT, rate * meta),
            IMPLICIT: pull(after, np.linalg.solve(hessian + DAMPING * np.eye(4), meta)),
        },
        replays={STEP: partial(_meta_loss, kind=kind, rate=rate, is_adam=is_adam)},
        damping=DAMPING,
        rate=1.0,
        num_terms=300,
        has_several_terms=kind is LABELS,
    )


ROWS = (
    build_row("softmax classifier, short step of SGD", WEIGHTS, 0.01),
    build_row("softmax classifier, long step of SGD", WEIGHTS, 0.5),
    build_row("softmax classifier, first step of Adam", WEIGHTS, 0.01, is_adam=True),
    build_row("softmax classifier, long first step of Adam", WEIGHTS, 0.5, is_adam=True),
    build_row("softmax classifier, gradient accumulated over two passes", WEIGHTS, 0.5, num_passes=2),
    build_row("softmax classifier, labels corrected, SGD", LABELS, 0.5),
    build_row("softmax classifier, labels corrected, Adam", LABELS, 0.5, is_adam=True),
)
