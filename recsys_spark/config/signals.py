"""Settings of co-occurrence and pairs: which signals become positives and negatives."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from recsys_spark.config.base import Settings

BasketKind = Literal["session", "history", "user_day"]
CountingWay = Literal["auto", "blocked", "broadcast", "files"]
Measure = Literal[
    "count",
    "cosine",
    "jaccard",
    "lift",
    "confidence",
    "pmi",
    "npmi",
    "llr",
    "tanimoto",
    "tfidf_cosine",
    "bm25_cosine",
    "swing",
    "decayed_cosine",
]


WHOLE_BASKET_MEASURES: frozenset[Measure] = frozenset(["tanimoto", "tfidf_cosine", "bm25_cosine", "swing"])  # not of counts alone


class CooccurrenceSettings(Settings):
    """What a basket is, which pairs count, which measures are computed, what is kept."""

    basket: BasketKind = "history"
    window_days: float | None = Field(None, gt=0)  # a pair counts where its items are at most this far apart
    window_items: int | None = Field(None, ge=1)  # the same in places of the basket's order; 1: neighbours only
    distance_decay: float = Field(1.0, gt=0, le=1)  # decayed_count: a pair n places apart adds decay^(n - 1)
    half_life_days: float | None = Field(None, gt=0)  # decayed_count: 2^((t_pair - reference) / half_life)
    directed: bool = False  # only pairs (a, b) with a before b
    anchor_types: list[str] = []  # event types that make an item a; empty: all
    target_types: list[str] = []  # event types that make an item b; empty: all
    likes_only: bool = True  # events with label -1 never form a basket
    max_basket_items: int = Field(500, ge=2)  # larger baskets are cut by seeded hash
    max_occurrences: int = Field(20, ge=1)  # of one item in one basket, the latest, where rules of time or order ask for them
    measures: list[Measure] = ["count", "cosine", "jaccard", "lift", "pmi", "npmi", "llr"]
    rank_by: Measure = "cosine"  # left out where pairs are decayed: decayed_cosine
    shrinkage: float = Field(0.0, ge=0)  # similarities are multiplied by n / (n + shrinkage), n baskets with both
    swing_alpha: float = Field(1.0, gt=0)
    swing_power: float = Field(0.5, ge=0)  # a basket of s items weighs s^-power
    swing_max_baskets: int = Field(200, ge=2)  # of one item that are looked at
    bm25_k1: float = Field(1.2, ge=0)
    bm25_b: float = Field(0.75, ge=0, le=1)
    min_support: int = Field(1, ge=1)  # baskets that hold both items
    min_users: int = Field(1, ge=1)  # distinct users with both items in a basket: fewer are not told of (k-anonymity)
    min_llr: float = Field(0.0, ge=0)  # pairs less significant than this are dropped; 0: none
    top_n: int = Field(200, ge=1)  # neighbours kept per item
    # blocked: baskets go to blocks of items; broadcast: all go to every task; files: they lie on the one disk of all tasks;
    way: CountingWay = "auto"  # auto: files on one machine, else by size
    broadcast_below_mib: int = Field(64, ge=1)  # auto: baskets whose rows the optimiser estimates to be smaller are broadcast
    incremental: bool = False  # live counts: from a kept state and what has changed, not from all events each night
    fold_after: int = Field(8, ge=1)  # batches of the state after which they are summed into one

    @model_validator(mode="before")
    @classmethod
    def _decay_ranks(cls, data: Any) -> Any:
        """Who wants pairs to be forgotten wants neighbours by what is left of them."""
        if isinstance(data, dict) and "rank_by" not in data and _decays(data.get("half_life_days"), data.get("distance_decay")):
            return data | {"rank_by": "decayed_cosine"}
        return data

    @model_validator(mode="after")
    def _something_decays(self) -> CooccurrenceSettings:
        asked = "decayed_cosine" in (self.rank_by, *self.measures)
        if asked and not self.decays:
            raise ValueError("decayed_cosine needs half_life_days, or a distance_decay below 1")
        if asked and self.shrinkage:
            raise ValueError("shrinkage is not for decayed_cosine: leave one out")
        return self

    @property
    def decays(self) -> bool:
        """Whether pairs count less the longer ago, or the farther apart, they were met."""
        return _decays(self.half_life_days, self.distance_decay)

    @property
    def crosses(self) -> bool:
        """Whether the two items of a pair come from different kinds of events."""
        return bool(self.anchor_types or self.target_types)

    @model_validator(mode="after")
    def _whole_baskets_have_no_sides(self) -> CooccurrenceSettings:
        whole = sorted({*self.measures, self.rank_by} & WHOLE_BASKET_MEASURES)
        if whole and self.crosses:
            raise ValueError(f"{', '.join(whole)} compare whole baskets: leave out anchor_types and target_types, or the measure")
        return self

    @model_validator(mode="after")
    def _a_state_holds_counts(self) -> CooccurrenceSettings:
        if not self.incremental:
            return self
        whole = sorted({*self.measures, self.rank_by} & WHOLE_BASKET_MEASURES)
        if whole:
            raise ValueError(f"{', '.join(whole)} cannot be kept up to date from changes: leave them out, or incremental")
        if self.min_users > 1 and self.basket != "history":
            raise ValueError("min_users cannot be kept up to date from changes unless basket = 'history': leave one out")
        return self


def _decays(half_life_days: Any, distance_decay: Any) -> bool:
    return half_life_days is not None or distance_decay not in (None, 1, 1.0)


class BehaviourPositives(Settings):
    """Positives from co-occurrence."""

    enabled: bool = True
    measure: Measure = "cosine"
    top_n: int = Field(20, ge=1)
    share: float = Field(1.0, ge=0)  # weight of this source in the mix


class AlsShape(Settings):
    """Size and fit of an implicit ALS model."""

    factors: int = Field(32, ge=1)
    iterations: int = Field(8, ge=1)
    regularisation: float = Field(0.05, ge=0)
    confidence: float = Field(20.0, ge=0)  # alpha of implicit ALS
    blocks: int = Field(8, ge=1)  # of users and of items; fixed, as the factors' last digits depend on it


class CollaborativePositives(AlsShape):
    """Positives from the item factors of Spark ALS."""

    enabled: bool = True
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


class ExplicitNegatives(Settings):
    """Items that users are known not to want: table negatives, and what the ranks read of it."""

    per_user: int = Field(0, ge=0)  # most items of a user in table training_negatives; 0: that table stays as it is
    shown_types: list[str] = []  # event types that say an item was shown and no more: nothing else reads such events
    shown_at_least: int = Field(1, ge=1)  # times shown without any other event before it counts as a negative
    mined_first: int = Field(11, ge=1)  # rank by an encoder trained before, from which its nearest items are negatives
    mined_last: int = Field(0, ge=0)  # rank up to which; 0: none are mined, and the encoder is trained once, not twice

    @model_validator(mode="after")
    def _some_ranks(self) -> ExplicitNegatives:
        if 0 < self.mined_last < self.mined_first:
            raise ValueError(f"mined_last = {self.mined_last} is before mined_first = {self.mined_first}")
        return self


class OutcomeSettings(Settings):
    """What is asked about an event whose item and user are known: its answers are table training_outcomes."""

    # type: is it one of wanted_types, against events of other types and impressions that led to none of them
    # like: is it a like (label 1), against dislikes (label -1)
    about: Literal["off", "type", "like"] = "off"
    wanted_types: list[str] = []  # with about = "type", as ["purchase"]
    per_user: int = Field(100, ge=1)  # newest events of a user that are asked about: else a few users would be all of it

    @model_validator(mode="after")
    def _types_are_asked_about(self) -> OutcomeSettings:
        if self.about == "type" and not self.wanted_types:
            raise ValueError("about = 'type' needs wanted_types, as [\"purchase\"]")
        if self.wanted_types and self.about != "type":
            raise ValueError(f"wanted_types with about = '{self.about}': set about = 'type', or leave them out")
        return self


class PairsSettings(Settings):
    """The mix of positives, the sequences, and the shape of the training tables."""

    behaviour: BehaviourPositives = BehaviourPositives()
    collaborative: CollaborativePositives = CollaborativePositives()
    knowledge_graph: KnowledgeGraphPositives = KnowledgeGraphPositives()
    text: TextPositives = TextPositives()
    negatives: ExplicitNegatives = ExplicitNegatives()
    outcomes: OutcomeSettings = OutcomeSettings()
    max_history: int = Field(50, ge=1)  # items per training sequence
    validation_share: float = Field(0.02, ge=0, lt=1)  # of item pairs, by hash
    num_files: int = Field(24, ge=1)  # per training table, so that 1, 2, 3, 4, 6, 8, 12 or 24 ranks share evenly


class EaseSettings(Settings):
    """EASE, the linear item-to-item model in closed form."""

    enabled: Literal["auto", "on", "off"] = "auto"  # auto: where the catalogue is small enough; on: else an error
    l2: float = Field(300.0, gt=0)
    max_items: int = Field(30_000, ge=2)  # auto: time grows with the cube; memory may allow fewer
    max_history: int = Field(2_000, ge=2)  # items of one user that are counted; longer histories are cut by seeded hash
    top_n: int = Field(500, ge=1)  # weights kept per item, by magnitude
    float32: bool = False  # half the memory; how far its weights agree with exact ones is reported


class AlsSettings(AlsShape):
    """Implicit ALS as a partner: a user's factors come from the history when lists are made."""

    enabled: bool = False
    factors: int = Field(64, ge=1)
    # chosen on validation ratings of MovieLens-100K, NDCG@10: .182; .129 with the values of AlsShape, which are for neighbours
    regularisation: float = Field(0.3, ge=0)
    confidence: float = Field(1.0, ge=0)


class TransitionSettings(Settings):
    """What soon follows an item in histories."""

    enabled: bool = True
    places: int = Field(3, ge=1)  # an item follows another if it comes at most so many places later
    distance_decay: float = Field(0.5, gt=0, le=1)  # n places later counts decay^(n - 1)
    min_support: int = Field(1, ge=1)  # users in whose histories it follows
    max_history: int = Field(2_000, ge=2)  # items of one user that are counted; longer histories are cut by seeded hash
    top_n: int = Field(200, ge=1)  # followers kept per item


class CollaborativeSettings(Settings):
    """Partners in closed form, fitted beside co-occurrence."""

    transitions: TransitionSettings = TransitionSettings()

    ease: EaseSettings = EaseSettings()
    als: AlsSettings = AlsSettings()
