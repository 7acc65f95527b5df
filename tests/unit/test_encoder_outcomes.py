"""Platt scaling of outcomes against a search for the least loss, planted truths, and the package with a head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.outcome_calibration import calibrate_outcomes, fit_platt
from recsys_spark.encoder.outcome_head import OutcomeHead
from recsys_spark.encoder.package import save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.register.stage import _probabilities


def drawn(num: int, slope: float, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of which the truth is ``sigmoid(slope x logit + offset)``, and what happened."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num, generator=draw, dtype=torch.float64)
    return logits, torch.rand(num, generator=draw) < (slope * logits + offset).sigmoid()


def test_slope_and_offset_are_those_of_the_least_loss() -> None:
    logits, happened = drawn(3_000, 0.4, -1.5)
    wanted = int(happened.sum())
    target = np.where(happened, (wanted + 1) / (wanted + 2), 1 / (3_000 - wanted + 2))

    def loss(weights: np.ndarray) -> float:
        z = weights[0] * logits.numpy() + weights[1]
        return float(np.mean(np.logaddexp(0, z) - target * z))

    best = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    found = fit_platt(logits, happened)
    assert found == pytest.approx(tuple(best.x), abs=1e-5)
    assert found == pytest.approx((0.4, -1.5), abs=0.15)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_logits_that_tell_the_kinds_apart_have_a_finite_slope(scale: float) -> None:
    logits = torch.tensor([-3.0, -2.0, 2.0, 3.0], dtype=torch.float64) * scale
    slope, offset = fit_platt(logits, torch.tensor([False, False, True, True]))
    assert 0 < slope * scale < 10
    assert offset == pytest.approx(0.0, abs=1e-6)
    assert fit_platt(torch.full((4,), 7.0), torch.tensor([True, False, True, True])) == pytest.approx(
        (0.0, float(torch.tensor((3 * 4 / 5 + 1 / 3) / 4, dtype=torch.float64).logit()))
    )


def test_calibrating_mends_logits_that_are_too_sure_and_shifted() -> None:
    logits, happened = drawn(6_000, 0.4, -1.5)
    found = calibrate_outcomes(logits, happened)
    assert found is not None
    assert found.ece < 0.03 < 0.15 < found.ece_before
    assert found.log_loss < found.log_loss_before - 0.3
    assert found.log_loss < found.log_loss_base - 0.05
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, happened.double()).item()
    assert found.log_loss_before == pytest.approx(plain, abs=1e-12)
    share = happened.double().mean()
    assert found.log_loss_base == pytest.approx(-(share * share.log() + (1 - share) * (1 - share).log()).item(), abs=1e-4)
    assert found.ece_base < 1e-3
    assert (found.events, found.wanted) == (6_000, int(happened.sum()))
    assert (found.slope, found.offset) == fit_platt(logits, happened)


def test_each_half_is_judged_by_the_fit_of_the_other() -> None:
    """Kinds come in two halves that say the opposite of each other: what one is fitted to is wrong for the other."""
    logits = torch.tensor([5.0, -5.0] * 10 + [-5.0, 5.0] * 10, dtype=torch.float64)
    happened = torch.tensor([True] * 20 + [False] * 20)
    found = calibrate_outcomes(logits, happened)
    assert found is not None
    assert found.log_loss > found.log_loss_base + 0.5
    assert calibrate_outcomes(logits, torch.ones(40, dtype=torch.bool)) is None
    assert calibrate_outcomes(logits, torch.arange(40) == 3) is None
    assert calibrate_outcomes(logits[:0], torch.zeros(0, dtype=torch.bool)) is None


def test_chances_are_those_of_the_calibrated_logits() -> None:
    head = OutcomeHead(2)
    users, items = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    assert head.chances(users, items).tolist() == [0.5, 0.5]
    with torch.no_grad():
        head.interaction[0, 1], head.item[1], head.user[0], head.bias[...] = 2.0, 1.0, 0.5, -1.0
    assert head(users, items).tolist() == pytest.approx([2.5, -0.2])
    head.calibrate(2.0, -1.0)
    assert head.chances(users, items).tolist() == pytest.approx(torch.tensor([4.0, -1.4]).sigmoid().tolist())


def test_a_head_goes_into_the_package_and_folders_of_before_load(tmp_path: Path) -> None:
    settings = EncoderSettings(text_model="tiny", dtype="float32", dimension=8, max_tokens=16, user_layers=1, max_history=5)
    text = TextEncoder.load("tiny", 16, "float32")
    encoder = Encoder(settings, 32, 1, outcome_head=True)
    assert encoder.outcome is not None
    with torch.no_grad():
        encoder.outcome.interaction.normal_()
    encoder.outcome.calibrate(0.5, -2.0)
    model = load_model(save_model(tmp_path / "headed", encoder, text, ["a"], 0.07, {}))
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(2, 3, 8)).astype(np.float32)
    expected = encoder.outcome.chances(torch.tensor(users), torch.tensor(items)).detach().numpy()
    np.testing.assert_array_equal(model.outcome_chances(users, items), expected)

    folder = save_model(tmp_path / "plain", Encoder(settings, 32, 1), text, ["a"], 0.07, {})
    document = json.loads((folder / "encoder.json").read_text())
    assert document.pop("outcome_head") is False
    (folder / "encoder.json").write_text(json.dumps(document))
    assert load_model(folder).encoder.outcome is None


def test_figures_go_to_mlflow_by_name() -> None:
    training = {"calibration": {"ece": 0.1, "users": 3}, "outcome": {"log_loss": 0.5}, "loss_curve": [[1, 2.0]]}
    expected = {"next_item_ece": [[0, 0.1]], "next_item_users": [[0, 3.0]], "outcome_log_loss": [[0, 0.5]]}
    assert _probabilities(training) == expected
    assert _probabilities({}) == {}
