"""The one SparkSession builder: Delta, UTC, Arrow and quiet defaults, the same for every entry point."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import pyspark
from pyspark.sql import SparkSession

from recsys_spark import class_archive
from recsys_spark.config.serving import SparkSettings
from recsys_spark.errors import MachineError
from recsys_spark.memory import KEEP_FREED

if TYPE_CHECKING:
    from pyarrow import RecordBatch

DELTA_PACKAGE = "io.delta:delta-spark_2.13:4.0.1"
_DELTA_JARS = ("io.delta_delta-spark_2.13-4.0.1.jar", "io.delta_delta-storage-4.0.1.jar")
_IVY_HOME = "~/.ivy2.5.2"  # where Spark 4.0 keeps what spark.jars.packages has fetched
_DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # smallest and largest value of each column and file cost a tenth of a large write and prune nothing: rows lie in the
    # order of hashes, and what is selected by (as_of, event_date) are partitions; the number of rows is kept all the same
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "0",
    "spark.sql.execution.arrow.maxBytesPerBatch": "2147483647",  # else its size is computed anew for every row
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # 1 GB by default; what a driver collects is judged by the memory it has (counts for EASE, vectors, words of texts)
    "spark.driver.maxResultSize": "0",
    "spark.sql.legacy.javaCharsets": "true",  # else CSV files may be in no encoding but Unicode's and Latin-1
    "spark.sql.inMemoryColumnarStorage.batchSize": "2000",  # of 10,000 text vectors a column would be one piece of 16 MB
    "spark.sql.adaptive.enabled": "true",
    "spark.executorEnv.OMP_WAIT_POLICY": "PASSIVE",  # see process.WAIT_POLICY
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.parquet.enableVectorizedReader": "true",
    "spark.python.sql.dataFrameDebugging.enabled": "false",  # else every column expression costs four round trips to the JVM
    # nothing here is bucketed, and while this is on, each frame that is kept costs a copy of the whole session
    "spark.sql.sources.bucketing.autoBucketedScan.enabled": "false",
}
# what the functions of PySpark name in the JVM at every call, and functions of these that we call by the thousand
_JVM_NAMES = ("functions", "PythonUtils", "PythonSQLUtils", "org.apache.spark.sql.functions")
_JVM_MEMBERS = ("col", "lit", "sum", "expr", "coalesce", "when", "count", "max")
# half of what a JVM does in a night on a small log is to compile at the highest level, which never pays for itself there;
# the code cache is larger than this level's own, which fills up within a night and then ends all compiling. Without
# Hadoop's native library each file that is made on a local disk starts "chmod": by vfork, without a helper in between
BRIEF = (
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseParallelGC -XX:MetaspaceSize=256m "
    "-Djdk.lang.Process.launchMechanism=VFORK"
)
# of a local session with much to do: the usual collector keeps pauses short, which nothing here waits for, and moves the
# arrays of many megabytes, which is what counting sends, for a third more of the JVM's processor time
LARGE = "-XX:+UseParallelGC"
_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
SMALL_LOG_BYTES = 4 << 20  # some 200,000 events in text, twice or more in Parquet (decision 006)
_LOCAL = {
    # driver and executor share one heap: of 4 GB the usual .6 leaves too little for broadcasts in the making, Arrow, Parquet
    "spark.memory.fraction": "0.4",
    "spark.databricks.delta.snapshotPartitions": "2",  # the default of 50 costs every read of a small table 50 tasks
    # the other one starts two programs for each commit; both look for the version's file, then rename
    "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
    # Python workers; of executors elsewhere it would hold for the JVM too, whose memory is limited
    **{f"spark.executorEnv.{name}": value for name, value in KEEP_FREED.items()},
    "spark.python.daemon.module": "recsys_spark.worker_daemon",  # elsewhere conf/spark.conf says so, if executors have us
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
}


def build_session(
    settings: SparkSettings, app_name: str = "recsys-spark", brief: bool = False, leaves_classes: Path | None = None
) -> SparkSession:
    """The session for this process; under spark-submit, what it was given wins.

    Args:
        settings: what is added to Spark's own configuration.
        app_name: as Spark's pages show it.
        brief: there is little to do: a local session compiles its code quickly rather than well.
        leaves_classes: where the JVM of a local session is to leave an archive of its classes (``class_archive``).

    Raises:
        MachineError: Delta's classes are absent, which happens under spark-submit without conf/spark.conf.
    """
    submitted = "SPARK_ENV_LOADED" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ["TZ"] = "UTC"  # collect() gives timestamps in the process's own zone: let it be ours
    time.tzset()
    builder: Any = SparkSession.builder.appName(app_name)
    options = dict(_DEFAULTS)
    # locally too a task that loses its Python worker is tried again: Spark's own default is to give up at once
    master = settings.master or (None if submitted else "local[*,4]")
    if master is not None:
        builder = builder.master(master)
    if master is not None and master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        options |= _LOCAL | _java_options(brief, leaves_classes)
    if not submitted:
        options |= _delta(master, settings.options) | {"spark.driver.memory": settings.driver_memory}
    if settings.shuffle_partitions is not None:
        options["spark.sql.shuffle.partitions"] = str(settings.shuffle_partitions)
    for key, value in (options | settings.options).items():
        builder = builder.config(key, value)
    spark: SparkSession = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    _check_delta(spark)
    _remember_names(spark)
    if settings.shuffle_partitions is None and str(spark.sparkContext.master).startswith("local"):
        spark.conf.set("spark.sql.shuffle.partitions", str(2 * spark.sparkContext.defaultParallelism))
    return spark


def _java_options(brief: bool, leaves_classes: Path | None) -> dict[str, str]:
    """Nothing where Spark's own file has options for Java and there is no more to say than ``LARGE``: ours would replace them."""
    archive = class_archive.java_options() if leaves_classes is None else class_archive.dump_options(leaves_classes)
    if not (brief or archive) and _spark_file_sets(_JAVA_OPTIONS):
        return {}
    return {_JAVA_OPTIONS: " ".join([BRIEF if brief else LARGE, *archive])}


def _spark_file_sets(key: str) -> bool:
    """Whether spark-defaults.conf says something of this key."""
    home = os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent
    file = Path(os.environ.get("SPARK_CONF_DIR") or Path(home, "conf")) / "spark-defaults.conf"
    return file.is_file() and any(re.match(rf"\s*{re.escape(key)}[\s=:]", line) for line in file.read_text().splitlines())


def load_workers(spark: SparkSession) -> None:
    """Have Spark start its daemon of Python workers, which loads torch and others for seconds; else the first task waits."""
    spark.range(0, 1, 1, 1).mapInArrow(_as_they_are, "id long").collect()


def _as_they_are(batches: Iterable[RecordBatch]) -> Iterable[RecordBatch]:
    return batches


def is_small(*places: str) -> bool:
    """Whether these files, folders and patterns, those that are there, lie on this machine and hold a small log at most."""
    if any(":/" in place for place in places):
        return False
    found = [Path(path) for place in places for path in glob(place)]  # noqa: PTH207 - of absolute patterns too
    files = [file for path in found for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sum(file.stat().st_size for file in files) <= SMALL_LOG_BYTES


def _remember_names(spark: SparkSession) -> None:
    """Look often used names of the JVM up once: py4j keeps none, and each time the JVM searches every jar for each package.

    Only attributes that py4j would answer with an equal object are set, so a later version of it merely gains nothing.
    """
    jvm: Any = spark._jvm
    for name in _JVM_NAMES:
        vars(jvm)[name] = getattr(jvm, name)
    functions = getattr(jvm, _JVM_NAMES[-1])
    for name in _JVM_MEMBERS:
        vars(functions)[name] = getattr(functions, name)


def _delta(master: str | None, asked: Mapping[str, str]) -> dict[str, str]:
    """Where a new session gets Delta from: jars that an earlier one fetched, else the package.

    Looking the package up costs seconds at every start, even of what lies on disk. Executors elsewhere need the package.
    """
    jars = _delta_jars(asked.get("spark.jars.ivy", _IVY_HOME))
    alone = master is not None and master.startswith("local") and not master.startswith("local-cluster")
    if alone and not {"spark.jars.packages", "spark.driver.extraClassPath"} & set(asked) and all(map(is_zipfile, jars)):
        return {"spark.driver.extraClassPath": os.pathsep.join(map(str, jars))}
    return {"spark.jars.packages": DELTA_PACKAGE}


def _delta_jars(ivy: str) -> list[Path]:
    return [Path(ivy).expanduser() / "jars" / name for name in _DELTA_JARS]


def has_delta() -> bool:
    """Whether an earlier session has left Delta's jars where local ones find them."""
    return all(map(is_zipfile, _delta_jars(_IVY_HOME)))


def _check_delta(spark: SparkSession) -> None:
    try:
        spark._jvm.java.lang.Class.forName(  # type: ignore[union-attr]
            "io.delta.sql.DeltaSparkSessionExtension",
            True,
            spark._jvm.java.lang.Thread.currentThread().getContextClassLoader(),  # type: ignore[union-attr]
        )
    except Exception:
        raise MachineError(
            "Spark session",
            "Delta's classes are not loaded",
            f"package {DELTA_PACKAGE}",
            "start with spark-submit --properties-file conf/spark.conf ...",
        ) from None
