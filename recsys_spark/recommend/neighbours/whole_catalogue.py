"""The nearest items of every item: the same kernel, with the item itself as the whole history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from recsys_spark.recommend.arrow import output_batch, reason_lists
from recsys_spark.recommend.explain import Explainer
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.blocks import Block, fuse, history_matrix, signals, users_per_block
from recsys_spark.recommend.scoring.partners import PERSONAL, Partners
from recsys_spark.recommend.scoring.scores import Ints
from recsys_spark.recommend.topk.best import Best, best
from recsys_spark.recommend.worker import Side, Task
from recsys_spark.threads import one_thread

NEIGHBOURS = "item_neighbours"
_POPULARITY = 1e-3  # orders the items that nothing joins to the anchor, and outweighs nothing else


def neighbour_weights(weights: dict[str, float], partners: Partners) -> dict[str, float]:
    """The fusion weights of the partners that relate items to items; all equal where the weights name none that is there."""
    present = [name for name in PERSONAL if getattr(partners, name) is not None]
    chosen = {name: weights[name] for name in present if weights.get(name, 0.0) != 0.0}
    return (chosen or dict.fromkeys(present, 1.0)) | {"popularity": _POPULARITY}


def neighbour_batches(batches: Iterator[Any], broadcast: Any, task: Task) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``id``, positions in the catalogue. Out: ``arrow.OUTPUT``, ranks 1..K without gaps.

    An item that no partner knows anything about has no neighbours.
    """
    one_thread()
    side: Side = broadcast.value
    rows = users_per_block(task.user_block, len(side.catalogue), side.partners.tiled)
    for some in anchors_of(batches, rows):
        anchors, block = known_anchors(some, side, task)
        yield neighbour_rows(anchors, block, best_of_all(block, side, task), side, task)


def anchors_of(batches: Iterator[Any], rows: int) -> Iterator[Ints]:
    """The positions in batches of ``id``, at most ``rows`` at a time."""
    for batch in batches:
        anchors = batch.column("id").to_numpy()
        for start in range(0, len(anchors), rows):
            yield anchors[start : start + rows]


def anchor_block(anchors: Ints, side: Side) -> Block:
    """Items as users: the item is the history, the query vector, and what is left out."""
    itself = history_matrix(np.ones(len(anchors), np.int64), anchors, 1.0, len(side.catalogue))
    encoder = side.partners.encoder
    vectors = np.zeros((len(anchors), 0), np.float32) if encoder is None else encoder.vectors[anchors]
    return Block(itself, itself, vectors)


def known_anchors(anchors: Ints, side: Side, task: Task) -> tuple[Ints, Block]:
    """Those that some partner with a weight knows, and their block."""
    block = anchor_block(anchors, side)
    said = signals(block, side.partners)
    known = np.flatnonzero(sum((said[name] for name in PERSONAL if name in task.weights), np.zeros(len(anchors), np.bool_)))
    return anchors[known], block.take(known)


def best_of_all(block: Block, side: Side, task: Task) -> Best:
    """The K best items of each anchor, by the scores of the whole catalogue."""
    fused = fuse(block, side.partners, task.weights)
    return best(fused, Filter(side.catalogue.allowed, block.seen), task.k, task.item_tile)


def neighbour_rows(anchors: Ints, block: Block, chosen: Best, side: Side, task: Task) -> Any:
    """An ``arrow.OUTPUT`` batch of the chosen cells, with reasons."""
    if not len(chosen.rows):
        return output_batch(NEIGHBOURS, 0)
    explainer = Explainer(side.catalogue, side.partners, task.max_reasons, history_kind="similar")
    return output_batch(
        NEIGHBOURS,
        len(chosen.rows),
        owner_id=side.catalogue.item_ids[anchors[chosen.rows]],
        rank=chosen.ranks.astype(np.int32),
        item_id=side.catalogue.item_ids[chosen.cols],
        score=chosen.scores,
        reasons=reason_lists(explainer.reasons(block, chosen)),
    )
