"""The users table: profile text and attributes where a source has them, and a row for every user met in events."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.ingest import UserSource, attribute_columns
from recsys_spark.ingest.attributes import attributes
from recsys_spark.ingest.described import described
from recsys_spark.ingest.fields import filled
from recsys_spark.ingest.forgotten import judged_unless_forgotten
from recsys_spark.ingest.pseudonyms import pseudonym, with_key
from recsys_spark.ingest.text import composed, normalised, template_fields

PROFILE_COLUMNS = "user_id string, profile_text string, attributes map<string,string>"


def typed_users(
    raw: DataFrame, source: UserSource, where: str, key: bytes | None, forgotten: DataFrame | None = None
) -> DataFrame:
    """Judged user rows with ``user_id`` (a pseudonym under an id key), ``profile_text`` (not yet normalised), ``attributes``.
    Of users who were ``forgotten`` nothing is taken.

    Raises:
        InputError, ConfigError: as ``Fields`` does.
    """
    fields = described(raw, source, where, ("user_id",))
    columns = {
        "user_id": pseudonym(fields.exact("user_id"), key),
        "profile_text": composed(source.template, fields.word),
        "attributes": attributes(fields, attribute_columns(source.columns, source.attributes), None),
    }
    rules = [(fields.exact("user_id").isNull(), "missing user_id"), *fields.reject_reasons(("user_id",))]
    return judged_unless_forgotten(with_key(raw, key), columns, rules, key is not None, forgotten)


def profiles(winners: DataFrame, source: UserSource, max_text_chars: int) -> DataFrame:
    """One row per user of the source, profile text normalised, null where empty."""
    text = normalised(F.col("profile_text"), max_text_chars) if template_fields(source.template) else F.lit("")
    return winners.select("user_id", filled(text).alias("profile_text"), "attributes")


def user_rows(rows: DataFrame, met: DataFrame, present: DataFrame, dealt: DataFrame) -> DataFrame:
    """Rows to upsert: users of the source, and users met in new events (``met``: ``user_id``)."""
    listed = rows.select("user_id", F.struct("profile_text", "attributes").alias("new"))
    old = present.select("user_id", F.struct("user_idx", "profile_text", "attributes").alias("old"))
    joined = listed.join(met.select("user_id").distinct(), "user_id", "full").join(old, "user_id", "left")
    word = F.when(F.col("new").isNotNull(), F.col("new")).otherwise(F.struct("old.profile_text", "old.attributes"))
    return joined.join(dealt, "user_id", "left").select(
        "user_id",
        F.coalesce("old.user_idx", "user_idx").alias("user_idx"),
        word["profile_text"].alias("profile_text"),
        word["attributes"].alias("attributes"),
    )
