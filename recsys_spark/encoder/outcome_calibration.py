"""From an outcome's logit to its probability: Platt scaling on held-out events, and its errors beside those of the base rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.calibration import BINS, expected_calibration_error

_STEPS = 50  # of Newton's method, which needs fewer than ten
_LEAST_CURVATURE = 1e-9


@dataclass(frozen=True)
class OutcomeCalibration:
    """Figures of held-out events. Those after fitting, and of the base rate, are of events not fitted on (two halves).

    Args:
        slope, offset: a probability is ``sigmoid(slope x logit + offset)``; fitted on all events.
        log_loss: mean of -log p(what came of the event), in nats.
        log_loss_before: the same with slope 1 and offset 0.
        log_loss_base: the same where every event has the share of wanted ones as its probability.
        ece, ece_before, ece_base: expected calibration errors of the same three; equal probabilities are one bin.
        events, wanted: held-out events, and how many turned out to be of the wanted kind.
    """

    slope: float
    offset: float
    log_loss: float
    log_loss_before: float
    log_loss_base: float
    ece: float
    ece_before: float
    ece_base: float
    events: int
    wanted: int

    def document(self) -> dict[str, float]:
        """As JSON values."""
        return asdict(self)


def calibrate_outcomes(logits_B: Tensor, outcomes_B: Tensor) -> OutcomeCalibration | None:
    """Fit and judge; None where a half of the events has no event of one of the two kinds.

    Events are put into halves by turns within each kind, so both halves have the same share of wanted ones.

    Args:
        logits_B: float, of the head.
        outcomes_B: bool.
    """
    wanted = int(outcomes_B.sum())
    if min(wanted, len(outcomes_B) - wanted) < 2:
        return None
    logits_B, half_B = logits_B.double(), _halves(outcomes_B)
    after_B, base_B = torch.empty_like(logits_B), torch.empty_like(logits_B)
    for half in (0, 1):
        fitted_on, judged = half_B == half, half_B != half
        slope, offset = fit_platt(logits_B[fitted_on], outcomes_B[fitted_on])
        after_B[judged] = slope * logits_B[judged] + offset
        base_B[judged] = outcomes_B[fitted_on].double().mean().logit()
    figures: dict[str, float] = {}
    for name, z_B, bins in (("", after_B, BINS), ("_before", logits_B, BINS), ("_base", base_B, 1)):
        figures[f"log_loss{name}"] = F.binary_cross_entropy_with_logits(z_B, outcomes_B.double()).item()
        figures[f"ece{name}"] = expected_calibration_error(z_B.sigmoid(), outcomes_B, bins)
    slope, offset = fit_platt(logits_B, outcomes_B)
    return OutcomeCalibration(slope, offset, events=len(outcomes_B), wanted=wanted, **figures)


def fit_platt(logits_B: Tensor, outcomes_B: Tensor) -> tuple[float, float]:
    """Slope and offset of least log loss (Platt 1999, "Probabilistic outputs for support vector machines").

    Targets are Platt's, ``(n + 1) / (n + 2)`` and ``1 / (n + 2)`` for n events of a kind in place of 1 and 0, so that the
    optimum is finite where the logits tell the kinds apart without a fault. Newton's method with halved steps, in the
    standardised logits; where these are all equal the slope is 0 and the offset that of the base rate.

    Args:
        logits_B: float.
        outcomes_B: bool, with both kinds.
    """
    z_B, y_B = logits_B.double(), outcomes_B.double()
    wanted = float(y_B.sum())
    target_B = torch.where(outcomes_B, (wanted + 1) / (wanted + 2), 1 / (len(y_B) - wanted + 2))
    mean, spread = z_B.mean(), z_B.std(correction=0)
    features_B2 = torch.stack([(z_B - mean) / spread.clamp(min=1e-12), torch.ones_like(z_B)], dim=1)
    weights_2 = torch.tensor([0.0, 0.0], dtype=torch.float64, device=z_B.device)
    for _ in range(_STEPS):
        step_2 = _newton_step(features_B2, target_B, weights_2)
        weights_2 = _shortened(features_B2, target_B, weights_2, step_2)
        if float(step_2.abs().max()) < 1e-12:
            break
    slope = float(weights_2[0] / spread) if float(spread) > 1e-12 else 0.0
    return slope, float(weights_2[1]) - slope * float(mean)


def _newton_step(features_B2: Tensor, target_B: Tensor, weights_2: Tensor) -> Tensor:
    chance_B = (features_B2 @ weights_2).sigmoid()
    slope_2 = features_B2.T @ (chance_B - target_B)
    curvature_22 = features_B2.T @ (features_B2 * (chance_B * (1 - chance_B))[:, None])
    curvature_22 = curvature_22 + _LEAST_CURVATURE * torch.eye(2, dtype=torch.float64, device=weights_2.device)
    step_2: Tensor = torch.linalg.solve(curvature_22, slope_2)
    return step_2


def _shortened(features_B2: Tensor, target_B: Tensor, weights_2: Tensor, step_2: Tensor) -> Tensor:
    """The weights after the step, which is halved until the loss is no higher."""

    def loss(weights: Tensor) -> float:
        return F.binary_cross_entropy_with_logits(features_B2 @ weights, target_B).item()

    before = loss(weights_2)
    for _ in range(_STEPS):
        if loss(weights_2 - step_2) <= before:
            return weights_2 - step_2
        step_2 = step_2 / 2
    return weights_2


def _halves(outcomes_B: Tensor) -> Tensor:
    """0 or 1 for each event, by turns among those of its kind."""
    number_B = torch.where(outcomes_B, outcomes_B.cumsum(0), (~outcomes_B).cumsum(0))
    return number_B % 2
