"""The products alone: every user with every item by torch's float32 ``mm``, in memory, with nothing selected or kept.

Why it is fair: it is the arithmetic that no exact top-K by inner product can do without, at the speed of the library that
we use ourselves, with all threads, into one buffer that is small enough for the cache. A top-K cannot be faster than this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from recsys_spark.config.serving import RecommendSettings

_BLOCKS = RecommendSettings()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """torch computes in so many threads while the block is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_products(users: Tensor, items: Tensor) -> None:
    """All products, in the blocks of the project's settings."""
    rows, columns = min(_BLOCKS.user_block, len(users)), min(_BLOCKS.item_tile, len(items))
    buffer = torch.empty(rows * columns)
    by_tile = [part.T.contiguous() for part in torch.split(items, columns)]
    for block in torch.split(users, rows):
        for tile in by_tile:
            size = len(block) * tile.shape[1]
            torch.mm(block, tile, out=buffer[:size].view(len(block), tile.shape[1]))
