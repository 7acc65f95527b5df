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
Teacher = Literal["text", "ease"]


class LossSettings(Settings):
    """Losses and negatives of both tasks; part of ``[train]``."""

    # softmax: InfoNCE in the batch, the full softmax with the catalogue. supcon: all later items of a sequence are positives
    loss: LossName = "softmax"  # of users and items
    pair_loss: LossName = "softmax"  # of pairs of items; supcon: all of an anchor's positives in the batch
    pair_ways: Literal["both", "forward"] = "both"  # forward: only the anchor looks for its positive
    pair_candidates: Literal["opposite", "all"] = "opposite"  # all: the batch's anchors are negatives too (NT-Xent)
    similarity: Similarity = "dot"  # of unit vectors the cosine
    margin: float = Field(0.2, ge=0, le=2)  # of triplet_*, margin and cosine, in units of the similarity
    uniformity_weight: float = Field(1.0, ge=0)  # gamma of direct_au
    teacher: Teacher = "text"  # of distillation of users and items; ease: scores of table item_weights. Pairs have the text
    teacher_share: float = Field(0.5, ge=0, le=1)  # weight of the teacher's opinion
    teacher_temperature: float = Field(0.1, gt=0)  # of cosines of the text, or of z-scores of EASE (about 1 suits those)
    matryoshka_dims: list[int] = []  # the loss is learned by these prefixes of the vectors too; empty: by whole ones only
    matryoshka_weights: list[float] = []  # one for each; empty: all 1

    # of the user-item loss. auto: the catalogue while it is small; else drawn by popularity, and softmax is sampled_softmax
    negatives: Literal["auto", "in_batch", "catalogue", "uniform", "popularity"] = "auto"
    num_negatives: int = Field(4_096, ge=1)  # items drawn per step with uniform and popularity, the same for all ranks
    popularity_power: float = Field(0.75, ge=0, le=2)  # popularity: an item is drawn with chance ~ events^power
    queue_size: int = Field(0, ge=0)  # items of past steps as further candidates: of pairs, and of in_batch; 0: none
    explicit_share: float = Field(0.0, ge=0)  # weight of the loss against items of table training_negatives
    explicit_batch_size: int = Field(64, ge=1)  # users with such items per rank and step
    mask_known_pairs: MaskedTasks = "off"  # no item known to go with the anchor is its negative: all of training_pairs
    mask_guide: MaskedTasks = "off"  # no item whose text is more like the anchor's than the positive's is
    guide_margin: float = Field(0.0, ge=-1, le=1)  # so much less like the anchor is already too much
    cache_chunk_size: int | None = Field(None, ge=1)  # rows encoded and compared at a time, again for the gradient; None: all

    @property
    def ease_teaches(self) -> bool:
        """Whether training needs EASE's weights."""
        return self.loss == "distillation" and self.teacher == "ease"

    @model_validator(mode="after")
    def _nothing_is_drawn_for_pairs(self) -> LossSettings:
        if self.pair_loss == "sampled_softmax":
            raise ValueError("pair_loss = 'sampled_softmax': candidates of pairs are not drawn; 'softmax' is what it would be")
        if self.queue_size and self.negatives == "in_batch" and self.loss in ("sampled_softmax", "nce"):
            raise ValueError(f"loss = '{self.loss}' needs to know how often candidates come, which a queue leaves open")
        return self

    @model_validator(mode="after")
    def _whole_matryoshka(self) -> LossSettings:
        dims, weights = self.matryoshka_dims, self.matryoshka_weights
        if any(d < 1 for d in dims) or len(set(dims)) != len(dims):
            raise ValueError("matryoshka_dims must be different lengths of at least 1")
        if weights and (len(weights) != len(dims) or min(weights) <= 0):
            raise ValueError("matryoshka_weights must be as many as matryoshka_dims, each above 0")
        return self
