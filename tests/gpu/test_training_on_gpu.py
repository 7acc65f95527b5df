"""Training on a GPU, where there is one: the CPU's losses, bfloat16, resuming, and a model that any machine loads.

Nothing here needs Spark: ``python -m pytest --noconftest tests/gpu`` runs on a GPU machine that has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.training.distributed import process_group
from recsys_spark.training.job import TrainJob
from recsys_spark.training.loop import train
from recsys_spark.training.step import texts
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import run_ranks, steps, stopped_and_resumed, write_job

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that CUDA sees")

STILL: dict[str, Any] = {"dropout": 0.0, "item_id_dropout": 0.0}  # what is drawn differs between devices
OPTIONS: dict[str, dict[str, Any]] = {
    "whole catalogue": {"negatives": "catalogue"},
    "in batch, with a queue": {"negatives": "in_batch", "queue_size": 12, "pair_loss": "supcon"},
    "sampled": {"negatives": "popularity", "loss": "sampled_softmax", "num_negatives": 20},
    "in parts": {"negatives": "catalogue", "cache_chunk_size": 3, "mask_known_pairs": "both"},
    "learned weights": {"loss": "direct_au", "loss_weights": "learned"},
}


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Products in full float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def on_gpu(job: TrainJob, **train_settings: Any) -> TrainJob:
    return replace(job, train=job.train.model_copy(update={"gpu": True, **train_settings}))


def losses(job: TrainJob, number: int) -> np.ndarray:
    with process_group(30, job.train.gpu) as ranks:
        assert ranks.device.type == ("cuda" if job.train.gpu else "cpu")
        trainer = Trainer(job, ranks)
        for module in trainer.model.modules():  # the text model's own
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return np.array([figures[:4] for figures in steps(trainer, number)])


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_losses_are_the_cpus(tmp_path: Path, name: str) -> None:
    job = write_job(tmp_path, encoder=STILL, **OPTIONS[name])
    np.testing.assert_allclose(losses(on_gpu(job), 6), losses(job, 6), rtol=2e-4)


def test_text_is_learned_as_on_the_cpu(tmp_path: Path) -> None:
    job = write_job(tmp_path, encoder={**STILL, "text_training": "full"}, text_learning_rate=0.001)
    expected = losses(job, 4)
    np.testing.assert_allclose(losses(on_gpu(job), 4), expected, rtol=2e-3)
    assert expected[-1, 0] < expected[0, 0]


def test_activations_that_fill_the_gpu_are_computed_again_and_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = on_gpu(write_job(tmp_path, encoder={**STILL, "text_training": "full"}))
    expected = losses(job, 3)
    seen = []
    monkeypatch.setattr(texts, "_fills", lambda _encoder, num_tokens, _device: bool(seen.append(num_tokens)) or True)
    np.testing.assert_allclose(losses(job, 3), expected, rtol=1e-4)
    assert min(seen) > 0


def test_more_tokens_than_the_memory_holds_are_said_to_fill_it(tmp_path: Path) -> None:
    job = on_gpu(write_job(tmp_path, encoder={"text_training": "full"}))
    with process_group(30, gpu=True) as ranks:
        encoder = Trainer(job, ranks).text_encoder
        assert encoder is not None
        assert texts._fills(encoder, 10**12, ranks.device)
        assert not texts._fills(encoder, 100, ranks.device)


def test_bfloat16_learns_nearly_the_same(tmp_path: Path) -> None:
    job = write_job(tmp_path, encoder=STILL, epochs=8, learning_rate=0.02)
    exact, rounded = losses(on_gpu(job), 30), losses(on_gpu(job, precision="bfloat16"), 30)
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded[:3, 0], exact[:3, 0], rtol=0.02)  # later steps start from weights that differ
    assert rounded[-1, 0] < rounded[0, 0]


def test_resumed_equals_undisturbed(tmp_path: Path) -> None:
    job = on_gpu(write_job(tmp_path, encoder=STILL, epochs=4, weight_average=0.9))
    expected = losses(job, 9)
    with process_group(30, gpu=True) as ranks:
        found, _ = stopped_and_resumed(job, ranks, 5, 4)
    np.testing.assert_allclose([figures[:4] for figures in found], expected, rtol=1e-4)


def test_the_exported_model_loads_on_a_cpu_with_the_same_vectors(tmp_path: Path) -> None:
    job = on_gpu(write_job(tmp_path, epochs=2))
    with process_group(30, gpu=True) as ranks:
        train(job, ranks)
        result = json.loads(job.result.read_text())
        assert result["device"] == "cuda:0"
        assert 0 < result["peak_gpu_gib"] < 10
        trainer = Trainer(job, ranks)
        loaded = load_model(job.model_dir).encoder
        assert next(loaded.parameters()).device.type == "cpu"
        trainer.encoder.load_state_dict(loaded.state_dict())
        trainer.model.eval()
        positions = torch.arange(len(trainer.catalogue), device=ranks.device)
        with torch.inference_mode():
            found = trainer.model.encode(positions).cpu()
            text, rows = (part.cpu() for part in (trainer.catalogue.text_vectors(positions), trainer.catalogue.id_rows))
            expected = loaded.eval().item_vectors(text, rows, trainer.catalogue.value_rows.cpu())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_torchrun_trains_by_nccl(tmp_path: Path) -> None:
    job = on_gpu(write_job(tmp_path, epochs=2))
    job.save()
    code, output = run_ranks(job, 1)
    assert code == 0, output
    assert json.loads(job.result.read_text())["device"] == "cuda:0"
