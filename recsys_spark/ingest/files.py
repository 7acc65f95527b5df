"""Which files (or Delta versions) a source names, and the hash of what each one holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from recsys_spark.config.ingest import Source
from recsys_spark.errors import InputError


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, or one version of a Delta table.

    Args:
        path: what Spark is told to load.
        name: its last path segment, for reports.
        source_hash: sha256 (hex) of the file's bytes; of a Delta table, its id, path and version.
        size: bytes (0 for Delta).
        base: the configured folder that was listed, if any (partition folders below it become columns).
        version: of a Delta table.
    """

    path: str
    name: str
    source_hash: str
    size: int
    base: str | None = None
    version: int | None = None


def list_files(spark: SparkSession, source: Source, where: str) -> list[SourceFile]:
    """All files of a source: in the order configured, those of a folder or pattern by path.

    Raises:
        InputError: a path names nothing.
    """
    if source.format == "delta":
        return [_delta(spark, path, where) for path in source.paths]
    return [found for path in source.paths for found in _files(spark, path, where)]


def first_line(spark: SparkSession, path: str, encoding: str) -> str:
    """First line of a (possibly compressed) file; empty for an empty file."""
    jvm: Any = spark._jvm
    hadoop, place = _path(spark, path)
    stream = place.getFileSystem(hadoop).open(place)
    codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(hadoop).getCodec(place)
    opened = stream if codec is None else codec.createInputStream(stream)
    reader = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(opened, encoding))
    try:
        return str(reader.readLine() or "")
    except Exception as error:  # py4j's, of a file that says by its name that it is compressed
        reason = str(error).strip().splitlines()[-1][:200]
        raise InputError(path, f"cannot be read: {reason}", "a whole file, compressed as its name says") from None
    finally:
        reader.close()


def is_compressed(spark: SparkSession, path: str) -> bool:
    """Whether Hadoop would decompress the file, which then cannot be split."""
    jvm: Any = spark._jvm
    hadoop, place = _path(spark, path)
    return jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(hadoop).getCodec(place) is not None


def _path(spark: SparkSession, path: str) -> tuple[Any, Any]:
    jvm: Any = spark._jvm
    hadoop = spark._jsc.hadoopConfiguration()
    return hadoop, jvm.org.apache.hadoop.fs.Path(path)


def _files(spark: SparkSession, path: str, where: str) -> Iterator[SourceFile]:
    hadoop, place = _path(spark, path)
    files = place.getFileSystem(hadoop)
    roots = [files.getFileStatus(place)] if files.exists(place) else list(files.globStatus(place) or [])
    found = [entry for root in roots for entry in _below(files, root)]
    if not found:
        raise InputError(where, f"no file at {path}", "an existing file, folder or pattern", "correct 'path' in the config")
    for status, base in sorted(found, key=lambda entry: str(entry[0].getPath().toString())):
        yield _source_file(spark, files, status, base)


def _below(files: Any, root: Any) -> Iterator[tuple[Any, str | None]]:
    if not root.isDirectory():
        yield root, None
        return
    base = root.getPath().toString()
    listed = files.listFiles(root.getPath(), True)
    while listed.hasNext():
        status = listed.next()
        inside = status.getPath().toString()[len(base) :].strip("/")
        if not any(part.startswith(("_", ".")) for part in inside.split("/")):
            yield status, base


def _source_file(spark: SparkSession, files: Any, status: Any, base: str | None) -> SourceFile:
    jvm: Any = spark._jvm
    stream = files.open(status.getPath())
    try:
        digest = jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream)  # streams inside the JVM
    finally:
        stream.close()
    return SourceFile(status.getPath().toString(), status.getPath().getName(), str(digest), int(status.getLen()), base)


def _delta(spark: SparkSession, path: str, where: str) -> SourceFile:
    place = path if ":/" in path else str(Path(path).absolute())
    quoted = "delta.`" + place.replace("`", "``") + "`"
    try:
        newest = spark.sql(f"DESCRIBE HISTORY {quoted} LIMIT 1").first()
        detail = spark.sql(f"DESCRIBE DETAIL {quoted}").first()
    except AnalysisException:
        newest = detail = None
    if newest is None or detail is None:
        raise InputError(where, f"no Delta table at {path}", "an existing Delta table", "correct 'path' in the config")
    identity = f"delta {detail['id']} {path} {newest['version']}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return SourceFile(path, path.rstrip("/").rsplit("/", 1)[-1], digest, 0, None, int(newest["version"]))
