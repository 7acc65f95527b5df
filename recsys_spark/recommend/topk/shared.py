"""The best K where all users of a block have the same scores: items are put in order once, not once per user."""

from __future__ import annotations

import numpy as np

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.fuse import Fused
from recsys_spark.recommend.scoring.scores import Ints, SharedScores
from recsys_spark.recommend.topk.order import Order
from recsys_spark.recommend.topk.targets import Targets


def shared_cells(fused: Fused, allowed: Filter, k: int, targets: Targets | None) -> tuple[Ints, Ints] | None:
    """Rows and positions of the best K of every user; None where scores are not the same for all users.

    Args:
        targets: get their ranks.
    """
    if not fused.parts or not all(isinstance(part.scores, SharedScores) for part in fused.parts):
        return None
    items = np.arange(fused.num_items)
    order = Order(np.argsort(-fused.at(np.zeros_like(items), items), kind="stable"), allowed, allowed.seen)
    if targets is not None:
        ranked = np.flatnonzero(targets.valid)
        targets.above[ranked] = order.before(targets.rows[ranked], targets.cols[ranked])
    return order.first(k)
