"""Positives from the knowledge graph: items that share entities, weighted against hubs."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import KnowledgeGraphPositives
from recsys_spark.pairs.positives.ranking import strongest

_INFORMATION = "decimal(18,9)"  # sums of decimals do not depend on their order


def knowledge_graph(triples: DataFrame, items: DataFrame, settings: KnowledgeGraphPositives) -> DataFrame:
    """The ``top_n`` items that share the most informative entities with each item.

    The strength of a pair is the sum of log(N / deg(e)) over its shared entities e, where deg(e) of the N items in the
    graph bear e: the information content of an entity (Resnik 1995, "Using information content to evaluate semantic
    similarity in a taxonomy", eq. 2), summed over common neighbours as by Adamic and Adar (2003, "Friends and neighbors
    on the web"). An entity on every item says nothing; one on more than ``max_entity_items`` is a hub and left out,
    which also bounds the join.

    Args:
        triples: ``item_id string, relation string, entity_id string``. An entity counts once per item, whatever the
            number of relations that lead to it.
        items: visible items (``item_id, item_idx``); others are not counted.
        settings: relations used (none named: all), the hub limit, ``top_n``.

    Returns:
        ``anchor_idx int, item_idx int, weight float``; the weight is the strength over the anchor's largest.
    """
    used = triples.where(F.col("relation").isin(settings.relations)) if settings.relations else triples
    bears = used.join(items.select("item_id", "item_idx"), "item_id").select("item_idx", "entity_id").distinct()
    telling = bears.join(_information(bears, settings.max_entity_items), "entity_id")
    anchors = telling.select("entity_id", F.col("item_idx").alias("anchor_idx"))
    shared = anchors.join(telling, "entity_id").where("anchor_idx != item_idx")
    found = shared.groupBy("anchor_idx", "item_idx").agg(F.sum("information").cast("double").alias("strength"))
    return strongest(found, settings.top_n)


def _information(bears: DataFrame, max_entity_items: int) -> DataFrame:
    """``entity_id, information`` of the entities that at least two items bear and that are no hubs."""
    total = bears.agg(F.count_distinct("item_idx").alias("num_items"))
    degrees = bears.groupBy("entity_id").agg(F.count(F.lit(1)).alias("degree"))
    informed = degrees.where(F.col("degree").between(2, max_entity_items)).crossJoin(F.broadcast(total))
    return informed.select("entity_id", F.log(F.col("num_items") / F.col("degree")).cast(_INFORMATION).alias("information"))
