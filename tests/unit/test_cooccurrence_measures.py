"""Each measure against published or hand-made values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys_spark.cooccurrence.measures import MEASURES, llr
from tests.cooccurrence_twin import twin_score


def one(measure: str, both: int, a: int, b: int, total: int) -> float:
    return float(MEASURES[measure](np.array([both]), np.array([a]), np.array([b]), total)[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("table", "expected"),
    [((1, 0, 2, 1), 0.6795961471815897), ((1, 1, 0, 2), 1.7260924347106847), ((1, 0, 0, 3), 4.498681156950466)],
)
def test_llr_golden_values(table: tuple[int, int, int, int], expected: float) -> None:
    both, only_a, only_b, _ = table
    assert one("llr", both, both + only_a, both + only_b, sum(table)) == pytest.approx(expected, abs=1e-12)


def test_values_by_hand() -> None:
    # 6 of 100 baskets hold both, 12 hold a, 20 hold b
    assert one("count", 6, 12, 20, 100) == 6.0
    assert one("cosine", 6, 12, 20, 100) == pytest.approx(6 / math.sqrt(240), abs=1e-15)
    assert one("jaccard", 6, 12, 20, 100) == pytest.approx(6 / 26, abs=1e-15)
    assert one("lift", 6, 12, 20, 100) == pytest.approx(2.5, abs=1e-15)
    assert one("pmi", 6, 12, 20, 100) == pytest.approx(math.log(2.5), abs=1e-15)
    assert one("npmi", 6, 12, 20, 100) == pytest.approx(math.log(2.5) / math.log(100 / 6), abs=1e-15)


def test_independent_items_score_nothing() -> None:
    assert one("lift", 10, 20, 50, 100) == 1.0
    assert one("pmi", 10, 20, 50, 100) == 0.0
    assert one("npmi", 10, 20, 50, 100) == 0.0
    assert one("llr", 10, 20, 50, 100) == 0.0


def test_pair_in_every_basket() -> None:
    assert [one(m, 7, 7, 7, 7) for m in ("cosine", "jaccard", "lift", "pmi", "npmi", "llr")] == [1, 1, 1, 0, 1, 0]


def test_always_together_has_npmi_one() -> None:
    assert one("npmi", 3, 3, 3, 50) == pytest.approx(1.0, abs=1e-15)


def test_equal_cosines_are_equal_floats() -> None:
    # 1 / sqrt(2), 3 / sqrt(18), 7 / sqrt(98) ... must tie, or the hash would not decide
    ratios = MEASURES["cosine"](np.array([1, 3, 5, 7, 11]), np.array([1, 3, 5, 7, 11]), np.array([2, 6, 10, 14, 22]), 1000)
    assert len(set(ratios.tolist())) == 1


def test_llr_does_not_cancel_for_large_totals() -> None:
    # nearly independent items among two billion baskets: entropies are about 1e10, the answer is about 1
    total, a, b, both = 2_000_000_000, 1_000_000, 2_000_000, 1_030
    d = both * total - a * b
    # G^2 -> chi^2 for small deviations; chi^2 = D^2 total / (a b (total - a)(total - b))
    expected = d * d * total / (a * b * (total - a) * (total - b))
    assert one("llr", both, a, b, total) == pytest.approx(expected, rel=0.02)


def test_llr_beyond_int64_squares() -> None:
    assert one("llr", 2_000, 1_000_000, 2_000_000, 4_000_000_000) > 0


def test_all_measures_equal_the_textbook() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        cells = rng.integers(0, 40, 4)
        both, only_a, only_b, neither = (int(c) for c in cells)
        both += 1
        a, b, total = both + only_a, both + only_b, both + only_a + only_b + neither
        for measure in MEASURES:
            assert one(measure, both, a, b, total) == pytest.approx(twin_score(measure, both, a, b, total), abs=1e-10), measure


def test_llr_stays_finite_where_a_window_lets_items_miss_each_other() -> None:
    # both items in all 10 baskets, but near each other in 4 only: cells 4, 6, 6, 0
    assert one("llr", 4, 10, 10, 10) == pytest.approx(twin_score("llr", 4, 10, 10, 16), abs=1e-12)


def test_no_pairs() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert len(llr(none, none, none, 5)) == 0
