"""Where frames that are kept lie: in memory while they leave most of it to others, else on the executors' disks."""

from __future__ import annotations

from typing import Any

from pyspark import StorageLevel
from pyspark.sql import SparkSession

from recsys_spark.log import get_logger

log = get_logger(__name__)
_MOST = 0.25  # of what all executors have for kept frames and for sorting, at most, for one frame


def level_for(spark: SparkSession, name: str, num_bytes: int) -> StorageLevel:
    """The storage level of a frame of about so many bytes.

    Spark would spill a frame that fills its share of the heap only when it asks for more of that share itself: broadcasts in
    the making, Arrow batches and Parquet's buffers lie outside it and find the heap full.
    """
    room = storage_bytes(spark)
    if num_bytes <= _MOST * room:
        return StorageLevel.MEMORY_AND_DISK_DESER
    log.info(name, held="on disk", about_mib=num_bytes >> 20, memory_for_frames_mib=room >> 20)
    return StorageLevel.DISK_ONLY


def storage_bytes(spark: SparkSession) -> int:
    """What the executors that are there now may hold in memory, in sum; locally, this process's JVM."""
    context: Any = spark.sparkContext
    found, total = context._jsc.sc().getExecutorMemoryStatus().values().iterator(), 0
    while found.hasNext():
        total += int(found.next()._1())
    return total
