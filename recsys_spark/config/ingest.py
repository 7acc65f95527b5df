"""Settings of ingest: where the raw data lies and how its columns map onto ours."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from recsys_spark.config.base import Settings, nearest

TEMPLATE_FIELD = re.compile(r"\{([^{}]+)\}")  # of a template

Format = Literal["csv", "tsv", "jsonl", "parquet", "delta"]


class Source(Settings):
    """Files of one kind; ``columns`` maps our column name to the source's."""

    path: str | list[str]
    format: Format = "csv"
    header: bool = True
    delimiter: str | None = None  # default: "," for csv, tab for tsv
    quote: str = Field('"', max_length=1)  # around a CSV or TSV value that holds the delimiter or a line break; "": none is
    columns: dict[str, str]
    missing: dict[str, str] = {}  # our column -> "reject" or the default value to put in
    encoding: str = "UTF-8"  # of CSV and TSV files: any name that Java and Python know, as windows-1252
    known_columns: ClassVar[tuple[str, ...]] = ()  # names of ours that ``columns`` may map
    required_columns: ClassVar[tuple[str, ...]] = ()

    @field_validator("path")
    @classmethod
    def _names_something(cls, value: str | list[str]) -> str | list[str]:
        if not value or not all([value] if isinstance(value, str) else value):
            raise ValueError("path names no file: give a file, a folder, a pattern, or a list of these")
        return value

    @model_validator(mode="after")
    def _decodes(self) -> Source:
        try:
            is_utf8 = self.is_utf8
        except LookupError:
            raise ValueError(f"encoding = '{self.encoding}' is not known: give one as UTF-8, windows-1252 or UTF-16") from None
        if not is_utf8 and self.format not in ("csv", "tsv"):
            raise ValueError(f"encoding is of CSV and TSV files: {self.format} is UTF-8, or has none")
        return self

    @model_validator(mode="after")
    def _maps_what_is_read(self) -> Source:
        for name in self.required_columns:
            if name not in self.columns:
                raise ValueError(f"columns must map '{name}'")
        known = [*self.known_columns, *self.further_names()]
        for name in self.columns if self.known_columns else ():
            if name not in known:
                raise ValueError(f"columns maps '{name}', which nothing reads; {nearest(name, known)}")
        return self

    @property
    def is_utf8(self) -> bool:
        """Whether ``encoding`` is one of the names of UTF-8."""
        return codecs.lookup(self.encoding).name == "utf-8"

    def further_names(self) -> list[str]:
        """Names that ``columns`` may map beside ``known_columns``."""
        return []

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else list(self.path)


def attribute_columns(columns: dict[str, str], wanted: list[str]) -> dict[str, str]:
    """Attribute name -> source column. ``wanted`` are source columns or our names; a mapped column goes by our name."""
    ours = {column: name for name, column in columns.items()}
    return {ours.get(columns.get(w, w), w): columns.get(w, w) for w in wanted}


class EventSource(Source):
    """Event log. Columns: user_id, item_id, and ts or event_pos; optional event_id, event_type, value."""

    time_format: str = "iso"  # iso, epoch_seconds, epoch_millis, or a Spark datetime pattern
    time_zone: str = "UTC"  # of times written without an offset
    event_type: str = "view"  # when no event_type column is mapped
    event_weights: dict[
        str, Annotated[float, Field(ge=0, allow_inf_nan=False)]
    ] = {}  # when given, an event of another type is quarantined
    like_at_least: float | None = None  # explicit ratings: value >= this is label 1
    dislike_at_most: float | None = None  # value <= this is label -1
    context: list[str] = []  # source columns kept in the context map
    known_columns = ("user_id", "item_id", "ts", "event_pos", "event_id", "event_type", "value")
    required_columns = ("user_id", "item_id")

    @model_validator(mode="after")
    def _mapped(self) -> EventSource:
        if not {"ts", "event_pos"} & set(self.columns):
            raise ValueError("columns must map 'ts', or 'event_pos' for a log that has only an order")
        if self.event_weights and "event_type" not in self.columns and self.event_type not in self.event_weights:
            raise ValueError(f"no event is of a type in event_weights: map columns.event_type, or weigh '{self.event_type}'")
        return self

    @model_validator(mode="after")
    def _likes_are_told(self) -> EventSource:
        like, dislike = self.like_at_least, self.dislike_at_most
        if (like is not None or dislike is not None) and "value" not in self.columns:
            raise ValueError("like_at_least and dislike_at_most go by values: map columns.value")
        if like is not None and dislike is not None and like <= dislike:
            raise ValueError(f"like_at_least = {like} must be above dislike_at_most = {dislike}")
        return self


class DescribedSource(Source):
    """What items and users share: a text made by a template, and attributes."""

    template: str = ""  # a field that is empty leaves nothing behind
    attributes: list[str] = []  # source columns kept as attributes

    @field_validator("template")
    @classmethod
    def _has_fields(cls, value: str) -> str:
        rest = TEMPLATE_FIELD.sub("", value)
        if "{" in rest or "}" in rest:
            raise ValueError(f"template = '{value}': a brace that belongs to no field; write fields as {{title}}")
        if value.strip() and rest == value:
            raise ValueError(f"template = '{value}' names no field: every text would be the same; write fields as {{title}}")
        return value

    def further_names(self) -> list[str]:
        renamed = [name for name, column in self.columns.items() if column in self.attributes]
        return [*(name.strip() for name in TEMPLATE_FIELD.findall(self.template)), *self.attributes, *renamed]


class ItemSource(DescribedSource):
    """Item catalogue. Columns: item_id; optional title, category, available, first_seen and any field of the template.

    Words and attributes may be lists of texts (Parquet, Delta, JSON lines): read as ``a, b`` in a template, and value by value
    as attributes.
    """

    template: str = "{title}"
    split_attributes: str | None = None  # separator inside an attribute that holds several values
    known_columns = ("item_id", "title", "category", "available", "first_seen")
    required_columns = ("item_id",)


class UserSource(DescribedSource):
    """Users. Columns: user_id; any field of the template."""

    known_columns = ("user_id",)
    required_columns = ("user_id",)


class LinkSource(Source):
    """Which entity each item is. Columns: item_id, entity_id."""

    known_columns = ("item_id", "entity_id")
    required_columns = ("item_id", "entity_id")


class KnowledgeGraphSource(Source):
    """Triples. Columns: head, relation, tail; ``links`` maps item ids to entities where heads are not item ids."""

    links: LinkSource | None = None
    known_columns = ("head", "relation", "tail")
    required_columns = ("head", "relation", "tail")


class RobotSettings(Settings):
    """Users whose events are left out when a run reads the log."""

    max_events_per_minute: float | None = 120.0  # busiest minute of a user
    max_z_score: float | None = 6.0  # of log(1 + events) over all users
    min_users: int = 30  # below this the z-score means nothing and is not used


_PATH = {"path": True}
SOURCE_PLACES: dict[str, Any] = {  # where each source lies: says nothing about what is in it
    "events": _PATH,
    "items": _PATH,
    "users": _PATH,
    "knowledge_graph": _PATH | {"links": _PATH},
}


class IngestSettings(Settings):
    """All sources and how rows are cleaned, cut into sessions and pseudonymised."""

    events: EventSource
    items: ItemSource | None = None
    users: UserSource | None = None
    knowledge_graph: KnowledgeGraphSource | None = None
    session_gap_minutes: float = Field(30.0, gt=0)
    max_text_chars: int = Field(2_000, gt=0)
    robots: RobotSettings = RobotSettings()
    id_key_env: str | None = None  # environment variable with the pseudonymisation key
