"""Batches out of Parquet files, through Petastorm: the same for the same seed, and equally many on every rank."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from petastorm import make_batch_reader
from petastorm.fs_utils import get_filesystem_and_path_or_paths

from recsys_spark.errors import TrainingError
from recsys_spark.training.feed.plan import FeedPlan, batch_reads, derived_seed, plan_feed

Columns = dict[str, NDArray[Any]]
BUFFER_ROWS = 131_072  # rows shuffled together; row groups come in a shuffled order anyway


def petastorm_url(url: str) -> str:
    """``file:/a``, ``/a`` and ``file:///a`` become ``file:///a``; URLs of other schemes stay."""
    if url.startswith("/"):
        return f"file://{url}"
    if url.startswith("file:/") and not url.startswith("file://"):
        return "file://" + url.removeprefix("file:")
    return url


def row_groups(files: Sequence[str]) -> list[int]:
    """Rows of each row group, files in order, from the footers."""
    if not files:
        return []
    filesystem, paths = get_filesystem_and_path_or_paths([petastorm_url(f) for f in files])
    sizes = []
    for path in paths:
        with filesystem.open(path) as file:
            footer = pq.ParquetFile(file).metadata
            sizes += [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    return sizes


def read_shard(
    files: Sequence[str], columns: Sequence[str], seed: int | None = None, rank: int = 0, world: int = 1
) -> Generator[Columns]:
    """The row groups of one shard, one at a time, once; in an order drawn from ``seed`` where that is given.

    Arrays of fixed length become matrices. One worker thread: more would mix the order.
    """
    reader = make_batch_reader(
        [petastorm_url(f) for f in files],
        schema_fields=[f"^{column}$" for column in columns],
        workers_count=1,
        num_epochs=1,
        shuffle_row_groups=seed is not None,
        seed=seed,
        cur_shard=rank,
        shard_count=world,
    )
    try:
        for group in reader:
            yield {column: getattr(group, column) for column in columns}
    finally:
        reader.stop()
        reader.join()


class Feed:
    """Endless batches of one table for one rank, addressed by global step: a resumed run asks for the step it needs.

    Args:
        table: its name; part of the seed, so that two feeds are shuffled differently.
        files: exact data files; their order is part of the plan.
        columns: what to read: numbers, and arrays of fixed length.
        batch: rows per batch and rank.
        buffer_rows: rows shuffled together, at least one row group.

    Raises:
        TrainingError: fewer row groups than ranks.
    """

    def __init__(
        self,
        table: str,
        files: Sequence[str],
        columns: Sequence[str],
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        buffer_rows: int = BUFFER_ROWS,
    ) -> None:
        self.table, self.files, self.columns = table, sorted(files), tuple(columns)
        self.seed, self.rank, self.buffer_rows = seed, rank, buffer_rows
        self.plan: FeedPlan = plan_feed(row_groups(self.files), world, batch, table)

    def batches(self, start_step: int = 0) -> Generator[Columns]:
        """Batches from global step ``start_step`` on, for ever; step s is batch ``s % plan.steps`` of its epoch."""
        epoch, skip = divmod(start_step, self.plan.steps)
        while True:
            with contextlib.closing(self.epoch(epoch, skip)) as batches:
                yield from batches
            epoch, skip = epoch + 1, 0

    def epoch(self, epoch: int, skip: int = 0) -> Generator[Columns]:
        """The ``plan.steps`` batches of one epoch, without the first ``skip``."""
        with contextlib.closing(_Rows(self, epoch)) as rows:
            for step in range(self.plan.steps):
                parts = [rows.take(read.number, read.count) for read in batch_reads(self.plan, self.rank, step)]
                if step >= skip:
                    yield {c: np.concatenate([part[c] for part in parts]) for c in self.columns}

    def one_pass(self, epoch: int, number: int) -> Generator[Columns]:
        """All rows of this rank's shard once, shuffled, in buffers of at least ``buffer_rows`` rows (but the last)."""
        seed = derived_seed(self.seed, self.table, epoch, number)
        generator = np.random.default_rng((seed, self.rank))
        held: list[Columns] = []
        with contextlib.closing(read_shard(self.files, self.columns, seed, self.rank, self.plan.world)) as groups:
            for group in groups:
                held.append(group)
                if sum(len(g[self.columns[0]]) for g in held) >= self.buffer_rows:
                    yield _shuffled(held, generator)
                    held = []
        if held:
            yield _shuffled(held, generator)


class _Rows:
    """A rank's rows of one epoch, in order: pass after pass, opened when the one before has run out."""

    def __init__(self, feed: Feed, epoch: int) -> None:
        self._feed, self._epoch, self._number = feed, epoch, 0
        self._blocks = feed.one_pass(epoch, 0)
        self._block: Columns = {}
        self._used = 0

    def take(self, number: int, count: int) -> Columns:
        """The next ``count`` rows, all of pass ``number``."""
        if number != self._number:
            self.close()
            self._number, self._blocks = number, self._feed.one_pass(self._epoch, number)
            self._block, self._used = {}, 0
        parts = []
        while count:
            part = self._part(count)
            count -= len(part[self._feed.columns[0]])
            parts.append(part)
        return {c: np.concatenate([part[c] for part in parts]) for c in self._feed.columns}

    def _part(self, count: int) -> Columns:
        first = self._feed.columns[0]
        while not self._block or self._used == len(self._block[first]):
            block = next(self._blocks, None)
            if block is None:
                raise TrainingError(f"table '{self._feed.table}'", "fewer rows than its files' footers say", do="rewrite it")
            self._block, self._used = block, 0
        rows = slice(self._used, self._used + count)
        part = {c: values[rows] for c, values in self._block.items()}
        self._used += len(part[first])
        return part

    def close(self) -> None:
        """Stop the reader that is open."""
        self._blocks.close()


def _shuffled(groups: list[Columns], generator: np.random.Generator) -> Columns:
    whole = {c: np.concatenate([group[c] for group in groups]) for c in groups[0]}
    order = generator.permutation(len(next(iter(whole.values()))))
    return {c: values[order] for c, values in whole.items()}


def read_all(files: Sequence[str], columns: Sequence[str], rank: int = 0, world: int = 1) -> Columns | None:
    """All rows of every ``world``-th file, in order, in memory; None where this rank has none (for validation)."""
    mine = sorted(files)[rank::world]
    groups = list(read_shard(mine, columns)) if sum(row_groups(mine)) else []
    return {c: np.concatenate([group[c] for group in groups]) for c in columns} if groups else None
