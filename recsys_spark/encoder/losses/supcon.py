"""Supervised contrastive loss: an anchor with several positives."""

from __future__ import annotations

from torch import Tensor

from recsys_spark.encoder.losses.comparison import Comparison


def supcon(comparison: Comparison) -> Tensor:
    """Each positive must be picked among all candidates, and an anchor's loss is the mean over its positives, [B].

    ``loss_b = -1/|P_b| sum_{p in P_b} log( exp(s_bp / tau) / sum_{c in P_b or N_b} exp(s_bc / tau) )``: the form with the sum
    outside the logarithm (Khosla et al. 2020, arXiv 2004.11362, equation 2). With the target as the only positive it is
    ``softmax``. Positives are the target and ``comparison.positives``, negatives all others that are not excluded.
    """
    positive_BC = comparison.is_positive()
    kept_BC = positive_BC | comparison.is_negative()
    logits_BC = comparison.logits()
    log_total_B1 = logits_BC.masked_fill(~kept_BC, float("-inf")).logsumexp(1, keepdim=True)
    sums_B = ((logits_BC - log_total_B1) * positive_BC).sum(1)
    return -sums_B / positive_BC.sum(1)
