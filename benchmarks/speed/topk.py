"""Exact top-100 of 40,000 users over 60,000 items by inner product, seen items left out, into Delta.

Our side is the recommend stage's own path: ``worker.list_batches`` with the encoder as the only partner, from Parquet rows
of users and a frame of item vectors to list rows with scores, as ``recommend.max_reasons = 0`` makes them: the rivals give
no reasons. ``explained`` are the same lists with three reasons each, ``checked`` these through the store, as in a night. The
catalogue, which a night makes once for all its systems, stands.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.compare import is_exact_list
from benchmarks.machine import num_cores
from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session, commit_files, read_delta
from benchmarks.speed.factors import Factors, make_factors
from benchmarks.speed.rivals.als import save_model, write_recommendations
from benchmarks.speed.rivals.sgemm import all_products, threads
from benchmarks.timing import Way, alternate, log, scratch, seconds_of, warm_up
from recsys_spark.config.serving import RecommendSettings
from recsys_spark.recommend.arrow import OUTPUT
from recsys_spark.recommend.catalogue import Catalogue, Item, build_catalogue, in_tie_order
from recsys_spark.recommend.gather import encoder_items
from recsys_spark.recommend.list_files import COLUMNS, files_of, with_files
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems
from recsys_spark.recommend.worker import LISTS, Side, Task, list_batches
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.task_files import Made, Staged, partition_text, target_of

K = 100
_MAX_REASONS = RecommendSettings().max_reasons
_SAMPLE_USERS, _SLOW_S = 8_000, 600.0  # a rival that would take longer is timed on a sample
_CHECKED_USERS = 100
_TOLERANCE = 1e-5  # of float32 sums of 128 products
_RUN_AT = datetime(2024, 1, 1, tzinfo=UTC)


def catalogue_of(num_items: int) -> Catalogue:
    """Items without text or attributes; an item's id is its number."""
    items = (Item(number, str(number), None, "", None, None, True) for number in range(num_items))
    return build_catalogue(in_tie_order(items, 0), Rule())


@contextmanager
def _lists(spark: SparkSession, source: Path, catalogue: Catalogue, target: str, max_reasons: int) -> Iterator[Staged]:
    """The rows of table recommendations in files, as the stage has its tasks write them."""
    vectors = encoder_items(spark.read.parquet(str(source / "items")), catalogue)
    side = spark.sparkContext.broadcast(Side(catalogue, Partners(PopularityItems(np.zeros(len(catalogue))), vectors)))
    settings = RecommendSettings()
    task = Task({"encoder": 1.0}, K, settings.decay, max_reasons, settings.user_block, settings.item_tile)
    users = spark.read.parquet(str(source / "users")).repartition(2 * spark.sparkContext.defaultParallelism, "user_id")
    try:
        made = Made(users, functools.partial(list_batches, broadcast=side, task=task), OUTPUT)
        constants = {"model_version": 1, "run_id": "benchmark"}
        files = with_files(made, LISTS, COLUMNS[LISTS], target_of(target, contract(LISTS), constants))
        yield Staged(target, files_of(files.frame), {"as_of": partition_text(_RUN_AT)})
    finally:
        side.unpersist()


def ours(spark: SparkSession, source: Path, catalogue: Catalogue, target: Path, max_reasons: int = 0) -> None:
    """Into a new Delta table of the lists' contract."""
    with _lists(spark, source, catalogue, str(target), max_reasons) as staged:
        commit_files(spark, staged, LISTS, target)


def ours_checked(spark: SparkSession, source: Path, catalogue: Catalogue, target: Path) -> None:
    """Through the store, which proves contract and keys."""
    store = Store(spark, str(target))
    with _lists(spark, source, catalogue, store.path(LISTS, "live"), _MAX_REASONS) as staged:
        store.replace(LISTS, "live", staged, Commit("benchmark", "recommend", "none"))


def als_128(scale: Scale) -> Figures:
    """Row ``topk-als-128``."""
    return _against_als(scale, 128)


def als_32(scale: Scale) -> Figures:
    """Row ``topk-als-32``."""
    return _against_als(scale, 32)


def _data(scale: Scale, dimension: int) -> Factors:
    return make_factors(scale.pick(40_000, 150), scale.pick(60_000, 400), dimension)


def _against_als(scale: Scale, dimension: int) -> Figures:
    spark, factors = bench_session(), _data(scale, dimension)
    num_users = len(factors.users)
    with scratch() as folder:
        factors.write(folder)
        catalogue = catalogue_of(len(factors.items))
        model, rival_users = _rival(spark, factors, folder)
        sides: dict[str, Way] = {
            "ours": functools.partial(ours, spark, folder, catalogue),
            "explained": functools.partial(ours, spark, folder, catalogue, max_reasons=_MAX_REASONS),
            "checked": functools.partial(ours_checked, spark, folder, catalogue),
            "rival": functools.partial(write_recommendations, model, K),
        }
        warm = warm_up(sides, folder)
        checked = _chosen(factors)[:_CHECKED_USERS].tolist()
        equal = _all_exact(factors, our_lists(spark, warm["ours"], checked), checked, filtered=True)
        equal = equal and _all_exact(factors, als_lists(spark, warm["rival"], checked), checked, filtered=False)
        work = dict.fromkeys(sides, num_users) | {"rival": rival_users}
        timed = alternate(sides, scale.rounds, folder, work, "users")
    scaled = num_users / rival_users  # 1 where the rival ran for all users
    more = _sizes(factors, spark) | {
        "ratio_explained": round(timed.ratio("rival", "explained") * scaled, 3),
        "ratio_checked": round(timed.ratio("rival", "checked") * scaled, 3),
        "rival_users": rival_users,
        "rival_scaled_from_a_sample": scaled > 1,
    }
    medians = timed.medians() | {"rival_s": timed.median_s("rival") * scaled}
    return Figures(timed.ratio("rival", "ours") * scaled, medians, timed.rounds, equal, more)


def _rival(spark: SparkSession, factors: Factors, folder: Path) -> tuple[ALSModel, int]:
    """The model to be timed and its number of users: all, or a seeded sample where all would take too long."""
    num_users, chosen = len(factors.users), _chosen(factors)
    if len(chosen) == num_users:
        return save_model(spark, folder / "model", factors.users, factors.items), num_users
    sample = save_model(spark, folder / "sample-model", factors.users[chosen], factors.items, chosen)
    expected_s = seconds_of(functools.partial(write_recommendations, sample, K), folder / "trial") * num_users / len(chosen)
    log.info("rival", expected_s=round(expected_s, 1), users=num_users)
    if expected_s > _SLOW_S:
        return sample, len(chosen)
    return save_model(spark, folder / "model", factors.users, factors.items), num_users


def against_sgemm(scale: Scale) -> Figures:
    """Row ``topk-sgemm-128``."""
    spark, factors = bench_session(), _data(scale, 128)
    cores = num_cores()
    users, items = torch.from_numpy(factors.users), torch.from_numpy(factors.items)
    with scratch() as folder, threads(cores):
        factors.write(folder)
        catalogue = catalogue_of(len(factors.items))
        sides: dict[str, Way] = {
            "ours": functools.partial(ours, spark, folder, catalogue),
            "rival": lambda _target: all_products(users, items),
        }
        warm = warm_up(sides, folder)
        checked = _chosen(factors)[:_CHECKED_USERS].tolist()
        equal = _all_exact(factors, our_lists(spark, warm["ours"], checked), checked, filtered=True)
        timed = alternate(sides, scale.rounds, folder, len(factors.users), "users")
    more = _sizes(factors, spark) | {"rival_threads": cores}
    return Figures(timed.ratio("ours", "rival"), timed.medians(), timed.rounds, equal, more)


def _sizes(factors: Factors, spark: SparkSession) -> dict[str, object]:
    shape = {"users": len(factors.users), "items": len(factors.items), "dimension": factors.users.shape[1]}
    return {**shape, "k": K, "seen_per_user": factors.seen.shape[1], "master": str(spark.sparkContext.master)}


def our_lists(spark: SparkSession, folder: Path, users: Sequence[int]) -> dict[int, list[int]]:
    """The lists of some users, best first, out of our table."""
    rows = read_delta(spark, folder).where(F.col("user_id").isin([str(user) for user in users]))
    return _by_user(rows.select(F.col("user_id").cast("int"), "rank", F.col("item_id").cast("int")).collect())


def als_lists(spark: SparkSession, folder: Path, users: Sequence[int]) -> dict[int, list[int]]:
    """The same out of the table of ``recommendForAllUsers``."""
    rows = read_delta(spark, folder).where(F.col("user").isin(list(users)))
    ranked = rows.select("user", F.posexplode("recommendations").alias("rank", "item"))
    return _by_user(ranked.select("user", "rank", "item.item").collect())


def _by_user(rows: Sequence[tuple[int, int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for user, _, item in sorted(rows):
        found.setdefault(user, []).append(item)
    return found


def _chosen(factors: Factors) -> npt.NDArray[np.int32]:
    """The users of the rival's sample, in seeded order; the first of them are checked."""
    num_users = len(factors.users)
    return np.random.default_rng(3).choice(num_users, min(_SAMPLE_USERS, num_users), replace=False).astype(np.int32)


def _all_exact(factors: Factors, lists: dict[int, list[int]], users: Sequence[int], filtered: bool) -> bool:
    """Whether the list of each of ``users`` is the exact one, by a full sort in float64."""

    def exact(user: int) -> bool:
        seen = set(factors.seen[user].tolist()) if filtered else set()
        return is_exact_list(lists.get(user, []), factors.scores(user), seen, K, _TOLERANCE)

    return all(exact(user) for user in users)
