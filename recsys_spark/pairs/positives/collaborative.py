"""Positives from collaborative filtering: items whose ALS factors point the same way."""

from __future__ import annotations

import numpy as np
from pyspark.sql import DataFrame

from recsys_spark.collaborative.als import item_factors
from recsys_spark.config.signals import CollaborativePositives
from recsys_spark.pairs.positives.nearest import SCHEMA, nearest
from recsys_spark.tables.local import local_frame


def collaborative(events: DataFrame, settings: CollaborativePositives, seed: int) -> DataFrame:
    """The ``top_n`` items with the highest cosine of implicit-feedback ALS factors to each item.

    Args:
        events: visible events to fit on (``user_idx, item_idx, weight, label``).
        settings: size of the model (see ``collaborative.als.item_factors``) and ``top_n``.
        seed: of the initial factors.

    Returns:
        ``anchor_idx int, item_idx int, weight float`` (the cosine); no row without events.
    """
    found = item_factors(events, settings, seed)
    if found is None:
        return local_frame(events.sparkSession, [], SCHEMA)
    item_idx, factors = found
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    unit = np.divide(factors, lengths, out=np.zeros_like(factors), where=lengths > 0)
    return nearest(events.sparkSession, unit, item_idx, settings.top_n)
