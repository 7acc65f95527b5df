"""Who reads what: pure functions of (row groups, world, batch, seed, epoch), so that every rank knows the same plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recsys_spark.errors import TrainingError


def shards(num_row_groups: int, world: int) -> list[list[int]]:
    """Row groups of each rank, round robin as Petastorm deals them."""
    return [list(range(rank, num_row_groups, world)) for rank in range(world)]


@dataclass(frozen=True)
class FeedPlan:
    """How one table is read by all ranks.

    Args:
        shard_rows: rows of each rank's row groups.
        batch: rows of a batch, the same on every rank and in every step.
    """

    shard_rows: tuple[int, ...]
    batch: int

    @property
    def world(self) -> int:
        return len(self.shard_rows)

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same on every rank: enough for the largest shard."""
        return -(-max(self.shard_rows) // self.batch)

    @property
    def rows(self) -> int:
        return sum(self.shard_rows)


def plan_feed(row_groups: Sequence[int], world: int, batch: int, table: str) -> FeedPlan:
    """The plan for a table with ``row_groups`` (rows of each); a batch is never larger than the largest shard.

    Raises:
        TrainingError: fewer row groups with rows than ranks; somebody would have nothing to read.
    """
    sizes = tuple(sum(row_groups[group] for group in shard) for shard in shards(len(row_groups), world))
    if not all(sizes):
        raise TrainingError(
            f"table '{table}'",
            f"{len(row_groups)} row groups for {world} ranks",
            "at least one with rows for each rank",
            f"lower train.ranks, or raise pairs.num_files to a multiple of {world} (and give it more rows than that)",
        )
    return FeedPlan(sizes, min(batch, max(sizes)))


@dataclass(frozen=True)
class Read:
    """A stretch of rows ``first .. first + count - 1`` of pass number ``number`` over a rank's own shard."""

    number: int
    first: int
    count: int


def batch_reads(plan: FeedPlan, rank: int, step: int) -> Iterator[Read]:
    """What rank ``rank`` reads for batch ``step`` of any epoch.

    A rank's rows form an endless row of passes over its shard; batch ``step`` is the next ``plan.batch`` of them.
    A rank with a short shard, or a last batch that is not full, goes on with the next pass, which is shuffled anew.
    """
    size, position, missing = plan.shard_rows[rank], step * plan.batch, plan.batch
    while missing:
        number, first = divmod(position, size)
        count = min(missing, size - first)
        yield Read(number, first, count)
        position, missing = position + count, missing - count


def derived_seed(*key: int | str) -> int:
    """A seed below 2^32 out of any key, e.g. (seed, "sequences", epoch, pass)."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True)
class Schedule:
    """The steps of a whole training: the first table sets the epoch, the others go round at their own pace."""

    steps_per_epoch: int
    total_steps: int

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether ``step`` (counted from 0) is the last of its epoch, or the last of all."""
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.total_steps


def schedule(steps_per_epoch: int, epochs: int, max_steps: int | None) -> Schedule:
    """Steps of ``epochs`` epochs, at most ``max_steps``."""
    total = steps_per_epoch * epochs
    return Schedule(steps_per_epoch, total if max_steps is None else min(total, max_steps))
