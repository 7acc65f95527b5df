"""Whole trainings on one rank with the options of augmentation, towers and heads: resumed, exported, loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.training import loop
from recsys_spark.training.catalogue import load_catalogue, save_catalogue
from recsys_spark.training.distributed import process_group
from recsys_spark.training.job import TrainJob
from recsys_spark.training.loop import train
from recsys_spark.training.metrics import read_metrics
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import NUM_ITEMS, walks, write_files, write_job

AUGMENT = {
    "crop_chance": 0.3,
    "mask_chance": 0.3,
    "reorder_chance": 0.3,
    "substitute_chance": 0.3,
    "tail_power": 0.5,
    "label_noise": 0.05,
    "view_share": 0.2,
    "view_operations": ["crop", "mask", "reorder", "substitute"],
    "adversarial_epsilon": 0.01,
}
TOWERS = {"item_gate": "learned", "attributes": ["category"], "time_gaps": True, "context": ["hour"]}
CASES: dict[str, dict[str, Any]] = {
    "frozen": {"encoder": TOWERS, "loss_weights": "learned"},
    "lora": {"encoder": TOWERS | {"text_training": "lora", "lora_rank": 2, "word_dropout": 0.2}, "negatives": "in_batch"},
}


def make_job(folder: Path, case: str) -> TrainJob:
    """A job whose items have one of three categories, and sequences with the moments of a walk."""
    rows = walks(48)
    rows["moments"] = np.where(rows["items"] >= 0, 3 + rows["items"] % 5, 0).astype(np.int32)
    job = write_job(folder, sequences=rows, **CASES[case])
    validation = walks(20, 5)
    validation["moments"] = np.zeros_like(validation["items"])
    job = replace(job, validation_files=write_files(folder / "validation", validation, [20]))
    old = load_catalogue(job.inputs, trains_text=False)
    tokens = (np.load(job.inputs / "tokens.npy"), np.load(job.inputs / "num_tokens.npy")) if job.trains_text else None
    save_catalogue(
        job.inputs,
        old.item_idx,
        old.id_rows.numpy(),
        old.item_ids,
        np.load(job.inputs / "text_vectors.npy"),
        tokens,
        np.arange(NUM_ITEMS) + 1,
        (["category=a", "category=b", "category=c"], np.arange(NUM_ITEMS)[:, None] % 3),
    )
    job = replace(job, augment=AugmentSettings(**AUGMENT))
    job.save()
    return TrainJob.load(job.path)


class Killed(Exception):
    """Stands for a rank that is lost."""


@pytest.mark.parametrize("case", list(CASES))
def test_a_training_with_all_options_is_resumed_the_same_and_its_model_loads(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = make_job(tmp_path / "whole", case), make_job(tmp_path / "killed", case)
    other = replace(other, train=other.train.model_copy(update={"checkpoint_every_steps": 2}))
    steps = loop._steps

    def until_killed(trainer: Trainer) -> Iterator[Any]:
        for figures in steps(trainer):
            yield figures
            if figures.step == 5:  # the checkpoint stands at step 4
                raise Killed

    with process_group(60) as ranks:
        train(job, ranks)
        with monkeypatch.context() as patched:
            patched.setattr(loop, "_steps", until_killed)
            with pytest.raises(Killed):
                train(other, ranks)
        train(other, ranks)
    lines, resumed = read_metrics(job.metrics), read_metrics(other.metrics)
    assert [line["step"] for line in resumed] == [line["step"] for line in lines] == list(range(1, 13))
    np.testing.assert_allclose([line["loss"] for line in resumed], [line["loss"] for line in lines], atol=1e-6)

    result = json.loads(job.result.read_text())
    assert result["calibration"]["users"] > 0
    assert result["calibration"] == pytest.approx(json.loads(other.result.read_text())["calibration"], rel=1e-4)
    if case == "frozen":
        assert set(result["loss_weights"]) == {"user_item", "item_item", "explicit", "views"}
        assert result["loss_weights"]["user_item"] != 1.0
    model = load_model(job.model_dir)
    assert model.calibrated_temperature == result["calibration"]["temperature"]
    assert model.encoder.item_tower.counts.tolist() == list(range(1, NUM_ITEMS + 1))
    texts, ids = ["item number 3", "item number 3", ""], ["i3", None, "i4"]
    items = model.encode_items(texts, ids, [["category=a"]] * 3)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1.0, atol=1e-5)
    assert not np.allclose(items[0], items[1], atol=1e-3), "the id counts"
    users = model.encode_histories(items, np.array([[0, 2]]), np.array([[0, 9]]))
    assert not np.allclose(users, model.encode_histories(items, np.array([[0, 2]]), np.array([[0, 2]])), atol=1e-5)
    chances = model.next_item_chances(users, items)
    np.testing.assert_allclose(chances.sum(), 1.0, atol=1e-5)
    expected = torch.tensor(users @ items.T / result["calibration"]["temperature"]).softmax(1)
    np.testing.assert_allclose(chances, expected, atol=1e-5)
