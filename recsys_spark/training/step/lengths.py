"""Histories of like length together: one long history must not make a whole batch as wide as itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.model import Encoder
from recsys_spark.training.catalogue import PAD
from recsys_spark.training.feed.augment import History

SHORTEST = 4  # columns; shorter ones are not worth a group of their own


def by_length(items_BL: Tensor) -> list[tuple[Tensor, int]]:
    """Rows in groups of lengths up to 4, 8, 16, ...: (row numbers ascending, columns that the longest of them needs).

    A row's length counts from its first item to the end; padding in between belongs to it. Of rows without any item one
    column is kept.

    Args:
        items_BL: positions, padded with -1.
    """
    size = items_BL.shape[1]
    filled_BL = items_BL != PAD
    lengths_B = torch.where(filled_BL.any(1), size - filled_BL.to(torch.int8).argmax(1), 1)
    groups, lower = [], 0
    upper = SHORTEST
    while lower < size:
        rows = ((lengths_B > lower) & (lengths_B <= upper)).nonzero()[:, 0]
        if len(rows):
            groups.append((rows, int(lengths_B[rows].max())))
        lower, upper = upper, 2 * upper
    return groups


def in_groups(states: Callable[[Tensor], Tensor], rows_BKL: Tensor) -> Tensor:
    """``states(rows_BKL)`` [B, L, D] of histories whose first of K parts are items: equal to it, group by group.

    Args:
        states: [b, K, l] to [b, l, D], row by row, zeros where a history has no item, and independent of padding on the left.
        rows_BKL: histories padded on the left with -1.
    """
    size, groups = rows_BKL.shape[2], by_length(rows_BKL[:, 0])
    if len(groups) <= 1 and (not groups or groups[0][1] == size):
        return states(rows_BKL)
    found = [F.pad(states(rows_BKL[rows, :, size - width :]), (0, 0, size - width, 0)) for rows, width in groups]
    order = torch.cat([rows for rows, _ in groups])
    return torch.cat(found)[torch.argsort(order)]


def last_states(encoder: Encoder, vectors: Tensor, histories: History) -> Tensor:
    """User vectors [B, D] out of histories [B, L] of positions in the vectors [N, D]; zero where there is no item."""
    parts = [part for part in (histories.items, histories.moments) if part is not None]

    def states(group: Tensor) -> Tensor:  # [B, 1 or 2, L]
        items, moments = group[:, 0], group[:, 1] if group.shape[1] > 1 else None
        return encoder.user_states(vectors[items.clamp(min=0)], items != PAD, moments)

    return in_groups(states, torch.stack(parts, 1))[:, -1]
