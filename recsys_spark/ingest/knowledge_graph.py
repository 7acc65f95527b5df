"""Knowledge-graph triples as facts about items: (item, relation, entity), read from both ends."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.ingest import KnowledgeGraphSource, Source
from recsys_spark.ingest.fields import Fields
from recsys_spark.ingest.quality import PLACE, REASONS, ROW, judged

INVERSE = " (inverse)"
NO_ITEM = "neither head nor tail is a known item"
UNKNOWN_ITEM = "item_id is not a known item"


def typed_triples(raw: DataFrame, source: KnowledgeGraphSource, where: str, private: bool) -> DataFrame:
    """Judged triples ``head, relation, tail``."""
    return _typed(raw, source, where, ("head", "relation", "tail"), private)


def typed_links(raw: DataFrame, source: Source, where: str, private: bool) -> DataFrame:
    """Judged links ``item_id, entity_id``."""
    return _typed(raw, source, where, ("item_id", "entity_id"), private)


def _typed(raw: DataFrame, source: Source, where: str, names: tuple[str, ...], private: bool) -> DataFrame:
    fields = Fields(raw, source, where)
    columns = {name: fields.exact(name) for name in names}
    rules = [(fields.exact(name).isNull(), f"missing {name}") for name in names]
    # the row's own JSON is kept for good rows too: whether they speak of an item is only known after a join
    return judged(raw, columns, [*rules, (F.lit(True), NO_ITEM)], private)


def about_items(rows: DataFrame, entities: DataFrame, names: tuple[str, ...], reason: str) -> DataFrame:
    """Settle the last reason: rows in which one of ``names`` is in ``entities`` lose it; others keep it as ``reason``."""
    known = F.lit(False)
    for name in names:
        met = entities.select(F.col("entity_id").alias(name)).distinct().withColumn(f"__{name}", F.lit(True))
        rows = rows.join(met, name, "left")
        known = known | F.coalesce(F.col(f"__{name}"), F.lit(False))
    others = F.filter(REASONS, lambda r: r != F.lit(NO_ITEM))
    settled = F.when(known | (F.size(others) > 0), others).otherwise(F.array(F.lit(reason)))
    return rows.select(
        *PLACE, *[c for c in rows.columns if c not in PLACE and not c.startswith("__")], settled.alias(REASONS), ROW
    )


def facts(triples: DataFrame, links: DataFrame) -> DataFrame:
    """``item_id, relation, entity_id``, distinct: tails of the item's own triples, heads of those that end in it.

    Args:
        triples: good ones.
        links: ``item_id, entity_id``; an item may be several entities and the other way round.
    """
    own = triples.join(links, triples["head"] == links["entity_id"]).select(
        "item_id", "relation", F.col("tail").alias("entity_id")
    )
    inverse = triples.join(links, triples["tail"] == links["entity_id"]).select(
        "item_id", F.concat("relation", F.lit(INVERSE)).alias("relation"), F.col("head").alias("entity_id")
    )
    return own.unionByName(inverse).distinct()
