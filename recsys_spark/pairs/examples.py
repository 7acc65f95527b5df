"""From the pairs of all sources to training examples: split, mix, and how the sources overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import reduce
from itertools import combinations
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

TRAIN, VALIDATION = "train", "validation"
SOURCES = ("behaviour", "collaborative", "knowledge_graph", "text")
_SPLIT_STEPS = 1_000_000


def split_of(left: Column, right: Column, seed: int, validation_share: float) -> Column:
    """``'train'`` or ``'validation'`` by a seeded hash of (left, right): the same on every run and machine."""
    step = F.pmod(F.xxhash64(left, right, F.lit(seed)), F.lit(_SPLIT_STEPS))
    return F.when(step < round(validation_share * _SPLIT_STEPS), VALIDATION).otherwise(TRAIN)


def pair_split(seed: int, validation_share: float) -> Column:
    """Split of a row with ``anchor_idx`` and ``item_idx``, by the unordered pair: a pair, its mirror and all its sources
    fall in the same split, so that nothing validated on has been trained on."""
    low, high = F.least("anchor_idx", "item_idx"), F.greatest("anchor_idx", "item_idx")
    return split_of(low, high, seed, validation_share)


def with_provenance(found: Mapping[str, DataFrame], seed: int, validation_share: float) -> DataFrame:
    """The table ``pairs``: the rows of each source (``anchor_idx, item_idx, weight``) under its name, with their split."""
    columns = ("anchor_idx", "item_idx", "weight")
    named = [frame.select(*columns, F.lit(source).alias("source")) for source, frame in found.items()]
    return reduce(DataFrame.unionByName, named).withColumn("split", pair_split(seed, validation_share))


def mixed(pairs: DataFrame, shares: Mapping[str, float]) -> DataFrame:
    """The table ``training_pairs``: one row per (anchor, item) of the train split.

    Its weight is the sum over sources of share x weight; a pair whose sources all have share 0 is left out.
    """
    weight = F.lit(0.0)
    for source in SOURCES:  # added in this order: a sum over rows would depend on theirs
        of_source = F.max(F.when(F.col("source") == source, F.col("weight").cast("double")))
        weight = weight + F.coalesce(of_source, F.lit(0.0)) * float(shares.get(source, 0.0))
    summed = pairs.where(F.col("split") == TRAIN).groupBy("anchor_idx", "item_idx").agg(weight.cast("float").alias("weight"))
    return summed.where("weight > 0")


def overlap(pairs: DataFrame) -> dict[str, Any]:
    """Figures for the report: ``pairs_per_source``, ``pairs_in_both`` for every two sources, ``pairs_per_split``.

    A pair is an (anchor, item), counted once in ``pairs_per_split`` however many sources name it.
    """
    named = pairs.groupBy("anchor_idx", "item_idx", "split").agg(F.array_sort(F.collect_set("source")).alias("sources"))
    rows = named.groupBy("sources", "split").agg(F.count(F.lit(1)).alias("pairs")).collect()
    single, both, split = Counter[str](), Counter[str](), Counter[str]()
    for sources, name, number in rows:
        split[name] += number
        single.update(dict.fromkeys(sources, number))
        both.update({"+".join(two): number for two in combinations(sources, 2)})
    return {
        "pairs_per_source": {source: single[source] for source in SOURCES},
        "pairs_in_both": {"+".join(two): both["+".join(two)] for two in combinations(SOURCES, 2)},
        "pairs_per_split": {name: split[name] for name in (TRAIN, VALIDATION)},
    }
