"""How much effort a recall costs: tried upwards on one half of a sample, measured on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from recsys_spark.search.lists import Lists, recall
from recsys_spark.search.vectors import Ints

Search = Callable[[Ints, int], Lists]
_FIRST_EFFORT = 4


@dataclass(frozen=True)
class Tuned:
    """``recall`` is that of the half on which ``effort`` was not chosen."""

    effort: int
    recall: float


def efforts(most: int) -> Iterator[int]:
    """4, 6, 8, 12, 16, 24 ... up to ``most``, which comes last."""
    effort = _FIRST_EFFORT
    while effort < most:
        yield effort
        if effort * 3 // 2 < most:
            yield effort * 3 // 2
        effort *= 2
    yield most


def tune(search: Search, exact: Lists, target: float, most: int) -> Tuned:
    """The first effort whose recall reaches ``target`` on the even queries of the sample, or ``most``.

    Args:
        search: (numbers of sample queries, effort) -> their lists.
        exact: the exact lists of the whole sample ``[S, K]``, S at least 1.
    """
    sample = np.arange(len(exact.positions))
    chosen_on, held_out = sample[::2], sample[1::2] if len(sample) > 1 else sample
    effort = most
    for effort in efforts(most):  # the last one tried is the result
        if _recall(search, exact, chosen_on, effort) >= target:
            break
    return Tuned(effort, _recall(search, exact, held_out, effort))


def _recall(search: Search, exact: Lists, queries: Ints, effort: int) -> float:
    return recall(search(queries, effort), Lists(exact.positions[queries], exact.scores[queries]))
