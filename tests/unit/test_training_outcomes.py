"""The outcome head: its loss against the plain formula, what it learns, and that without it nothing is different."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.errors import InputError, TrainingError
from recsys_spark.training.catalogue import load_catalogue
from recsys_spark.training.distributed import process_group
from recsys_spark.training.feed.augment import History
from recsys_spark.training.feed.batch import Batch, Outcomes
from recsys_spark.training.job import TrainJob
from recsys_spark.training.loop import train
from recsys_spark.training.metrics import read_metrics
from recsys_spark.training.step.train_step import TrainStep
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import NUM_ITEMS, steps, stopped_and_resumed, walks, write_files, write_job
from tests.unit.test_training_step import ALONE, BATCH, TEMPERATURE, catalogue, make_step

HISTORIES = torch.tensor([[-1, 0, 1], [3, 1, 3], [-1, -1, -1]])
ASKED, HAPPENED = torch.tensor([2, 7, 4]), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
OUTCOMES = Outcomes(History(HISTORIES), ASKED, HAPPENED, WEIGHTS)


def step_with_head(**train: object) -> TrainStep:
    """As ``make_step``, with a head that is no longer at its start."""
    torch.manual_seed(0)
    settings = EncoderSettings(dimension=4, user_layers=1, user_heads=1, max_history=3, dropout=0.0, item_id_dropout=0.0)
    encoder = Encoder(settings, 5, 6, temperature=TEMPERATURE, outcome_head=True).double()
    assert encoder.outcome is not None
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in encoder.outcome.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    return TrainStep(encoder, catalogue(), TrainSettings(**{"outcome_share": 0.7} | train), ALONE)


def plain_loss(step: TrainStep) -> Tensor:
    """The weighted mean of -log p(what happened), row by row and place by place."""
    vectors, head = step.encode(torch.arange(8)), step.encoder.outcome
    assert head is not None
    total = torch.zeros((), dtype=torch.float64)
    for history, item, happened, weight in zip(HISTORIES, ASKED, HAPPENED, WEIGHTS, strict=True):
        user = step.encoder.user_states(vectors[history.clamp(min=0)][None], (history >= 0)[None])[0, -1]
        logit = head.bias
        for i in range(4):
            logit = logit + head.user[i] * user[i] + head.item[i] * vectors[item][i]
            logit = logit + sum(user[i] * head.interaction[i, j] * vectors[item][j] for j in range(4))
        chance = 1 / (1 + torch.exp(-logit))
        total = total - weight * torch.log(chance if happened == 1 else 1 - chance)
    return total / WEIGHTS.sum()


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_loss_and_its_gradient_equal_the_plain_formula(chunk: int | None) -> None:
    found, expected = step_with_head(cache_chunk_size=chunk), step_with_head()
    out = found(replace(BATCH, outcomes=OUTCOMES))
    out.loss.backward()
    loss = expected(BATCH).loss + 0.7 * plain_loss(expected)
    loss.backward()
    assert out.outcome.item() == pytest.approx(plain_loss(expected).item(), abs=1e-12)
    assert out.loss.item() == pytest.approx(loss.item(), abs=1e-12)
    for (name, one), other in zip(found.named_parameters(), expected.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-10, rtol=0, msg=name)
    assert found.encoder.outcome is not None
    assert float(found.encoder.outcome.interaction.grad.abs().min()) > 0


def test_the_events_asked_about_are_no_negatives_of_the_other_tasks() -> None:
    for negatives in ("in_batch", "catalogue"):
        step = step_with_head(negatives=negatives, queue_size=4)
        alone, beside = step.eval()(BATCH), step(replace(BATCH, outcomes=OUTCOMES))
        assert beside.user_item.item() == pytest.approx(alone.user_item.item(), abs=1e-12)
        assert beside.item_item.item() == pytest.approx(alone.item_item.item(), abs=1e-12)
        assert beside.masked.tolist() == alone.masked.tolist()


def test_without_a_head_nothing_is_different() -> None:
    """The head draws no random number and adds nothing but its own weights; without it there is not even a name."""
    plain, headed = make_step(), step_with_head(outcome_share=0.0)
    weights, others = plain.state_dict(), headed.state_dict()
    assert {name for name in others if name not in weights} == {
        f"encoder.outcome.{name}" for name in ("interaction", "user", "item", "bias", "slope", "offset")
    }
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert plain(BATCH).loss.item() == headed(BATCH).loss.item()
    with pytest.raises(TrainingError, match="without an outcome head"):
        plain(replace(BATCH, outcomes=OUTCOMES))
    learned = (make_step(loss_weights="learned"), step_with_head(loss_weights="learned"))
    assert [len(step.task_weights.weights()) for step in learned if step.task_weights] == [4, 5]


def test_bfloat16_gives_nearly_the_loss_of_float32() -> None:
    rows = Outcomes(History(HISTORIES), ASKED, HAPPENED.float(), WEIGHTS.float())
    batch = Batch(BATCH.sequences, BATCH.sequence_weights.float(), BATCH.pairs, BATCH.pair_weights.float(), outcomes=rows)
    step = step_with_head().float()
    plain = step(batch).outcome
    step._bfloat16 = True
    rounded = step(batch).outcome
    assert rounded.dtype == torch.float32
    assert plain.item() != rounded.item() == pytest.approx(plain.item(), rel=0.05)


# -- whole trainings -------------------------------------------------------------------------------------------------


def planted(num: int, seed: int) -> dict[str, np.ndarray]:
    """Walks, and an event that mostly happens where its item is at most five steps ahead on the ring, rarely elsewhere;
    every tenth user has no past."""
    rng, rows = np.random.default_rng(seed), walks(num, seed)
    items = rows["items"][:, 1:].copy()
    ahead = rng.integers(1, NUM_ITEMS, num)
    ahead[::2] = rng.integers(1, 6, len(ahead[::2]))
    asked = (items[:, -1] // 10 + ahead) % NUM_ITEMS
    happened = rng.random(num) < np.where(ahead <= 5, 0.95, 0.05)
    items[::10] = -1
    moments = np.where(items >= 0, 3 + items % 5, 0).astype(np.int32)
    columns = {"items": items, "item_idx": asked.astype(np.int32) * 10, "outcome": happened.astype(np.int32), "moments": moments}
    return {"user_idx": rows["user_idx"], "weight": np.ones(num, dtype=np.float32), **columns}


def make_job(folder: Path, num: int = 400, moments: bool = False, **train: Any) -> TrainJob:
    sequences = walks(48)
    sequences["moments"] = np.where(sequences["items"] >= 0, 3 + sequences["items"] % 5, 0).astype(np.int32)
    encoder = {"dropout": 0.1, "item_id_dropout": 0.1, "time_gaps": moments, "max_history": 6}
    shares = {"outcome_share": 1.0, "outcome_batch_size": 64, "learning_rate": 0.02, "user_item_share": 0.3}
    job = write_job(folder, sequences=sequences, encoder=encoder, validation=0, **shares | train)
    half = num // 2
    job = replace(
        job,
        outcome_files=write_files(folder / "outcomes", planted(num, 1), [half, num - half]),
        validation_outcome_files=write_files(folder / "held", planted(600, 2), [300, 300]),
    )
    job.save()
    return TrainJob.load(job.path)


def test_a_planted_outcome_is_learned_calibrated_and_exported(tmp_path: Path) -> None:
    job = make_job(tmp_path, num=3_000, epochs=60)
    with process_group(30) as ranks:
        train(job, ranks)
    result = json.loads(job.result.read_text())
    found = result["outcome"]
    assert set(result) >= {"outcome", "steps"}
    assert (found["events"], 0 < found["wanted"] < 600) == (600, True)
    share = found["wanted"] / 600
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found["log_loss_base"] == pytest.approx(entropy, abs=1e-3)
    assert found["log_loss"] < found["log_loss_base"] - 0.15
    assert found["log_loss"] < found["log_loss_before"] + 0.01
    lines = read_metrics(job.metrics)
    assert lines[-1]["outcome_loss"] < lines[0]["outcome_loss"] == pytest.approx(math.log(2), abs=1e-6)

    model = load_model(job.model_dir)
    head = model.encoder.outcome
    assert head is not None
    assert (float(head.slope), float(head.offset)) == pytest.approx((found["slope"], found["offset"]), rel=1e-5)
    rows = planted(600, 2)
    known = load_catalogue(job.inputs, trains_text=False)
    vectors = model.encode_text_vectors(np.load(job.inputs / "text_vectors.npy"), known.id_rows.numpy())
    users = model.encode_histories(vectors, np.where(rows["items"] >= 0, rows["items"] // 10, -1))
    chances = model.outcome_chances(users, vectors[rows["item_idx"] // 10])
    happened = rows["outcome"] == 1
    losses = -np.log(np.where(happened, chances, 1 - chances))
    assert losses.mean() == pytest.approx(found["log_loss"], abs=0.01)  # fitted on all, judged in halves there
    ranks_of = np.argsort(np.argsort(chances))
    auc = (ranks_of[happened].sum() - happened.sum() * (happened.sum() - 1) / 2) / (happened.sum() * (~happened).sum())
    assert auc > 0.8


@pytest.mark.parametrize("loss_weights", ["fixed", "learned"])
def test_resumed_equals_undisturbed(tmp_path: Path, loss_weights: str) -> None:
    job = make_job(tmp_path, moments=True, loss_weights=loss_weights, epochs=3)
    assert len(job.outcome_files) == 2
    with process_group(30) as ranks:
        expected = steps(Trainer(job, ranks), 9)
        found, again = stopped_and_resumed(job, ranks, 5, 4)
    np.testing.assert_allclose([f.outcome for f in found], [f.outcome for f in expected], atol=1e-6)
    np.testing.assert_allclose([f.loss for f in found], [f.loss for f in expected], atol=1e-6)
    assert min(f.outcome for f in found) > 0
    names = {name for name, _ in again.model.named_parameters() if "outcome" in name}
    assert len(names) == 4
    assert ("task_weights.log_variances" in dict(again.model.named_parameters())) == (loss_weights == "learned")


def test_moments_of_the_past_reach_the_head(tmp_path: Path) -> None:
    """With the same items and other moments, another loss."""
    job = make_job(tmp_path, moments=True)
    with process_group(30) as ranks:
        trainer = Trainer(job, ranks)
        stream = trainer.batches.from_step(0)
        batch, _ = next(stream)
        stream.close()
        assert batch.outcomes is not None
        assert batch.outcomes.history.moments is not None
        assert trainer.model.encoder.outcome is not None
        with torch.no_grad():
            trainer.model.encoder.outcome.user.copy_(torch.arange(8.0))
        model = trainer.model.eval()
        told = model(batch).outcome.item()
        history = replace(batch.outcomes.history, moments=torch.zeros_like(batch.outcomes.history.moments))
        assert model(replace(batch, outcomes=replace(batch.outcomes, history=history))).outcome.item() != pytest.approx(told)


def test_a_head_without_a_row_to_learn_from_is_refused(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), outcome_files=())
    with process_group(30) as ranks, pytest.raises(TrainingError, match=r"'training_outcomes': no rows.*outcome_share = 0"):
        Trainer(job, ranks)


def test_validation_of_one_kind_leaves_the_logits_as_learned(tmp_path: Path) -> None:
    job = make_job(tmp_path, max_steps=3)
    held = planted(50, 2)
    held["outcome"][:] = 1
    job = replace(job, validation_outcome_files=write_files(tmp_path / "one kind", held, [50]))
    with process_group(30) as ranks:
        train(job, ranks)
    assert "outcome" not in json.loads(job.result.read_text())
    head = load_model(job.model_dir).encoder.outcome
    assert head is not None
    assert (float(head.slope), float(head.offset)) == (1.0, 0.0)


def test_a_training_without_outcomes_has_no_head(tmp_path: Path) -> None:
    job = write_job(tmp_path, max_steps=2)
    with process_group(30) as ranks:
        train(job, ranks)
    assert "outcome" not in json.loads(job.result.read_text())
    model = load_model(job.model_dir)
    assert model.encoder.outcome is None
    with pytest.raises(InputError, match="no outcome head; expected a model that was trained with one"):
        model.outcome_chances(np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float32))
