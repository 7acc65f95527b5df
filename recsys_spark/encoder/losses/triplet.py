"""Triplet losses: one positive and one chosen negative per anchor, a margin apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses.comparison import Comparison


def triplet_hard(comparison: Comparison, margin: float) -> Tensor:
    """Batch-hard: the least similar positive against the most similar negative, [B].

    ``loss_b = max(0, margin + max_n s_bn - min_p s_bp)``, s the similarity, not divided by tau; with the Euclidean one this is
    the formula in distances of Hermans et al. 2017 (arXiv 1703.07737, equation 5). 0 for an anchor without a negative.
    Stable only where the hardest negatives are true ones: a mask is worth more here than for any other loss.
    """
    scores_BC = comparison.similarities()
    lowest_B = scores_BC.masked_fill(~comparison.is_positive(), float("inf")).min(1).values
    return _hinge(scores_BC, comparison.is_negative(), lowest_B, margin)


def triplet_semi_hard(comparison: Comparison, margin: float) -> Tensor:
    """Semi-hard: the target against the most similar of those negatives that already lie below it, [B].

    ``loss_b = max(0, margin + max{s_bn : s_bn < s_bt} - s_bt)``; where no negative lies below the target, the least similar
    one of all is taken (FaceNet, Schroff et al. 2015, arXiv 1503.03832, section 3.2). Not thrown off by false negatives that
    lie above, which ``triplet_hard`` chooses first. 0 for an anchor without a negative.
    """
    scores_BC, negative_BC = comparison.similarities(), comparison.is_negative()
    target_B1 = comparison.of_target(scores_BC)
    below_BC = negative_BC & (scores_BC < target_B1)
    least_B1 = scores_BC.masked_fill(~negative_BC, float("inf")).argmin(1, keepdim=True)
    easiest_BC = torch.zeros_like(negative_BC).scatter(1, least_B1, True) & negative_BC
    chosen_BC = torch.where(below_BC.any(1, keepdim=True), below_BC, easiest_BC)
    return _hinge(scores_BC, chosen_BC, target_B1[:, 0], margin)


def _hinge(scores_BC: Tensor, negative_BC: Tensor, positive_B: Tensor, margin: float) -> Tensor:
    """``max(0, margin + highest negative - positive)``; 0 in a row without a negative."""
    some_B = negative_BC.any(1)
    highest_B = torch.where(negative_BC, scores_BC, float("-inf")).max(1).values
    return F.relu(margin + torch.where(some_B, highest_B, positive_B.detach()) - positive_B) * some_B
