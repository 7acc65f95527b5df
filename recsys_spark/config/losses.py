"""Settings of the contrastive losses, of what they take for negatives and of what they must not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_spark.config.base import Settings

Similarity = Literal["dot", "cosine", "euclidean"]
LossName = Literal[
    "softmax",
    "sampled_softmax",
    "supcon",
    "nce",
    "bpr",
    "triplet_hard",
    "triplet_semi_hard",
    "margin",
    "cosine",
    "direct_au",
    "distillation",
]
MaskedTasks = Literal["off", "pairs", "both"]


class LossSettings(Settings):
    """Losses and negatives of both tasks; part of ``[train]``."""

    loss: LossName = "softmax"  # of users and items: InfoNCE in the batch, the full softmax with the catalogue
    pair_loss: LossName = "softmax"  # of pairs of items
    pair_ways: Literal["both", "forward"] = "both"  # forward: only the anchor looks for its positive
    pair_candidates: Literal["opposite", "all"] = "opposite"  # all: the batch's anchors are negatives too (NT-Xent)
    similarity: Similarity = "dot"  # of unit vectors the cosine
    margin: float = Field(0.2, ge=0, le=2)  # of triplet_*, margin and cosine, in units of the similarity
    uniformity_weight: float = Field(1.0, ge=0)  # gamma of direct_au
    teacher_share: float = Field(0.5, ge=0, le=1)  # of distillation: weight of the teacher's opinion, the text's cosine
    teacher_temperature: float = Field(0.1, gt=0)  # that cosines of the teacher are divided by
    matryoshka_dims: list[int] = []  # the loss is learned by these prefixes of the vectors too; empty: by whole ones only
    matryoshka_weights: list[float] = []  # one for each; empty: all 1

    negatives: Literal["in_batch", "catalogue", "uniform", "popularity"] = "catalogue"  # of the user-item loss
    num_negatives: int = Field(1_024, ge=1)  # items drawn per step with uniform and popularity, the same for all ranks
    popularity_power: float = Field(0.75, ge=0, le=2)  # popularity: an item is drawn with chance ~ events^power

    @model_validator(mode="after")
    def _whole_matryoshka(self) -> LossSettings:
        dims, weights = self.matryoshka_dims, self.matryoshka_weights
        if any(d < 1 for d in dims) or len(set(dims)) != len(dims):
            raise ValueError("matryoshka_dims must be different lengths of at least 1")
        if weights and (len(weights) != len(dims) or min(weights) <= 0):
            raise ValueError("matryoshka_weights must be as many as matryoshka_dims, each above 0")
        return self
