"""With every new kind of negative in use, a run that was stopped and resumed has the losses of one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from recsys_spark.config.losses import LossName
from recsys_spark.errors import TrainingError
from recsys_spark.training import checkpoint
from recsys_spark.training.distributed import process_group
from recsys_spark.training.job import TrainJob
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import steps, stopped_and_resumed, walks, write_files, write_job

OPTIONS = {
    "queue of pairs": {"negatives": "popularity", "loss": "sampled_softmax", "num_negatives": 20, "queue_size": 12},
    "queue of both": {"negatives": "in_batch", "queue_size": 12, "cache_chunk_size": 3, "pair_loss": "supcon"},
}


def explicit_files(folder: Path, items: np.ndarray | None = None) -> tuple[str, ...]:
    rows = walks(10, seed=4)
    unwanted = np.full((10, 2), -1, dtype=np.int32)
    unwanted[:, 0] = np.arange(10) * 10 if items is None else items
    columns = {"user_idx": rows["user_idx"], "items": rows["items"], "unwanted": unwanted, "weight": rows["weight"]}
    return write_files(folder / "explicit", columns, [5, 5])


def job(folder: Path, **train: object) -> TrainJob:
    shares = {"explicit_share": 0.3, "explicit_batch_size": 4, "mask_known_pairs": "both", "mask_guide": "pairs"}
    made = write_job(folder, encoder={"dropout": 0.2, "item_id_dropout": 0.2}, **shares | {"epochs": 4} | train)
    return replace(made, explicit_files=explicit_files(folder))


@pytest.mark.parametrize("name", list(OPTIONS))
def test_resumed_equals_undisturbed(tmp_path: Path, name: str) -> None:
    order = job(tmp_path, **OPTIONS[name])
    with process_group(30) as ranks:
        expected = steps(Trainer(order, ranks), 9)
        found, _ = stopped_and_resumed(order, ranks, 5, 4)
    assert [figures.masked for figures in found] == [figures.masked for figures in expected]
    np.testing.assert_allclose([f[:4] for f in found], [f[:4] for f in expected], atol=1e-6)
    assert min(figures.explicit for figures in found) > 0
    assert sum(figures.masked[0] for figures in found) > 0


def test_an_unwanted_item_that_nobody_knows_is_named(tmp_path: Path) -> None:
    order = replace(job(tmp_path), explicit_files=explicit_files(tmp_path, np.full(10, 7)))
    with process_group(30) as ranks, pytest.raises(TrainingError, match="table 'training_negatives': item_idx 7"):
        steps(Trainer(order, ranks), 1)


@pytest.mark.parametrize("name", get_args(LossName))
def test_every_loss_is_learned_by_both_tasks(tmp_path: Path, name: LossName) -> None:
    """On walks round a ring: what is chosen by name does get a lower loss, and the next item is found more often."""
    pair_loss = "softmax" if name == "sampled_softmax" else name
    negatives = "popularity" if name in ("sampled_softmax", "nce") else "in_batch"
    order = write_job(
        tmp_path, loss=name, pair_loss=pair_loss, negatives=negatives, epochs=8, warmup_share=0.0, learning_rate=0.02, margin=0.5
    )
    with process_group(30) as ranks:
        trainer = Trainer(order, ranks)
        before = trainer.validate()
        found = steps(trainer, 40)
        after = trainer.validate()
    first, last = found[:8], found[-8:]
    for task in ("user_item", "item_item"):
        assert np.mean([getattr(f, task) for f in last]) < np.mean([getattr(f, task) for f in first])
    assert before is not None
    assert after is not None
    assert after > before


def test_a_job_that_begins_anew_keeps_its_own_checkpoints(tmp_path: Path) -> None:
    """With another number of ranks, say: those of before have higher steps, and were written earlier."""
    for step, job_of in ((100, "a/2"), (200, "a/2"), (5, "a/1"), (10, "a/1"), (15, "a/1")):
        checkpoint.save(tmp_path, job_of, step, {})
        newest = checkpoint.load_newest(tmp_path, job_of)
        assert newest is not None
        assert newest["step"] == step
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step-000000010.pt", "step-000000015.pt"]
