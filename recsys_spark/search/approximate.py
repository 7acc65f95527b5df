"""Approximate nearest items by an inverted file: vectors in clusters, of which a query reads the nearest few.

Jegou, Douze, Schmid: Product Quantization for Nearest Neighbor Search (TPAMI 2011), without the quantisation of residuals:
the clusters hold the vectors themselves. Library: faiss. Why this index and not a graph: decision 009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from recsys_spark.errors import InputError
from recsys_spark.search.exact import QUERY_BLOCK, nearest
from recsys_spark.search.held import slack
from recsys_spark.search.lists import Lists, ranked, stacked
from recsys_spark.search.vectors import Ints, Pieces, Vectors, check_vectors

_LISTS_PER_ROOT = 4
_ROWS_PER_LIST = 64  # training rows; faiss warns below 39
_FEWEST_PER_LIST = 39
_MAX_TRAINING_BYTES = 2**30
_ROUNDS = 10  # of k-means; more rounds gain nothing in recall that reading one list more would not


@dataclass(frozen=True)
class Plan:
    """Size of an index: ``lists`` clusters, trained on ``training_rows`` vectors."""

    lists: int
    training_rows: int


def plan(num_items: int, dimension: int, lists: int | None = None) -> Plan:
    """Index parameters from N and D.

    lists = 4 sqrt(N): a query is compared with ``lists`` centroids and ``effort x N / lists`` vectors, which balance at an
    effort of about 16. At least 39 items per list, or centroids overfit. D cancels out of that balance; it bounds the
    training rows (64 per list) to 1 GiB.
    """
    wanted = lists or round(_LISTS_PER_ROOT * math.sqrt(num_items))
    chosen = max(1, min(wanted, num_items // _FEWEST_PER_LIST))
    affordable = _MAX_TRAINING_BYTES // (4 * max(dimension, 1))
    return Plan(chosen, min(num_items, max(chosen, min(chosen * _ROWS_PER_LIST, affordable))))


def training_sample(items: Pieces, rows: int, seed: int) -> Vectors:
    """``rows`` different vectors drawn by the seed, in the order of their positions."""
    drawn = np.random.default_rng(seed).choice(len(items), rows, replace=False)
    return items.take(np.sort(drawn))


def train_centroids(sample: Vectors, lists: int, seed: int) -> Vectors:
    """``[lists, D]`` of unit length: spherical k-means over the sample."""
    means = faiss.Kmeans(
        sample.shape[1],
        lists,
        niter=_ROUNDS,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=max(_ROWS_PER_LIST, -(-len(sample) // lists)),
    )
    means.train(sample)
    return np.ascontiguousarray(means.centroids, np.float32)


def coarse(centroids: Vectors) -> Any:
    """What assigns vectors to lists: the nearest centroid by inner product."""
    quantizer = faiss.IndexFlatIP(centroids.shape[1])
    quantizer.add(centroids)
    return quantizer


def build(centroids: Vectors, vectors: Vectors) -> Any:
    """The vectors ``[n, D]`` in the lists of these centroids, each under its row number."""
    index = faiss.IndexIVFFlat(coarse(centroids), centroids.shape[1], len(centroids), faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(vectors))
    return index


def read_mapped(path: Path) -> Any:
    """An index whose lists stay on disk, memory-mapped: the workers of one machine share the pages."""
    index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    on_disk: Any = faiss.downcast_InvertedLists(index.invlists)
    on_disk.prefetch_nthread = 0  # else each search starts 32 threads
    return index


@dataclass(frozen=True)
class Index:
    """Items and an inverted file over each of their pieces; all pieces share the centroids, so the same lists are read
    and the result does not depend on how the items were split."""

    items: Pieces
    centroids: Vectors
    files: tuple[Any, ...]

    @classmethod
    def of(cls, items: Vectors | Pieces, seed: int, lists: int | None = None) -> Index:
        """Train and build in memory.

        Raises:
            InputError: no items, another type than float32 ``[N, D]``, or values that are not finite.
        """
        pieces = Pieces.of(items)
        for array in pieces.arrays:
            check_vectors(array, "item")
        if not len(pieces):
            raise InputError("item vectors", "no rows", "at least one item")
        size = plan(len(pieces), pieces.dimension, lists)
        centroids = train_centroids(training_sample(pieces, size.training_rows, seed), size.lists, seed)
        return cls(pieces, centroids, tuple(build(centroids, array) for array in pieces.arrays))

    @property
    def max_effort(self) -> int:
        """At this effort every list is read."""
        return len(self.centroids)

    @cached_property
    def _coarse(self) -> Any:
        return coarse(self.centroids)

    def search(self, queries: Vectors, k: int, effort: int, block: int = QUERY_BLOCK) -> Lists:
        """About the ``k`` nearest items of each query ``[Q, D]`` (all N where there are fewer), scores exact.

        Args:
            effort: lists read per query.

        Raises:
            InputError: as ``exact.nearest``.
        """
        check_vectors(queries, "query", self.items.dimension)
        length = min(k, len(self.items))
        parts = [self._of_block(queries[s : s + block], length, effort) for s in range(0, len(queries), block)]
        return stacked(parts) if parts else nearest(queries, self.items, k)

    def _of_block(self, queries: Vectors, length: int, effort: int) -> Lists:
        near, lists = self._coarse.search(queries, min(effort, self.max_effort))
        for file in self.files:
            file.nprobe = lists.shape[1]
        found = [file.search_preassigned(queries, length, lists, near) for file in self.files]
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        cols = np.concatenate(
            [ids + np.where(ids >= 0, offset, 0) for (_, ids), offset in zip(found, self.items.offsets[:-1], strict=True)], axis=1
        )
        scores[cols < 0] = -np.inf
        short = np.flatnonzero((cols >= 0).sum(axis=1) < length)
        lists_ = self._cut(queries, scores, cols, length, short)
        if len(short):  # the lists it read hold fewer than k items
            lists_.put(short, nearest(queries[short], self.items, length))
        return lists_

    def _cut(self, queries: Vectors, scores: Vectors, cols: Ints, length: int, short: Ints) -> Lists:
        """Rank what the files found, leaving out what rounding cannot bring into the list."""
        last = np.partition(scores, scores.shape[1] - length, axis=1)[:, scores.shape[1] - length]
        scores[short] = -np.inf
        kept = scores >= (last - slack(queries, self.items))[:, None]
        kept[short] = False
        kept[short, :length], cols[short, :length] = True, np.arange(length)  # any; they are replaced
        rows, places = np.nonzero(kept)
        return ranked(queries, self.items, rows, cols[rows, places], length)
