"""Who met what, as one sparse matrix on the driver: counted on the executors, where histories stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.baskets import basket_rows
from recsys_spark.cooccurrence.count import NO_DECAY, cooccurrences

_EVERY_PAIR = 2**31 - 1


@dataclass(frozen=True)
class Gram:
    """``counts [n, n]`` CSR, symmetric: users with both items, and on the diagonal those with the item.

    ``item_idx [n]`` ascending: the item of each row.
    """

    item_idx: npt.NDArray[np.int32]
    counts: Any


def gram_of(events: DataFrame, max_history: int, seed: int) -> Gram:
    """The Gram matrix ``X'X`` of the binary users x items matrix of ``events``, dislikes left out.

    Args:
        events: visible events to fit on.
        max_history: items of one user that are counted; a longer history is cut by seeded hash.
        seed: of that hash.
    """
    settings = CooccurrenceSettings(
        basket="history", measures=["count"], rank_by="count", top_n=_EVERY_PAIR, max_basket_items=max_history
    )
    rows = basket_rows(events, settings)
    with cooccurrences(rows, settings, NO_DECAY, seed) as counted:
        half = counted.frame.where("item_a < item_b").select("item_a", "item_b", F.col("num_baskets").cast("int").alias("both"))
        pairs = half.toArrow()
    per_item = rows.groupBy("item_idx").agg(F.count_distinct("basket").alias("users")).orderBy("item_idx").toArrow()
    item_idx = per_item.column("item_idx").to_numpy().astype(np.int32)
    row, col = (np.searchsorted(item_idx, pairs.column(name).to_numpy()) for name in ("item_a", "item_b"))
    both = pairs.column("both").to_numpy().astype(np.float64)
    upper = sparse.coo_matrix((both, (row, col)), shape=(len(item_idx), len(item_idx))).tocsr()
    diagonal = sparse.diags(per_item.column("users").to_numpy().astype(np.float64))
    return Gram(item_idx, sparse.csr_matrix(upper + upper.T + diagonal))
