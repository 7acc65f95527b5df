"""Which items are known to go with which: looked up for a few anchors at a time."""

from __future__ import annotations

import torch
from torch import Tensor


class KnownPairs:
    """E known (anchor, item), by anchor. Time and memory of a look-up grow with the pairs of the anchors asked for."""

    def __init__(self, anchors: Tensor, items: Tensor) -> None:
        self._anchors, order = torch.sort(anchors)
        self._items = items[order]

    def among(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Bool [B, C]: the candidate is known to go with the anchor.

        Args:
            anchors: int64 [B].
            candidates: int64 [C], ascending, distinct.
        """
        first = torch.searchsorted(self._anchors, anchors.contiguous())
        counts = torch.searchsorted(self._anchors, anchors.contiguous(), right=True) - first
        rows = torch.repeat_interleave(torch.arange(len(anchors), device=anchors.device), counts)
        within = torch.arange(len(rows), device=anchors.device) - (counts.cumsum(0) - counts)[rows]
        partners = self._items[first[rows] + within]
        found = torch.zeros(len(anchors), len(candidates), dtype=torch.bool, device=anchors.device)
        if len(candidates) == 0:
            return found
        columns = torch.searchsorted(candidates, partners).clamp(max=len(candidates) - 1)
        real = candidates[columns] == partners
        found[rows[real], columns[real]] = True
        return found
