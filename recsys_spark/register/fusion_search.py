"""The search for fusion weights: one weight at a time, from several starts, and segments only where they prove themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from recsys_spark.log import get_logger
from recsys_spark.recommend.fusion import Fusion, Weights
from recsys_spark.recommend.scoring.scores import Float64, FloatArray
from recsys_spark.register.fusion_examples import Examples
from recsys_spark.segments import HISTORY_SEGMENTS, ITEM_SEGMENTS

log = get_logger(__name__)

STEPS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.2, 1.4, 2.0, 4.0)  # factors of one weight
SWAPS = (0.7, 1.0, 1.5, 2.5)  # of the weight that another partner gives up
ENTRIES = (0.05, 0.1, 0.2, 0.4, 1.0)  # of the largest weight, for one that is 0
SEGMENT_STEPS = (0.4, 0.7, 1.4, 2.5)
MAX_ROUNDS = 12
WORTH = 1e-3  # a partner is kept for at least this share of the NDCG
MIN_EXAMPLES = 200  # of a segment that may have weights of its own

Objective = Callable[[FloatArray], Float64]  # values [C] of C candidates; they cost less together
Meaning = Callable[[FloatArray], tuple[FloatArray, FloatArray | None]]


def search(examples: Examples, partners: Sequence[str], decays: dict[str, float]) -> Fusion:
    """The fusion with the best mean NDCG@10 on the examples; segments are kept where the other half of the users confirms them.

    Args:
        partners: names of the P columns, in order.
        decays: what the z-scores were made with; passed on, also of partners that get no weight.
    """
    with threadpool_limits(1, "blas"):  # products as thin as P leave threads nothing but to wait for each other
        weights = climb(lambda w_CP: examples.totals(w_CP[:, None]), len(partners))
        weights = without_idle(lambda w_CP: examples.totals(w_CP[:, None]), weights)
        by_history = _by_history(examples, weights)
        by_item = _by_item(examples, weights if by_history is None else by_history)
    return Fusion(
        _named(partners, weights),
        {} if by_history is None else _named_rows(HISTORY_SEGMENTS, partners, by_history, weights),
        {} if by_item is None else _named_rows(ITEM_SEGMENTS, partners, by_item, np.ones(len(partners))),
        decays,
    )


def climb(objective: Objective, size: int) -> FloatArray:
    """Weights ``[P]``, the largest 1: from the best partner alone and from all alike, the best single change as long as there
    is one; then the better of both. One start is not enough: all alike may be worth a hair more than the best partner and
    lead nowhere, as no single change takes away what several partners add."""
    alone, alike = np.eye(size), np.ones(size)
    *singles, whole = objective(np.vstack([alone, alike])).tolist()
    first = int(np.argmax(singles))
    ends = [_climbed(objective, alone[first], singles[first]), _climbed(objective, alike, whole)]
    return max(ends, key=lambda end: end[1])[0]  # of equals the first


def _climbed(objective: Objective, best: FloatArray, value: float) -> tuple[FloatArray, float]:
    """The weights that single changes lead to from ``best``, and their value."""
    for _ in range(MAX_ROUNDS):
        tried = np.array(_steps(best))
        values = objective(tried)
        if values.max() <= value * (1.0 + 1e-6):
            break
        top = tried[values.argmax()]  # of equals the first
        value, best = float(values.max()), top / top.max()
    return np.round(best, 4), value


def _steps(weights: FloatArray) -> list[FloatArray]:
    found = []
    for place, weight in enumerate(weights):
        for value in [weight * step for step in STEPS] if weight > 0 else [e * weights.max() for e in ENTRIES]:
            changed = weights.copy()
            changed[place] = value
            if changed.max() > 0:
                found.append(changed)
    return found + _swaps(weights)


def _swaps(weights: FloatArray) -> list[FloatArray]:
    """A partner without weight in the place of one that has some: of two that know the same, a single change reaches only
    the one that came first."""
    found = []
    for out in np.flatnonzero(weights):
        for into in np.flatnonzero(weights == 0):
            for share in SWAPS:
                changed = weights.copy()
                changed[into], changed[out] = share * weights[out], 0.0
                found.append(changed)
    return found


def without_idle(objective: Objective, weights: FloatArray) -> FloatArray:
    """Without the partners that are worth less than ``WORTH``, one after the other, the least first."""
    weights = weights.copy()
    while len(places := np.flatnonzero(weights)) > 1:
        without = np.array([np.where(np.arange(len(weights)) == place, 0.0, weights) for place in places])
        full, *left = objective(np.vstack([weights, without])).tolist()
        value, place = max(zip(left, places.tolist(), strict=True))
        if value < full * (1.0 - WORTH):
            break
        weights[place] = 0.0
    return np.asarray(np.round(weights / weights.max(), 4))


# -- segments -----------------------------------------------------------------------------------------------------


def _by_history(examples: Examples, weights: FloatArray) -> FloatArray | None:
    """Weights ``[S, P]`` by user segment, or None where one row for all does as well on users they were not chosen on."""
    flat = np.tile(weights, (len(HISTORY_SEGMENTS), 1))
    sizes = np.bincount(examples.history, minlength=len(HISTORY_SEGMENTS))
    rows = [place for place in range(len(HISTORY_SEGMENTS)) if sizes[place] >= MIN_EXAMPLES]
    if len(rows) < 2:
        return None
    return _proven(examples, flat, rows, lambda table: (table, None), "user segments")


def _by_item(examples: Examples, weights: FloatArray) -> FloatArray | None:
    """Factors ``[I, P]`` by item segment, or None; head items have 1; cold ones, which no example has, those of the tail."""
    sizes = np.bincount(examples.target_segment, minlength=len(ITEM_SEGMENTS))
    rows = [place for place in (1, 2) if sizes[place] >= MIN_EXAMPLES]
    if not rows:
        return None
    table = np.atleast_2d(weights)
    flat = np.ones((len(ITEM_SEGMENTS), table.shape[1]))
    found = _proven(examples, flat, rows, lambda factors: (table, factors), "item segments")
    if found is not None:
        found[3] = found[2]
    return found


def _proven(examples: Examples, flat: FloatArray, rows: list[int], meant: Meaning, what: str) -> FloatArray | None:
    """The table chosen on all users, if tables chosen on either half gain on the other one, by more than their standard error.

    Args:
        meant: the weights by user segment and the factors by item segment (or None) that a table stands for.
    """
    differences = []
    for fold in (0, 1):
        chosen = _refined(examples.take(examples.fold != fold), flat, rows, meant)
        held = examples.take(examples.fold == fold)
        differences.append(held.gains(*meant(chosen)) - held.gains(*meant(flat)))
    gained = np.concatenate(differences)
    error = float(gained.std() * np.sqrt(len(gained)))
    log.info(f"fusion by {what}", gained=round(float(gained.sum()) / examples.num_users, 6), kept=bool(gained.sum() > error))
    if gained.sum() <= error:
        return None
    return _refined(examples, flat, rows, meant)


def _refined(examples: Examples, table: FloatArray, rows: list[int], meant: Meaning) -> FloatArray:
    """The table with single cells of ``rows`` moved by a step as long as one gains; a weight of 0 stays 0."""

    def totals(tables: list[FloatArray]) -> Float64:
        weights, factors = zip(*[meant(each) for each in tables], strict=True)
        return examples.totals(np.stack(weights), None if factors[0] is None else np.stack(factors))

    best, value = table.copy(), float(totals([table])[0])
    for _ in range(2):
        before = value
        for row in rows:
            for column in np.flatnonzero(table[row]):
                tried = [best.copy() for _ in SEGMENT_STEPS]
                for changed, step in zip(tried, SEGMENT_STEPS, strict=True):
                    changed[row, column] = np.round(table[row, column] * step, 4)
                found = totals(tried)
                if found.max() > value * (1.0 + 1e-6):
                    best, value = tried[int(found.argmax())], float(found.max())
        if value == before:
            break
    return best


def _named(partners: Sequence[str], weights: FloatArray) -> Weights:
    return {name: float(weight) for name, weight in zip(partners, weights, strict=True) if weight > 0}


def _named_rows(segments: Sequence[str], partners: Sequence[str], table: FloatArray, usual: FloatArray) -> dict[str, Weights]:
    """Rows that differ from the usual one, by name."""
    return {
        segment: _named(partners, row) for segment, row in zip(segments, table, strict=True) if not np.array_equal(row, usual)
    }
