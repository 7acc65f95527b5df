"""The mean of the weights: the formula, what is validated and kept, and resuming with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recsys_spark.training import checkpoint
from recsys_spark.training.averaging import WeightAverage
from recsys_spark.training.distributed import process_group
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import steps, stopped_and_resumed, write_job


@given(decay=st.floats(0.01, 0.999), values=st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_it_is_the_moving_mean_of_the_formula(decay: float, values: list[float]) -> None:
    learned, fixed = nn.Parameter(torch.tensor([2.0, -1.0])), nn.Parameter(torch.tensor([3.0]), requires_grad=False)
    average, expected = WeightAverage([learned, fixed], decay), np.array([2.0, -1.0])
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            learned.fill_(value)
        average.update(step)
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * value
    with average.in_place():
        np.testing.assert_allclose(learned.detach().numpy(), expected, atol=1e-5)
        assert fixed.item() == 3.0
    np.testing.assert_allclose(learned.detach().numpy(), values[-1], atol=1e-6)


def _weights(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in trainer.model.named_parameters()}


def test_the_best_epoch_is_kept_as_it_was_validated(tmp_path: Path) -> None:
    order = write_job(tmp_path, weight_average=0.9)
    with process_group(30) as ranks:
        trainer = Trainer(order, ranks)
        steps(trainer, 6)
        last, found = _weights(trainer), trainer.end_epoch(0)
        assert trainer.average is not None
        with trainer.average.in_place():
            averaged = _weights(trainer)
            assert trainer.validate() == pytest.approx(found)
        best = checkpoint.load_best(order.checkpoints, trainer.identity)
    assert best is not None
    for name, value in averaged.items():
        np.testing.assert_array_equal(best["model"][name].numpy(), value)
    assert any(np.abs(averaged[name] - last[name]).max() > 1e-4 for name in last)


def test_a_resumed_run_has_the_same_mean(tmp_path: Path) -> None:
    order = write_job(tmp_path, weight_average=0.9)
    with process_group(30) as ranks:
        whole = Trainer(order, ranks)
        steps(whole, 8)
        _, again = stopped_and_resumed(order, ranks, 5, 3)
        assert whole.average is not None
        assert again.average is not None
        for one, other in zip(whole.average.state(), again.average.state(), strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
