"""The item catalogue: text, attributes, and the row of every item, met in the catalogue or only in events."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.ingest import ItemSource, attribute_columns
from recsys_spark.ingest.attributes import attributes, sorted_entries
from recsys_spark.ingest.described import described
from recsys_spark.ingest.quality import Rule, judged
from recsys_spark.ingest.text import composed, normalised
from recsys_spark.tables.instants import instant

CATALOGUE_COLUMNS = (
    "item_id string, title string, text string, category string, attributes map<string,string>, "
    "available boolean, first_seen date"
)

_NO_WORDS = ("item_id", "available", "first_seen")  # the others may be lists of texts


def typed_items(raw: DataFrame, source: ItemSource, where: str, private: bool) -> DataFrame:
    """Judged catalogue rows with ``item_id, title, text`` (not yet normalised), ``category, attributes, available, first_seen``.

    Raises:
        InputError, ConfigError: as ``Fields`` does.
    """
    fields = described(raw, source, where, _NO_WORDS)
    available, first_seen = fields.boolean("available"), fields.text("first_seen").try_cast("date")
    columns = {
        "item_id": fields.exact("item_id"),
        "title": _one_line(fields.text("title")),
        "text": composed(source.template, fields.word),
        "category": fields.text("category"),
        "attributes": attributes(fields, attribute_columns(source.columns, source.attributes), source.split_attributes),
        "available": F.coalesce(available, F.lit(True)),
        "first_seen": first_seen,
    }
    rules: list[Rule] = [
        (fields.exact("item_id").isNull(), "missing item_id"),
        (fields.text("available").isNotNull() & available.isNull(), "available is not a boolean"),
        (fields.text("first_seen").isNotNull() & first_seen.isNull(), "first_seen is not a date"),
        *fields.reject_reasons(("item_id",)),
    ]
    return judged(raw, columns, rules, private)


def catalogue(winners: DataFrame, max_text_chars: int) -> DataFrame:
    """One row per item of the catalogue, text normalised."""
    text = normalised(F.col("text"), max_text_chars)
    return winners.select("item_id", "title", text.alias("text"), "category", "attributes", "available", "first_seen")


def item_rows(rows: DataFrame, met: DataFrame, present: DataFrame, dealt: DataFrame, as_of: datetime) -> DataFrame:
    """Rows to upsert: items of the catalogue, and items met in new events.

    The catalogue's words replace earlier ones. first_seen is the catalogue's, else the date of the first event known so
    far, else the date of as_of. updated_at is as_of where anything else differs, else what it was.

    Args:
        rows: ``catalogue``'s.
        met: ``item_id, first_date`` of new events.
        present: the items table.
        dealt: ``item_id, item_idx`` of items that are not in ``present``.
    """
    listed = rows.select("item_id", F.struct(*[c for c in rows.columns if c != "item_id"]).alias("new"))
    old = present.select("item_id", F.struct(*[c for c in present.columns if c != "item_id"]).alias("old"))
    joined = listed.join(met, "item_id", "full").join(old, "item_id", "left").join(dealt, "item_id", "left")
    in_catalogue = F.col("new").isNotNull()

    def word(name: str) -> Column:
        return F.when(in_catalogue, F.col(f"new.{name}")).otherwise(F.col(f"old.{name}"))

    today = F.lit(as_of.date())
    plain = joined.select(
        "item_id",
        F.coalesce("old.item_idx", "item_idx").alias("item_idx"),
        word("title").alias("title"),
        F.coalesce(word("text"), F.lit("")).alias("text"),
        word("category").alias("category"),
        word("attributes").alias("attributes"),
        F.coalesce(word("available"), F.lit(True)).alias("available"),
        F.coalesce("new.first_seen", F.least("old.first_seen", "first_date"), today).alias("first_seen"),
        "old",
    )
    return _stamped(plain, as_of)


def input_sha(text: Column, attributes: Column) -> Column:
    """sha256 (hex) over all that the item tower is given: normalised text and sorted attributes."""
    parts = F.concat(F.length(text).cast("string"), F.lit(":"), text, F.coalesce(sorted_entries(attributes), F.lit("")))
    return F.sha2(parts, 256)


def _stamped(plain: DataFrame, as_of: datetime) -> DataFrame:
    same = F.lit(True)
    for name in ("title", "text", "category", "available", "first_seen"):
        same = same & F.col(name).eqNullSafe(F.col(f"old.{name}"))
    same = same & sorted_entries(F.col("attributes")).eqNullSafe(sorted_entries(F.col("old.attributes")))
    moment = instant(as_of)
    return plain.select(
        "item_id",
        "item_idx",
        "title",
        "text",
        (F.length("text") > 0).alias("has_text"),
        "category",
        "attributes",
        "available",
        input_sha(F.col("text"), F.col("attributes")).alias("input_sha"),
        "first_seen",
        F.when(same & F.col("old").isNotNull(), F.col("old.updated_at")).otherwise(moment).alias("updated_at"),
    )


def _one_line(text: Column) -> Column:
    """White space and control characters made single spaces; null where nothing is left."""
    joined = F.trim(F.regexp_replace(text, r"[\p{Cc}\s]+", " "))
    return F.when(F.length(joined) > 0, joined)
