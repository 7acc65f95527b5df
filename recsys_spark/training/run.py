"""What every rank runs: under TorchDistributor, under plain torchrun, or alone.

``torchrun --nproc-per-node 2 -m recsys_spark.training.run <folder>/job.json``
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import torch

from recsys_spark import process
from recsys_spark.errors import RecsysError
from recsys_spark.training.distributed import process_group
from recsys_spark.training.job import TrainJob
from recsys_spark.training.loop import train


def run_rank(job_path: str) -> None:
    """Train as the rank that the environment says; an error is also left in ``rank-<r>.err`` for the driver.

    For a process of its own: after a training that went well, the process ends without Python's own teardown.

    Raises:
        RecsysError: what stopped the training.
    """
    process.start()
    job = TrainJob.load(job_path)
    rank = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    job.error_file(rank).unlink(missing_ok=True)
    try:
        with process_group(job.train.timeout_seconds, job.train.gpu) as ranks:
            train(job, ranks)
    except Exception as error:
        _leave(job.error_file(rank), error)
        raise
    process.end_at_exit()


def threads(local_ranks: int) -> int:
    """Threads of one rank: RECSYS_SPARK_THREADS where set (on a busy machine fewer are faster), else the cores shared out."""
    if os.environ.get("RECSYS_SPARK_THREADS", "").isdigit():
        return max(1, int(os.environ["RECSYS_SPARK_THREADS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, local_ranks))


def _leave(path: Path, error: Exception) -> None:
    document: dict[str, object] = {"kind": type(error).__name__, "traceback": traceback.format_exc()}
    if isinstance(error, RecsysError):
        document |= {"where": error.where, "found": error.found, "expected": error.expected, "do": error.do}
    path.write_text(json.dumps(document), encoding="utf-8")


def main() -> None:
    """The command line: one argument, the path of job.json."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m recsys_spark.training.run JOB.json (or torchrun ... -m recsys_spark.training.run JOB.json)")
    process.die_with_parent()
    with process.errors_as_lines():
        run_rank(sys.argv[1])


if __name__ == "__main__":
    main()
