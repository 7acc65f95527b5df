"""The plan of who reads what, over a grid of row groups, ranks and batch sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.errors import TrainingError
from recsys_spark.training.feed.plan import FeedPlan, batch_reads, derived_seed, plan_feed, schedule, shards

row_group_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@st.composite
def plans(draw: st.DrawFn) -> FeedPlan:
    sizes = draw(row_group_sizes)
    return plan_feed(sizes, draw(st.integers(1, len(sizes))), draw(st.integers(1, 64)), "t")


@given(plans())
def test_every_rank_gets_the_same_number_of_full_batches(plan: FeedPlan) -> None:
    for rank in range(plan.world):
        batches = [list(batch_reads(plan, rank, step)) for step in range(plan.steps)]
        assert len(batches) == plan.steps
        assert all(sum(read.count for read in reads) == plan.batch for reads in batches)


@given(plans())
def test_every_row_is_read_in_every_epoch_and_few_twice(plan: FeedPlan) -> None:
    for rank, size in enumerate(plan.shard_rows):
        times = [0] * size
        for step in range(plan.steps):
            for read in batch_reads(plan, rank, step):
                for row in range(read.first, read.first + read.count):
                    times[row] += 1
        assert min(times) >= 1
        assert max(times) - min(times) <= 1, "a row is read again only when all others of the shard have been"
    largest = max(plan.shard_rows)
    assert plan.steps * plan.batch - largest < plan.batch, "the largest shard repeats less than one batch"


@given(plans())
def test_reads_follow_one_another(plan: FeedPlan) -> None:
    """Passes in order, each from its first row to its last: what an open reader can deliver."""
    for rank, size in enumerate(plan.shard_rows):
        position = 0
        for step in range(plan.steps):
            for read in batch_reads(plan, rank, step):
                assert (read.number, read.first) == divmod(position, size)
                assert read.first + read.count <= size
                position += read.count


@given(row_group_sizes, st.integers(1, 8))
def test_shards_share_out_all_row_groups(sizes: list[int], world: int) -> None:
    dealt = shards(len(sizes), world)
    assert sorted(group for shard in dealt for group in shard) == list(range(len(sizes)))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(row_group_sizes, st.integers(1, 5))
def test_fewer_row_groups_than_ranks_is_refused(sizes: list[int], more: int) -> None:
    with pytest.raises(TrainingError, match=r"lower train.ranks, or raise pairs.num_files"):
        plan_feed(sizes, len(sizes) + more, 4, "training_pairs")


def test_an_empty_row_group_gives_its_rank_nothing_and_is_refused() -> None:
    with pytest.raises(TrainingError, match="2 row groups for 2 ranks"):
        plan_feed([5, 0], 2, 4, "training_pairs")


def test_eight_row_groups_on_three_ranks() -> None:
    plan = plan_feed([10] * 8, 3, 8, "t")
    assert plan.shard_rows == (30, 30, 20)
    assert plan.steps == 4  # 32 rows per rank: two of the large shards twice, twelve of the small one


def test_a_batch_is_not_larger_than_the_largest_shard() -> None:
    plan = plan_feed([3, 2], 2, 128, "t")
    assert (plan.batch, plan.steps) == (3, 1)


@given(st.integers(1, 50), st.integers(1, 20), st.none() | st.integers(1, 300))
def test_schedule_ends_each_epoch_once(steps: int, epochs: int, max_steps: int | None) -> None:
    plan = schedule(steps, epochs, max_steps)
    ends = [step for step in range(plan.total_steps) if plan.ends_epoch(step)]
    assert plan.total_steps <= steps * epochs
    assert [plan.epoch(step) for step in ends] == list(range(len(ends)))
    assert ends[-1] == plan.total_steps - 1


def test_derived_seeds_differ_by_every_part_of_the_key() -> None:
    keys = [(1, "a", 0), (1, "a", 1), (1, "b", 0), (2, "a", 0), (1, "a0")]
    assert len({derived_seed(*key) for key in keys}) == len(keys)
    assert derived_seed(1, "a", 0) == derived_seed(1, "a", 0) < 2**32
