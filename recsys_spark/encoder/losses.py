"""Contrastive losses: InfoNCE over a batch or over the whole catalogue, and the mask of known positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PAD = -1


def info_nce(
    anchors: Tensor,
    candidates: Tensor,
    target_idx: Tensor,
    temperature: Tensor | float,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    total_weight: Tensor | float | None = None,
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

    Returns:
        Scalar: weighted mean loss in nats; 0 when all weights are 0.

    Papers: InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748); NT-Xent, Chen et al. 2020 (arXiv 2002.05709).
    """
    losses = _losses(anchors, candidates, target_idx, temperature, mask)
    return _weighted_mean(losses, weights, total_weight)


def full_softmax(
    anchors: Tensor,
    candidates: Tensor,
    target_idx: Tensor,
    temperature: Tensor | float,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    total_weight: Tensor | float | None = None,
    chunk_size: int = 512,
) -> Tensor:
    """``info_nce`` with every item of the catalogue as candidate, ``chunk_size`` anchors at a time.

    Same arguments and value; the [B, C] scores are never held at once: in training each chunk's scores are computed
    again for the gradient, so memory is ``chunk_size x C`` floats. No sampling, hence no sampling bias to correct.
    """
    parts = []
    for start in range(0, anchors.shape[0], chunk_size):
        rows = slice(start, start + chunk_size)
        part_mask = None if mask is None else mask[rows]
        inputs = (anchors[rows], candidates, target_idx[rows], temperature, part_mask)
        several = anchors.shape[0] > chunk_size and torch.is_grad_enabled()
        parts.append(checkpoint(_losses, *inputs, use_reentrant=False) if several else _losses(*inputs))
    losses = torch.cat(parts) if parts else anchors.new_zeros(0)
    return _weighted_mean(losses, weights, total_weight)


def known_positive_mask(
    anchor_item_idx: Tensor, candidate_item_idx: Tensor, target_idx: Tensor, known_item_idx: Tensor | None = None
) -> Tensor:
    """Candidates that are no fair negatives of an anchor, bool [B, C] for ``info_nce``'s mask (True = excluded).

    Excluded are: the positive's item standing at another place (duplicates in the batch), the anchor's own item, and
    the anchor's other known positives. The target itself is never excluded.

    Args:
        anchor_item_idx: int [B], item_idx of the anchor; -1 where the anchor is a user.
        candidate_item_idx: int [C], item_idx of each candidate.
        target_idx: int64 [B], the row of the positive among the candidates.
        known_item_idx: int [B, M], item_idx of further known positives, padded with -1; or None.
    """
    candidate_C = candidate_item_idx[None, :]
    excluded_BC = candidate_C == candidate_item_idx[target_idx][:, None]
    excluded_BC = excluded_BC | (candidate_C == anchor_item_idx[:, None])
    if known_item_idx is not None:
        for column in known_item_idx.unbind(1):  # one [B, C] at a time: [B, M, C] would not fit
            excluded_BC = excluded_BC | (candidate_C == column[:, None])
    excluded_BC = excluded_BC & (candidate_C != PAD)
    return excluded_BC.scatter(1, target_idx[:, None], False)


def _losses(anchors: Tensor, candidates: Tensor, target_idx: Tensor, temperature: Tensor | float, mask: Tensor | None) -> Tensor:
    logits_BC = anchors @ candidates.T / temperature
    if mask is not None:
        logits_BC = logits_BC.masked_fill(mask.scatter(1, target_idx[:, None], False), float("-inf"))
    return F.cross_entropy(logits_BC, target_idx, reduction="none")


def _weighted_mean(losses: Tensor, weights: Tensor | None, total_weight: Tensor | float | None) -> Tensor:
    weights = torch.ones_like(losses) if weights is None else weights.to(losses.dtype)
    total = weights.sum() if total_weight is None else torch.as_tensor(total_weight, dtype=losses.dtype, device=losses.device)
    return (losses * weights).sum() / total.clamp(min=torch.finfo(losses.dtype).tiny)
