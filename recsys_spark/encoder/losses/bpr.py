"""Bayesian personalised ranking: the positive above each negative, pair by pair."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses.comparison import Comparison


def bpr(comparison: Comparison) -> Tensor:
    """How far each negative is from lying below the target, as a mean over the negatives, [B].

    ``loss_b = mean_n -log sigma( (s_bt - s_bn) / tau )`` (Rendle et al. 2009, arXiv 1205.2618, without the regulariser, which
    weight decay is). All negatives count the same, however low they are; ``softmax`` weighs the high ones more.
    """
    logits_BC = comparison.logits()
    return comparison.mean_over_negatives(F.softplus(logits_BC - comparison.of_target(logits_BC)))
