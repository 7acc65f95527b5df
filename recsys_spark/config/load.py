"""The whole configuration: one TOML file becomes one frozen ``Config``."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.config.base import Settings, beside, nearest, scheme_of, validate
from recsys_spark.config.ingest import SOURCE_PLACES, IngestSettings, attribute_columns
from recsys_spark.config.learning import EncoderSettings, RegistrySettings, TrainSettings
from recsys_spark.config.moments import GAP, HOUR, WEEKDAY
from recsys_spark.config.privacy import contradiction_of_encoder
from recsys_spark.config.search import SearchSettings
from recsys_spark.config.serving import (
    EmbedSettings,
    EvaluateSettings,
    GateSettings,
    PublishSettings,
    RecommendSettings,
    SparkSettings,
)
from recsys_spark.config.signals import CollaborativeSettings, CooccurrenceSettings, PairsSettings
from recsys_spark.errors import ConfigError

TODAY = "today"
_NO_ATTRIBUTES = "ingest.items reads none: name them in attributes, or map category"


class Config(Settings):
    """Everything a night needs. ``as_of`` is an instant in UTC; nothing at or after it is seen."""

    name: str = Field("recsys", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    as_of: datetime
    warehouse: str
    seed: int = 42
    ingest: IngestSettings
    cooccurrence: CooccurrenceSettings = CooccurrenceSettings()
    collaborative: CollaborativeSettings = CollaborativeSettings()
    pairs: PairsSettings = PairsSettings()
    encoder: EncoderSettings = EncoderSettings()
    train: TrainSettings = TrainSettings()
    augment: AugmentSettings = AugmentSettings()
    registry: RegistrySettings = RegistrySettings()
    embed: EmbedSettings = EmbedSettings()
    recommend: RecommendSettings = RecommendSettings()
    search: SearchSettings = SearchSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    publish: PublishSettings = PublishSettings()
    spark: SparkSettings = SparkSettings()

    @field_validator("as_of", mode="before")
    @classmethod
    def _instant_or_today(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError(f"as_of = {value} is a number: write a date or an instant, as 2026-11-22T00:00:00Z")
        return _instant(value) if value == TODAY else value

    @field_validator("as_of")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="before")
    @classmethod
    def _gate_of_short_lists(cls, data: Any) -> Any:
        """Who asks for shorter lists alone has the gate look at the whole of them."""
        asked, gate = (data.get(name, {}) if isinstance(data, dict) else None for name in ("recommend", "gate"))
        if not isinstance(asked, dict) or not isinstance(gate, dict) or "k" in gate:
            return data
        k, usual = asked.get("k"), GateSettings().k
        return data | {"gate": gate | {"k": k}} if isinstance(k, int) and 0 < k < usual else data

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.encoder.max_history < self.pairs.max_history:
            raise ValueError("encoder.max_history must be at least pairs.max_history")
        timed = {part.name for part in self.encoder.moments} & {GAP, HOUR, WEEKDAY}
        if timed and "ts" not in self.ingest.events.columns:
            raise ValueError(f"[encoder] {', '.join(sorted(timed))} needs times: map ingest.events.columns.ts, or leave it out")
        unmapped = {part.name for part in self.encoder.moments} - {GAP, HOUR, WEEKDAY, *self.ingest.events.context}
        if unmapped:
            raise ValueError(f"encoder.context names {sorted(unmapped)[0]!r}, which ingest.events.context does not keep")
        if self.augment.adversarial_epsilon > 0 and not self.encoder.use_item_id:
            raise ValueError("augment.adversarial_epsilon moves id parts: it needs encoder.use_item_id = true")
        if self.augment.adversarial_epsilon > 0 and self.train.queue_size:
            raise ValueError("augment.adversarial_epsilon would fill train.queue_size with moved vectors: leave one out")
        if self.evaluate.split == "table" and not self.evaluate.holdout_table:
            raise ValueError("evaluate.split = 'table' needs evaluate.holdout_table")
        if self.pairs.negatives.shown_types and self.cooccurrence.incremental:
            raise ValueError("cooccurrence.incremental reads the log itself and would count pairs.negatives.shown_types")
        if self.pairs.negatives.shown_types and self.evaluate.split != "time":
            raise ValueError("pairs.negatives.shown_types needs evaluate.split = 'time': else held-out items were shown and left")
        if self.train.explicit_share > 0 and self.pairs.negatives.per_user == 0:
            raise ValueError("train.explicit_share above 0 needs pairs.negatives.per_user above 0: else no table says what")
        return self

    @model_validator(mode="after")
    def _profiles_can_be_learned(self) -> Config:
        if self.train.profile_share > 0 and (self.ingest.users is None or self.encoder.text_training != "frozen"):
            raise ValueError("train.profile_share above 0 needs [ingest.users] and encoder.text_training = 'frozen'")
        if self.train.profile_share > 0 and not self.embed.profile_users:
            raise ValueError("train.profile_share above 0 needs embed.profile_users = true: else nobody gets such a vector")
        return self

    @model_validator(mode="after")
    def _privacy_holds(self) -> Config:
        if self.train.privacy is None:
            return self
        if found := contradiction_of_encoder(self.encoder):
            raise ValueError(found)
        if self.augment != AugmentSettings():
            raise ValueError("train.privacy goes without [augment]: leave that section out")
        return self

    @model_validator(mode="after")
    def _limited_attributes_are_read(self) -> Config:
        known = self._item_attributes
        for name in self.recommend.rerank.max_per_ten:
            if name not in known:
                hint = nearest(name, known) if known else _NO_ATTRIBUTES
                raise ValueError(f"recommend.rerank.max_per_ten names '{name}', which no item has; {hint}")
        return self

    @model_validator(mode="after")
    def _segments_and_contexts_are_read(self) -> Config:
        users = self.ingest.users
        known = [*self.ingest.events.context, *([] if users is None else attribute_columns(users.columns, users.attributes))]
        for name in ("segment_key", "context_key"):
            key = getattr(self.recommend, name)
            if key is not None and key not in known:
                hint = nearest(key, known) if known else "ingest reads none: name it in ingest.events.context or users.attributes"
                raise ValueError(f"recommend.{name} names '{key}', which neither events nor users have; {hint}")
        return self

    @model_validator(mode="after")
    def _what_is_asked_for_is_read(self) -> Config:
        events, types = self.ingest.events, self.pairs.negatives.shown_types
        if types and "event_type" not in events.columns and events.event_type not in types:
            raise ValueError("pairs.negatives.shown_types needs event types: map ingest.events.columns.event_type")
        if self.embed.profile_users and self.ingest.users is None:
            raise ValueError("embed.profile_users needs [ingest.users]: nobody has a profile without it")
        for name in self.encoder.attributes:
            if name not in self._item_attributes:
                hint = nearest(name, self._item_attributes) if self._item_attributes else _NO_ATTRIBUTES
                raise ValueError(f"encoder.attributes names '{name}', which no item has; {hint}")
        return self

    @property
    def _item_attributes(self) -> list[str]:
        items = self.ingest.items
        if items is None:
            return []
        return [*attribute_columns(items.columns, items.attributes), *({"category"} & set(items.columns))]

    @model_validator(mode="after")
    def _places_can_be_reached(self) -> Config:
        """What lies beside the warehouse by default lies on no machine where that is elsewhere; and Petastorm and SQLite take
        paths for URLs."""
        if scheme_of(self.warehouse) != "file":
            given = {
                "train.work_dir": self.train.work_dir,
                "registry.tracking_uri": self.registry.tracking_uri,
                "publish.report_dir": self.publish.report_dir,
            }
            missing = [name for name, value in given.items() if value is None]
            if missing:
                raise ValueError(f"warehouse = '{self.warehouse}' is on no disk of this machine: set {', '.join(missing)} too")
        for name, path in (("warehouse", self.warehouse), ("train.work_dir", self.train.work_dir or "")):
            if found := re.search(r"[?#]|%[0-9A-Fa-f]{2}", path):
                raise ValueError(f"{name} = '{path}': '{found[0]}' means something else in a URL: choose another folder name")
        return self

    @model_validator(mode="after")
    def _the_gate_looks_within_lists(self) -> Config:
        if self.gate.k > self.recommend.k:
            raise ValueError(f"gate.k = {self.gate.k} is beyond the lists, recommend.k = {self.recommend.k}: set gate.k too")
        return self

    @model_validator(mode="after")
    def _vectors_are_long_enough(self) -> Config:
        served, learned = self.recommend.dimensions, self.encoder.dimension
        if served is not None and served > learned:
            raise ValueError(f"recommend.dimensions = {served}, but vectors have encoder.dimension = {learned}")
        return self

    @model_validator(mode="after")
    def _outcomes_can_be_known(self) -> Config:
        asked, events = self.pairs.outcomes, self.ingest.events
        if self.train.outcome_share > 0 and asked.about == "off":
            raise ValueError("train.outcome_share above 0 needs pairs.outcomes.about = 'type' or 'like': else no table says what")
        if asked.about == "like" and (events.like_at_least is None or events.dislike_at_most is None):
            raise ValueError("pairs.outcomes.about = 'like' needs ingest.events.like_at_least and dislike_at_most")
        if asked.about == "type" and "event_type" not in events.columns:
            raise ValueError("pairs.outcomes.about = 'type' needs event types: map ingest.events.columns.event_type")
        never = set(self.pairs.negatives.shown_types)
        never |= set(asked.wanted_types) - set(events.event_weights) if events.event_weights else set()
        absent = sorted(set(asked.wanted_types) & never)
        if absent:
            raise ValueError(f"pairs.outcomes.wanted_types: no event is a {absent[0]!r} by event_weights or shown_types")
        return self

    @property
    def model_name(self) -> str:
        return self.registry.model_name or self.name

    def identity(self) -> dict[str, Any]:
        """All settings that decide what a night's tables hold; not where things lie, nor how Spark is run."""
        places: Any = {
            "spark": True,
            "warehouse": True,
            "publish": True,
            "ingest": SOURCE_PLACES,
            "train": {"work_dir": True},
            "registry": {"tracking_uri": True},
        }
        return self.model_dump(mode="json", exclude=places)

    @property
    def attribute_separator(self) -> str | None:
        """What stands between the values of an item attribute that holds several; None: each holds one."""
        return None if self.ingest.items is None else self.ingest.items.split_attributes

    @property
    def work_dir(self) -> Path:
        """Where training keeps checkpoints and exported models, and searches their indexes: all machines see it."""
        return Path(self.train.work_dir or beside(self.warehouse, "models"))

    @property
    def tracking_uri(self) -> str:
        return self.registry.tracking_uri or f"sqlite:///{beside(self.warehouse, 'mlflow.db')}"


def parse_config(data: dict[str, Any], where: str = "config") -> Config:
    """Check a parsed TOML document.

    Raises:
        ConfigError: an unknown key (names the nearest known one), a missing key or a wrong value.
    """
    config: Config = validate(Config, data, where)
    return config


def load_config(path: str | Path, as_of: str | None = None) -> Config:
    """Read a TOML file; ``as_of`` (ISO date or instant, or ``today``: the last midnight, UTC) overrides the file's, for
    schedulers.

    Raises:
        ConfigError: no such file, not TOML, or not a valid configuration.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file", "a TOML config", "start from conf/demo.toml") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", "a TOML config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8: {error.reason} at byte {error.start}", "a TOML config in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"not TOML: {error}", "a TOML config") from None
    if as_of is not None:
        data["as_of"] = _instant(as_of)
    return parse_config(data, str(path))


def _instant(text: str) -> datetime:
    if text == TODAY:
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("--as-of", f"{text!r}", f"an ISO date or instant, as 2026-11-22T00:00:00Z, or '{TODAY}'") from None
