"""Negatives drawn by chance, uniformly or by popularity, with how often each was expected: what logQ corrects by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """Distinct items that were drawn. Legend: U of them.

    Args:
        positions: int64 [U], ascending.
        times: float [U], how often each was drawn.
    """

    positions: Tensor
    times: Tensor


class Sampler:
    """Draws items with replacement, with chance ``q_i ~ events_i^power``; power 0 is uniform.

    Power 0.75 is that of word2vec (Mikolov et al. 2013, arXiv 1310.4546). The same seed draws the same items on every rank
    and machine.

    Args:
        num_events: [N], events of each item.
        may_be_drawn: bool [N]; one that may has a chance even without an event, as if it had one.
        power: of the number of events.
    """

    def __init__(self, num_events: Tensor, may_be_drawn: Tensor, power: float) -> None:
        self.device = num_events.device
        mass = num_events.double().cpu().clamp(min=1).pow(power) * may_be_drawn.cpu()
        self._cumulated = (mass / mass.sum()).cumsum(0)
        self._log_chance = (mass / mass.sum()).log().to(self.device)
        self._last = int(may_be_drawn.cpu().nonzero()[-1])

    def draw(self, number: int, seed: int) -> Draw:
        """``number`` draws; made on the CPU, where a seed means the same everywhere."""
        chance = torch.rand(number, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        drawn = torch.searchsorted(self._cumulated, chance, right=True).clamp(max=self._last)
        positions, times = torch.unique(drawn, return_counts=True)
        return Draw(positions.to(self.device), times.to(self.device, torch.float32))

    def log_expected(self, positions: Tensor, number: int) -> Tensor:
        """``log(number x q)`` of each position: how often ``number`` draws are expected to give it."""
        return (self._log_chance[positions] + torch.log(torch.tensor(float(number), dtype=torch.float64))).float()


def log_in_batch(num_events: Tensor, positions: Tensor, places: int) -> Tensor:
    """Log of the chance that an item stands in a batch of ``places`` items that come as often as in the log.

    ``log( 1 - (1 - p_i)^places )``, p_i the item's share of events (Yi et al. 2019, RecSys, where the batch's own frequencies
    are estimated as it streams by; here they are known). An item without an event counts as one with a single one.
    """
    share = num_events.double().clamp(min=1)
    share = (share / share.sum()).clamp(max=1 - 1e-9)
    return torch.log(-torch.expm1(places * torch.log1p(-share[positions]))).float()
