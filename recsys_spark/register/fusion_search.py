"""The search for fusion weights: one row for all, and rows of segments only where they prove themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from recsys_spark.log import get_logger
from recsys_spark.recommend.fusion import Fusion, Weights
from recsys_spark.recommend.scoring.scores import Float64, FloatArray
from recsys_spark.register.fusion_examples import Examples
from recsys_spark.register.fusion_likelihood import likeliest, without_idle
from recsys_spark.segments import HISTORY_SEGMENTS, ITEM_SEGMENTS

log = get_logger(__name__)

POWERS = (0.5, 0.3, 0.05)  # of targets that are far from found, which pull more the smaller it is
MAX_ROWS = 4_000_000  # that weights are fitted on
SEGMENT_STEPS = (0.4, 0.7, 1.4, 2.5)
MIN_EXAMPLES = 200  # of a segment that may have weights of its own


@dataclass(frozen=True)
class _Meaning:
    """Of a table of segments: ``weights`` by user segment and factors by item segment (or None) that it stands for, and the
    examples that a row of it has a say in (None: all of them)."""

    weights: Callable[[FloatArray], tuple[FloatArray, FloatArray | None]]
    concerned: Callable[[Examples, int], Examples] | None = None


def search(examples: Examples, partners: Sequence[str], decays: dict[str, float]) -> Fusion:
    """The fusion for users like those of the examples; segments are kept where the other half of the users confirms them.

    Args:
        partners: names of the P columns, in order.
        decays: what the z-scores were made with; passed on, also of partners that get no weight.
    """
    with threadpool_limits(1, "blas"):  # products as thin as P leave threads nothing but to wait for each other
        weights = _chosen(examples)
        by_history = _by_history(examples, weights)
        by_item = _by_item(examples, weights if by_history is None else by_history)
    return Fusion(
        _named(partners, weights),
        {} if by_history is None else _named_rows(HISTORY_SEGMENTS, partners, by_history, weights),
        {} if by_item is None else _named_rows(ITEM_SEGMENTS, partners, by_item, np.ones(len(partners))),
        decays,
    )


def _chosen(examples: Examples) -> FloatArray:
    """Weights ``[P]``, the largest 1: of the likeliest for each of ``POWERS`` those that rank best, less idle partners; or the
    best partner alone, if it ranks better by more than the standard error."""
    few = _thinned(examples)
    fitted = np.array([likeliest(few, power) for power in POWERS])
    best = int(np.argmax(examples.totals(fitted[:, None])))  # of equals the first
    weights = without_idle(few, POWERS[best], fitted[best])
    singles = np.eye(len(weights))
    alone = singles[int(np.argmax(examples.totals(singles[:, None])))]
    found = alone if _is_proven(examples.gains(alone[None]) - examples.gains(weights[None])) else weights
    return np.asarray(np.round(found / found.max(), 4))


def _is_proven(gained: Float64) -> bool:
    """Whether differences ``[E]`` sum up to more than the standard error of their sum."""
    return len(gained) > 0 and bool(gained.sum() > gained.std() * np.sqrt(len(gained)))


def _thinned(examples: Examples) -> Examples:
    """Examples with about ``MAX_ROWS`` rows, evenly spaced; more would not change what is fitted."""
    share = MAX_ROWS / max(len(examples.z), 1)
    return examples if share >= 1 else examples.take(np.arange(len(examples)) * share % 1.0 < share)


# -- segments -----------------------------------------------------------------------------------------------------


def _by_history(examples: Examples, weights: FloatArray) -> FloatArray | None:
    """Weights ``[S, P]`` by user segment, or None where one row for all does as well on users they were not chosen on."""
    flat = np.tile(weights, (len(HISTORY_SEGMENTS), 1))
    sizes = np.bincount(examples.history, minlength=len(HISTORY_SEGMENTS))
    rows = [place for place in range(len(HISTORY_SEGMENTS)) if sizes[place] >= MIN_EXAMPLES]
    if len(rows) < 2:
        return None
    return _proven(examples, flat, rows, _Meaning(lambda table: (table, None), _of_history), "user segments")


def _by_item(examples: Examples, weights: FloatArray) -> FloatArray | None:
    """Factors ``[I, P]`` by item segment, or None; head items have 1; cold ones, which no example has, those of the tail."""
    sizes = np.bincount(examples.target_segment, minlength=len(ITEM_SEGMENTS))
    rows = [place for place in (1, 2) if sizes[place] >= MIN_EXAMPLES]
    if not rows:
        return None
    table = np.atleast_2d(weights)
    flat = np.ones((len(ITEM_SEGMENTS), table.shape[1]))
    found = _proven(examples, flat, rows, _Meaning(lambda factors: (table, factors)), "item segments")
    if found is not None:
        found[3] = found[2]
    return found


def _of_history(examples: Examples, place: int) -> Examples:
    return examples.take(examples.history == place)


def _proven(examples: Examples, flat: FloatArray, rows: list[int], meant: _Meaning, what: str) -> FloatArray | None:
    """The table chosen on all users, if tables chosen on either half gain on the other one, by more than their standard error."""
    differences = []
    for fold in (0, 1):
        chosen = _refined(examples.take(examples.fold != fold), flat, rows, meant)
        held = examples.take(examples.fold == fold)
        differences.append(held.gains(*meant.weights(chosen)) - held.gains(*meant.weights(flat)))
    gained = np.concatenate(differences)
    kept = _is_proven(gained)
    log.info(f"fusion by {what}", gained=round(float(gained.sum()) / examples.num_users, 6), kept=kept)
    if not kept:
        return None
    return _refined(examples, flat, rows, meant)


def _refined(examples: Examples, table: FloatArray, rows: list[int], meant: _Meaning) -> FloatArray:
    """The table with single cells of ``rows`` moved by a step as long as one gains; a weight of 0 stays 0."""
    best, value = table.copy(), float(_totals(examples, [table], meant)[0])
    parts = {row: examples if meant.concerned is None else meant.concerned(examples, row) for row in rows}
    for _ in range(2):
        before = value
        for row in rows:
            own = float(_totals(parts[row], [best], meant)[0])
            for column in np.flatnonzero(table[row]):
                tried = [best.copy() for _ in SEGMENT_STEPS]
                for changed, step in zip(tried, SEGMENT_STEPS, strict=True):
                    changed[row, column] = np.round(table[row, column] * step, 4)
                found = _totals(parts[row], tried, meant)
                gained = float(found.max()) - own
                if gained > value * 1e-6:
                    best, own, value = tried[int(found.argmax())], own + gained, value + gained
        if value == before:
            break
    return best


def _totals(examples: Examples, tables: list[FloatArray], meant: _Meaning) -> Float64:
    weights, factors = zip(*[meant.weights(each) for each in tables], strict=True)
    return examples.totals(np.stack(weights), None if factors[0] is None else np.stack(factors))


def _named(partners: Sequence[str], weights: FloatArray) -> Weights:
    return {name: float(weight) for name, weight in zip(partners, weights, strict=True) if weight > 0}


def _named_rows(segments: Sequence[str], partners: Sequence[str], table: FloatArray, usual: FloatArray) -> dict[str, Weights]:
    """Rows that differ from the usual one, by name."""
    return {
        segment: _named(partners, row) for segment, row in zip(segments, table, strict=True) if not np.array_equal(row, usual)
    }
