"""All rows of the suite, in the order they run in."""

from __future__ import annotations

import torch

from benchmarks.row import Need, Row, setting
from benchmarks.speed import (
    approximate,
    cooccurrence,
    doubling,
    encoding,
    feed,
    neighbours,
    one_more_day,
    pipeline,
    topk,
    train_pairs,
)
from recsys_spark.encoder.text_source import resolve_dtype

GPU = Need("GPU", torch.cuda.is_available, "run it on a machine with a GPU that CUDA sees")
_BFLOAT16 = resolve_dtype("auto") == "bfloat16"  # computed in by the hardware

ROWS = (
    Row(
        "cooccurrence-self-join",
        "co-occurrence top-100 of 3.85M events, Parquet to Delta",
        "a DataFrame self-join",
        required=7,
        aim=10,
        run=cooccurrence.against_self_join,
    ),
    Row(
        "cooccurrence-scipy",
        "the same",
        "SciPy in one thread without Spark",
        required=1.6,
        aim=1.1,
        run=cooccurrence.against_scipy,
        at_most=True,
    ),
    Row(
        "cooccurrence-doubling",
        "co-occurrence from 1M to 32M events",
        "itself at half the size",
        required=1.9,
        aim=None,
        run=doubling.doubling,
        at_most=True,
    ),
    Row(
        "cooccurrence-one-more-day",
        "3% new events into the state of 32M events",
        "the whole state counted anew",
        required=5,
        aim=10,
        run=one_more_day.one_more_day,
    ),
    Row(
        "topk-als-128",
        "exact top-100 of 40,000 users over 60,000 items, 128 dimensions, to Delta",
        "ALSModel.recommendForAllUsers",
        required=10,
        aim=14,
        run=topk.als_128,
    ),
    Row(
        "topk-als-32",
        "the same in 32 dimensions",
        "ALSModel.recommendForAllUsers",
        required=15,
        aim=20,
        run=topk.als_32,
    ),
    Row(
        "topk-sgemm-128",
        "the same in 128 dimensions",
        "the products alone, by torch",
        required=3.2,
        aim=2.2,
        run=topk.against_sgemm,
        at_most=True,
    ),
    Row(
        "approximate-search",
        "top-100 of 10,000 queries over 1M clustered vectors in 64 dimensions, at recall .97 or more",
        "the faster of two exact searches",
        required=8,
        aim=20,
        run=approximate.approximate_search,
    ),
    Row(
        "approximate-neighbours",
        "20 neighbours of each of 200,000 items by all partners from short lists, to Delta",
        "the comparison of all items with all",
        required=None,
        aim=None,
        run=neighbours.approximate_neighbours,
    ),
    Row(
        "encoding",
        "50,000 titles by MiniLM on executors, into the shared table",
        "encode() of sentence-transformers",
        required=2.4 if _BFLOAT16 else 1.1,
        aim=2.8 if _BFLOAT16 else None,
        run=encoding.encoding,
    ),
    Row(
        "feed",
        "rows a second of the Petastorm feed alone",
        "rows a second that training steps use",
        required=20,
        aim=None,
        run=feed.feed,
    ),
    Row(
        "train-pairs",
        "steps a second of MiniLM learning from 64 pairs of titles, Parquet through Petastorm",
        "MultipleNegativesRankingLoss of sentence-transformers",
        required=1.0,
        aim=1.2,
        run=train_pairs.train_pairs,
    ),
    Row(
        "train-pairs-gpu",
        "the same with 512 pairs a step in bfloat16 on a GPU",
        "MultipleNegativesRankingLoss of sentence-transformers",
        required=1.0,
        aim=1.2,
        run=train_pairs.train_pairs_gpu,
        needs=GPU,
    ),
    Row(
        "whole-pipeline",
        "seconds, peak memory and spill of a whole night on data of your own",
        "nothing",
        required=None,
        aim=None,
        run=pipeline.whole_pipeline,
        needs=setting("BENCH_DATA"),
    ),
)
