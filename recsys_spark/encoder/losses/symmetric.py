"""InfoNCE between two views of the same things: both ways, or with both views as negatives (NT-Xent)."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_spark.encoder.losses.softmax import info_nce


def symmetric_info_nce(
    left: Tensor, right: Tensor, temperature: Tensor | float, mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Row i of ``left`` must find row i of ``right`` among all of ``right``, and the other way round.

    ``loss = ( info_nce(left, right) + info_nce(right, left) ) / 2``, as CLIP trains images and captions (Radford et al. 2021,
    arXiv 2103.00020). Training does the same for item pairs (``train.pair_ways = "both"``) with any loss.

    Args:
        left, right: float [B, D].
        temperature: tau > 0.
        mask: bool [B, B], True = left i and right j are no negatives of each other; the diagonal never is excluded.
        weights: float [B].

    Returns:
        Scalar in nats.
    """
    target = torch.arange(len(left), device=left.device)
    there = info_nce(left, right, target, temperature, mask, weights)
    back = info_nce(right, left, target, temperature, None if mask is None else mask.T, weights)
    return (there + back) / 2


def nt_xent(left: Tensor, right: Tensor, temperature: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """NT-Xent: each of the 2 B views must find its other view among all 2 B - 1 that are not itself.

    ``loss_i = -log( exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) )``, j the other view of i, over left and right together
    (SimCLR, Chen et al. 2020, arXiv 2002.05709, equation 1, on unit vectors). ``symmetric_info_nce`` compares with the other
    side only; training's way to this one is ``train.pair_candidates = "all"``.

    Args:
        left, right: float [B, D].
        temperature: tau > 0.
        weights: float [B].

    Returns:
        Scalar in nats.
    """
    views, size = torch.cat([left, right]), len(left)
    target = torch.arange(2 * size, device=left.device).roll(size)
    itself = torch.eye(2 * size, dtype=torch.bool, device=left.device)
    return info_nce(views, views, target, temperature, itself, None if weights is None else weights.repeat(2))
