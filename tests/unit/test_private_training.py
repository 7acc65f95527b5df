"""Training with differential privacy: who is drawn, what is learned without noise, the noise, and what is promised."""

from __future__ import annotations

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from recsys_spark.config import parse_config
from recsys_spark.errors import ConfigError
from recsys_spark.training.catalogue import load_catalogue
from recsys_spark.training.loop import train
from recsys_spark.training.private import accounting
from recsys_spark.training.private.users import DrawnUsers
from recsys_spark.training.trainer import Trainer
from tests.debug_data import debug_config
from tests.training_fixture import ALONE, steps, walks, write_job

PRIVACY = {"epsilon": 4.0, "users_per_step": 10, "clip_norm": 0.5}


def _doubled(number: int) -> dict[str, np.ndarray]:
    """Walks of half as many users: each has two rows. A row's weight is its number, by which it is known again."""
    users, weights = (np.arange(number) // 2).astype(np.int32), np.arange(number).astype(np.float32)
    return walks(number) | {"user_idx": users, "weight": weights}


@pytest.mark.parametrize(("sigma", "epsilon"), [(1.0, 1.0), (2.0, 0.5), (0.7, 6.0)])
def test_spent_is_that_of_one_gaussian_release(sigma: float, epsilon: float) -> None:
    """Balle & Wang 2018, theorem 8: the delta of one release, exactly."""
    delta = norm.cdf(1 / (2 * sigma) - epsilon * sigma) - math.exp(epsilon) * norm.cdf(-1 / (2 * sigma) - epsilon * sigma)
    assert accounting.spent(sigma, delta, 1.0, 1) == pytest.approx(epsilon, abs=0.02)


def test_noise_keeps_the_promise_and_no_more() -> None:
    multiplier = accounting.noise_multiplier(3.0, 1e-4, 0.05, 200)
    assert 2.9 < accounting.spent(multiplier, 1e-4, 0.05, 200) <= 3.0
    assert accounting.spent(multiplier, 1e-4, 0.05, 100) < 2.5
    assert accounting.spent(multiplier, 1e-4, 0.05, 0) == 0.0
    with pytest.raises(ConfigError, match=r"\[train.privacy\]: epsilon 0.001 .*; raise epsilon"):
        accounting.noise_multiplier(1e-3, 1e-9, 1.0, 100)


def test_each_user_is_drawn_by_chance_and_with_one_row(tmp_path: Path) -> None:
    job = write_job(tmp_path, sequences=_doubled(48), privacy=PRIVACY)
    users = DrawnUsers(job, load_catalogue(job.inputs, False), 0, 1)
    assert (users.num_users, users.sample_rate, users.steps_per_epoch) == (24, 10 / 24, 2)
    times, sizes = np.zeros(48), []
    for batch, _ in islice(users.from_step(0), 600):
        drawn = batch.sequence_weights.long().numpy()
        assert len(set(drawn // 2)) == len(drawn)
        times[drawn] += 1
        sizes.append(len(drawn))
    assert np.abs(times / 600 - 5 / 24).max() < 0.085  # five standard deviations
    assert np.std(sizes) == pytest.approx(math.sqrt(24 * 10 / 24 * 14 / 24), rel=0.2)  # of a binomial: nobody fills up


def test_ranks_share_the_users_among_them(tmp_path: Path) -> None:
    job = write_job(tmp_path, sequences=_doubled(48), privacy=PRIVACY | {"users_per_step": 24})
    catalogue = load_catalogue(job.inputs, False)
    drawn = []
    for rank in range(3):
        users = DrawnUsers(job, catalogue, rank, 3)
        assert (users.num_users, users.sample_rate) == (24, 1.0)
        drawn.append(len(next(users.from_step(0))[0].sequences))
    assert drawn == [8, 8, 8]


def test_no_two_trainings_draw_alike(tmp_path: Path) -> None:
    job = write_job(tmp_path, privacy=PRIVACY)
    catalogue = load_catalogue(job.inputs, False)
    first, second = (
        [batch.sequences.tolist() for batch, _ in islice(DrawnUsers(job, catalogue, 0, 1).from_step(0), 8)] for _ in range(2)
    )
    assert first != second


def test_without_noise_the_encoder_gets_the_gradient_of_the_mean_loss(tmp_path: Path) -> None:
    """Through text, ids and attention; the users' mean losses are made of the whole encoder's graph here."""
    off = {"epsilon": 4.0, "users_per_step": 1_000, "clip_norm": 1e9}
    quiet = {"dropout": 0.0, "item_id_dropout": 0.0}
    trainer = Trainer(write_job(tmp_path, encoder=quiet, negatives="catalogue", privacy=off), ALONE)
    assert trainer.private is not None
    trainer.private.multiplier = 0.0
    batch, _ = next(trainer.batches.from_step(0))
    loss = trainer.private.backward(batch, ALONE)
    found = {name: p.grad for name, p in trainer.encoder.named_parameters() if p.grad is not None}
    trainer.optimiser.zero_grad(set_to_none=True)
    vectors = trainer.model.encode(torch.arange(len(trainer.catalogue)))
    history, target = batch.sequences[:, :-1], batch.sequences[:, 1:]
    counts = (history != -1) & (target != -1)
    states = trainer.encoder.user_states(vectors[history.clamp(min=0)], history != -1)
    logits = states @ vectors.T / trainer.encoder.temperature.detach()
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target.clamp(min=0), reduction="none") * counts
    expected = (each.sum(1) / counts.sum(1)).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    wanted = {name: p.grad for name, p in trainer.encoder.named_parameters() if p.grad is not None}
    assert {"item_tower.ids.weight", "user_tower.positions.weight"} < set(found)
    assert set(found) == set(wanted)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6, msg=name)


def test_noise_has_the_length_that_was_reckoned_with_and_is_new_each_time(tmp_path: Path) -> None:
    trainer = Trainer(write_job(tmp_path, privacy=PRIVACY), ALONE)
    private = trainer.private
    assert private is not None
    zeros = [torch.zeros(200, 100), torch.zeros(100)]
    first, second = private._noised(zeros, ALONE), private._noised(zeros, ALONE)
    assert float(first[0].std()) == pytest.approx(private.multiplier * 0.5, rel=0.03)
    assert float(first[0].mean()) == pytest.approx(0.0, abs=5 * private.multiplier * 0.5 / math.sqrt(20_000))
    assert abs(float((first[0] * second[0]).mean())) < 5 * (private.multiplier * 0.5) ** 2 / math.sqrt(20_000)
    assert not torch.equal(first[1], first[0][0])


def test_a_step_of_nobody_is_noise_alone(tmp_path: Path) -> None:
    trainer = Trainer(write_job(tmp_path, privacy=PRIVACY), ALONE)
    batch, _ = next(trainer.batches.from_step(0))
    assert trainer.private is not None
    nobody = batch.__class__(batch.sequences[:0], batch.sequence_weights[:0], batch.pairs, batch.pair_weights)
    assert trainer.private.backward(nobody, ALONE) == 0.0
    norms = [float(p.grad.norm()) for p in trainer.encoder.parameters() if p.grad is not None]
    assert norms
    assert min(norms) > 0


def test_a_whole_training_keeps_its_promise_and_its_last_epoch(tmp_path: Path) -> None:
    job = write_job(tmp_path, epochs=3, privacy=PRIVACY, encoder={"dropout": 0.1})
    train(job, ALONE)
    result = json.loads(job.result.read_text())
    assert (result["steps"], result["best_epoch"], result["stopped"]) == (15, 3, "all epochs done")
    told = result["privacy"]
    assert 3.9 < told["epsilon"] <= 4.0
    assert told["delta"] == pytest.approx(0.1 / 48)
    assert told["users"] == 48
    assert "calibration" not in result


def test_what_is_learned_with_little_noise_finds_the_next_item(tmp_path: Path) -> None:
    """Walks on a ring are easily foretold; where noise is all there is they are not."""
    found = {}
    for multiplier in (0.01, 100.0):
        trainer = Trainer(write_job(tmp_path / str(multiplier), learning_rate=0.03, epochs=8, privacy=PRIVACY), ALONE)
        assert trainer.private is not None
        trainer.private.multiplier = multiplier
        losses = [figures.loss for figures in steps(trainer, 40)]
        found[multiplier] = np.mean(losses[-5:]) / np.mean(losses[:5])
    assert found[0.01] < 0.7 < found[100.0]


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("train", "item_item_share", 0.2, "item_item_share = 0.2"),
        ("train", "negatives", "popularity", "negatives = 'popularity'"),
        ("train", "loss", "supcon", "loss = 'supcon'"),
        ("encoder", "item_gate", "learned", "encoder.item_gate = 'sum'"),
        ("augment", "tail_power", 0.5, "goes without [augment]"),
    ],
)
def test_what_privacy_rules_out_is_refused(tmp_path: Path, section: str, key: str, value: object, says: str) -> None:
    document = debug_config(tmp_path, tmp_path)
    document.setdefault("train", {})["privacy"] = {"epsilon": 2.0}
    document["train"].pop("item_item_share", None)
    document.setdefault(section, {})[key] = value
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        parse_config(document)


def test_privacy_turns_off_what_it_rules_out_where_nothing_is_said(tmp_path: Path) -> None:
    document = debug_config(tmp_path, tmp_path)
    document.setdefault("train", {})["privacy"] = {"epsilon": 2.0}
    settings = parse_config(document).train
    assert (settings.item_item_share, settings.calibrate) == (0.0, False)
    assert settings.privacy is not None
    assert settings.model_copy() == type(settings).model_validate(settings.model_dump())
