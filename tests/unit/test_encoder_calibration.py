"""Calibrated probabilities and learned loss weights, against plain formulas and known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from recsys_spark.encoder.calibration import calibrate, expected_calibration_error, fit_temperature
from recsys_spark.encoder.task_weights import TaskWeights


def drawn(users: int, items: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, some of them no candidates, and items drawn by the softmax at a temperature."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(users, items, generator=draw, dtype=torch.float64) * 2 - 1
    scores[torch.rand(users, items, generator=draw) < 0.1] = float("-inf")
    return scores, torch.multinomial((scores / temperature).softmax(1), 1, generator=draw)[:, 0]


def test_the_temperature_of_least_log_loss_is_found() -> None:
    scores, target = drawn(4_000, 30, 0.2)
    found = fit_temperature(scores, target)

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / np.exp(log_temperature), target).item()

    best = minimize_scalar(loss, bounds=(np.log(1e-2), np.log(10)), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(np.exp(best.x), rel=1e-4)
    assert found == pytest.approx(0.2, rel=0.05)


def test_calibrating_mends_a_temperature_that_is_too_sure() -> None:
    scores, target = drawn(4_000, 30, 0.2)
    found = calibrate(scores, target, trained_temperature=0.05)
    assert found is not None
    assert found.temperature == pytest.approx(0.2, rel=0.05)
    assert found.users == 4_000
    assert found.log_loss < found.log_loss_before - 0.5
    assert found.ece < 0.02 < found.ece_before
    before = torch.nn.functional.cross_entropy(scores / 0.05, target).item()
    assert found.log_loss_before == pytest.approx(before, abs=1e-9)
    assert calibrate(scores[:1], target[:1], 0.1) is None


def test_each_half_is_judged_by_the_temperature_of_the_other() -> None:
    """The first half is sure and right, the second sure and wrong: judged by themselves, both would look better."""
    scores = torch.zeros(8, 4)
    scores[:, 0] = 1.0
    target = torch.tensor([0, 1] * 4)
    found = calibrate(scores, target, 1.0)
    assert found is not None
    assert found.log_loss > 10.0


def test_the_calibration_error_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    chances, happened = rng.random(103), rng.random(103) < 0.4
    order = np.argsort(chances, kind="stable")
    expected = 0.0
    for rows in np.array_split(order, 7):
        expected += len(rows) / 103 * abs(chances[rows].mean() - happened[rows].mean())
    assert expected_calibration_error(torch.tensor(chances), torch.tensor(happened), 7) == pytest.approx(expected, abs=1e-12)
    assert expected_calibration_error(torch.tensor([0.5, 0.5]), torch.tensor([True, False]), 10) == pytest.approx(0.5)


def test_learned_weights_start_at_1_and_go_to_1_over_twice_the_loss() -> None:
    tasks = TaskWeights(["a", "b", "c"])
    losses = {"a": torch.tensor(2.0), "c": torch.tensor(0.5)}
    assert tasks(losses).item() == pytest.approx(2.5)
    optimiser = torch.optim.SGD(tasks.parameters(), 0.5)
    for _ in range(200):
        optimiser.zero_grad()
        tasks(losses).backward()
        optimiser.step()
    assert tasks.weights() == pytest.approx({"a": 0.25, "b": 1.0, "c": 1.0}, abs=1e-3)
    s = tasks.log_variances.detach()
    assert tasks(losses).item() == pytest.approx((2 * (-s[0]).exp() + s[0] / 2 + 0.5 * (-s[2]).exp() + s[2] / 2).item())


def test_a_loss_that_comes_to_0_does_not_raise_its_weight_without_end() -> None:
    tasks = TaskWeights(["met", "open"])
    optimiser = torch.optim.SGD(tasks.parameters(), lr=1.0)
    for _ in range(50):
        optimiser.zero_grad()
        tasks({"met": torch.tensor(0.0), "open": torch.tensor(0.5)}).backward()
        optimiser.step()
    assert tasks.weights() == {"met": pytest.approx(math.exp(5.0)), "open": pytest.approx(1.0, abs=0.01)}
