"""Softmax over drawn candidates, corrected for how likely each was to be drawn (logQ)."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_spark.encoder.losses.comparison import Comparison
from recsys_spark.encoder.losses.softmax import softmax


def sampled_softmax(comparison: Comparison) -> Tensor:
    """An estimate of the full softmax from a few drawn candidates, [B].

    ``loss_b = -log( e^(l_bt) / ( e^(l_bt) + sum_{c != t} d_c e^(l_bc - log E_c) ) )`` with ``l = s / tau``, d_c how often c was
    drawn and E_c how often it was expected to be: each term of the sum stands for 1 / E_c items like it, so the sum is an
    unbiased estimate of the full one, and the loss approaches ``softmax`` over the catalogue as draws grow. The target is
    always there, so it is not corrected. Without ``draws`` and ``log_expected`` it is ``softmax``.

    Papers: importance sampling of the softmax, Bengio & Senecal 2008; Jean et al. 2015 (arXiv 1412.2007); in-batch logQ,
    Yi et al. 2019 (RecSys); on leaving the target uncorrected, Khrylchenko et al. 2025 (arXiv 2507.09331).
    """
    if comparison.draws is None and comparison.log_expected is None:
        return softmax(comparison)
    logits_BC = comparison.logits()
    corrected_BC = logits_BC + _correction(comparison).to(logits_BC.dtype)
    corrected_BC = corrected_BC.masked_fill(~comparison.is_negative(), float("-inf"))
    target_B1 = comparison.of_target(logits_BC)
    return torch.cat([target_B1, corrected_BC], dim=1).logsumexp(1) - target_B1[:, 0]


def _correction(comparison: Comparison) -> Tensor:
    """``log d - log E`` per candidate, [C]."""
    zeros_C = torch.zeros(len(comparison.candidates), device=comparison.candidates.device)
    log_draws_C = zeros_C if comparison.draws is None else comparison.draws.clamp(min=torch.finfo(torch.float32).tiny).log()
    return log_draws_C if comparison.log_expected is None else log_draws_C - comparison.log_expected
