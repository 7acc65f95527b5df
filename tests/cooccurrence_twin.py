"""The slow twin of co-occurrence counting: plain Python loops over baskets, pairs and occurrences."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import permutations

Row = tuple[int, int, int]  # basket, item, time


def twin_counts(
    rows: list[Row], window: int | None = None, half_life: float | None = None, reference: int = 0
) -> tuple[dict[tuple[int, int], tuple[int, float]], dict[int, int], int]:
    """{(a, b): (baskets that hold both, decayed count)}, {item: baskets}, baskets."""
    baskets: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for basket, item, time in rows:
        baskets[basket][item].append(time)
    both: dict[tuple[int, int], int] = defaultdict(int)
    decayed: dict[tuple[int, int], float] = defaultdict(float)
    held: dict[int, int] = defaultdict(int)
    for items in baskets.values():
        for item in items:
            held[item] += 1
        for a, b in permutations(items, 2):
            moments = [max(s, t) for s in items[a] for t in items[b] if window is None or abs(s - t) <= window]
            if moments:
                both[a, b] += 1
                decayed[a, b] += 2 ** ((max(moments) - reference) / half_life) if half_life else 1.0
    return {pair: (both[pair], decayed[pair]) for pair in both}, dict(held), len(baskets)


def twin_score(measure: str, n: int, a: int, b: int, total: int) -> float:
    """Each measure from its textbook formula."""
    p_both, p_a, p_b = n / total, a / total, b / total
    if measure == "llr":
        return twin_llr(n, a - n, b - n, max(0, total - a - b + n))
    if measure == "npmi":
        return 1.0 if n == total else math.log(p_both / (p_a * p_b)) / -math.log(p_both)
    return {
        "count": float(n),
        "cosine": n / math.sqrt(a * b),
        "jaccard": n / (a + b - n),
        "lift": p_both / (p_a * p_b),
        "confidence": n / a,
        "pmi": math.log(p_both / (p_a * p_b)),
    }[measure]


def twin_llr(both: int, only_a: int, only_b: int, neither: int) -> float:
    """2 (row entropy + column entropy - matrix entropy) with unnormalised entropies."""

    def x_log_x(*values: int) -> float:
        return sum(v * math.log(v) for v in values if v)

    def entropy(*values: int) -> float:
        return x_log_x(sum(values)) - x_log_x(*values)

    rows = entropy(both + only_a, only_b + neither)
    columns = entropy(both + only_b, only_a + neither)
    return max(0.0, 2 * (rows + columns - entropy(both, only_a, only_b, neither)))


def twin_vectors(events: list[tuple[int, int, float]], kind: str, k1: float, b: float) -> dict[int, dict[int, float]]:
    """item -> {basket: coordinate}, of (basket, item, weight) events."""
    tf: dict[tuple[int, int], float] = defaultdict(float)
    for basket, item, weight in events:
        tf[basket, item] += weight
    sizes: dict[int, int] = defaultdict(int)
    lengths: dict[int, float] = defaultdict(float)
    for (basket, item), amount in tf.items():
        sizes[basket] += 1
        lengths[item] += amount
    mean = sum(lengths.values()) / len(lengths)
    vectors: dict[int, dict[int, float]] = defaultdict(dict)
    for (basket, item), amount in tf.items():
        rarity = math.log((1 + len(lengths)) / sizes[basket])
        damped = amount * (k1 + 1) / (amount + k1 * (1 - b + b * lengths[item] / mean))
        vectors[item][basket] = {"plain": amount, "tfidf": math.sqrt(amount) * rarity, "bm25": damped * rarity}[kind]
    return vectors


def twin_swing(baskets: dict[int, set[int]], a: int, j: int, alpha: float, power: float) -> float:
    """Every pair of baskets that hold both items, once."""
    both = [items for items in baskets.values() if {a, j} <= items]
    total = 0.0
    for n, u in enumerate(both):
        for v in both[n + 1 :]:
            total += len(u) ** -power * len(v) ** -power / (alpha + len(u & v))
    return total


def twin_ordered(
    rows: list[Row], steps: int | None, step_decay: float, directed: bool
) -> dict[tuple[int, int], tuple[int, float]]:
    """{(a, b): (baskets, decayed count)} by looking at every two places of every basket."""
    baskets: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for basket, item, time in rows:
        baskets[basket].add((time, item))
    both: dict[tuple[int, int], int] = defaultdict(int)
    decayed: dict[tuple[int, int], float] = defaultdict(float)
    for entries in baskets.values():
        order, largest = sorted(entries), dict[tuple[int, int], float]()
        for i, (time_a, a) in enumerate(order):
            for j, (time_b, b) in enumerate(order):
                near = steps is None or abs(i - j) <= steps
                if a != b and near and (not directed or time_a < time_b):
                    largest[a, b] = max(largest.get((a, b), 0.0), step_decay ** (abs(i - j) - 1))
        for pair, share in largest.items():
            both[pair] += 1
            decayed[pair] += share
    return {pair: (both[pair], decayed[pair]) for pair in both}
