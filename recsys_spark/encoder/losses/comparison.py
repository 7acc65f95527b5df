"""What every loss looks at: anchors, candidates, which candidate is whose positive, and which are no fair negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.config.losses import Similarity
from recsys_spark.encoder.losses.similarity import SIMILARITIES


@dataclass(frozen=True)
class Comparison:
    """B anchors against C candidates, in D dimensions.

    Args:
        anchors: float [B, D].
        candidates: float [C, D].
        target_idx: int64 [B], the row of each anchor's positive among the candidates.
        temperature: tau > 0; losses of probabilities divide similarities by it, losses with a margin do not.
        similarity: name of the similarity.
        mask: bool [B, C], True = no fair negative; the target itself is never excluded.
        positives: bool [B, C], True = a positive beside the target, for losses that know several.
        draws: float [C], how often each candidate was drawn as a negative; None: once. 0: it is there as a target only.
        log_expected: float [C], log of how often each candidate was expected to be drawn; None: once (log 1).
        teacher: float [B, C], another model's scores, divided by its own temperature.
        all_anchors, all_targets: float [A, D], [T, D], anchors and distinct positives of all ranks; None: those of this one.
    """

    anchors: Tensor
    candidates: Tensor
    target_idx: Tensor
    temperature: Tensor | float = 1.0
    similarity: Similarity = "dot"
    mask: Tensor | None = None
    positives: Tensor | None = None
    draws: Tensor | None = None
    log_expected: Tensor | None = None
    teacher: Tensor | None = None
    all_anchors: Tensor | None = None
    all_targets: Tensor | None = None

    def similarities(self) -> Tensor:
        """[B, C]."""
        return SIMILARITIES[self.similarity](self.anchors, self.candidates)

    def logits(self) -> Tensor:
        """``similarity / tau``, [B, C]."""
        if self.similarity == "dot":  # B x D divisions in place of B x C
            return replace(self, anchors=self.anchors / self.temperature).similarities()
        return self.similarities() / self.temperature

    def of_target(self, scores_BC: Tensor) -> Tensor:
        """The target's column of each row, [B, 1]."""
        return scores_BC.gather(1, self.target_idx[:, None])

    def is_target(self) -> Tensor:
        """Bool [B, C], True at each anchor's own target."""
        shape = (len(self.target_idx), len(self.candidates))
        return torch.zeros(shape, dtype=torch.bool, device=self.target_idx.device).scatter(1, self.target_idx[:, None], True)

    def is_positive(self) -> Tensor:
        """Bool [B, C], True at the target and at further positives."""
        return self.is_target() if self.positives is None else self.is_target() | self.positives

    def is_negative(self) -> Tensor:
        """Bool [B, C]: drawn, not excluded, and no positive."""
        negative_BC = ~self.is_positive()
        if self.mask is not None:
            negative_BC = negative_BC & ~self.mask
        return negative_BC if self.draws is None else negative_BC & (self.draws > 0)[None, :]

    def mean_over_negatives(self, values_BC: Tensor) -> Tensor:
        """Mean of each row over its negatives, each counted as often as it was drawn, [B]; 0 in a row without any."""
        weights_BC = self.is_negative().to(values_BC.dtype)
        if self.draws is not None:
            weights_BC = weights_BC * self.draws.to(values_BC.dtype)
        total_B = weights_BC.sum(1)
        return (values_BC * weights_BC).sum(1) / total_B.clamp(min=torch.finfo(values_BC.dtype).tiny)

    def rows(self, rows: slice) -> Comparison:
        """The comparison of some of the anchors."""
        mask, positives, teacher = (None if part is None else part[rows] for part in (self.mask, self.positives, self.teacher))
        anchors, target_idx = self.anchors[rows], self.target_idx[rows]
        return replace(self, anchors=anchors, target_idx=target_idx, mask=mask, positives=positives, teacher=teacher)

    def prefix(self, dims: int) -> Comparison:
        """The first ``dims`` dimensions of all vectors, brought back to unit length."""
        anchors, candidates = F.normalize(self.anchors[:, :dims], dim=-1), F.normalize(self.candidates[:, :dims], dim=-1)
        others = (self.all_anchors, self.all_targets)
        all_anchors, all_targets = (None if rows is None else F.normalize(rows[:, :dims], dim=-1) for rows in others)
        return replace(self, anchors=anchors, candidates=candidates, all_anchors=all_anchors, all_targets=all_targets)


Loss = Callable[[Comparison], Tensor]  # a value per anchor, [B]
