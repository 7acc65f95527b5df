"""Item vectors of past steps as further candidates: a batch as large as one likes, at the price of vectors that are a bit old."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PAD = -1


class Queue(nn.Module):
    """The newest vectors of at most ``size`` items, without gradient, oldest replaced first.

    Cross-batch memory (Wang et al. 2020, arXiv 1912.06798) of the encoder itself: unlike MoCo's (He et al. 2020, arXiv
    1911.05722) no slow copy encodes it. An item stands here once, with its newest vector. Its state is in buffers, so a
    checkpoint holds it, and a run that is resumed goes on with the same candidates; DistributedDataParallel makes rank 0's the
    same on all ranks.
    """

    positions: Tensor
    vectors: Tensor
    next: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("positions", torch.full((size,), PAD, dtype=torch.int64))
        self.register_buffer("vectors", torch.zeros(size, dimension))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def beside(self, positions: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Fresh candidates (positions int64 [C], distinct; vectors [C, D]) and the queue's other items, by ascending position."""
        kept = (self.positions != PAD) & ~torch.isin(self.positions, positions)
        all_positions = torch.cat([positions, self.positions[kept]])
        order = torch.argsort(all_positions)
        all_vectors = torch.cat([vectors, self.vectors[kept].to(vectors.dtype)])
        return all_positions[order], all_vectors[order]

    @torch.no_grad()
    def add(self, positions: Tensor, vectors: Tensor, seed: int) -> None:
        """Put items (distinct positions [n]) in; where there are more than ``size``, a random choice by ``seed``."""
        if len(positions) > self.size:
            chosen = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))[: self.size]
            chosen = chosen.to(positions.device)
            positions, vectors = positions[chosen], vectors[chosen]
        self.positions[torch.isin(self.positions, positions)] = PAD
        places = (self.next + torch.arange(len(positions), device=positions.device)) % self.size
        self.positions[places] = positions
        self.vectors[places] = vectors.detach().to(self.vectors.dtype)
        self.next.copy_((self.next + len(positions)) % self.size)
