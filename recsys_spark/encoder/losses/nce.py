"""Noise-contrastive estimation: is this candidate the data's, or was it drawn from the noise?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses.comparison import Comparison


def nce(comparison: Comparison) -> Tensor:
    """A yes-or-no question per candidate instead of one choice among all, [B].

    ``loss_b = -log sigma(l_bt - log E_t) - sum_c d_c log( 1 - sigma(l_bc - log E_c) )`` with ``l = s / tau`` taken as a log
    probability, d_c how often the negative c was drawn and E_c = k q_c how often k draws from q were expected to give it
    (Gutmann & Hyvarinen 2010; for words, Mnih & Teh 2012, arXiv 1206.6426). Without ``log_expected`` it is binary
    cross-entropy with all negatives (as SASRec trains with one). ``softmax`` needs no normalised scores; this does, which a
    bounded cosine can hardly give: use it for comparison.
    """
    logits_BC = comparison.logits()
    if comparison.log_expected is not None:
        logits_BC = logits_BC - comparison.log_expected.to(logits_BC.dtype)
    weights_BC = comparison.is_negative().to(logits_BC.dtype)
    if comparison.draws is not None:
        weights_BC = weights_BC * comparison.draws.to(logits_BC.dtype)
    noise_B = (F.softplus(torch.where(weights_BC > 0, logits_BC, 0.0)) * weights_BC).sum(1)
    return F.softplus(-comparison.of_target(logits_BC)[:, 0]) + noise_B
