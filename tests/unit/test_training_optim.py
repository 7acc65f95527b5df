"""Optimisers by name, groups of weights, and the learning rate over time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from recsys_spark.config.learning import TrainSettings
from recsys_spark.training.optim import OPTIMISERS, build_optimiser, build_scheduler, rate_factor


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_every_optimiser_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    inputs = torch.randn(16, 3)
    optimiser = build_optimiser(TrainSettings(optimiser=name, learning_rate=0.05), layer.parameters(), ())
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = ((layer(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_text_weights_have_their_own_rate_and_only_matrices_decay() -> None:
    layer, text = nn.Linear(3, 2), nn.Linear(2, 2)
    text.bias.requires_grad_(False)
    settings = TrainSettings(learning_rate=0.1, text_learning_rate=0.001, weight_decay=0.2)
    groups = build_optimiser(settings, layer.parameters(), text.parameters()).param_groups
    assert [(g["params"], g["lr"], g["weight_decay"]) for g in groups] == [
        ([layer.weight], 0.1, 0.2),
        ([layer.bias], 0.1, 0.0),
        ([text.weight], 0.001, 0.2),
    ]


def test_rate_rises_then_falls_along_half_a_cosine() -> None:
    factors = [rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factors[9] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert factors[100] == pytest.approx(0.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_no_warmup_and_nothing_but_warmup() -> None:
    assert rate_factor(0, 10, 0.0) == 1.0
    assert rate_factor(9, 10, 1.0) == 1.0


def test_scheduler_scales_every_group() -> None:
    layer = nn.Linear(2, 2)
    optimiser = build_optimiser(TrainSettings(learning_rate=0.4), layer.parameters(), ())
    scheduler = build_scheduler(optimiser, lambda: 10, 0.2)
    assert scheduler.get_last_lr() == pytest.approx([0.2, 0.2])
    optimiser.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.4, 0.4])


def test_adam_in_one_kernel_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights_after(name: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
        optimiser = build_optimiser(TrainSettings(optimiser=name, learning_rate=0.05), model.parameters(), [])
        for step in range(5):
            optimiser.zero_grad()
            (model(torch.linspace(-1, 1, 12).reshape(2, 6)) - step).square().sum().backward()
            optimiser.step()
        return [w.detach() for w in model.parameters()]

    for name in ("adam", "adamw"):
        found = weights_after(name)
        with monkeypatch.context() as plain:
            plain.setitem(OPTIMISERS, name, (OPTIMISERS[name][0], {}))
            torch.testing.assert_close(found, weights_after(name), atol=1e-6, rtol=0)
