"""Top-100 of clustered unit vectors: the exact search against the approximate one, alternating in one process.

Both search by blocks of queries in as many threads as there are cores, one thread of arithmetic each, as Spark's workers do;
both end with exact float64 scores. The effort is tuned on a sample of the queries; the recall printed is that of all queries
timed exactly. faiss's own exact index runs once over some queries, so that the rival is the faster of the two exact ways.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import torch

from benchmarks.row import Figures, Scale
from benchmarks.timing import log
from recsys_spark.search.approximate import Index, one_thread
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists, recall, stacked
from recsys_spark.search.tuning import tune
from recsys_spark.search.vectors import Pieces, Vectors, unit

K, BLOCK, SAMPLE, TARGET, LEAST_RECALL = 100, 512, 400, 0.98, 0.97
DIMENSION, NOISE = 64, 0.6  # noise: length of a vector's displacement from its cluster's centre
THREADS = os.cpu_count() or 1


def clustered(num: int, dim: int, clusters: int, noise: float, seed: int, part: int) -> Vectors:
    """``[num, dim]`` unit vectors around ``clusters`` random directions; ``noise`` is the length of the mean displacement.

    Items and queries (parts of one seed) share the directions.
    """
    centres = unit(np.random.default_rng(seed).normal(size=(clusters, dim)).astype(np.float32))
    rng = np.random.default_rng([seed, part])
    displaced = rng.standard_normal((num, dim), np.float32) * np.float32(noise / np.sqrt(dim))
    return unit(centres[rng.integers(0, clusters, num)] + displaced)


def _quiet() -> None:
    torch.set_num_threads(1)
    one_thread()


def in_blocks(search: Callable[[Vectors], Lists], queries: Vectors) -> Lists:
    """All queries by ``THREADS`` threads, block by block."""
    with ThreadPoolExecutor(THREADS, initializer=_quiet) as pool:
        return stacked(list(pool.map(search, [queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK)])))


def timed(search: Callable[[Vectors], Lists], queries: Vectors) -> tuple[float, Lists]:
    start = time.monotonic()
    lists = in_blocks(search, queries)
    return time.monotonic() - start, lists


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
    seconds: dict[str, list[float]] = {"rival_s": [], "ours_s": []}
    reached = 0.0
    for number in range(1, scale.rounds + 1):
        exact_s, exact = timed(lambda block: nearest(block, pieces, K), queries)
        ours_s, found = timed(lambda block: index.search(block, K, tuned.effort), queries)
        seconds["rival_s"].append(exact_s)
        seconds["ours_s"].append(ours_s)
        reached = recall(found, exact)
        log.info(
            f"round {number} of {scale.rounds}", exact_s=round(exact_s, 2), ours_s=round(ours_s, 2), recall=round(reached, 4)
        )
    few = queries[:1_000]
    flat_s = faiss_flat_seconds(items, few) * len(queries) / len(few)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    ratio = statistics.median(e / o for e, o in zip(seconds["rival_s"], seconds["ours_s"], strict=True))
    ratio = min(ratio, flat_s / medians["ours_s"])  # against the faster of the two exact searches
    more = {"vectors": num, "queries": num_queries, "dimension": DIMENSION, "noise": NOISE, "k": K, "threads": THREADS}
    more |= {"faiss_flat_s": round(flat_s, 2), "effort": tuned.effort, "lists": index.max_effort}
    more |= {"recall": round(reached, 4), "build_s": round(build_seconds, 1)}
    return Figures(round(ratio, 3), medians, scale.rounds, reached >= LEAST_RECALL, more)
