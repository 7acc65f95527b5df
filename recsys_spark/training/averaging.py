"""The mean of the weights over the last steps: what is validated and kept where ``train.weight_average`` asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_FIRST = 10.0  # steps after which the mean no longer forgets the start as fast as it can


class WeightAverage:
    """Exponential moving average of the weights that learn (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, eq. 1 for the
    teacher): after step t (from 1), ``a = d a + (1 - d) w`` with ``d = min(decay, (1 + t) / (10 + t))``, so that the start is
    soon forgotten.

    Args:
        weights: of the model; those without gradient are left alone.
        decay: 0 to below 1; about ``1 / (1 - decay)`` steps are looked back on.
    """

    def __init__(self, weights: Iterable[nn.Parameter], decay: float) -> None:
        self._weights = [w for w in weights if w.requires_grad]
        self._averages = [w.detach().clone() for w in self._weights]
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` (from 1)."""
        share = 1.0 - min(self._decay, (1.0 + step) / (_FIRST + step))
        torch._foreach_lerp_(self._averages, [w.detach() for w in self._weights], share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)

    def state(self) -> list[Tensor]:
        """For a checkpoint."""
        return self._averages

    @torch.no_grad()
    def load(self, state: list[Tensor]) -> None:
        """From a checkpoint of the same model."""
        for average, kept in zip(self._averages, state, strict=True):
            average.copy_(kept)


__all__ = ["WeightAverage"]
