"""Protocol proof: the published SAR row on MovieLens-100K, to six decimals, with our own counting and metrics.

Protocol (the recommenders team's SAR benchmark): all 100,000 ratings are positives; 75% of each item's ratings are
train, drawn by one seeded vector in the order of the file; scores A S rank all train items not seen in train; k = 10;
means over the users of the test set. S is the Jaccard of binary user baskets with its diagonal of 1; A[u, i] is the
rating, halved for every 30 days it lies before the last train event. MAP divides by all relevant test items.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.count import cooccurrences
from recsys_spark.errors import InputError
from recsys_spark.evaluate.metrics import average_precision, ndcg, precision, recall

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PUBLISHED = {"map": 0.114038, "ndcg": 0.393819, "precision": 0.340615, "recall": 0.185377}
K, SEED, TRAIN_SHARE, HALF_LIFE_SECONDS = 10, 42, 0.75, 30 * 86_400.0
_COLUMNS = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
_METRICS = {"map": average_precision, "ndcg": ndcg, "precision": precision, "recall": recall}


@dataclass(frozen=True)
class Ratings:
    """Ratings with dense rows of users and items; all arrays have one entry per rating."""

    user_idx: NDArray[np.int32]
    item_idx: NDArray[np.int32]
    rating: Floats
    seconds: Floats
    num_users: int
    num_items: int

    def take(self, rows: NDArray[np.int64]) -> Ratings:
        return replace(
            self,
            user_idx=self.user_idx[rows],
            item_idx=self.item_idx[rows],
            rating=self.rating[rows],
            seconds=self.seconds[rows],
        )


def read_ratings(data_dir: Path) -> Ratings:
    """``ml-100k.inter`` (plain or .gz) of the folder, in the file's order.

    Raises:
        InputError: no such file, or not its columns.
    """
    paths = [data_dir / "ml-100k.inter", data_dir / "ml-100k.inter.gz"]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise InputError(str(data_dir), "no ml-100k.inter", "MovieLens-100K in this folder", "fetch it with recsys-spark demo")
    with gzip.open(found, "rt", encoding="utf-8") if found.suffix == ".gz" else found.open(encoding="utf-8") as lines:
        table = pd.read_csv(lines, sep="\t")
    if list(table.columns) != _COLUMNS:
        raise InputError(str(found), f"columns {list(table.columns)}", str(_COLUMNS))
    users, items = (np.unique(table[name], return_inverse=True) for name in _COLUMNS[:2])
    rating, seconds = (table[name].to_numpy(np.float64) for name in _COLUMNS[2:])
    return Ratings(users[1].astype(np.int32), items[1].astype(np.int32), rating, seconds, len(users[0]), len(items[0]))


def split(ratings: Ratings) -> tuple[Ratings, Ratings]:
    """Train and test (see ``train_rows``)."""
    is_train = np.zeros(len(ratings.rating), bool)
    is_train[train_rows(ratings)] = True
    return ratings.take(np.flatnonzero(is_train)), ratings.take(np.flatnonzero(~is_train))


def train_rows(ratings: Ratings) -> NDArray[np.int64]:
    """Rows of the train ratings: of each item those with the smallest draws, round(0.75 n) of them."""
    draw = np.random.RandomState(SEED).rand(len(ratings.rating))  # the protocol's generator
    order = np.lexsort((draw, ratings.item_idx))
    sizes = np.bincount(ratings.item_idx, minlength=ratings.num_items)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found: NDArray[np.int64] = order[place < np.repeat(np.round(TRAIN_SHARE * sizes), sizes)]
    return found


def similarity(train: Ratings, spark: SparkSession) -> Floats:
    """S [N, N]: Jaccard of user baskets, counted by the co-occurrence job without any cut; diagonal 1 for train items."""
    micros = (train.seconds * 1_000_000).astype("datetime64[us]")
    columns = {"basket": train.user_idx.astype(np.int64), "item_idx": train.item_idx, "ts": micros}
    rows = spark.createDataFrame(pd.DataFrame(columns), "basket bigint, item_idx int, ts timestamp")
    settings = CooccurrenceSettings(
        measures=["jaccard"], rank_by="jaccard", top_n=train.num_items, max_basket_items=train.num_items
    )
    found = np.zeros((train.num_items, train.num_items))
    with cooccurrences(rows, settings, datetime.fromtimestamp(train.seconds.max(), UTC)) as counted:
        pairs = counted.frame.select("item_a", "item_b", "jaccard").toArrow()
    found[pairs.column("item_a").to_numpy(), pairs.column("item_b").to_numpy()] = pairs.column("jaccard").to_numpy()
    known = np.unique(train.item_idx)
    found[known, known] = 1.0
    return found


def affinity(train: Ratings) -> Floats:
    """A [U, N]: rating x 2^-(age / 30 days), age counted from the last train event."""
    found = np.zeros((train.num_users, train.num_items))
    found[train.user_idx, train.item_idx] = train.rating * np.exp2((train.seconds - train.seconds.max()) / HALF_LIFE_SECONDS)
    return found


def top_items(scores_UN: Floats, allowed_UN: Bools, k: int) -> NDArray[np.int64]:
    """The k best allowed items of each user, best first; equal scores in order of item."""
    masked = np.where(allowed_UN, scores_UN, -np.inf)
    return np.argsort(-masked, axis=1, kind="stable")[:, :k]


def measure(lists_UK: NDArray[np.int64], test: Ratings) -> dict[str, float]:
    """Mean of each metric over the users that have a test rating."""
    relevant_UN = np.zeros((test.num_users, test.num_items), dtype=bool)
    relevant_UN[test.user_idx, test.item_idx] = True
    users = np.flatnonzero(relevant_UN.any(axis=1))
    hits_UK = np.take_along_axis(relevant_UN[users], lists_UK[users], axis=1)
    relevant_U = relevant_UN[users].sum(axis=1)
    return {name: float(metric(hits_UK, relevant_U, K).mean()) for name, metric in _METRICS.items()}


def run_sar(data_dir: Path, spark: SparkSession) -> dict[str, Any]:
    """Run the protocol: sizes of the split, the published row, the measured row and whether they agree to six decimals.

    Raises:
        InputError: the folder does not hold MovieLens-100K.
    """
    train, test = split(read_ratings(data_dir))
    seen_UN = np.zeros((train.num_users, train.num_items), dtype=bool)
    seen_UN[train.user_idx, train.item_idx] = True
    candidates_N = np.bincount(train.item_idx, minlength=train.num_items) > 0
    lists_UK = top_items(affinity(train) @ similarity(train, spark), candidates_N & ~seen_UN, K)
    measured = measure(lists_UK, test)
    agrees = all(round(measured[name], 6) == value for name, value in PUBLISHED.items())
    sizes = {"train": len(train.rating), "test": len(test.rating), "k": K}
    return {"benchmark": "ml100k-sar", **sizes, "published": PUBLISHED, "measured": measured, "agrees": agrees}


def print_sar(data_dir: Path, spark: SparkSession) -> None:
    """Print both rows; the last line is one JSON line of all figures."""
    found = run_sar(data_dir, spark)
    print(f"MovieLens-100K, SAR (Jaccard, 30-day decay), k = {K}: {found['train']:,} train, {found['test']:,} test ratings")
    print(f"{'':10}" + "".join(f"{name:>12}" for name in PUBLISHED))
    for row in ("published", "measured"):
        print(f"{row:10}" + "".join(f"{found[row][name]:12.6f}" for name in PUBLISHED))
    print("the rows agree to six decimals" if found["agrees"] else "THE ROWS DIFFER")
    print(json.dumps(found))
