"""Settings of embed, recommend, evaluate, publish and of Spark itself."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from recsys_spark.config.base import Settings, nearest
from recsys_spark.config.rerank import RerankSettings

Partner = Literal["encoder", "cooccurrence", "transitions", "ease", "als", "text", "popularity"]
PROFILE_PARTNERS = ["text", "encoder", "popularity"]  # that know something of a user without events
GateMetric = Literal["recall", "precision", "f1", "hit_rate", "ndcg", "map", "mrr"]  # evaluate.metrics.RANKING
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
USUAL_DECAY = 0.7


class EmbedSettings(Settings):
    """How executors encode."""

    batch_size: int = Field(64, ge=1)
    texts_per_task: int = Field(2_000, ge=1)
    profile_users: bool = False  # users without a history get the vector of an item with their profile text


class RecommendSettings(Settings):
    """Partners, filters, list lengths and block sizes of scoring."""

    k: int = Field(20, ge=1)
    partners: list[Partner] = ["encoder", "cooccurrence", "transitions", "ease", "als", "text", "popularity"]
    weights: dict[str, Weight] = {}  # fixed fusion weights; empty: those of the model version
    profile_weights: dict[str, Weight] = {}  # of text, encoder and popularity for users without events; empty: as on validation
    history_items: int = Field(20, ge=1)  # last items of a user that score candidates
    history_decay: float | None = Field(None, gt=0, le=1)  # weight of the n-th last item is decay^n; None: chosen per partner
    popularity_half_life_days: float | None = Field(None, ge=0)  # an event so old counts half in what is popular; 0: as any
    # other; None: chosen on validation
    active_days: int | None = Field(None, ge=1)  # only users with an event in the last days; None: all
    filter_seen: bool = True
    block_items: list[str] = []  # ids that no list may hold
    allow_items: list[str] = []  # where given, ids that lists may hold; others never
    lists_path: str | None = None  # a CSV file: item_id, and if wanted segment (empty: everybody) and rule (block or allow)
    segment_key: str | None = None  # key of the users' attributes, else of the event context, that names a user's segment
    neighbours_k: int = Field(20, ge=1)
    user_neighbours: int = Field(0, ge=0)  # nearest users of every user, by their vectors; 0: no such lists
    max_reasons: int = Field(3, ge=0)  # of one recommendation; 0: lists without reasons, which are smaller and written faster
    new_items_per_ten: int = Field(3, ge=0, le=9)  # of each ten, new at most; each where its chance earns it. 0: none
    new_item_demand: float | None = Field(None, ge=0)  # how often one is next, of an average item; None: as on validation
    max_new_item_loss: float = Field(0.06, ge=0, le=1)  # of validation NDCG@10, at most; and .6 x the chance that one is next
    dimensions: int | None = Field(None, ge=1)  # of the encoder's vectors, the first; None: all (see train.matryoshka_dims)
    rerank: RerankSettings = RerankSettings()
    context_key: str | None = None  # key of the event context that fallback lists are made per
    user_block: int = Field(512, ge=1)
    item_tile: int = Field(4_096, ge=1)

    @field_validator("weights", "profile_weights")
    @classmethod
    def _partners_exist(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        known = PROFILE_PARTNERS if info.field_name == "profile_weights" else list(get_args(Partner))
        for name in value:
            if name not in known:
                raise ValueError(f"recommend.{info.field_name}: no partner is called '{name}'; {nearest(name, known)}")
        return value

    @model_validator(mode="after")
    def _diversity_can_be_chosen(self) -> RecommendSettings:
        if self.weights and self.rerank.diversity == "auto":
            raise ValueError(
                "rerank.diversity = 'auto' is chosen with the weights, which are given: give a number from 0 to 1 too"
            )
        return self

    @property
    def decay(self) -> float:
        """Of what has none of its own: partners before any was chosen, reasons."""
        return USUAL_DECAY if self.history_decay is None else self.history_decay


class EvaluateSettings(Settings):
    """The split, the metrics' cuts and their intervals."""

    split: Literal["time", "leave_one_out", "table"] = "time"
    holdout_days: float = Field(7.0, gt=0)  # time split: the last days are the test
    validation_days: float = Field(7.0, gt=0)  # the days before them are the validation
    holdout_table: str | None = None  # split = "table": path of a Delta table (event_id, role)
    ks: list[Annotated[int, Field(ge=1)]] = Field([5, 10, 20], min_length=1)
    bootstrap_samples: int = Field(1_000, ge=10)
    confidence: float = Field(0.95, gt=0, lt=1)
    max_users: int = Field(100_000, ge=1)  # test users that are measured; of more, so many are drawn
    max_fusion_users: int = Field(20_000, ge=1)  # validation users that weights are chosen on
    head_share: float = Field(0.2, ge=0, le=1)  # of events, held by the most popular items
    tail_share: float = Field(0.2, ge=0, le=1)  # of events, held by the least popular items


class GateSettings(Settings):
    """The metric that decides on promotion, and how much worse may pass."""

    metric: GateMetric = "ndcg"
    k: int = Field(10, ge=1)  # at most recommend.k; that where it is less and this is left out
    margin: float = Field(0.0, ge=0)


class PublishSettings(Settings):
    """Where the report goes."""

    report_dir: str | None = None  # default: reports/ beside the warehouse


class SparkSettings(Settings):
    """What the session builder adds to Spark's own configuration."""

    master: str | None = None  # None: what spark-submit says, else local[*,4]
    driver_memory: str = "4g"
    shuffle_partitions: int | None = None  # None: 2 per local core
    options: dict[str, str] = {}
