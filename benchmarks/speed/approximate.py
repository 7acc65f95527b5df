"""Top-100 of clustered unit vectors: the exact search against the approximate one, alternating in one process.

    python -m benchmarks.speed.approximate --vectors 1000000 --queries 10000 --dim 64

Both search by blocks of queries in as many threads as there are cores, one thread of arithmetic each, as Spark's workers do;
both end with exact float64 scores. The effort is tuned on a sample of the queries; the recall printed is that of all queries
timed exactly. faiss's own exact index runs once over some queries, so that the rival is the faster of the two exact ways.
The last line is one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import torch

from recsys_spark.search.approximate import Index, one_thread
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists, recall, stacked
from recsys_spark.search.tuning import tune
from recsys_spark.search.vectors import Pieces, Vectors, unit

K, BLOCK, SAMPLE, TARGET, REQUIRED = 100, 512, 400, 0.98, 8
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


def main(num: int, num_queries: int, dim: int, noise: float, rounds: int, exact_queries: int) -> None:
    clusters = max(1, num // 1_000)
    items, queries = (clustered(n, dim, clusters, noise, 1, part) for part, n in enumerate((num, num_queries)))
    some = queries[: min(exact_queries, num_queries)]
    faiss.omp_set_num_threads(THREADS)
    start = time.monotonic()
    index = Index.of(items, seed=1)
    build_seconds = time.monotonic() - start
    print(f"index of {num:,} vectors: {index.max_effort} lists, built in {build_seconds:.1f} s", flush=True)
    pieces = Pieces.of(items)
    sample = queries[-min(SAMPLE, num_queries) :]
    exact_sample = in_blocks(lambda block: nearest(block, pieces, K), sample)
    start = time.monotonic()
    tuned = tune(lambda part, effort: index.search(sample[part], K, effort), exact_sample, TARGET, index.max_effort)
    print(f"effort {tuned.effort}, recall {tuned.recall:.4f} held out, {time.monotonic() - start:.1f} s to tune", flush=True)
    exact_seconds, seconds, reached = [], [], 0.0
    for number in range(rounds):
        one, exact = timed(lambda block: nearest(block, pieces, K), some)
        other, found = timed(lambda block: index.search(block, K, tuned.effort), queries)
        exact_seconds.append(one * len(queries) / len(some))
        seconds.append(other)
        reached = recall(Lists(found.positions[: len(some)], found.scores[: len(some)]), exact)
        print(f"round {number + 1}: exact {exact_seconds[-1]:.2f} s, approximate {other:.2f} s, recall {reached:.4f}", flush=True)
    few = queries[:1_000]
    flat = faiss_flat_seconds(items, few) * len(queries) / len(few)
    best_exact, middle = min(statistics.median(exact_seconds), flat), statistics.median(seconds)
    ratio = best_exact / middle
    print(f"exact {statistics.median(exact_seconds):.2f} s, faiss flat {flat:.2f} s (from {len(few)} queries)")
    print(f"approximate {middle:.2f} s, recall@{K} {reached:.4f}, ratio {ratio:.1f}; {THREADS} threads, medians of {rounds}")
    figures = {
        "row": "approximate",
        "vectors": num,
        "queries": num_queries,
        "dim": dim,
        "noise": noise,
        "k": K,
        "threads": THREADS,
        "exact_queries": len(some),
        "exact_s": round(statistics.median(exact_seconds), 2),
        "faiss_flat_s": round(flat, 2),
        "approximate_s": round(middle, 2),
        "effort": tuned.effort,
        "lists": index.max_effort,
        "ratio": round(ratio, 1),
        "required": REQUIRED,
        "recall": round(reached, 4),
        "met": bool(ratio >= REQUIRED and reached >= 0.97),
        "build_seconds": round(build_seconds, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--noise", type=float, default=0.6, help="length of a vector's displacement from its cluster's centre")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exact-queries", type=int, default=10_000, help="queries the exact search is timed on, scaled up")
    a = parser.parse_args()
    main(a.vectors, a.queries, a.dim, a.noise, a.rounds, a.exact_queries)
