"""50,000 titles to MiniLM vectors: our side on the executors and into the shared Delta table, as a night does it."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from benchmarks.compare import alike_vectors
from benchmarks.machine import num_cores
from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session
from benchmarks.speed.rivals.encode_plain import Float32, rival_encoder
from benchmarks.speed.rivals.sgemm import threads
from benchmarks.speed.titles import MODEL_FOLDER, titles
from benchmarks.timing import Way, alternate, scratch, warm_up
from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.embed.text_vectors import TABLE, ensure_text_vectors
from recsys_spark.encoder.text_source import resolve_dtype
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

_MODEL = "minilm"
_LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.995}  # bfloat16 keeps 8 bits, through six layers
_AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def encoding(scale: Scale) -> Figures:
    """Row ``encoding``."""
    spark, texts = bench_session(), titles(scale.pick(50_000, 300))
    config = _config()
    name, encode = rival_encoder(MODEL_FOLDER, config.encoder.max_tokens)
    found: dict[str, Float32] = {}
    with scratch() as folder, threads(num_cores()):
        _write_items(folder / "items", texts)
        items = spark.read.parquet(str(folder / "items"))
        sides: dict[str, Way] = {
            "ours": functools.partial(_ours, spark, config, items),
            "rival": lambda _target: found.update(rival=encode(texts)),
        }
        warm = warm_up(sides, folder)
        vectors = _vectors(spark, config, warm["ours"], texts)
        equal = alike_vectors(vectors, found["rival"], _LEAST_COSINE[resolve_dtype("auto")])
        timed = alternate(sides, scale.rounds, folder, len(texts), "texts")
    more = {"rival": name, "texts": len(texts), "our_dtype": resolve_dtype("auto"), "max_tokens": config.encoder.max_tokens}
    return Figures(timed.ratio("rival", "ours"), timed.medians(), timed.rounds, equal, more)


def _config() -> Config:
    """The defaults: this is what a user gets."""
    events = {"path": "none", "columns": {"user_id": "user", "item_id": "item", "ts": "ts"}}
    return parse_config({"as_of": _AS_OF, "warehouse": "none", "ingest": {"events": events}})


def _context(spark: SparkSession, config: Config, folder: Path) -> Context:
    cutoff = InstantCutoff(_AS_OF, _AS_OF, _AS_OF)
    return Context(spark, Store(spark, str(folder)), config, "live", cutoff, "benchmark")


def _ours(spark: SparkSession, config: Config, items: DataFrame, target: Path) -> None:
    commit = Commit("benchmark", "text_vectors", "none")
    settings = config.encoder
    ensure_text_vectors(_context(spark, config, target), items, _MODEL, settings.max_tokens, settings.dtype, commit)


def _write_items(folder: Path, texts: list[str]) -> None:
    folder.mkdir(parents=True)
    table = pa.table({"input_sha": [_sha(text) for text in texts], "text": texts, "has_text": [True] * len(texts)})
    pq.write_table(table, folder / "part-0.parquet")


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _vectors(spark: SparkSession, config: Config, folder: Path, texts: list[str]) -> npt.NDArray[np.float32]:
    """Our vectors in the order of the texts."""
    rows = _context(spark, config, folder).store.read(TABLE, "live").select("input_sha", "vector").collect()
    by_sha = {row["input_sha"]: row["vector"] for row in rows}
    return np.array([by_sha[_sha(text)] for text in texts], np.float32)
