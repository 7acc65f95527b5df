"""What the sources of items and of users share: a template of words, and attributes."""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import DataFrame

from recsys_spark.config.ingest import ItemSource, UserSource, attribute_columns
from recsys_spark.ingest.fields import Fields
from recsys_spark.ingest.text import template_fields


def source_names(source: ItemSource | UserSource) -> list[str]:
    """Source columns used beside the mapped ones: attributes, and template fields that are not ours."""
    fields = [name for name in template_fields(source.template) if name not in source.columns]
    return [*fields, *attribute_columns(source.columns, source.attributes).values()]


def described(raw: DataFrame, source: ItemSource | UserSource, where: str, no_words: Collection[str]) -> Fields:
    """The fields of a source, each a text or a list of texts but for ``no_words``, names of ours.

    Raises:
        InputError, ConfigError: as ``Fields`` does.
    """
    names = source_names(source)
    return Fields(raw, source, where, names, [*names, *(c for ours, c in source.columns.items() if ours not in no_words)])
