"""Starts the ranks, through Spark's TorchDistributor or as one child process, and starts them again after a loss."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from recsys_spark import errors
from recsys_spark.config.learning import TrainSettings
from recsys_spark.log import get_logger
from recsys_spark.memory import KEEP_FREED
from recsys_spark.process import WAIT_POLICY
from recsys_spark.training.job import TrainJob
from recsys_spark.training.run import run_rank, threads

log = get_logger(__name__)
_TRACE_LINES = 15


def launch(job_path: Path, settings: TrainSettings, spark: SparkSession) -> None:
    """Run the job to its end. A lost rank starts all ranks anew from the newest checkpoint, at most ``max_restarts`` times.

    Raises:
        RecsysError: the ranks' own, e.g. a loss that is no number: a restart would not help.
        TrainingError: ranks were lost more often than that; shows what they left behind.
    """
    for attempt in range(settings.max_restarts + 1):
        _forget(job_path.parent)
        failure = _attempt(job_path, settings, spark)
        if failure is None:
            return
        left = collect_errors(job_path.parent)
        _raise_ours(left)
        log.warning("a rank was lost", attempt=attempt + 1, of=settings.max_restarts + 1, reason=failure[:200])
    raise errors.TrainingError(
        "training",
        f"ranks failed {settings.max_restarts + 1} times: {failure}\n{_traces(left)}",
        do=f"see the ranks' errors in {job_path.parent}; running again goes on from the newest checkpoint",
    )


def _attempt(job_path: Path, settings: TrainSettings, spark: SparkSession) -> str | None:
    """One start of all ranks; None when they finished, else what failed."""
    with _environment(settings):
        if settings.ranks == 1 and settings.local_ranks:
            code = subprocess.run([sys.executable, "-m", "recsys_spark.training.run", str(job_path)], check=False).returncode
            return None if code == 0 else f"the rank ended with exit code {code}"
        distributor = TorchDistributor(num_processes=settings.ranks, local_mode=settings.local_ranks, use_gpu=settings.gpu)
        try:
            distributor.run(run_rank, str(job_path))
        except Exception as error:  # Spark wraps whatever happened, and hides it
            return " ".join(str(error).split())[:500] or type(error).__name__
    # a rank that finished leaves an output, and then Spark does not tell that another one was lost
    return None if TrainJob.load(job_path).is_finished else "the ranks ended without a result"


@contextlib.contextmanager
def _environment(settings: TrainSettings) -> Iterator[None]:
    """Variables for local ranks; on executors the rank sets those of threads in code, memory is kept by local ones alone."""
    local = settings.ranks if settings.local_ranks else 1
    wanted = {"PYTHONWARNINGS": "ignore::FutureWarning", "OMP_NUM_THREADS": str(threads(local)), WAIT_POLICY: "PASSIVE"}
    wanted |= KEEP_FREED
    before = {name: os.environ.get(name) for name in (*wanted, "TMPDIR")}
    with tempfile.TemporaryDirectory(prefix="recsys-spark-", ignore_cleanup_errors=True) as scratch:
        os.environ.update(wanted | {"TMPDIR": scratch})  # torchrun makes folders for logs and leaves them
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _forget(folder: Path) -> None:
    for path in folder.glob("rank-*.err"):
        path.unlink(missing_ok=True)


def collect_errors(folder: Path) -> dict[str, dict[str, Any]]:
    """What the ranks left behind: ``rank-<r>`` -> kind, traceback and, for our errors, their parts."""
    found = {}
    for path in sorted(folder.glob("rank-*.err")):
        with contextlib.suppress(ValueError):
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _raise_ours(left: dict[str, dict[str, Any]]) -> None:
    for document in left.values():
        kind = getattr(errors, document["kind"], None)
        if isinstance(kind, type) and issubclass(kind, errors.RecsysError):
            raise kind(document["where"], document["found"], document["expected"], document["do"])


def _traces(left: dict[str, dict[str, Any]]) -> str:
    return "\n".join(
        f"{rank}: " + "\n".join(document["traceback"].splitlines()[-_TRACE_LINES:]) for rank, document in left.items()
    )
