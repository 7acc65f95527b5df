"""A rank's share of one task's loss: what is compared with what, which negatives are masked, and the mean over all ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys_spark.config.learning import TrainSettings
from recsys_spark.config.losses import LossName, MaskedTasks
from recsys_spark.encoder.losses import WHOLE_BATCH, Comparison, chosen_loss, in_chunks, weighted_mean
from recsys_spark.encoder.negatives import KnownPairs
from recsys_spark.errors import TrainingError
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.metrics import KINDS
from recsys_spark.training.step.relations import Between, Guide
from recsys_spark.training.teacher import EaseOpinion

_FEW_SCORES = 1 << 18  # fewer at once only cost time


@dataclass(frozen=True)
class Shares:
    """How the losses of a step's tasks are taken; ``known_pairs``: those of table training_pairs, where they are masked."""

    settings: TrainSettings
    catalogue: Catalogue
    ranks: Ranks
    known_pairs: KnownPairs | None

    def of(
        self, name: LossName, comparison: Comparison, between: Between, weights: Tensor, most_rows: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """This rank's share of a task's loss, R times, and the counts of what was masked."""
        settings, pairs = self.settings, most_rows is None
        between = replace(between, **self._opinions(name, between, pairs))
        sizes = [s for s in (most_rows, self._rows_compared(len(between.candidates))) if s is not None]
        chunk = None if name in WHOLE_BATCH or not sizes else max(1, min(sizes))
        losses, masked = in_chunks(chosen_loss(name, settings), comparison, chunk, between.relate)
        total = self.ranks.sum(weights.sum())
        counts = torch.zeros(len(KINDS), dtype=torch.int64, device=losses.device) if masked is None else masked
        return self.ranks.world * weighted_mean(losses, weights, total), counts

    def _rows_compared(self, num_candidates: int) -> int | None:
        """With the gradient cache, so many anchors at a time as have no more scores than a batch of the chunk's size has."""
        size = self.settings.cache_chunk_size
        return None if size is None else min(size, max(size * size, _FEW_SCORES) // num_candidates)

    def _opinions(self, name: LossName, between: Between, pairs: bool) -> dict[str, Any]:
        """What beside the batch is asked about negatives: the table of pairs, texts as a guide, and a teacher."""
        settings = self.settings
        found: dict[str, Any] = {}
        if _masks(settings.mask_known_pairs, pairs):
            found["known_pairs"] = self.known_pairs
        guides, teaches = _masks(settings.mask_guide, pairs), name == "distillation"
        by_ease = teaches and not pairs and settings.teacher == "ease"
        if guides or (teaches and not by_ease):
            text_of = self.catalogue.text_vectors
            guide = Guide(text_of(between.anchor_items), text_of(between.candidates), between.target_idx)
            found |= {"guide": guide, "margin": settings.guide_margin if guides else None}
        if teaches:
            teacher = self._ease(between).scores if by_ease else found["guide"].cosines
            found |= {"teacher": teacher, "teacher_temperature": settings.teacher_temperature}
        return found

    def _ease(self, between: Between) -> EaseOpinion:
        if self.catalogue.ease is None or between.seen is None:
            raise TrainingError("training inputs", "no EASE weights", "item_weights.npz", "run train again from the start")
        return EaseOpinion(self.catalogue.ease, between.seen, between.candidates)


def _masks(tasks: MaskedTasks, pairs: bool) -> bool:
    return tasks == "both" or (pairs and tasks == "pairs")
