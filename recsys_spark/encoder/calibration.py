"""From scores to the probability that an item is a user's next: one temperature fitted on held-out users, and its errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

LEAST, MOST = 1e-3, 1e2  # temperatures that are looked at
SHOWN = 10  # best items of a user whose probabilities are compared with what happened
BINS = 10
_HALVINGS = 40


@dataclass(frozen=True)
class Calibration:
    """Figures of held-out users. Those after fitting are of users that the temperature was not fitted on (two halves).

    Args:
        temperature: what scores are divided by; fitted on all users.
        log_loss: mean of -log p(true next item), in nats.
        log_loss_before: the same at the temperature of training.
        ece: expected calibration error of the probabilities of each user's ten best items.
        ece_before: the same at the temperature of training.
        users: held-out users whose item could be found at all.
    """

    temperature: float
    log_loss: float
    log_loss_before: float
    ece: float
    ece_before: float
    users: int

    def document(self) -> dict[str, float]:
        """As JSON values."""
        return asdict(self)


def calibrate(scores_BN: Tensor, target_B: Tensor, trained_temperature: float) -> Calibration | None:
    """Fit and judge; None for fewer than two users.

    Args:
        scores_BN: float, -inf where an item is no candidate; the target is one.
        target_B: int64, columns of the items that were next.
        trained_temperature: of the loss.
    """
    if len(target_B) < 2:
        return None
    scores_BN, half_B = scores_BN.double(), torch.arange(len(target_B), device=target_B.device) % 2
    found = torch.empty(len(target_B), 1, dtype=torch.float64, device=target_B.device)
    for half in (0, 1):
        found[half_B != half] = fit_temperature(scores_BN[half_B == half], target_B[half_B == half])
    before, after = (scores_BN / trained_temperature).log_softmax(1), (scores_BN / found).log_softmax(1)
    losses = [-logs.gather(1, target_B[:, None]).mean().item() for logs in (after, before)]
    errors = [_error_of_the_best(logs, target_B) for logs in (after, before)]
    return Calibration(fit_temperature(scores_BN, target_B), losses[0], losses[1], errors[0], errors[1], len(target_B))


def fit_temperature(scores_BN: Tensor, target_B: Tensor) -> float:
    """The temperature of least log loss (temperature scaling, Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The loss is convex in ``1 / tau``, and its slope there is the mean over users of (expected score - the target's score):
    the zero is found by halving, between ``LEAST`` and ``MOST``.
    """
    reached_B = scores_BN.gather(1, target_B[:, None])[:, 0]
    finite_BN = scores_BN.masked_fill(scores_BN == float("-inf"), 0.0)
    low, high = 1.0 / MOST, 1.0 / LEAST
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        expected_B = ((scores_BN * middle).softmax(1) * finite_BN).sum(1)
        if (expected_B - reached_B).mean() < 0:  # sharper is better
            low = middle
        else:
            high = middle
    return 1.0 / math.sqrt(low * high)


def expected_calibration_error(chances: Tensor, happened: Tensor, bins: int = BINS) -> float:
    """Mean over bins of |mean chance - share that happened|, bins of equally many cells in the order of their chance.

    Naeini et al. 2015, with bins of equal mass (Nguyen & O'Connor 2015): chances of one among many items are all small.

    Args:
        chances: float [n].
        happened: bool [n].
    """
    order = chances.argsort(stable=True)
    parts = zip(chances[order].tensor_split(bins), happened[order].double().tensor_split(bins), strict=True)
    gaps = [len(p) * abs(float(p.mean() - hit.mean())) for p, hit in parts if len(p)]
    return float(sum(gaps)) / max(1, len(chances))


def _error_of_the_best(logs_BN: Tensor, target_B: Tensor) -> float:
    best = logs_BN.topk(min(SHOWN, logs_BN.shape[1]), dim=1)
    real = best.values > float("-inf")
    return expected_calibration_error(best.values.exp()[real], (best.indices == target_B[:, None])[real])
