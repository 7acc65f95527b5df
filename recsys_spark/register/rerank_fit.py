"""How much lists may vary: what each diversity costs on validation, by the lists that it makes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from recsys_spark.config import Config
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.new_items import TEN, NewItems
from recsys_spark.recommend.rerank.lists import Alike, Rerank
from recsys_spark.recommend.scoring.blocks import fuse, users_per_block
from recsys_spark.recommend.topk.best import Best, best
from recsys_spark.recommend.worker import Side, Task, arranged, block_of
from recsys_spark.register.new_items_fit import GAINS, LEAST_HITS, ideal_gains
from recsys_spark.threads import one_thread

DIVERSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # what is tried
_COLUMNS = "diversity double, ndcg double, unlike double, users long, hits long"


@dataclass(frozen=True)
class Tried:
    """Mean NDCG@10 of validation users' lists of this diversity, and mean distance (1 - cosine) of their items, by what
    ``rerank.similarity`` goes by."""

    diversity: float
    ndcg: float
    unlike: float


@dataclass(frozen=True)
class RerankFit:
    """The chosen diversity, and everything that was tried; None: nothing was to be chosen."""

    diversity: float | None = None
    tried: tuple[Tried, ...] = ()

    def document(self) -> dict[str, Any] | None:
        """As ``fusion.json`` and the report have it."""
        if self.diversity is None:
            return None
        rows = [[row.diversity, round(row.ndcg, 6), round(row.unlike, 6)] for row in self.tried]
        return {"diversity": self.diversity, "tried": rows}


def fit_rerank(
    config: Config, rows: DataFrame, broadcast: Any, weights: dict[str, float], new_items: NewItems | None
) -> RerankFit:
    """The largest diversity whose lists keep all but ``rerank.max_diversity_loss`` of the NDCG@10 that scores alone have.

    Args:
        rows: ``user_id, items, seen, vector, target_idx`` of the validation users.
        broadcast: the item side.
        weights: the chosen fusion weights.
        new_items: the chosen places of new items, which the lists have here too.
    """
    settings = config.recommend
    if settings.rerank.diversity != "auto":
        return RerankFit()
    plain = Rerank(0.0, settings.rerank.max_per_ten, settings.rerank.similarity, settings.rerank.depth)
    task = Task(weights, TEN, settings.decay, 0, settings.user_block, settings.item_tile, new_items=new_items, rerank=plain)
    table = rows.mapInArrow(functools.partial(_tried_batches, broadcast=broadcast, task=task), _COLUMNS).toArrow()
    if table.num_rows == 0:
        return RerankFit(0.0)
    sums = table.group_by("diversity").aggregate([(name, "sum") for name in ("ndcg", "unlike", "users", "hits")]).to_pylist()
    means = [Tried(s["diversity"], *(s[f"{name}_sum"] / s["users_sum"] for name in ("ndcg", "unlike"))) for s in sums]
    means.sort(key=lambda row: row.diversity)
    if next(s["hits_sum"] for s in sums if s["diversity"] == 0.0) < LEAST_HITS:
        return RerankFit(0.0, tuple(means))  # too few to tell what it costs
    return choose(means, settings.rerank.max_diversity_loss)


def choose(tried: list[Tried], bearable: float) -> RerankFit:
    """The largest diversity that keeps ``1 - bearable`` of the first one's NDCG."""
    least = (1.0 - bearable) * tried[0].ndcg - 1e-12
    return RerankFit(max(row.diversity for row in tried if row.ndcg >= least), tuple(tried))


def _tried_batches(batches: Iterator[Any], broadcast: Any, task: Task) -> Iterator[Any]:
    """For ``mapInArrow``: sums over a block's users, a row of ``_COLUMNS`` for each diversity."""
    one_thread()
    side: Side = broadcast.value
    size = users_per_block(min(task.user_block, 128), len(side.catalogue))
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            found = list(_block_sums(batch.slice(start, size), side, task))
            columns = zip(*found, strict=True)
            kinds = (pa.float64(), pa.float64(), pa.float64(), pa.int64(), pa.int64())
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=["diversity", "ndcg", "unlike", "users", "hits"])


def _block_sums(batch: Any, side: Side, task: Task) -> Iterator[tuple[float, float, float, int, int]]:
    block = block_of(batch, side, task.decay)
    allowed = Filter(side.catalogue.allowed, block.seen)
    fused = fuse(block, side.partners, task.weights)
    new_items = side.new_items_of(task)
    wide = best(fused, allowed, task.width(new_items), task.item_tile)
    lengths, target_idx = flat_list(batch.column("target_idx"))
    owners, positions = np.repeat(np.arange(block.num_users), lengths), side.catalogue.positions(target_idx)
    wanted = (owners * len(side.catalogue) + positions)[positions >= 0]
    if task.rerank is None:
        raise ValueError("nothing to try")
    for diversity in DIVERSITIES:
        tried = replace(task, rerank=replace(task.rerank, diversity=diversity))
        lists, _ = arranged(block, fused, wide, allowed, side, tried, new_items)
        hit = np.isin(lists.rows * len(side.catalogue) + lists.cols, wanted)
        ndcg = np.bincount(lists.rows, hit * GAINS[lists.ranks - 1], minlength=block.num_users) / ideal_gains(lengths)
        unlike = _unlike(lists, side, task.rerank, block.num_users)
        yield diversity, float(ndcg.sum()), unlike, block.num_users, int(np.count_nonzero(ndcg))


def _unlike(lists: Best, side: Side, rerank: Rerank, num_users: int) -> float:
    """Sum over users of the mean distance of their lists' items; lists under two items have none."""
    places = np.full((num_users, TEN), -1)
    places[lists.rows, lists.ranks - 1] = lists.cols
    alike = Alike(side.catalogue, side.partners, rerank.similarity).of(places)
    listed = np.bincount(lists.rows, minlength=num_users)
    pairs = listed * (listed - 1)
    together = alike.sum(axis=(1, 2)) - np.einsum("bkk->b", alike)
    return float((1.0 - together / np.maximum(pairs, 1))[pairs > 0].sum())
