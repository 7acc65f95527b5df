"""The step's two losses against plain loops, and what counts as a negative."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.errors import ConfigError, TrainingError
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.job import check_negatives, settled
from recsys_spark.training.step.train_step import TrainStep
from tests.training_fixture import ALONE

TEMPERATURE = 0.3
SEQUENCES = torch.tensor([[-1, 0, 1, 2], [3, 1, 3, 0], [-1, -1, -1, 5]])
WEIGHTS = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
PAIRS = torch.tensor([[0, 1], [0, 2], [3, 1], [2, 0]])
PAIR_WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
BATCH = Batch(SEQUENCES, WEIGHTS, PAIRS, PAIR_WEIGHTS)


def catalogue() -> Catalogue:
    """Eight items; 6 and 7 have no fit event."""
    vectors = np.random.default_rng(0).normal(size=(8, 5))
    return Catalogue(np.arange(8) * 2, np.array([0, 1, 2, 3, 4, 5, -1, -1]), [f"i{i}" for i in range(6)], vectors)


def make_step(**train: object) -> TrainStep:
    torch.manual_seed(0)
    settings = EncoderSettings(dimension=4, user_layers=1, user_heads=1, max_history=3, dropout=0.0, item_id_dropout=0.0)
    encoder = Encoder(settings, 5, 6, temperature=TEMPERATURE).double()
    return TrainStep(encoder, catalogue(), TrainSettings(**train), ALONE)


def cross_entropy(anchor: Tensor, target: Tensor, others: list[Tensor]) -> float:
    scores = [(anchor @ v).item() / TEMPERATURE for v in [target, *others]]
    return -math.log(math.exp(scores[0]) / sum(math.exp(s) for s in scores))


def plain_places(step: TrainStep, vectors: Tensor) -> Iterator[tuple[list[int], int, int, Tensor, float]]:
    """Of each place that has a target: sequence, place, target, state and weight."""
    for sequence, row_weight in zip(SEQUENCES.tolist(), WEIGHTS.tolist(), strict=True):
        history = torch.tensor([sequence[:-1]])
        states = step.encoder.user_states(vectors[history.clamp(min=0)], history >= 0)[0]
        for place, (item, target) in enumerate(pairwise(sequence)):
            if item < 0 or target < 0:
                continue
            yield sequence, place, target, states[place], row_weight


def plain_user_item(step: TrainStep, candidates: list[int], mask_own: bool) -> float:
    vectors = step.encode(torch.arange(8))
    total = weight = 0.0
    for sequence, _, target, state, row_weight in plain_places(step, vectors):
        others = [c for c in candidates if c != target and not (mask_own and c in sequence)]
        total += row_weight * cross_entropy(state, vectors[target], [vectors[c] for c in others])
        weight += row_weight
    return total / weight


@pytest.mark.parametrize(
    ("negatives", "candidates", "mask_own"), [("catalogue", [0, 1, 2, 3, 4, 5], False), ("in_batch", [0, 1, 2, 3, 5], True)]
)
def test_user_item_loss_equals_plain_loops(negatives: str, candidates: list[int], mask_own: bool) -> None:
    """Items without a fit event are never a negative: nothing could teach them to be anything else."""
    step = make_step(negatives=negatives)
    assert step(BATCH)[1].item() == pytest.approx(plain_user_item(step, candidates, mask_own), abs=1e-7)


def test_item_item_loss_equals_plain_loops() -> None:
    step = make_step()
    vectors = step.encode(torch.arange(8))
    known = {tuple(pair) for pair in PAIRS.tolist()}
    total = 0.0
    for (anchor, item), weight in zip(PAIRS.tolist(), PAIR_WEIGHTS.tolist(), strict=True):
        negatives = [c for c in (0, 1, 2) if c not in (anchor, item) and (anchor, c) not in known]
        backward = [c for c in (0, 2, 3) if c not in (anchor, item) and (c, item) not in known]
        total += weight * cross_entropy(vectors[anchor], vectors[item], [vectors[c] for c in negatives]) / 2
        total += weight * cross_entropy(vectors[item], vectors[anchor], [vectors[c] for c in backward]) / 2
    assert step(BATCH)[2].item() == pytest.approx(total / 4.5, abs=1e-7)


def test_loss_is_the_weighted_sum_of_the_tasks() -> None:
    loss, user_item, item_item = make_step(user_item_share=0.7, item_item_share=0.2)(BATCH)[:3]
    assert loss.item() == pytest.approx(0.7 * user_item.item() + 0.2 * item_item.item(), abs=1e-12)


def test_a_batch_without_any_target_has_loss_0_and_a_gradient() -> None:
    """Single-item sequences teach nothing, but a rank that holds only such rows must still take part."""
    lonely = Batch(torch.tensor([[-1, -1, 4], [-1, -1, 5]]), torch.ones(2), torch.zeros((0, 2), dtype=torch.int64), torch.ones(0))
    step = make_step(negatives="in_batch")
    loss = step(lonely)[0]
    loss.backward()
    assert loss.item() == 0.0
    assert all(float(p.grad.abs().sum()) == 0.0 for p in step.parameters() if p.grad is not None)


def test_positions_are_looked_up_and_unknown_items_named() -> None:
    items = catalogue()
    assert items.positions(np.array([[-1, 0, 14]]), "t").tolist() == [[-1, 0, 7]]
    with pytest.raises(TrainingError, match="table 't': item_idx 3 is not among the items"):
        items.positions(np.array([0, 3]), "t")
    with pytest.raises(TrainingError, match="item_idx 99"):
        items.positions(np.array([99]), "t")


def test_trained_text_against_a_large_catalogue_is_refused() -> None:
    trained, frozen = EncoderSettings(text_training="full"), EncoderSettings()
    with pytest.raises(ConfigError, match="set negatives = 'in_batch'"):
        check_negatives(trained, TrainSettings(negatives="catalogue"), 5_001)
    check_negatives(trained, TrainSettings(negatives="catalogue"), 5_000)
    check_negatives(trained, TrainSettings(negatives="in_batch"), 5_001)
    check_negatives(frozen, TrainSettings(negatives="catalogue"), 5_001)


@pytest.mark.parametrize(
    ("text_training", "num_items", "loss", "expected"),
    [
        ("frozen", 20_000, "softmax", ("catalogue", "softmax")),
        ("frozen", 20_001, "softmax", ("popularity", "sampled_softmax")),
        ("frozen", 20_001, "bpr", ("popularity", "bpr")),
        ("full", 5_000, "softmax", ("catalogue", "softmax")),
        ("lora", 5_001, "softmax", ("in_batch", "softmax")),
    ],
)
def test_negatives_follow_from_the_size_of_the_catalogue(
    text_training: str, num_items: int, loss: str, expected: tuple[str, str]
) -> None:
    encoder = EncoderSettings.model_validate({"text_training": text_training})
    found = settled(encoder, TrainSettings.model_validate({"loss": loss}), num_items)
    assert (found.negatives, found.loss) == expected
    check_negatives(encoder, found, num_items)
    asked = TrainSettings(negatives="uniform", num_negatives=7)
    assert settled(encoder, asked, num_items) == asked


@pytest.mark.parametrize("negatives", ["in_batch", "catalogue"])
def test_bfloat16_gives_nearly_the_loss_and_gradient_of_float32(negatives: str) -> None:
    """Autocast runs wherever torch does; whether the hardware makes it fast is another matter."""
    batch = Batch(SEQUENCES, WEIGHTS.float(), PAIRS, PAIR_WEIGHTS.float())
    found = []
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        settings = EncoderSettings(dimension=8, user_layers=1, user_heads=1, max_history=3, dropout=0.0, item_id_dropout=0.0)
        encoder = Encoder(settings, 5, 6, temperature=TEMPERATURE)
        step = TrainStep(encoder, catalogue(), TrainSettings(negatives=negatives), ALONE, bfloat16=bfloat16)
        loss = step(batch)[0]
        loss.backward()
        gradients = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
        assert loss.dtype == torch.float32
        found.append((loss.item(), torch.cat(gradients)))
    (plain, of_plain), (rounded, of_rounded) = found
    assert rounded != plain  # else nothing was rounded, and this test looks at the wrong path
    assert rounded == pytest.approx(plain, rel=0.02)
    assert torch.cosine_similarity(of_plain, of_rounded, dim=0) > 0.99
