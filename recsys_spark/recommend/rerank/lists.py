"""Lists out of the best candidates of the fused order: varied, within limits, new items where their chances put them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import normalize

from recsys_spark.config.rerank import RerankSettings, Similarity
from recsys_spark.recommend.catalogue import Catalogue
from recsys_spark.recommend.rerank.limits import Limited, Room
from recsys_spark.recommend.rerank.varied import varied
from recsys_spark.recommend.scoring.partners import Partners
from recsys_spark.recommend.scoring.scores import Ints
from recsys_spark.recommend.topk.best import Best
from recsys_spark.search.rows import place_in_row

_CELLS = 2_000_000  # of similarities held at a time

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rerank:
    """How lists are put in order once more.

    Args:
        diversity: see ``varied``; 0: in the order of their scores.
        max_per_ten: attribute -> how many of each ten places (1 to 10, 11 to 20 ...) may hold one value of it.
        similarity: what tells how alike two items are.
        depth: so many times K candidates are looked at.
    """

    diversity: float = 0.0
    max_per_ten: Mapping[str, int] = field(default_factory=dict)
    similarity: Similarity = "encoder"
    depth: int = 5

    def document(self) -> dict[str, Any]:
        """As ``fusion.json``, the plan of a stage and the report have it."""
        limits = dict(sorted(self.max_per_ten.items()))
        return {"diversity": self.diversity, "max_per_ten": limits, "similarity": self.similarity, "depth": self.depth}

    @classmethod
    def of(cls, settings: RerankSettings, chosen: Mapping[str, Any] | None) -> Rerank | None:
        """Of a config, with the diversity that validation has ``chosen`` where that is left to it; None for nothing to do."""
        diversity = settings.diversity
        if diversity == "auto":
            diversity = float((chosen or {}).get("diversity", 0.0))
        if not diversity and not settings.max_per_ten:
            return None
        return cls(diversity, settings.max_per_ten, settings.similarity, settings.depth)


def reranked(
    pool: Best, listed: Best, is_new: Flags, k: int, rerank: Rerank, items: tuple[Catalogue, Partners]
) -> tuple[Best, Flags]:
    """The first ``k`` places of every user's list, and which of these cells are new items.

    Args:
        pool: candidates in the order of their scores, by user; what is listed is among them but for new items.
        listed: lists as they would be; new items keep their places in these while limits leave room for them.
    """
    catalogue, partners = items
    new = listed.take(np.flatnonzero(is_new))
    every = pool.joined(new)
    users = np.unique(every.rows)
    num_users = int(users.max(initial=-1)) + 1
    column = place_in_row(pool.rows, num_users)
    columns = np.concatenate([column, int(column.max(initial=-1)) + 1 + place_in_row(new.rows, num_users)])
    width = int(columns.max(initial=-1)) + 1
    limited = Limited.of(catalogue, rerank.max_per_ten)
    alike = Alike(catalogue, partners, rerank.similarity)
    parts = []
    for some in _chunks(users, width):
        cells = np.flatnonzero(np.isin(every.rows, some))
        at = np.searchsorted(some, every.rows[cells]), columns[cells]
        cell_BW = np.full((len(some), width), -1)
        cell_BW[at] = cells
        parts.append(_chosen(every, cell_BW, len(pool.rows), k, rerank, alike, limited))
    cells = np.concatenate([np.empty(0, np.int64), *parts])
    found = every.take(cells)
    return replace(found, ranks=place_in_row(found.rows, num_users) + 1), cells >= len(pool.rows)


def _chosen(every: Best, cell_BW: Ints, num_known: int, k: int, rerank: Rerank, alike: Alike, limited: Limited | None) -> Ints:
    """Cells of ``every`` by user and place; those from ``num_known`` on are new items, which stand at their ranks."""
    there = cell_BW >= 0
    safe = np.maximum(cell_BW, 0)
    positions = np.where(there, every.cols[safe], -1)
    scores = np.where(there & (cell_BW < num_known), every.scores[safe], -np.inf)
    fixed = np.full((len(cell_BW), k), -1)
    user, column = np.nonzero(there & (cell_BW >= num_known))
    fixed[user, every.ranks[cell_BW[user, column]] - 1] = column
    room = None if limited is None else Room(limited, positions)
    found = varied(scores, alike.of(positions) if rerank.diversity else None, rerank.diversity, fixed, room)
    user, place = np.nonzero(found >= 0)
    cells: Ints = cell_BW[user, found[user, place]]
    return cells


def _chunks(users: Ints, width: int) -> Iterator[Ints]:
    size = max(1, _CELLS // max(width * width, 1))
    for start in range(0, len(users), size):
        yield users[start : start + size]


@dataclass(frozen=True)
class Alike:
    """How alike items are: the cosine of their vectors where it is above 0; by texts where no encoder takes part, by
    attributes where there are no texts."""

    catalogue: Catalogue
    partners: Partners
    similarity: Similarity

    def of(self, positions_BW: Ints) -> npt.NDArray[np.float32]:
        """``[B, W, W]`` of each user's candidates; those that are not there (-1) are like nothing."""
        users, width = positions_BW.shape
        if self.similarity == "encoder" and self.partners.encoder is not None:
            vectors = self.partners.encoder.vectors[np.maximum(positions_BW, 0)]
            vectors[positions_BW < 0] = 0.0
            return _cosines(vectors @ vectors.transpose(0, 2, 1))
        found = np.zeros((users, width, width), np.float32)
        for user in range(users):
            there = np.flatnonzero(positions_BW[user] >= 0)
            own = self._rows(positions_BW[user, there])
            found[user][np.ix_(there, there)] = (own @ own.T).toarray()
        return _cosines(found)

    def _rows(self, positions: Ints) -> Any:
        """Sparse rows ``[P, F]`` of these items, of length 1 or 0; F is 0 where nothing is shared."""
        if self.similarity != "attributes" and self.partners.text is not None:
            return self.partners.text.by_item[positions]
        shared = self.catalogue.attributes[positions].astype(np.float32)
        return normalize(shared) if shared.shape[1] else shared  # which refuses a matrix without columns


def _cosines(products: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Products of unit vectors without what lies below 0, and without what rounding adds."""
    found: npt.NDArray[np.float32] = np.clip(products, 0.0, 1.0)
    return found
