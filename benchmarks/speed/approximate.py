"""Top-100 of clustered unit vectors: the exact search against the approximate one, alternating in one process.

Both search by blocks of queries in as many threads as there are cores, one thread of arithmetic each, as Spark's workers do;
both end with exact float64 scores. The effort is tuned on a sample of the queries; the recall printed is that of all queries
timed exactly. faiss's own exact index runs once over some queries, so that the rival is the faster of the two exact ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np

from benchmarks.machine import num_cores
from benchmarks.row import Figures, Scale
from benchmarks.timing import Way, alternate, log, scratch
from recsys_spark.search.approximate import Index
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists, recall, stacked
from recsys_spark.search.tuning import tune
from recsys_spark.search.vectors import Pieces, Vectors, unit
from recsys_spark.threads import one_thread

K, BLOCK, SAMPLE, TARGET, LEAST_RECALL = 100, 512, 400, 0.98, 0.97
DIMENSION, NOISE = 64, 0.6  # noise: length of a vector's displacement from its cluster's centre
THREADS = num_cores()
Search = Callable[[Vectors], Lists]


def clustered(num: int, dim: int, clusters: int, noise: float, seed: int, part: int) -> Vectors:
    """``[num, dim]`` unit vectors around ``clusters`` random directions; ``noise`` is the length of the mean displacement.

    Items and queries (parts of one seed) share the directions.
    """
    centres = unit(np.random.default_rng(seed).normal(size=(clusters, dim)).astype(np.float32))
    rng = np.random.default_rng([seed, part])
    displaced = rng.standard_normal((num, dim), np.float32) * np.float32(noise / np.sqrt(dim))
    return unit(centres[rng.integers(0, clusters, num)] + displaced)


def in_blocks(search: Search, queries: Vectors) -> Lists:
    """All queries by ``THREADS`` threads, block by block."""
    with ThreadPoolExecutor(THREADS, initializer=one_thread) as pool:
        return stacked(list(pool.map(search, [queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK)])))


def faiss_flat_seconds(items: Vectors, queries: Vectors) -> float:
    """Seconds of faiss's own exact index, all threads."""
    faiss.omp_set_num_threads(THREADS)
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items)
    start = time.monotonic()
    flat.search(queries, K)
    return time.monotonic() - start


def approximate_search(scale: Scale) -> Figures:
    """Row ``approximate-search``; results count as equal where recall@100 is at least ``LEAST_RECALL``."""
    num, num_queries = scale.pick(1_000_000, 5_000), scale.pick(10_000, 200)
    clusters = max(1, num // 1_000)
    items, queries = (clustered(n, DIMENSION, clusters, NOISE, 1, part) for part, n in enumerate((num, num_queries)))
    faiss.omp_set_num_threads(THREADS)
    start = time.monotonic()
    index = Index.of(items, seed=1)
    build_seconds = time.monotonic() - start
    log.info("index built", vectors=num, lists=index.max_effort, seconds=round(build_seconds, 1))
    pieces = Pieces.of(items)
    sample = queries[-SAMPLE:]
    exact_sample = in_blocks(lambda block: nearest(block, pieces, K), sample)
    tuned = tune(lambda part, effort: index.search(sample[part], K, effort), exact_sample, TARGET, index.max_effort)
    found: dict[str, Lists] = {}
    searches: dict[str, Search] = {
        "rival": lambda block: nearest(block, pieces, K),
        "ours": lambda block: index.search(block, K, tuned.effort),
    }
    with scratch() as folder:
        sides = {name: _side(name, search, queries, found) for name, search in searches.items()}
        timed = alternate(sides, scale.rounds, folder, num_queries, "queries")
    reached = recall(found["ours"], found["rival"])
    few = queries[:1_000]
    flat_s = faiss_flat_seconds(items, few) * len(queries) / len(few)
    # against the faster of the two exact searches
    ratio = min(timed.ratio("rival", "ours"), flat_s / timed.median_s("ours"))
    more = {"vectors": num, "queries": num_queries, "dimension": DIMENSION, "noise": NOISE, "k": K, "threads": THREADS}
    more |= {"faiss_flat_s": round(flat_s, 2), "effort": tuned.effort, "lists": index.max_effort}
    more |= {"recall": round(reached, 4), "build_s": round(build_seconds, 1)}
    return Figures(ratio, timed.medians(), timed.rounds, reached >= LEAST_RECALL, more)


def _side(name: str, search: Search, queries: Vectors, found: dict[str, Lists]) -> Way:
    """All queries by one search, whose lists are left in ``found``: nothing is written, so nothing of that is timed."""

    def side(_target: Path) -> None:
        found[name] = in_blocks(search, queries)

    return side
