"""Top-K by Spark's own ``ALSModel.recommendForAllUsers``.

Why it is fair: it is what Spark users have for this task. The model is loaded once, outside of the timing, from the same
factors; its block size is Spark's default; its lists go to Delta as they come, one row per user, which is the cheaper
form. It knows no seen filter and gives no reasons, so it does less.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import SparkSession

from benchmarks.spark import write_delta

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
_NUM_FILES = 4


def save_model(spark: SparkSession, folder: Path, users: Float32, items: Float32, user_idx: Int32 | None = None) -> ALSModel:
    """An ALS model of given factors ``[U, D]`` and ``[N, D]``; ids are row numbers, or those given."""
    uid = "ALSModel_benchmark"
    metadata = {
        "class": "org.apache.spark.ml.recommendation.ALSModel",
        "timestamp": 0,
        "sparkVersion": spark.version,
        "uid": uid,
        "paramMap": {},
        "defaultParamMap": {
            "userCol": "user",
            "itemCol": "item",
            "predictionCol": "prediction",
            "coldStartStrategy": "nan",
            "blockSize": 4096,
        },
        "rank": users.shape[1],
    }
    spark.createDataFrame([(json.dumps(metadata),)], "value string").coalesce(1).write.text(str(folder / "metadata"))
    write_factors(folder / "userFactors", "id", "features", users, user_idx)
    write_factors(folder / "itemFactors", "id", "features", items)
    model: ALSModel = ALSModel.load(str(folder))
    return model


def write_factors(folder: Path, key: str, name: str, factors: Float32, keys: Int32 | None = None) -> None:
    """Parquet files of ``(key int, name array<float>)``; keys are row numbers, or those given."""
    folder.mkdir(parents=True)
    known = np.arange(len(factors), dtype=np.int32) if keys is None else keys
    for number, rows in enumerate(np.array_split(np.arange(len(factors)), _NUM_FILES)):
        offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * factors.shape[1])
        vectors = pa.ListArray.from_arrays(offsets, pa.array(factors[rows].ravel()))
        pq.write_table(pa.table({key: known[rows], name: vectors}), folder / f"part-{number}.parquet")


def write_recommendations(model: ALSModel, k: int, target: Path) -> None:
    """The ``k`` best items of every user of the model into a new Delta table."""
    write_delta(model.recommendForAllUsers(k), target)
