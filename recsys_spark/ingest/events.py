"""The event log: raw rows become typed events, each bad one with all its reasons."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.ingest import EventSource
from recsys_spark.histories import DISLIKE, LIKE, NEUTRAL
from recsys_spark.ingest.fields import Fields
from recsys_spark.ingest.forgotten import judged_unless_forgotten
from recsys_spark.ingest.names import quoted
from recsys_spark.ingest.pseudonyms import pseudonym, with_key
from recsys_spark.ingest.quality import Rule
from recsys_spark.ingest.rownumbers import FILE_NO, ROW_NUMBER
from recsys_spark.ingest.times import FUTURE, instant, synthetic
from recsys_spark.tables.instants import unix_micros

MAX_POSITION = 200_000_000_000  # event_pos becomes seconds after 2000: beyond this the year has five digits


def needed_columns(source: EventSource) -> set[str]:
    """Source columns that events are made of."""
    return {*source.columns.values(), *source.context}


def typed_events(
    raw: DataFrame, source: EventSource, where: str, now: datetime, key: bytes | None, forgotten: DataFrame | None = None
) -> DataFrame:
    """Judged events: place, reasons, row, and ``user_id, item_id, event_type, value, weight, label, ts, given_pos,
    given_id, context``. With an id key, user_id and given_id are pseudonyms already. ``forgotten``: users of whom nothing from
    before is taken.

    Raises:
        InputError, ConfigError: as ``Fields`` does.
    """
    fields = Fields(raw, source, where, source.context)
    value = fields.number("value")
    event_type = F.coalesce(fields.text("event_type"), F.lit(source.event_type))
    position = fields.text("event_pos").try_cast("bigint")
    ts = instant(fields, source) if fields.is_mapped("ts") else synthetic(_bounded(position))
    columns = {
        "user_id": pseudonym(fields.exact("user_id"), key),
        "item_id": fields.exact("item_id"),
        "event_type": event_type,
        "value": value,
        "weight": _weight(event_type, source).cast("float"),
        "label": _label(value, source).cast("tinyint"),
        "ts": ts,
        "given_pos": position,
        "given_id": pseudonym(fields.exact("event_id"), key),
        "context": _context(source),
    }
    rules = [
        *[(fields.is_missing(name), f"missing {name}") for name in ("user_id", "item_id")],
        *_time_rules(fields, ts, position, now),
        *_optional_rules(fields, source, value, event_type),
    ]
    return judged_unless_forgotten(with_key(raw, key), columns, rules, key is not None, forgotten, ts)


def placed(events: DataFrame, first_position: int, rows_before: dict[int, int]) -> DataFrame:
    """Set ``event_pos``: the given one, else the row's place in the whole log (known files, then these files in order).

    Args:
        first_position: rows of all known files.
        rows_before: file number -> rows of the new files before it.
    """
    starts = F.array(*[F.lit(rows_before.get(n, 0)).cast("bigint") for n in range(max(rows_before, default=0) + 1)])
    place = F.lit(first_position).cast("bigint") + F.get(starts, F.col(FILE_NO)) + F.col(ROW_NUMBER)
    return events.withColumn("event_pos", F.coalesce("given_pos", place)).withColumn("event_date", F.to_date("ts"))


def _bounded(position: Column) -> Column:
    return F.when((position >= 0) & (position <= MAX_POSITION), position)


def _time_rules(fields: Fields, ts: Column, position: Column, now: datetime) -> list[Rule]:
    rules: list[Rule] = []
    if fields.is_mapped("event_pos"):
        written = fields.exact("event_pos")
        rules += [
            (written.isNull(), "missing event_pos"),
            (written.isNotNull() & position.isNull(), "event_pos is not an integer"),
            (position.isNotNull() & _bounded(position).isNull(), "event_pos is out of range"),
        ]
    if not fields.is_mapped("ts"):
        return rules
    missing, micros = fields.is_missing("ts"), F.unix_micros(ts)
    latest = F.lit(unix_micros(now + FUTURE))
    return [
        *rules,
        (missing, "missing ts"),
        (~missing & ts.isNull(), "ts is not a time"),
        (micros == 0, "ts is 0"),
        (micros < 0, "ts is before 1970"),
        (micros > latest, "ts is more than a day in the future"),
    ]


def _optional_rules(fields: Fields, source: EventSource, value: Column, event_type: Column) -> list[Rule]:
    finite = ~F.isnan(value) & (F.abs(value) != F.lit(float("inf")))
    rules: list[Rule] = [
        (~fields.is_missing("value") & value.isNull(), "value is not a number"),
        (value.isNotNull() & ~finite, "value is not finite"),
    ]
    if source.event_weights:
        rules.append((~event_type.isin(list(source.event_weights)), "unknown event_type"))
    if fields.is_mapped("event_id"):
        rules.append((fields.is_missing("event_id"), "missing event_id"))
    return rules + fields.reject_reasons(("user_id", "item_id", "ts", "event_pos", "event_id"))


def _weight(event_type: Column, source: EventSource) -> Column:
    if not source.event_weights:
        return F.lit(1.0)
    pairs = [F.lit(part) for entry in source.event_weights.items() for part in entry]
    return F.try_element_at(F.create_map(*pairs), event_type)


def _label(value: Column, source: EventSource) -> Column:
    """1 like, -1 dislike, 0 between; without thresholds every event is a 1, and one without a value says nothing: 1."""
    like, dislike = source.like_at_least, source.dislike_at_most
    if like is None and dislike is None:
        return F.lit(LIKE)
    label = F.when(value.isNull(), F.lit(LIKE))
    if dislike is not None:
        label = label.when(value <= dislike, F.lit(DISLIKE))
    if like is not None:
        label = label.when(value >= like, F.lit(LIKE))
    return label.otherwise(F.lit(NEUTRAL))


def _context(source: EventSource) -> Column:
    if not source.context:
        return F.lit(None).cast("map<string,string>")
    none = F.create_map().cast("map<string,string>")
    texts = {name: F.col(quoted(name)).cast("string") for name in source.context}
    told = [F.when(text.isNotNull(), F.create_map(F.lit(name), text)).otherwise(none) for name, text in texts.items()]
    return F.map_concat(*told)
