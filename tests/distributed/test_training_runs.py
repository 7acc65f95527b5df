"""Whole trainings on two ranks under plain torchrun: uneven shards, a killed rank, a loss that is no number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recsys_spark.training import checkpoint
from recsys_spark.training.job import TrainJob
from recsys_spark.training.metrics import read_metrics
from tests.training_fixture import run_ranks, torchrun, walks, write_job

UNEVEN = [5, 4, 3]  # rank 0 has 8 rows in two row groups, rank 1 has 4 rows in one; 12 rows in batches of 3
OPTIONS = {"ranks": 2, "batch_size": 3, "epochs": 40, "checkpoint_every_steps": 4, "timeout_seconds": 30}


def make_job(folder: Path) -> TrainJob:
    """40 epochs of 3 steps, with validation but without early stopping."""
    return write_job(folder, UNEVEN, [5, 4, 4], validation=9, **OPTIONS, patience=100)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    job = make_job(tmp_path_factory.mktemp("undisturbed"))
    code, output = run_ranks(job, 2)
    assert code == 0, output
    return job


def test_uneven_shards_neither_hang_nor_lose_their_tail(undisturbed: TrainJob) -> None:
    result = json.loads(undisturbed.result.read_text())
    assert result["ranks"] == 2
    assert (result["steps_per_epoch"], result["steps"]) == (3, 120)  # ceil(8 / 3), on both ranks
    lines = read_metrics(undisturbed.metrics)
    assert [line["step"] for line in lines] == list(range(1, 121))
    assert np.mean([line["loss"] for line in lines[-6:]]) < 0.5 * np.mean([line["loss"] for line in lines[:6]])
    assert result["validation_recall"] == max(line["recall"] for line in lines if line["recall"] is not None) > 0.8


def kill_one_rank(job: TrainJob, process: subprocess.Popen[str]) -> None:
    """kill -9 one of torchrun's children as soon as a checkpoint stands."""
    pause = threading.Event()
    while not list(job.checkpoints.glob("step-*.pt")):
        assert process.poll() is None, process.communicate()[0]
        pause.wait(0.01)
    os.kill(children(process.pid)[-1], signal.SIGKILL)


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # ended in the meantime
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the ranks in /proc")
def test_after_kill_9_of_a_rank_training_goes_on_and_ends_the_same(undisturbed: TrainJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with torchrun(job, 2) as process:
        kill_one_rank(job, process)
        process.communicate(timeout=120)
    assert process.returncode != 0
    assert not job.result.exists()
    stands = checkpoint.load_newest(job.checkpoints, f"{job.fingerprint}/2")
    assert stands is not None
    assert 3 <= stands["step"] < 120
    code, output = run_ranks(job, 2)
    assert code == 0, output
    assert "continues from a checkpoint" in output
    _same(job, undisturbed)


def _same(job: TrainJob, other: TrainJob) -> None:
    """The same losses at every step and the same exported weights, to 1e-6."""
    lines, expected = read_metrics(job.metrics), read_metrics(other.metrics)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    np.testing.assert_allclose([line["loss"] for line in lines], [line["loss"] for line in expected], atol=1e-6)
    weights, wanted = (load_file(Path(j.model_dir) / "weights.safetensors") for j in (job, other))
    for name, tensor in wanted.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-6, rtol=0)


def test_a_loss_that_is_no_number_stops_all_ranks_and_names_step_and_rows(tmp_path: Path) -> None:
    """The bad row lies on rank 1; rank 0 stops too, by itself, and the last good checkpoint stays."""
    rows = walks(sum(UNEVEN))
    rows["weight"][6] = np.nan  # in the second row group
    job = write_job(tmp_path, UNEVEN, [5, 4, 4], sequences=rows, **OPTIONS | {"checkpoint_every_steps": 1})
    code, output = run_ranks(job, 2)
    assert code != 0, output
    documents = [json.loads(job.error_file(rank).read_text()) for rank in range(2)]
    assert [document["kind"] for document in documents] == ["TrainingError"] * 2
    assert "user_idx=6, weight=nan" in documents[1]["found"]
    assert documents[0]["where"] == documents[1]["where"]
    step = int(documents[0]["where"].removeprefix("training step "))
    newest = checkpoint.load_newest(job.checkpoints, f"{job.fingerprint}/2")
    assert (newest["step"] if newest else 0) == step
    assert not Path(job.model_dir).exists()
