"""DirectAU: positives close together, everything else spread evenly over the sphere, and no negatives at all."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recsys_spark.encoder.losses.comparison import Comparison

_ROWS_AT_ONCE = 1_024
_SHARPNESS = 2.0  # t of the Gaussian potential; the paper's


def direct_au(comparison: Comparison, uniformity_weight: float) -> Tensor:
    """Alignment of each anchor with its positive, plus the uniformity of all anchors and of all positives, [B].

    ``loss_b = |a_b - c_t|^2 + gamma ( U(anchors) + U(positives) ) / 2`` with ``U(x) = log mean_{i != j} exp(-2 |x_i - x_j|^2)``
    on unit vectors (Wang et al. 2022, arXiv 2206.12811, after Wang & Isola 2020, arXiv 2005.10242). Those two terms are what
    InfoNCE tends to as negatives grow; here they are weighed by hand (gamma), and ``mask`` and ``temperature`` play no part.
    U is over all ranks' anchors and distinct positives where the comparison has them, and the same number in every row.
    """
    targets_BD = comparison.candidates[comparison.target_idx]
    alignment_B = (comparison.anchors - targets_BD).square().sum(1)
    anchors = comparison.anchors if comparison.all_anchors is None else comparison.all_anchors
    distinct = comparison.candidates[torch.unique(comparison.target_idx)]
    targets = distinct if comparison.all_targets is None else comparison.all_targets
    return alignment_B + uniformity_weight * (uniformity(anchors) + uniformity(targets)) / 2


def uniformity(vectors: Tensor) -> Tensor:
    """``log mean_{i != j} exp(-2 |x_i - x_j|^2)`` of unit vectors [A, D]: 0 when all are one, lower the wider they spread.

    A scalar; 0 for fewer than two vectors. Computed by blocks of rows, which the gradient computes again.
    """
    if len(vectors) < 2:
        return vectors.sum() * 0.0
    starts = range(0, len(vectors), _ROWS_AT_ONCE)
    again = len(starts) > 1 and torch.is_grad_enabled()
    parts = [
        checkpoint(_log_potentials, vectors, start, use_reentrant=False) if again else _log_potentials(vectors, start)
        for start in starts
    ]
    pairs = len(vectors) * (len(vectors) - 1)
    return torch.cat(parts).logsumexp(0) - torch.log(torch.tensor(float(pairs), dtype=vectors.dtype, device=vectors.device))


def _log_potentials(vectors: Tensor, start: int) -> Tensor:
    """``log sum_{j != i} exp(-2 |x_i - x_j|^2)`` of some rows i."""
    rows = vectors[start : start + _ROWS_AT_ONCE]
    squares = rows.square().sum(1)[:, None] + vectors.square().sum(1)[None, :] - 2 * rows @ vectors.T
    itself = torch.arange(len(rows), device=vectors.device)
    potentials = (-_SHARPNESS * squares).index_put((itself, itself + start), torch.full_like(rows[:, 0], float("-inf")))
    return potentials.logsumexp(1)
