"""Which paths of tables lie on file systems that every process can use, and which only Hadoop can reach."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession


def local_path(spark: SparkSession, path: str) -> Path | None:
    """The path as this machine's file system has it, absolute; None where another one has it (``s3a:``, ``hdfs:``, and paths
    without a scheme where Hadoop's default is not the local file system)."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", path)
    if scheme is not None:
        return Path(re.sub("^file:(//)?", "", path)) if scheme[1] == "file" else None
    context: Any = spark._jsc
    default = context.hadoopConfiguration().get("fs.defaultFS") or "file:///"
    return Path(path).absolute() if default.startswith("file:") else None
