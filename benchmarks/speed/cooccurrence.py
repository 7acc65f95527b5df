"""Co-occurrence top-100: the project's job against a well-written DataFrame self-join, alternating in one session.

    python -m benchmarks.speed.cooccurrence --scale 0.25 --rounds 3

Scale 1 has 402,727 baskets of 2 to 50 distinct items (3.85M events) over 60,000 items of Zipf popularity; smaller scales
have fewer baskets. Parquet in, Parquet out, minimum support 2. The last line is one JSON line of the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from recsys_spark.config.serving import SparkSettings
from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.count import cooccurrences
from recsys_spark.session import build_session

BASKETS, ITEMS, TOP_N, SUPPORT = 402_727, 60_000, 100, 2


def generate(path: Path, scale: float, seed: int = 1) -> int:
    """Write ``basket, item_idx, ts`` in four files; returns the number of rows. Sizes are 2 + geometric, at most 50."""
    rng = np.random.default_rng(seed)
    num_baskets = max(1, round(BASKETS * scale))
    sizes = np.minimum(1 + rng.geometric(1 / 8.6, num_baskets), 50)
    basket = np.repeat(np.arange(num_baskets, dtype=np.int64), sizes)
    chance = 1.0 / np.arange(10, ITEMS + 10) ** 0.9
    item = rng.permutation(ITEMS).astype(np.int32)[np.searchsorted(np.cumsum(chance / chance.sum()), rng.random(len(basket)))]
    kept = np.unique(basket << 32 | np.minimum(item, ITEMS - 1))
    rng.shuffle(kept)
    path.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(kept, 4)):
        columns = {"basket": part >> 32, "item_idx": (part & 0xFFFFFFFF).astype(np.int32)}
        times = pa.array(np.zeros(len(part), dtype=np.int64), pa.timestamp("us", tz="UTC"))
        pq.write_table(pa.table({**columns, "ts": times}), path / f"part-{number}.parquet")
    return len(kept)


def self_join(rows: DataFrame, min_support: int, top_n: int) -> DataFrame:
    """Pairs a < b once by a join, counted, mirrored, scored by cosine and ranked per item_a.

    Ties are broken by the item's number. Returns item_a, item_b, num_baskets, num_baskets_a, num_baskets_b, cosine, rank_a.
    """
    entries = rows.select("basket", "item_idx").distinct().persist()
    held = entries.groupBy("item_idx").agg(F.count(F.lit(1)).alias("held"))
    left, right = entries.withColumnRenamed("item_idx", "item_a"), entries.withColumnRenamed("item_idx", "item_b")
    half = (
        left.join(right, "basket")
        .where("item_a < item_b")
        .groupBy("item_a", "item_b")
        .agg(F.count(F.lit(1)).alias("num_baskets"))
    )
    half = half.where(F.col("num_baskets") >= min_support)
    both = half.union(half.select(F.col("item_b"), F.col("item_a"), F.col("num_baskets")))
    for side in ("a", "b"):
        sided = held.select(F.col("item_idx").alias(f"item_{side}"), F.col("held").alias(f"num_baskets_{side}"))
        both = both.join(F.broadcast(sided), f"item_{side}")
    n, a, b = (F.col(c).cast("double") for c in ("num_baskets", "num_baskets_a", "num_baskets_b"))
    scored = both.withColumn("cosine", F.sqrt(n * n / (a * b)))
    order = Window.partitionBy("item_a").orderBy(F.desc("cosine"), F.asc("item_b"))
    ranked = scored.withColumn("rank_a", F.row_number().over(order)).where(F.col("rank_a") <= top_n)
    return ranked.select("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "cosine", "rank_a")


def ours(rows: DataFrame, target: str) -> None:
    settings = CooccurrenceSettings(measures=["cosine"], rank_by="cosine", min_support=SUPPORT, top_n=TOP_N)
    hashes = np.arange(ITEMS, dtype=np.uint64)  # ties by number, as the self-join breaks them
    with cooccurrences(rows, settings, datetime(2000, 1, 1, tzinfo=UTC), hashes=hashes) as counted:
        wanted = ("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "cosine", "rank_a")
        counted.frame.select(*wanted).write.mode("overwrite").parquet(target)


def theirs(rows: DataFrame, target: str) -> None:
    self_join(rows, SUPPORT, TOP_N).write.mode("overwrite").parquet(target)
    rows.sparkSession.catalog.clearCache()


def timed(way: Callable[[DataFrame, str], None], rows: DataFrame, target: str) -> float:
    start = time.monotonic()
    way(rows, target)
    return time.monotonic() - start


def same(spark: SparkSession, left: str, right: str) -> bool:
    one, two = spark.read.parquet(left), spark.read.parquet(right)
    columns = [c for c in one.columns if c != "cosine"]
    rounded = [f.select(*columns, F.round("cosine", 9)) for f in (one, two)]
    return rounded[0].exceptAll(rounded[1]).isEmpty() and one.count() == two.count()


def main(scale: float, rounds: int) -> None:
    spark = build_session(SparkSettings(master="local[*]"), "bench-cooccurrence")
    with tempfile.TemporaryDirectory() as folder:
        num_rows = generate(Path(folder) / "rows", scale)
        rows = spark.read.parquet(f"{folder}/rows")
        for way, name in ((ours, "ours"), (theirs, "theirs")):  # warm-up
            timed(way, rows, f"{folder}/{name}")
        equal = same(spark, f"{folder}/ours", f"{folder}/theirs")
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            seconds["ours"].append(timed(ours, rows, f"{folder}/ours"))
            seconds["theirs"].append(timed(theirs, rows, f"{folder}/theirs"))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(t / o for t, o in zip(seconds["theirs"], seconds["ours"], strict=True))
    print(f"{num_rows:,} events, top {TOP_N}, support {SUPPORT}, rows equal: {equal}")
    print(f"blocked job {middle['ours']:.2f} s, self-join {middle['theirs']:.2f} s (medians of {rounds}), ratio {ratio:.2f}")
    figures = {"benchmark": "cooccurrence", "scale": scale, "events": num_rows, "rounds": rounds, "equal": equal}
    figures |= {"ours_s": round(middle["ours"], 2), "self_join_s": round(middle["theirs"], 2), "ratio": round(ratio, 2)}
    print(json.dumps(figures))
    spark.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.scale, arguments.rounds)
