"""Item neighbours of a large catalogue by all partners: short lists against the comparison of all items with all.

Our side is the stage's own path from item vectors to a Delta table of lists with reasons for every item, the index and the
check of agreement included. The rival is the stage's exact path on a sample of anchors, scaled to all: all would take hours.
Vectors, titles and counts follow the same clusters, as those of one catalogue do.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session, write_delta
from benchmarks.speed.approximate import clustered
from benchmarks.timing import Way, alternate, log, scratch, warm_up
from recsys_spark.config import Config, parse_config
from recsys_spark.recommend.arrow import OUTPUT
from recsys_spark.recommend.catalogue import Item, build_catalogue, in_tie_order
from recsys_spark.recommend.neighbours.choose import Anchors, neighbour_lists
from recsys_spark.recommend.neighbours.whole_catalogue import neighbour_batches
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems, TextItems
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.worker import Side, Task

K, DIMENSION, NOISE, CLUSTER = 20, 64, 1.0, 200  # CLUSTER: items of one topic
_WEIGHTS = {"encoder": 1.0, "cooccurrence": 0.3, "text": 0.1, "popularity": 1e-3}  # the stage's prior
_TOPIC_WORDS, _COMMON_WORDS, _TOGETHER = 12, 5_000, 20  # _TOGETHER: co-occurring items per item


def made_side(num_items: int) -> Side:
    """Items 0..N-1, each of a random topic; one in ten is not available."""
    rng = np.random.default_rng(1)
    topics = max(1, num_items // CLUSTER)
    topic = np.random.default_rng([1, 0]).integers(0, topics, num_items)
    items = in_tie_order((Item(n, str(n), None, text, None, None, n % 10 != 0) for n, text in enumerate(_titles(topic, rng))), 0)
    catalogue = build_catalogue(items, Rule())
    order = catalogue.item_idx
    by_topic = np.argsort(topic[order], kind="stable")
    first = np.searchsorted(topic[order][by_topic], np.arange(topics + 1))
    anchors = np.repeat(np.arange(num_items), _TOGETHER)
    mine = topic[order][anchors]
    others = by_topic[first[mine] + (rng.random(len(anchors)) * (first[mine + 1] - first[mine])).astype(np.int64)]
    together = RelatedItems.of(anchors, others, rng.random(len(anchors)), num_items)
    vectors = _vectors(topic, topics)[order]
    counts = PopularityItems(np.floor(rng.pareto(1.0, num_items) * 5))
    return Side(catalogue, Partners(counts, EncoderItems.of(vectors), together, TextItems.of([item.text for item in items])))


def _vectors(topic: Any, topics: int) -> Any:
    centres = clustered(topics, DIMENSION, topics, 0.0, 2, 0)
    noise = np.random.default_rng(3).standard_normal((len(topic), DIMENSION), np.float32) * np.float32(NOISE / np.sqrt(DIMENSION))
    found = centres[topic] + noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _titles(topic: Any, rng: np.random.Generator) -> list[str]:
    """Three words of the topic and three of all, the latter with the frequencies of a language."""
    own = rng.integers(0, _TOPIC_WORDS, (len(topic), 3))
    common = np.minimum(rng.zipf(1.3, (len(topic), 3)), _COMMON_WORDS)
    return [
        " ".join([*(f"t{t}w{w}" for w in mine), *(f"common{w}" for w in shared)])
        for t, mine, shared in zip(topic.tolist(), own.tolist(), common.tolist(), strict=True)
    ]


def approximate_neighbours(scale: Scale) -> Figures:
    """Row ``approximate-neighbours``; lists count as equal where agreement with the exact ones reaches the floor."""
    spark, num_items, sample = bench_session(), scale.pick(200_000, 2_000), scale.pick(2_000, 200)
    side = made_side(num_items)
    broadcast = spark.sparkContext.broadcast(side)
    facts: dict[str, Any] = {}
    with scratch() as folder:
        work = Anchors(_config(folder), side, broadcast, _vector_rows(spark, side, folder), Task(_WEIGHTS, K, 1.0, 3, 512, 4_096))
        sides: dict[str, Way] = {
            "ours": functools.partial(_ours, work, spark, facts),
            "rival": functools.partial(_rival, work, spark, sample),
        }
        warm_up(sides, folder)
        timed = alternate(sides, scale.rounds, folder, {"ours": num_items, "rival": sample}, "anchors")
    broadcast.unpersist()
    scaled = num_items / sample
    log.info("neighbours", **facts)
    medians = timed.medians() | {"rival_s": timed.median_s("rival") * scaled}
    more = {"items": num_items, "k": K, "rival_anchors": sample, "dimension": DIMENSION, "noise": NOISE} | facts
    more["master"] = str(spark.sparkContext.master)
    return Figures(timed.ratio("rival", "ours") * scaled, medians, timed.rounds, facts["method"] == "approximate", more)


def _config(folder: Path) -> Config:
    events = {"path": "none.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}
    return parse_config(
        {
            "as_of": datetime(2024, 1, 1, tzinfo=UTC),
            "warehouse": str(folder / "warehouse"),
            "ingest": {"events": events},
            "search": {"exact_below": 1},
        }
    )


def _vector_rows(spark: SparkSession, side: Side, folder: Path) -> Any:
    encoder = side.partners.encoder
    if encoder is None:
        raise ValueError("a side without an encoder")
    flat = pa.array(encoder.vectors.ravel())
    vectors = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, DIMENSION, dtype=np.int32)), flat)
    pq.write_table(pa.table({"item_idx": pa.array(side.catalogue.item_idx), "vector": vectors}), folder / "vectors.parquet")
    return spark.read.parquet(str(folder / "vectors.parquet"))


def _ours(work: Anchors, spark: SparkSession, facts: dict[str, Any], target: Path) -> None:
    """Each run finds its index standing but the first, which is not counted: as in a night whose items have not changed."""
    with neighbour_lists(work, spark) as (made, found):
        write_delta(made.frame, target)
    facts |= found


def _rival(work: Anchors, spark: SparkSession, sample: int, target: Path) -> None:
    make = functools.partial(neighbour_batches, broadcast=work.broadcast, task=work.task)
    write_delta(work.positions(spark, sample, sample // 8).mapInArrow(make, OUTPUT), target)
