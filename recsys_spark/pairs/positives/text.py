"""Positives from text: items whose words are alike by TF-IDF, known on the day an item arrives."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config.signals import TextPositives
from recsys_spark.pairs.positives.nearest import SCHEMA, nearest
from recsys_spark.search.vectors import Ints
from recsys_spark.tables.local import local_frame
from recsys_spark.words import LETTERS, UNSPACED

MAX_CHARS = 20_000  # of a text; the rest is not read
MAX_WORDS = 1_000  # of a text
MAX_WORD_CHARS = 64  # a longer run of letters is cut to this
MIN_TERM_ITEMS = 5  # a word on so few items is never too common, however small the catalogue
_WORD = rf"[{LETTERS}&&[^{UNSPACED}]]+"
_TWO_SIGNS = rf"(?=([{UNSPACED}]{{2}}))"
_ONE_SIGN = rf"(?<![{UNSPACED}])[{UNSPACED}](?![{UNSPACED}])"


def text(items: DataFrame, settings: TextPositives) -> DataFrame:
    """The ``top_n`` items with the highest TF-IDF cosine to each item, at least ``min_similarity``.

    Weight of a word in an item: (1 + ln tf) x (ln((1 + N) / (1 + df)) + 1), df of the N items with words bearing it
    (Manning, Raghavan and Schuetze 2008, ch. 6, smoothed as in scikit-learn). Words on more than
    ``max_term_items_share`` of the items are left out, but never those on at most ``MIN_TERM_ITEMS``.

    Args:
        items: visible items (``item_idx int, text string``).
        settings: limits and ``top_n``.

    Returns:
        ``anchor_idx int, item_idx int, weight float`` (the cosine); no row where no two items share a word.
    """
    item_idx, vectors = unit_vectors(items, settings.max_term_items_share)
    if vectors is None:
        return local_frame(items.sparkSession, [], SCHEMA)
    return nearest(items.sparkSession, vectors, item_idx, settings.top_n, settings.min_similarity)


def words(column: Column) -> Column:
    """array<string>: lower-case runs of letters, marks and digits, of scripts without spaces each two neighbouring signs (see
    ``recsys_spark.words``), cut to the limits above."""
    lowered = F.lower(F.substring(column, 1, MAX_CHARS))
    spaced = _matches(lowered, _WORD, 0)
    every = F.concat(spaced, _matches(lowered, _TWO_SIGNS, 1), _matches(lowered, _ONE_SIGN, 0))
    found = F.slice(F.when(lowered.rlike(f"[{UNSPACED}]"), every).otherwise(spaced), 1, MAX_WORDS)
    return F.transform(found, lambda word: F.substring(word, 1, MAX_WORD_CHARS))


def _matches(text: Column, pattern: str, group: int) -> Column:
    return F.regexp_extract_all(text, F.lit(pattern), F.lit(group))


def unit_vectors(items: DataFrame, max_term_items_share: float) -> tuple[Ints, Any]:
    """``(item_idx int32 [N] ascending, CSR float32 [N, words])`` with unit rows.

    Words of a single item count in its length but have no column, as no product needs them. The second is None where
    no two items share a word.
    """
    table = _weighted_terms(items, max_term_items_share).orderBy("item_idx").toArrow()
    terms = table["terms"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    weights = table["weights"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    item_idx = table["item_idx"].to_numpy().astype(np.int32)
    if not len(terms):
        return item_idx, None
    ends = np.cumsum(table["num_terms"].to_numpy())
    columns, position = np.unique(terms, return_inverse=True)
    starts = np.concatenate([[0], ends])
    return item_idx, sparse.csr_matrix((weights.astype(np.float32), position, starts), shape=(len(item_idx), len(columns)))


def _weighted_terms(items: DataFrame, max_term_items_share: float) -> DataFrame:
    """``item_idx, terms array<bigint> (word hashes), weights array<float>, num_terms int``, one row per item with words."""
    word = F.explode(words(F.col("text"))).alias("word")
    terms = (
        items.select("item_idx", word).groupBy("item_idx", F.xxhash64("word").alias("term")).agg(F.count(F.lit(1)).alias("tf"))
    )
    total = terms.agg(F.count_distinct("item_idx").alias("num_items"))
    limit = F.greatest(F.floor(F.col("num_items") * max_term_items_share), F.lit(MIN_TERM_ITEMS))
    spread = terms.groupBy("term").agg(F.count(F.lit(1)).alias("df")).crossJoin(F.broadcast(total)).where(F.col("df") <= limit)
    idf = F.log((F.col("num_items") + 1) / (F.col("df") + 1)) + 1
    weighted = terms.join(spread.select("term", "df", idf.alias("idf")), "term").select(
        "item_idx", F.struct("term", "df", ((F.log("tf") + 1) * F.col("idf")).alias("weight")).alias("entry")
    )
    grouped = weighted.groupBy("item_idx").agg(F.array_sort(F.collect_list("entry")).alias("entries"))
    return _shared_terms(grouped)


def _shared_terms(grouped: DataFrame) -> DataFrame:
    """Lengths are summed in the order of the sorted words, so that they are the same each time."""
    squares = F.aggregate("entries", F.lit(0.0), lambda total, entry: total + entry["weight"] * entry["weight"])
    shared = F.filter("entries", lambda entry: entry["df"] > 1)
    scaled = grouped.select("item_idx", F.sqrt(squares).alias("length"), shared.alias("shared"))
    return scaled.select(
        "item_idx",
        F.transform("shared", lambda entry: entry["term"]).alias("terms"),
        F.transform("shared", lambda entry: (entry["weight"] / F.col("length")).cast("float")).alias("weights"),
        F.size("shared").alias("num_terms"),
    )
