"""Association measures of an item pair, computed from four counts; plain NumPy, one float64 per pair.

Legend: ``both`` baskets that hold a and b, ``a`` and ``b`` baskets that hold each, ``total`` all baskets; integers with
1 <= both <= min(a, b). Where two pairs have mathematically equal cosine, Jaccard, lift or PMI, their floats are equal
too: each is one correctly rounded quotient of exact integers, then at most one more function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys_spark.config.signals import Measure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAX_EXACT_TOTAL = 3_000_000_000  # squares of larger totals overflow int64


def count(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """Baskets that hold both items."""
    return both.astype(np.float64)


def cosine(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """both / sqrt(a b), the cosine of binary basket vectors; written as sqrt(both^2 / (a b)) so that ties stay ties."""
    return np.asarray(np.sqrt(np.square(both.astype(np.float64)) / _product(a, b)), dtype=np.float64)


def jaccard(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """both / (a + b - both): the share of baskets with either item that hold both (Jaccard, 1901)."""
    return both / (a + b - both).astype(np.float64)


def lift(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """both total / (a b): how many times more often together than independent items (Brin et al., SIGMOD 1997)."""
    return both.astype(np.float64) * float(total) / _product(a, b)


def confidence(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """both / a: the share of a's baskets that hold b too, P(b | a) (Agrawal et al., SIGMOD 1993); the one of these that is
    not symmetric."""
    return both / a.astype(np.float64)


def pmi(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """Natural log of lift, in nats (Church and Hanks, Computational Linguistics 16(1), 1990)."""
    return np.log(lift(both, a, b, total))


def npmi(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """PMI / -log(both / total), in [-1, 1]; 1 for a pair that every basket holds (Bouma, GSCL 2009)."""
    surprise = -np.log(both / float(total))
    certain = both == total
    return np.where(certain, 1.0, pmi(both, a, b, total) / np.where(certain, 1.0, surprise))


def llr(both: Ints, a: Ints, b: Ints, total: int) -> Floats:
    """Log-likelihood ratio G^2 of the 2 x 2 table, >= 0; large for pairs met more or less often than by chance.

    G^2 = 2 sum k log(k total / (row col)). Every cell's k total - row col is +-D with D = both total - a b, so each
    term is k log1p(+-D / (row col)), which does not cancel for large totals. With a time window, baskets may hold both
    items too far apart to count, and a + b - both can pass the total: the total is then taken to be that, so that no cell
    is negative. Source: Dunning, Computational Linguistics 19(1), 1993.
    """
    kind = np.int64 if total <= _MAX_EXACT_TOTAL else np.float64
    both, a, b = both.astype(kind), a.astype(kind), b.astype(kind)
    whole = np.maximum(kind(total), a + b - both)
    d = (both * whole - a * b).astype(np.float64)
    not_a, not_b = whole - a, whole - b
    cells = ((both, a, b, d), (a - both, a, not_b, -d), (b - both, not_a, b, -d), (whole - a - b + both, not_a, not_b, d))
    found = np.zeros(len(both))
    for k, row, column, excess in cells:
        filled = k > 0  # an empty cell adds nothing (x log x -> 0)
        expected = np.where(filled, row.astype(np.float64) * column, 1.0)
        found += np.where(filled, k * np.log1p(np.where(filled, excess / expected, 0.0)), 0.0)
    return np.maximum(2.0 * found, 0.0)


def decayed_cosine(decayed: Floats, a: Ints, b: Ints) -> Floats:
    """As ``cosine``, of baskets with both that count less the longer ago they were, or the farther apart both are in them."""
    return np.asarray(decayed / np.sqrt(_product(a, b)), dtype=np.float64)


def _product(a: Ints, b: Ints) -> Floats:
    return a.astype(np.float64) * b


MEASURES: dict[Measure, Callable[[Ints, Ints, Ints, int], Floats]] = {
    "count": count,
    "cosine": cosine,
    "jaccard": jaccard,
    "lift": lift,
    "confidence": confidence,
    "pmi": pmi,
    "npmi": npmi,
    "llr": llr,
}
SIMILARITIES: frozenset[Measure] = frozenset(["cosine", "jaccard", "tanimoto", "tfidf_cosine", "bm25_cosine"])


def shrunk(scores: Floats, both: Ints, shrinkage: float) -> Floats:
    """Scores x both / (both + shrinkage): a similarity seen in few baskets is worth less (Bell and Koren, KDD Cup 2007)."""
    return scores * (both / (both + shrinkage))
