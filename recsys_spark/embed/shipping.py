"""Model folders on their way to executors, and the models that each Python worker keeps once it has loaded them."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from recsys_spark.encoder.packaged_model import PackagedModel, load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.encoder.text_source import Dtype
from recsys_spark.threads import one_thread


class Place(NamedTuple):
    """Where a worker finds a folder: at a path that it shares with the driver, or unpacked from a shipped archive."""

    kind: Literal["path", "archive"]
    name: str

    def locate(self) -> str:
        return SparkFiles.get(self.name) if self.kind == "archive" else self.name


def ship(spark: SparkSession, folder: str | Path) -> Place:
    """Make a folder of the driver available to every executor, once per session and content.

    A local session reads it in place. Elsewhere it travels as a tar archive: ``addFile`` refuses local folders
    outside of local mode.
    """
    root = Path(folder).absolute()
    context = spark.sparkContext
    master = str(context.master)
    if master.startswith("local") and not master.startswith("local-cluster"):
        return Place("path", str(root))
    return _shipped(str(context.applicationId), root, _identity(root))


@functools.cache
def _shipped(application_id: str, root: Path, identity: str) -> Place:
    name = f"{root.name}-{identity}"
    scratch = Path(tempfile.mkdtemp(prefix="recsys-spark-"))  # the driver serves the archive as long as it lives
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    archive = scratch / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:
        for child in sorted(root.iterdir()):  # one by one: Spark refuses an archive with an entry "./"
            tar.add(child, arcname=child.name)
    active = SparkSession.getActiveSession()
    if active is None:  # the caller holds one
        raise RuntimeError("no active Spark session")
    active.sparkContext.addArchive(f"{archive}#{name}")
    return Place("archive", name)


def _identity(root: Path) -> str:
    """Of names, sizes and times: another content under the same path is shipped anew."""
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        found = path.stat()
        digest.update(f"{path.relative_to(root)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


@functools.cache
def worker_text_encoder(place: Place, max_tokens: int, dtype: Dtype) -> TextEncoder:
    """The text encoder of this Python worker. A place of kind ``path`` may also hold a model's name."""
    one_thread()
    return TextEncoder.load(place.locate(), max_tokens, dtype)


@functools.cache
def worker_model(place: Place, dtype: Dtype) -> PackagedModel:
    """The model of this Python worker; its text encoder is loaded when a text has to be encoded."""
    one_thread()
    return load_model(place.locate(), dtype)
