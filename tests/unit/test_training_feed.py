"""The feed: same seed, same batches; every row used; resumed where it was left."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from recsys_spark.errors import TrainingError
from recsys_spark.training.feed.reader import Columns, Feed, petastorm_url, read_all, row_groups
from tests.training_fixture import write_files

SIZES = [5, 4, 3, 4, 2]  # on two ranks: 10 and 8 rows
ROWS = sum(SIZES)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    ids = np.arange(ROWS, dtype=np.int32)
    columns = {"user_idx": ids, "items": np.stack([ids, ids + 100, ids + 200], 1), "weight": ids.astype(np.float32) / 2}
    return write_files(tmp_path / "data", columns, SIZES)


def feed(files: tuple[str, ...], rank: int = 0, world: int = 1, seed: int = 1, **options: int) -> Feed:
    return Feed("t", files, ("user_idx", "items", "weight"), options.pop("batch", 4), seed, rank, world, **options)


def users(batches: list[Columns]) -> list[list[int]]:
    return [batch["user_idx"].tolist() for batch in batches]


def test_row_groups_come_from_the_footers(files: tuple[str, ...]) -> None:
    assert row_groups(files) == SIZES
    assert row_groups(()) == []


def test_columns_stay_together_and_arrays_become_matrices(files: tuple[str, ...]) -> None:
    batch = next(feed(files).batches())
    assert batch["items"].shape == (4, 3)
    assert batch["items"].dtype == np.int32
    np.testing.assert_array_equal(batch["items"], batch["user_idx"][:, None] + np.array([0, 100, 200]))
    np.testing.assert_array_equal(batch["weight"], batch["user_idx"] / 2)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_rank_has_the_same_steps_and_every_row_is_used(files: tuple[str, ...], world: int) -> None:
    feeds = [feed(files, rank, world) for rank in range(world)]
    epochs = [users(list(f.epoch(0))) for f in feeds]
    assert {len(batches) for batches in epochs} == {feeds[0].plan.steps}
    assert {len(batch) for batches in epochs for batch in batches} == {feeds[0].plan.batch}
    seen = [Counter(user for batch in batches for user in batch) for batches in epochs]
    assert sorted(user for counts in seen for user in counts) == list(range(ROWS)), "shards are disjoint and complete"
    assert all(max(counts.values()) - min(counts.values()) <= 1 for counts in seen)


def test_the_same_seed_gives_the_same_batches(files: tuple[str, ...]) -> None:
    once, again = (users(list(islice(feed(files, 1, 2).batches(), 12))) for _ in range(2))
    assert once == again
    assert once != users(list(islice(feed(files, 1, 2, seed=2).batches(), 12)))


def test_epochs_and_tables_are_shuffled_differently(files: tuple[str, ...]) -> None:
    one = feed(files)
    other = Feed("u", files, one.columns, 4, 1)
    orders = [[user for batch in e for user in batch["user_idx"].tolist()] for e in (one.epoch(0), one.epoch(1), other.epoch(0))]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_a_resumed_feed_goes_on_with_the_batch_it_was_left_at(files: tuple[str, ...], start: int) -> None:
    whole = users(list(islice(feed(files, 1, 2).batches(), 9)))
    assert users(list(islice(feed(files, 1, 2).batches(start), 9 - start))) == whole[start:]


def test_a_small_buffer_still_uses_every_row(files: tuple[str, ...]) -> None:
    batches = users(list(feed(files, buffer_rows=1, batch=ROWS).epoch(0)))
    assert sorted(batches[0]) == list(range(ROWS))
    assert batches[0] != users(list(feed(files, batch=ROWS).epoch(0)))[0]


def test_fewer_row_groups_than_ranks_says_what_to_do(files: tuple[str, ...]) -> None:
    with pytest.raises(TrainingError, match=r"table 't': 5 row groups for 6 ranks.*lower train.ranks"):
        feed(files, 0, 6)


def test_read_all_shares_out_files_and_tolerates_none(files: tuple[str, ...]) -> None:
    parts = [read_all(files, ("user_idx",), rank, 2) for rank in range(2)]
    assert sorted(u for part in parts if part is not None for u in part["user_idx"].tolist()) == list(range(ROWS))
    assert read_all(files, ("user_idx",), 5, 6) is None
    assert read_all((), ("user_idx",)) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [("file:/a b/c", "file:///a b/c"), ("/a", "file:///a"), ("file:///a", "file:///a"), ("s3a://b/c", "s3a://b/c")],
)
def test_urls_as_petastorm_wants_them(url: str, expected: str) -> None:
    assert petastorm_url(url) == expected
