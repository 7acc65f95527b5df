"""From a loss per anchor to one number: some anchors at a time, then a weighted mean that may run over several ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recsys_spark.encoder.losses.comparison import Comparison, Loss


@dataclass(frozen=True)
class Relations:
    """What is known of some anchors and the candidates; see ``Comparison``.

    ``masked``: how many cells each kind of mask excludes, int64 [kinds]; None: not counted.
    """

    mask: Tensor | None = None
    positives: Tensor | None = None
    teacher: Tensor | None = None
    masked: Tensor | None = None


Relate = Callable[[slice], Relations]  # made per chunk, as a whole they would need B x C cells


def in_chunks(
    loss: Loss, comparison: Comparison, chunk_size: int | None = None, relate: Relate | None = None
) -> tuple[Tensor, Tensor | None]:
    """Losses [B] of a comparison, ``chunk_size`` anchors at a time, and the sum of what ``relate`` says was masked.

    With more than one chunk each is computed again for the gradient (Chen et al. 2016, arXiv 1604.06174): B x C scores are
    never held at once, memory is ``chunk_size x C``. The value is that of all anchors at once.
    """
    size = max(1, chunk_size or len(comparison.anchors))

    def part(rows: slice) -> tuple[Tensor, Tensor | None]:
        some = comparison.rows(rows)
        if relate is None:
            return loss(some), None
        known = relate(rows)
        return loss(replace(some, mask=known.mask, positives=known.positives, teacher=known.teacher)), known.masked

    slices = [slice(start, start + size) for start in range(0, len(comparison.anchors), size)]
    again = len(slices) > 1 and torch.is_grad_enabled()
    parts = [checkpoint(part, rows, use_reentrant=False) if again else part(rows) for rows in slices]
    losses = torch.cat([values for values, _ in parts]) if parts else comparison.anchors.new_zeros(0)
    counts = [masked for _, masked in parts if masked is not None]
    return losses, torch.stack(counts).sum(0) if counts else None


def weighted_mean(losses: Tensor, weights: Tensor | None = None, total_weight: Tensor | float | None = None) -> Tensor:
    """``sum(weights x losses) / total_weight``: a scalar, 0 when all weights are 0.

    Args:
        losses: float [B].
        weights: float [B]; None counts each anchor once.
        total_weight: what to divide by in place of ``weights.sum()``, for a mean that runs over several ranks.
    """
    weights = torch.ones_like(losses) if weights is None else weights.to(losses.dtype)
    total = weights.sum() if total_weight is None else torch.as_tensor(total_weight, dtype=losses.dtype, device=losses.device)
    return (losses * weights).sum() / total.clamp(min=torch.finfo(losses.dtype).tiny)
