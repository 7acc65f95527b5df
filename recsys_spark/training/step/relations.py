"""What is known between anchors and candidates in a step: own items, known pairs, texts that are too much alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses import Relations
from recsys_spark.encoder.negatives import KnownPairs
from recsys_spark.training.catalogue import PAD
from recsys_spark.training.metrics import KINDS
from recsys_spark.training.step.positions import among
from recsys_spark.training.teacher import Seen

Cells = Callable[[slice], Tensor]  # some anchors -> bool [b, C]
Scores = Callable[[slice], Tensor]  # some anchors -> float [b, C]


@dataclass(frozen=True)
class Guide:
    """Texts as a second opinion: a candidate that is more like the anchor than its positive is hardly a negative.

    Excluded where ``cos(text_b, text_c) > cos(text_b, text_t) - margin`` (GISTEmbed, Solatorio 2024, arXiv 2402.16829, with a
    margin). Anchors, positives and candidates without text are left alone. Legend: T text vector length.

    Args:
        anchors: float [B, T], text vectors; of a user's state that of its last item.
        candidates: float [C, T].
        target_idx: int64 [B].
    """

    anchors: Tensor
    candidates: Tensor
    target_idx: Tensor

    def cosines(self, rows: slice) -> Tensor:
        """[b, C]; 0 with an item that has no text."""
        return F.normalize(self.anchors[rows], dim=-1) @ F.normalize(self.candidates, dim=-1).T

    def too_alike(self, rows: slice, margin: float) -> Tensor:
        """Bool [b, C]."""
        cosines_BC, target_B = self.cosines(rows), self.target_idx[rows]
        positive_B1 = cosines_BC.gather(1, target_B[:, None])
        has_text_C = (self.candidates != 0).any(1)
        may_judge_B = (self.anchors[rows] != 0).any(1) & has_text_C[target_B]
        return (cosines_BC > positive_B1 - margin) & has_text_C[None, :] & may_judge_B[:, None]


@dataclass(frozen=True)
class Between:
    """All that a step knows between B anchors and C candidates; ``relate`` makes it for some anchors at a time.

    Args:
        anchor_items: int64 [B], position of the anchor, of a user's state that of its last item.
        candidates: int64 [C], positions, ascending.
        target_idx: int64 [B].
        own: the candidate is the anchor's own: itself or one of its other known positives in this batch.
        also: a positive beside the target, for losses that know several; None: such losses are not in use.
        known_pairs: all known pairs; None: not masked by.
        guide: None: no text is looked at.
        margin: of the guide; None: it does not exclude.
        seen: what the anchors, where they are users' states, have seen.
        teacher: its scores, before they are divided by its temperature; None: no teacher.
        teacher_temperature: of the teacher.
    """

    anchor_items: Tensor
    candidates: Tensor
    target_idx: Tensor
    own: Cells | None = None
    also: Cells | None = None
    known_pairs: KnownPairs | None = None
    guide: Guide | None = None
    margin: float | None = None
    seen: Seen | None = None
    teacher: Scores | None = None
    teacher_temperature: float = 1.0

    def relate(self, rows: slice) -> Relations:
        """Masks, positives, teacher's scores and counts of some anchors."""
        made = [self._own(rows), self._known(rows), self._guided(rows)]
        positives = None if self.also is None else self.also(rows)
        mask: Tensor | None = None
        counts = torch.zeros(len(KINDS), dtype=torch.int64, device=self.candidates.device)
        for kind, cells in enumerate(made):
            if cells is None:
                continue
            cells = cells.scatter(1, self.target_idx[rows][:, None], False)
            cells = cells if positives is None else cells & ~positives
            counts[kind] = cells.sum() if mask is None else (cells & ~mask).sum()
            mask = cells if mask is None else mask | cells
        return Relations(mask, positives, self._teacher(rows), counts)

    def _own(self, rows: slice) -> Tensor | None:
        return None if self.own is None else self.own(rows)

    def _known(self, rows: slice) -> Tensor | None:
        return None if self.known_pairs is None else self.known_pairs.among(self.anchor_items[rows], self.candidates)

    def _guided(self, rows: slice) -> Tensor | None:
        return None if self.guide is None or self.margin is None else self.guide.too_alike(rows, self.margin)

    def _teacher(self, rows: slice) -> Tensor | None:
        return None if self.teacher is None else self.teacher(rows) / self.teacher_temperature


class OwnItems:
    """The items of each state's own sequence, among the candidates.

    Args:
        sequences: int64 [B, L+1].
        counts: bool [B, L], the states that are anchors, row by row.
        candidates: int64 [C], ascending.
    """

    def __init__(self, sequences: Tensor, counts: Tensor, candidates: Tensor) -> None:
        self._sequences, self._candidates = sequences, candidates
        self._row, self._place = counts.nonzero().unbind(1)

    def of_sequence(self, rows: slice) -> Tensor:
        """Bool [b, C]: the candidate stands anywhere in the state's sequence: a known positive, no fair negative."""
        row = self._row[rows]
        first, last = int(row[0]), int(row[-1])
        return among(self._sequences[first : last + 1], self._candidates)[row - first]

    def later(self, rows: slice) -> Tensor:
        """Bool [b, C]: the candidate comes after the state in its sequence."""
        items = self._sequences[self._row[rows]]
        place = torch.arange(items.shape[1], device=items.device)[None, :]
        return among(items.masked_fill(place <= self._place[rows][:, None], PAD), self._candidates)


@dataclass(frozen=True)
class Partners:
    """The batch's other known positives of each anchor of a pair, among the candidates."""

    pairs: KnownPairs
    anchors: Tensor
    candidates: Tensor

    def known(self, rows: slice) -> Tensor:
        """Bool [b, C]: a known positive of the anchor, and not the anchor itself."""
        return self.pairs.among(self.anchors[rows], self.candidates) & ~self.itself(rows)

    def itself(self, rows: slice) -> Tensor:
        """Bool [b, C]: the anchor itself."""
        return self.candidates[None, :] == self.anchors[rows][:, None]

    def itself_or_known(self, rows: slice) -> Tensor:
        """Bool [b, C]."""
        return self.pairs.among(self.anchors[rows], self.candidates) | self.itself(rows)
