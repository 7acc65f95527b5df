"""Settings of ingest: where the raw data lies and how its columns map onto ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recsys_spark.config.base import Settings

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

    @model_validator(mode="after")
    def _mapped(self) -> EventSource:
        for column in ("user_id", "item_id"):
            if column not in self.columns:
                raise ValueError(f"columns must map '{column}'")
        if not {"ts", "event_pos"} & set(self.columns):
            raise ValueError("columns must map 'ts', or 'event_pos' for a log that has only an order")
        return self


class ItemSource(Source):
    """Item catalogue. Columns: item_id; optional title, category, available, first_seen and any field of the template.

    Words and attributes may be lists of texts (Parquet, Delta): read as ``a, b`` in a template, and value by value as attributes.
    """

    template: str = "{title}"  # item text; a field that is empty leaves nothing behind
    attributes: list[str] = []  # source columns kept as attributes
    split_attributes: str | None = None  # separator inside an attribute that holds several values


class UserSource(Source):
    """Users. Columns: user_id; any field of the template."""

    template: str = ""
    attributes: list[str] = []


class KnowledgeGraphSource(Source):
    """Triples. Columns: head, relation, tail; ``links`` maps item ids to entities where heads are not item ids."""

    links: Source | None = None  # columns item_id, entity_id


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
