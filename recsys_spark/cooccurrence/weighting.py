"""Weighted item vectors over baskets, and the similarities of two of them.

The coordinate of item i in basket u is a weight w(u, i) >= 0, zero where the basket does not hold the item. As in text
retrieval with items for documents and baskets for words, a basket of few items tells more of each than one of many.
Legend: E entries, P pairs, N items; tf: summed event weight of the item in the basket; s: items in the basket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_spark.cooccurrence.grouping import Baskets, Floats
from recsys_spark.cooccurrence.kernels import incidence
from recsys_spark.cooccurrence.occurrences import PairCounts


@dataclass(frozen=True)
class Corpus:
    """What a weight needs beyond its basket: number of items, and of each item its summed weight [N]; BM25's constants."""

    num_items: int
    item_weights: Floats
    k1: float
    b: float


def plain(baskets: Baskets, corpus: Corpus) -> Floats:
    """w = tf."""
    return np.asarray(baskets.weights)


def tfidf(baskets: Baskets, corpus: Corpus) -> Floats:
    """w = sqrt(tf) ln((1 + N) / s), never negative, as s <= N (Salton and Buckley, Information Processing & Management
    24(5), 1988, with the square root for the frequency)."""
    return np.asarray(np.sqrt(np.asarray(baskets.weights)) * _rarity(baskets, corpus), dtype=np.float64)


def bm25(baskets: Baskets, corpus: Corpus) -> Floats:
    """w = tf (k1 + 1) / (tf + k1 (1 - b + b L_i / mean L)) ln((1 + N) / s), L_i the summed weight of the item, so that
    neither heavy use within a basket nor popularity counts in full (Robertson and Zaragoza, FnTIR 3(4), 2009, eq. 3.15)."""
    tf = np.asarray(baskets.weights)
    held = corpus.item_weights[corpus.item_weights > 0]
    length = corpus.item_weights[baskets.items] / (held.mean() if len(held) else 1.0)
    saturated = tf * (corpus.k1 + 1) / (tf + corpus.k1 * (1 - corpus.b + corpus.b * length))
    return np.asarray(saturated * _rarity(baskets, corpus), dtype=np.float64)


def _rarity(baskets: Baskets, corpus: Corpus) -> Floats:
    return np.repeat(np.log((1 + corpus.num_items) / np.maximum(baskets.sizes, 1)), baskets.sizes)


def cosine(dots: Floats, squares_a: Floats, squares_b: Floats) -> Floats:
    """dot / (|a| |b|), at most 1."""
    lengths = np.sqrt(squares_a * squares_b)
    return np.minimum(np.divide(dots, lengths, out=np.zeros(len(dots)), where=lengths > 0), 1.0)


def tanimoto(dots: Floats, squares_a: Floats, squares_b: Floats) -> Floats:
    """dot / (|a|^2 + |b|^2 - dot), which is Jaccard's coefficient where all weights are 1 (Tanimoto, 1958)."""
    union = squares_a + squares_b - dots
    return np.divide(dots, union, out=np.zeros(len(dots)), where=union > 0)


Weight = Callable[[Baskets, Corpus], Floats]
Similarity = Callable[[Floats, Floats, Floats], Floats]
WEIGHTINGS: dict[str, tuple[Weight, Similarity]] = {
    "tanimoto": (plain, tanimoto),
    "tfidf_cosine": (tfidf, cosine),
    "bm25_cosine": (bm25, cosine),
}


def squares(whole: Baskets, corpus: Corpus, name: str) -> Floats:
    """Part of the squared length of each item's vector [N] that these baskets (one entry per item) add."""
    values = WEIGHTINGS[name][0](whole, corpus)
    return np.bincount(whole.items, weights=values * values, minlength=len(corpus.item_weights)).astype(np.float64)


class Dots:
    """Inner products of the vectors of item pairs, for the anchors of one block; ``whole``: its baskets, one entry per item,
    in order of keys."""

    def __init__(self, whole: Baskets, corpus: Corpus, name: str, block: int, num_blocks: int) -> None:
        values = WEIGHTINGS[name][0](whole, corpus)
        self.num_blocks = num_blocks
        self.own, self.every = incidence(whole, len(corpus.item_weights), block, num_blocks, values)

    def of(self, pairs: PairCounts) -> Floats:
        """The inner product of each pair [P]; ``pairs`` ascend by anchor."""
        rows = pairs.item_a // self.num_blocks
        if not len(rows):
            return np.zeros(0)
        first, last = int(rows[0]), int(rows[-1]) + 1
        product: Any = self.own[first:last] @ self.every
        product.sort_indices()
        return np.asarray(product[rows - first, pairs.item_b], dtype=np.float64).reshape(-1)
