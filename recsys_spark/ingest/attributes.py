"""Attributes of items and users: a map of the filled columns, several values joined by one mark."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.ingest.fields import Fields

VALUE_SEPARATOR = "|"  # between the values of one attribute


def attributes(fields: Fields, columns: dict[str, str], separator: str | None) -> Column:
    """``map<string,string>`` of the filled ones; null without any configured. Values are trimmed; those of a list, or of a
    text with the separator, are joined by ``|``, in the source's order."""
    if not columns:
        return F.lit(None).cast("map<string,string>")
    pairs = [part for name, column in columns.items() for part in (F.lit(name), _values(fields, column, separator))]
    return F.map_filter(F.create_map(*pairs), lambda _, text: text.isNotNull())


def sorted_entries(attributes: Column) -> Column:
    """The map as one text that does not depend on its order; null for null and for an empty map."""
    entries = F.array_sort(F.map_entries(attributes))
    return F.when(F.size(entries) > 0, F.to_json(entries))


def _values(fields: Fields, column: str, separator: str | None) -> Column:
    text = F.array_join(fields.values(column, separator), VALUE_SEPARATOR)
    return F.when(F.length(text) > 0, text)


__all__ = ["VALUE_SEPARATOR", "Fields", "attributes", "sorted_entries"]
