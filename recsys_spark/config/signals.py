"""Settings of co-occurrence and pairs: which signals become positives and negatives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys_spark.config.base import Settings

Measure = Literal["count", "cosine", "jaccard", "lift", "pmi", "npmi", "llr"]


class CooccurrenceSettings(Settings):
    """What a basket is, which measures are computed, what is kept."""

    basket: Literal["session", "history", "user_day"] = "history"
    window_days: float | None = None  # history baskets: items of one user at most this far apart
    measures: list[Measure] = ["count", "cosine", "jaccard", "lift", "pmi", "npmi", "llr"]
    rank_by: Measure = "cosine"
    min_support: int = Field(1, ge=1)  # baskets that hold both items
    top_n: int = Field(200, ge=1)  # neighbours kept per item
    max_basket_items: int = Field(500, ge=2)  # larger baskets are cut by seeded hash
    half_life_days: float | None = None  # decayed_count: 2^((t_pair - reference) / half_life)
    likes_only: bool = True  # events with label -1 never form a basket


class BehaviourPositives(Settings):
    """Positives from co-occurrence."""

    enabled: bool = True
    measure: Measure = "cosine"
    top_n: int = Field(20, ge=1)
    share: float = Field(1.0, ge=0)  # weight of this source in the mix


class CollaborativePositives(Settings):
    """Positives from the item factors of Spark ALS."""

    enabled: bool = True
    factors: int = Field(32, ge=1)
    iterations: int = Field(8, ge=1)
    regularisation: float = Field(0.05, ge=0)
    confidence: float = Field(20.0, ge=0)  # alpha of implicit ALS
    blocks: int = Field(8, ge=1)  # of users and of items; fixed, as the factors' last digits depend on it
    top_n: int = Field(10, ge=1)
    share: float = Field(0.5, ge=0)


class KnowledgeGraphPositives(Settings):
    """Positives from shared entities."""

    enabled: bool = True
    relations: list[str] = []  # empty: all
    max_entity_items: int = 200  # an entity on more items than this is a hub and is left out
    top_n: int = Field(10, ge=1)
    share: float = Field(0.3, ge=0)


class TextPositives(Settings):
    """Positives from similar text."""

    enabled: bool = True
    min_similarity: float = Field(0.3, ge=0, le=1)  # cosine of TF-IDF
    max_term_items_share: float = Field(0.2, ge=0, le=1)  # a word on more than this share of items is left out
    top_n: int = Field(10, ge=1)
    share: float = Field(0.3, ge=0)


class PairsSettings(Settings):
    """The mix of positives, the sequences, and the shape of the training tables."""

    behaviour: BehaviourPositives = BehaviourPositives()
    collaborative: CollaborativePositives = CollaborativePositives()
    knowledge_graph: KnowledgeGraphPositives = KnowledgeGraphPositives()
    text: TextPositives = TextPositives()
    max_history: int = Field(50, ge=1)  # items per training sequence
    validation_share: float = Field(0.02, ge=0, lt=1)  # of item pairs, by hash
    num_files: int = Field(24, ge=1)  # per training table, so that 1, 2, 3, 4, 6, 8, 12 or 24 ranks share evenly
