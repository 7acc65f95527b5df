"""Weights of several losses, learned with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LEAST = -5.0  # a weight of 148


class TaskWeights(nn.Module):
    """``sum over tasks of exp(-s) x loss + s / 2`` with a learned ``s`` (log of the task's noise variance).

    Homoscedastic uncertainty, Kendall et al. 2018 (arXiv 1705.07115, eq. 10): a task whose loss stays high gets less
    weight, and ``s / 2`` keeps all weights from going to 0. At first every weight is 1. A task that a step does not have
    leaves its ``s`` alone. ``s`` counts as no less than ``LEAST``: a loss that comes to 0 would raise its weight without end.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self._tasks = list(tasks)
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The total of the losses at hand, each a scalar."""
        rows = [self._tasks.index(task) for task in losses]
        s = self._logs()[rows].to(next(iter(losses.values())).dtype)
        total: Tensor = (torch.exp(-s) * torch.stack(list(losses.values())) + s / 2).sum()
        return total

    def _logs(self) -> Tensor:
        return self.log_variances.clamp(min=LEAST)

    def weights(self) -> dict[str, float]:
        """Weight of each task as it is now."""
        return dict(zip(self._tasks, torch.exp(-self._logs().detach()).tolist(), strict=True))
