"""Fusion weights under which validation targets are likely among what is listed against them.

Legend: E examples, M rows (listed items), P partners; see ``fusion_examples``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from recsys_spark.recommend.scoring.scores import Float64
from recsys_spark.register.fusion_examples import Examples

WORTH = 2e-3  # all partners that are dropped together may cost this share of the gain
_START = 0.3  # of every weight
_MAX_ITERATIONS = 80
_CELLS = 1 << 18  # of rows and partners at once

Open = npt.NDArray[np.bool_]


def likeliest(examples: Examples, power: float) -> Float64:
    """Weights ``[P]`` of at least 0 with the greatest ``value_and_gradient``; what counts for lists is their proportion.

    NDCG@10 itself moves in jumps, so what maximises it on some hundred users fits these users; this is smooth, and near
    enough (docs/decisions/015-partners-in-closed-form-and-their-fusion.md). All alike where there are no examples.

    Args:
        power: above 0, at most 1; see ``value_and_gradient``.
    """
    size = examples.z.shape[1]
    weights, _ = _fitted(examples, power, np.full(size, _START), np.ones(size, bool))
    return weights if weights.any() else np.ones(size)


def without_idle(examples: Examples, power: float, weights: Float64) -> Float64:
    """The likeliest ``weights`` without idle partners, one dropped after the other, the least first: those without which the
    others, fitted anew, gain nearly as much (all but ``WORTH``) over weights of 0, under which all items are alike."""
    full, nothing = (value_and_gradient(examples, w, power)[0] for w in (weights, np.zeros(len(weights))))
    while len(places := np.flatnonzero(weights)) > 1:
        left = [np.isin(np.arange(len(weights)), places[places != place]) for place in places]
        without, value = max((_fitted(examples, power, weights, takes) for takes in left), key=lambda fit: fit[1])
        if full - value > WORTH * (full - nothing) or not without.any():
            break
        weights = without
    return weights


def _fitted(examples: Examples, power: float, start: Float64, taking_part: Open) -> tuple[Float64, float]:
    """The best weights with 0 for partners that do not take part, and their value."""

    def loss(weights: Float64) -> tuple[float, Float64]:
        value, gradient = value_and_gradient(examples, weights, power)
        return -value, -gradient

    bounds = [(0.0, None if takes else 0.0) for takes in taking_part]
    options = {"maxiter": _MAX_ITERATIONS}
    found: Any = minimize(loss, np.where(taking_part, start, 0.0), jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    return found.x, -float(found.fun)


def value_and_gradient(examples: Examples, weights: Float64, power: float) -> tuple[float, Float64]:
    """The sum over examples of ``share * p^q / q`` with q = ``power``, and its gradient ``[P]``.

    ``p`` is the probability of the target among itself and what is listed against it in a conditional logit, the softmax of
    the weighted z-scores (McFadden 1974, "Conditional logit analysis of qualitative choice behavior"); ``(1 - p^q) / q``
    is the generalised cross-entropy (Zhang and Sabuncu 2018, equation 6): the likelihood as q nears 0, and the chance to draw
    the target at 1. The larger q, the less a target pulls that the weights leave far behind, as one below the tenth place
    counts nothing in NDCG@10.
    """
    value, gradient = 0.0, np.zeros(len(weights))
    for chosen, rows, starts in examples.stretches(max(1, _CELLS // len(weights))):
        z, own, share = examples.z[rows].astype(np.float64), examples.target_z[chosen].astype(np.float64), examples.share[chosen]
        owner = examples.owner[rows] - chosen.start
        scores, target = z @ weights, own @ weights
        top = np.maximum(np.maximum.reduceat(scores, starts), target)
        listed, wanted = np.exp(scores - top[owner]), np.exp(target - top)
        total = np.add.reduceat(listed, starts) + wanted
        chance = wanted / total
        pull = share * chance**power
        value += float(pull.sum()) / power
        gradient += (pull * (1.0 - chance)) @ own - (listed * (pull / total)[owner]) @ z
    return value, gradient
