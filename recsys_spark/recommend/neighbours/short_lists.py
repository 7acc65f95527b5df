"""Neighbours in a large catalogue: each partner proposes a short list, and all partners score what is on any of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.neighbours.text import TextNeighbours
from recsys_spark.recommend.scoring.blocks import Block, fuse
from recsys_spark.recommend.scoring.fuse import Fused, Part
from recsys_spark.recommend.scoring.partners import PopularityItems
from recsys_spark.recommend.scoring.scores import FloatArray, Ints
from recsys_spark.recommend.topk.best import Best, best_of_cells
from recsys_spark.recommend.worker import Side, Task

Cells = tuple[Ints, Ints]  # (rows of a block, positions in the catalogue)


class Nearest(Protocol):
    """The encoder's search, as ``search.sharded.Task`` is."""

    def items(self, queries: FloatArray) -> Ints:
        """Allowed items near each query ``[Q, D]``: their positions ``[Q, L]``."""


@dataclass(frozen=True)
class ShortLists:
    """Where candidates come from; none of the lists holds an item that is not allowed, so that nothing is cut for it.

    Args:
        nearest: the encoder's, of ``length + 1`` items.
        length: of each partner's list; the anchor itself may be one more.
        popular: positions of the most popular items, K + 1: they fill the list of an anchor that little is joined to.
        text: None where text takes no part.
    """

    nearest: Nearest
    length: int
    popular: Ints
    text: TextNeighbours | None

    def best(self, anchors: Ints, block: Block, side: Side, task: Task) -> Best:
        """The K best candidates of each anchor: scores, ties and shares as if the whole catalogue had been scored."""
        profiles = None if self.text is None or side.partners.text is None else side.partners.text.profiles(block.history)
        rows, cols = self._candidates(anchors, block, side, task, profiles)
        return best_of_cells(self._fused(anchors, block, side, task, profiles), rows, cols, task.k)

    def _candidates(self, anchors: Ints, block: Block, side: Side, task: Task, profiles: Any) -> Cells:
        """Distinct allowed cells, none of them the anchor itself; by row and position."""
        asked = np.flatnonzero(block.vectors.any(axis=1))
        near = self.nearest.items(block.vectors[asked]) if len(asked) else np.empty((0, 0), np.int64)
        found = [(np.repeat(asked, near.shape[1]), near.ravel())]
        for name, related in side.partners.related.items():
            if name in task.weights:
                found.append(related.rows[anchors].nonzero())
        if self.text is not None:
            found.append(self.text.short_list(profiles, self.length + 1))
        found.append((np.repeat(np.arange(len(anchors)), len(self.popular)), np.tile(self.popular, len(anchors))))
        rows, cols = (np.concatenate([cells[i] for cells in found]).astype(np.int64) for i in range(2))
        size = len(side.catalogue)
        rows, cols = np.divmod(np.unique(rows * size + cols), size)
        kept = side.catalogue.allowed[cols] & (cols != anchors[rows])
        return rows[kept], cols[kept]

    def _fused(self, anchors: Ints, block: Block, side: Side, task: Task, profiles: Any) -> Fused:
        """As ``blocks.fuse``, in the same order of partners, with text that scores single cells."""
        dense = fuse(block, replace(side.partners, text=None), task.weights)
        parts = {part.name: part for part in dense.parts}
        if self.text is not None:
            scores, factor = self.text.scores(anchors, profiles), side.partners.weight_factors.get("text")
            parts["text"] = Part("text", task.weights["text"], scores, factor)
        ordered = tuple(parts[name] for name in side.partners.present() if name in parts)
        return Fused(ordered, dense.num_users, dense.num_items)


def most_popular(popularity: PopularityItems, allowed: npt.NDArray[np.bool_], k: int) -> Ints:
    """Positions of the ``k + 1`` allowed items with most events, the first among equals."""
    order = np.argsort(-popularity.row(), kind="stable")
    found: Ints = order[allowed[order]][: k + 1]
    return found
