"""InfoNCE over a batch, and the same over the whole catalogue: a full softmax, some anchors at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys_spark.encoder.losses.comparison import Comparison
from recsys_spark.encoder.losses.mean import in_chunks, weighted_mean


def softmax(comparison: Comparison) -> Tensor:
    """The chance that the target is picked by its score among all drawn candidates that are not excluded, as a loss [B].

    ``loss_b = -log( exp(s_bt / tau) / sum_c exp(s_bc / tau) )``, t the target. 0 means the target has all the mass, log C means
    chance. With the batch's positives as candidates this is InfoNCE, with the catalogue the full softmax; when candidates
    were drawn by chance, ``sampled_softmax`` estimates the latter.
    """
    logits_BC = comparison.logits()
    excluded_BC = _excluded(comparison)
    if excluded_BC is not None:
        logits_BC = logits_BC.masked_fill(excluded_BC.scatter(1, comparison.target_idx[:, None], False), float("-inf"))
    losses_B: Tensor = _LogLoss.apply(logits_BC, comparison.target_idx)  # type: ignore[no-untyped-call]
    return losses_B


def _excluded(comparison: Comparison) -> Tensor | None:
    """Bool [B, C]: masked, or there only because it is another anchor's target."""
    if comparison.draws is None:
        return comparison.mask
    undrawn_BC = (comparison.draws == 0).expand(len(comparison.target_idx), -1)
    return undrawn_BC if comparison.mask is None else undrawn_BC | comparison.mask


class _LogLoss(torch.autograd.Function):
    """``-log softmax(logits)`` at the target, [B]: ``cross_entropy`` with a gradient that is made in place.

    The gradient is ``g_b (softmax - 1[c = t])``. PyTorch's own makes three more matrices of the size of the logits, which with
    the whole catalogue as candidates was a quarter of the loss's time.
    """

    @staticmethod
    def forward(ctx: Any, logits_BC: Tensor, target_B: Tensor) -> Tensor:
        log_chances_BC = logits_BC.log_softmax(1)
        ctx.save_for_backward(log_chances_BC, target_B)
        return -log_chances_BC.gather(1, target_B[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_B: Tensor) -> tuple[Tensor, None]:
        log_chances_BC, target_B = ctx.saved_tensors
        slope_B1 = slope_B[:, None]
        gradient_BC = log_chances_BC.exp_().mul_(slope_B1)  # in place: who goes back twice is told by PyTorch
        return gradient_BC.scatter_add_(1, target_B[:, None], -slope_B1), None


def info_nce(
    anchors: Tensor,
    candidates: Tensor,
    target_idx: Tensor,
    temperature: Tensor | float,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    total_weight: Tensor | float | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """InfoNCE: among all candidates, pick out the anchor's positive by its score.

    ``loss_b = -log( exp(s_bt / tau) / sum_c exp(s_bc / tau) )`` with ``s = anchors @ candidates^T``, t the target and c
    running over the candidates that are not excluded. The mean over b is weighted. 0 means the positive has all the
    mass, log C means chance. With the batch's positives as candidates these are in-batch negatives (SimCLR's NT-Xent
    in one direction); with the whole catalogue it is a full softmax (see ``full_softmax``).

    Args:
        anchors: float [B, D], unit length.
        candidates: float [C, D], unit length.
        target_idx: int64 [B], the row of the positive among the candidates.
        temperature: tau > 0; a smaller one looks harder at the hardest negatives.
        mask: bool [B, C], True = excluded from the sum; the target itself never is.
        weights: float [B]; None counts each anchor once.
        total_weight: what to divide by in place of ``weights.sum()``, for a mean that runs over several ranks.
        chunk_size: anchors compared at a time; their scores are computed again for the gradient, so memory is
            ``chunk_size x C`` floats. None: all at once.

    Returns:
        Scalar: weighted mean loss in nats; 0 when all weights are 0.

    Papers: InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748); NT-Xent, Chen et al. 2020 (arXiv 2002.05709).
    """
    comparison = Comparison(anchors, candidates, target_idx, temperature, mask=mask)
    losses, _ = in_chunks(softmax, comparison, chunk_size)
    return weighted_mean(losses, weights, total_weight)


# With the whole catalogue as candidates, some anchors at a time: no sampling, hence no sampling bias to correct.
full_softmax = partial(info_nce, chunk_size=512)
