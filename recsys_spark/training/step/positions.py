"""Positions of items in the catalogue: finding them in a sorted list, and rows of them without padding."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_spark.training.catalogue import PAD


def locate(ascending: Tensor, positions: Tensor) -> Tensor:
    """Rows of ``positions`` in ``ascending``, which holds them all; padding lands anywhere."""
    return torch.searchsorted(ascending, positions.contiguous()).clamp(max=len(ascending) - 1)


def distinct(positions: Tensor) -> Tensor:
    """The distinct positions, ascending, without padding."""
    found: Tensor = torch.unique(positions[positions != PAD])
    return found


def among(positions: Tensor, ascending: Tensor) -> Tensor:
    """Bool [B, C]: the c-th of ``ascending`` [C] stands in row b of ``positions`` [B, M]; padding stands nowhere."""
    columns = locate(ascending, positions)
    real = (positions != PAD) & (ascending[columns] == positions)
    found = torch.zeros(len(positions), len(ascending), dtype=torch.bool, device=positions.device)
    found[real.nonzero()[:, 0], columns[real]] = True
    return found


def trimmed(sequences: Tensor) -> Tensor:
    """Without the columns that are padding in every row; at least two stay."""
    used = (sequences != PAD).any(0)
    first = int(used.to(torch.int8).argmax()) if bool(used.any()) else sequences.shape[1]
    return sequences[:, min(first, sequences.shape[1] - 2) :]


def is_counted(sequences: Tensor) -> Tensor:
    """Bool [B, L] of sequences [B, L+1]: state l stands at an item and has a target."""
    return (sequences[:, :-1] != PAD) & (sequences[:, 1:] != PAD)
