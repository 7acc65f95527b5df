"""The rivals of the benchmarks without Spark, and the checks that must see a wrong result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import structlog
from torch import Tensor

from benchmarks.compare import alike_vectors, is_exact_list
from benchmarks.machine import peak_memory
from benchmarks.row import Scale
from benchmarks.runner import main
from benchmarks.speed import train_pairs
from benchmarks.speed.baskets import Shape, write_baskets
from benchmarks.speed.doubling import shape_of
from benchmarks.speed.factors import make_factors
from benchmarks.speed.rivals.scipy_program import scipy_program
from benchmarks.speed.rivals.train_minilm import Pairs, Rival
from benchmarks.speed.train_pairs import SMALL


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command line sends log lines to the stderr of one test."""
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(("min_support", "top_n"), [(1, 3), (2, 5), (2, 1000)])
def test_the_scipy_program_equals_counting_by_hand(tmp_path: Path, min_support: int, top_n: int) -> None:
    write_baskets(tmp_path / "rows", Shape(60, 30))
    rows = pq.read_table(tmp_path / "rows").to_pylist()
    baskets: dict[int, set[int]] = {}
    for row in rows:
        baskets.setdefault(row["basket"], set()).add(row["item_idx"])
    held = {item: sum(item in basket for basket in baskets.values()) for item in range(30)}
    both: dict[tuple[int, int], int] = {}
    for basket in baskets.values():
        for a, b in combinations(sorted(basket), 2):
            both[a, b] = both[b, a] = both.get((a, b), 0) + 1
    expected = set()
    for item in held:
        mine = [(-sqrt(n * n / (held[a] * held[b])), b, n) for (a, b), n in both.items() if a == item and n >= min_support]
        expected |= {(item, b, n, held[item], held[b], rank) for rank, (_, b, n) in enumerate(sorted(mine)[:top_n], 1)}
    scipy_program(tmp_path / "rows", min_support, top_n, tmp_path / "out")
    names = ("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "rank_a")
    assert {tuple(row[name] for name in names) for row in pq.read_table(tmp_path / "out").to_pylist()} == expected


def test_the_scipy_program_takes_an_empty_log(tmp_path: Path) -> None:
    write_baskets(tmp_path / "rows", Shape(0, 30))
    scipy_program(tmp_path / "rows", 2, 5, tmp_path / "out")
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_baskets_grow_in_proportion() -> None:
    small, large = shape_of(1_000_000), shape_of(2_000_000)
    assert large.num_baskets == pytest.approx(2 * small.num_baskets, rel=1e-3)
    assert large.num_items == pytest.approx(2 * small.num_items, rel=1e-3)


SCORES = np.array([5.0, 4.0, 4.0 + 1e-9, 3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("items", "exact"),
    [
        ([0, 2, 3], True),  # item 1 has been seen
        ([0, 1, 2], False),  # a seen item
        ([0, 2, 4], False),  # not the third best
        ([2, 0, 3], False),  # in the wrong order
        ([0, 2], False),  # too short
        ([0, 2, 2], False),  # twice
    ],
)
def test_a_wrong_list_is_seen(items: list[int], exact: bool) -> None:
    assert is_exact_list(items, SCORES, {1}, 3, 1e-6) is exact


def test_items_closer_than_rounding_may_change_places() -> None:
    assert is_exact_list([0, 1, 2], SCORES, set(), 3, 1e-6)
    assert is_exact_list([0, 2, 1], SCORES, set(), 3, 1e-6)
    assert not is_exact_list([0, 1, 2], SCORES, set(), 3, 1e-12)
    assert is_exact_list([0, 2], SCORES, {1, 3, 4, 5}, 3, 1e-6)  # fewer than 3 are left


def test_a_vector_that_points_elsewhere_is_seen() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8))
    assert alike_vectors(vectors, vectors + 1e-6, 0.999)
    planted = vectors.copy()
    planted[7] = -planted[7]
    assert not alike_vectors(vectors, planted, 0.999)
    assert not alike_vectors(vectors, vectors[:-1], 0.999)


def test_users_have_seen_distinct_items_that_they_like() -> None:
    factors = make_factors(20, 100, 8)
    assert all(len(set(row)) == 30 for row in factors.seen.tolist())
    scores = factors.users @ factors.items.T
    assert np.take_along_axis(scores, factors.seen.astype(np.int64), axis=1).mean() > scores.mean()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_peak_memory_sees_what_has_been_let_go() -> None:
    with peak_memory() as peaks:
        held = np.ones(16 << 20)  # 128 MiB
        del held
    assert peaks.by_kind()["driver"] >= 128


def test_a_pair_is_learned_from_alike_by_both_trainers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--small", "train-pairs"], results=tmp_path) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["row"], found["equal"], found["steps"]) == ("train-pairs", True, SMALL.steps)
    assert min(found["ratio"], found["ours_s"], found["rival_s"], found["rival_steps_per_s"]) > 0
    assert "of sentence-transformers" in found["rival"]


def test_other_learning_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rival at another temperature."""
    right = Rival.loss_of

    def planted(self: Rival, pairs: Pairs) -> Tensor:
        self.loss.inner.scale *= 1.01
        return right(self, pairs)

    monkeypatch.setattr(Rival, "loss_of", planted)
    monkeypatch.setattr(Rival, "spent", lambda *_: (1.0, 1.0))
    monkeypatch.setattr(train_pairs, "our_spent", lambda *_: (1.0, 1.0))
    assert train_pairs.train_pairs(Scale(small=True)).equal is False
