"""Two ranks of a private training have the sums of one, and stay the same model under the same secret noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_spark.training.distributed import Ranks
from recsys_spark.training.job import TrainJob
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import ALONE, as_rank, on_two_ranks, steps, write_job

ALL = {"epsilon": 4.0, "users_per_step": 1_000, "clip_norm": 0.3}  # everybody is drawn, so nothing is left to chance


def make_job(folder: Path) -> TrainJob:
    return write_job(folder, encoder={"dropout": 0.0}, privacy=ALL)  # items are dropped out, the same on every rank


def noiseless(job: TrainJob, ranks: Ranks) -> dict[str, torch.Tensor]:
    """The gradients of the first step with its noise left out."""
    trainer = Trainer(job, ranks)
    assert trainer.private is not None
    trainer.private.multiplier = 0.0
    trainer.encoder.train()
    trainer.private.backward(next(trainer.batches.from_step(0))[0], ranks)
    return {name: p.grad for name, p in trainer.encoder.named_parameters() if p.grad is not None}


def rank_main(rank: int, port: int, folder: str) -> None:
    job = TrainJob.load(Path(folder) / "job" / "job.json")
    with as_rank(rank, port) as ranks:
        found: dict[str, Any] = {"gradients": noiseless(job, ranks)}
        trainer = Trainer(job, ranks)
        found["losses"] = [figures.loss for figures in steps(trainer, 3)]
        found["weights"] = {name: p.detach() for name, p in trainer.encoder.named_parameters()}
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainJob, list[dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("private")
    job = make_job(folder)
    return job, on_two_ranks(rank_main, folder)


def test_two_ranks_have_the_gradient_of_one(two_ranks: tuple[TrainJob, list[dict[str, Any]]]) -> None:
    job, found = two_ranks
    expected = noiseless(job, ALONE)
    assert set(found[0]["gradients"]) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[0]["gradients"][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_ranks_stay_one_model_under_noise(two_ranks: tuple[TrainJob, list[dict[str, Any]]]) -> None:
    first, second = two_ranks[1]
    assert first["losses"] == second["losses"]
    for name, weight in first["weights"].items():
        torch.testing.assert_close(weight, second["weights"][name], rtol=0, atol=0, msg=name)
