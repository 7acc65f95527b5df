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
