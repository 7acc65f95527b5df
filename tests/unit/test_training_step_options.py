"""Options of the step: drawn negatives, a queue, masks and their counts, explicit negatives, and the gradient cache."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.negatives import KnownPairs, Sampler
from recsys_spark.errors import ConfigError
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.feed.batch import Batch, StepOutput
from recsys_spark.training.job import check_losses
from recsys_spark.training.step import gradient_cache
from recsys_spark.training.step.train_step import TrainStep
from tests.unit.test_training_step import ALONE, BATCH, PAIRS, SEQUENCES, TEMPERATURE, WEIGHTS, catalogue, make_step

NOTHING = torch.zeros((0, 2), dtype=torch.int64)


def states(step: TrainStep, vectors: Tensor, sequences: Tensor = SEQUENCES) -> list[list[Tensor]]:
    history = sequences[:, :-1]
    return [list(row) for row in step.encoder.user_states(vectors[history.clamp(min=0)], history >= 0)]


def test_drawn_negatives_with_logq_equal_plain_loops() -> None:
    step = make_step(negatives="popularity", loss="sampled_softmax", num_negatives=9, popularity_power=0.5)
    batch = replace(BATCH, shared_seed=123)
    drawn = Sampler(step._catalogue.num_events, step._catalogue.id_rows >= 0, 0.5).draw(9, 123)
    vectors = step.encode(torch.arange(8))
    total = weight = 0.0
    chance = 1 / 6  # all six items with an event have as many
    for row, (sequence, row_weight) in enumerate(zip(SEQUENCES.tolist(), WEIGHTS.tolist(), strict=True)):
        for place, (item, target) in enumerate(pairwise(sequence)):
            if item < 0 or target < 0:
                continue
            scores = (vectors @ states(step, vectors)[row][place]) / TEMPERATURE
            others = sum(
                float(n) * torch.exp(scores[c]) / (9 * chance)
                for c, n in zip(drawn.positions.tolist(), drawn.times.tolist(), strict=True)
                if c != target
            )
            total += row_weight * torch.log(1 + others / torch.exp(scores[target])).item()
            weight += row_weight
    assert step(batch).user_item.item() == pytest.approx(total / weight, abs=1e-6)
    assert step(batch).user_item.item() != pytest.approx(step(replace(batch, shared_seed=5)).user_item.item(), abs=1e-4)


def test_drawn_softmax_comes_close_to_the_whole_catalogue() -> None:
    whole = make_step(negatives="catalogue")(BATCH).user_item.item()
    found = make_step(negatives="uniform", loss="sampled_softmax", num_negatives=200_000)(BATCH).user_item.item()
    assert found == pytest.approx(whole, abs=0.01)


def test_the_queue_brings_items_of_the_last_step_with_their_vectors_of_then() -> None:
    step = make_step(negatives="in_batch", queue_size=5, item_item_share=0.0)
    first = Batch(torch.tensor([[0, 1], [4, 5]]), torch.ones(2, dtype=torch.float64), NOTHING, torch.ones(0))
    second = Batch(torch.tensor([[2, 3], [1, 2]]), torch.ones(2, dtype=torch.float64), NOTHING, torch.ones(0))
    alone = make_step(negatives="in_batch", item_item_share=0.0)(second).user_item.item()
    assert step.eval()(second).user_item.item() == pytest.approx(alone, abs=1e-9)  # nothing is put in but in training
    assert step(second).user_item.item() == pytest.approx(alone, abs=1e-9)
    step.train()
    step(first)
    old = {p: step.queue.vectors[row].double() for row, p in enumerate(step.queue.positions.tolist()) if p >= 0}
    assert set(old) == {0, 1, 4, 5}
    with torch.no_grad():
        for weight in step.encoder.item_tower.parameters():
            weight += 0.1
    vectors = step.encode(torch.arange(8))
    total = 0.0
    for row, (item, target) in enumerate([(2, 3), (1, 2)]):
        state = states(step, vectors, second.sequences)[row][0]
        negatives = [vectors[c] for c in (1, 2, 3) if c not in (item, target)] + [old[c] for c in (0, 4, 5)]
        scores = torch.stack([vectors[target], *negatives]) @ state / TEMPERATURE
        total -= scores.log_softmax(0)[0].item() / 2
    out = step(second)
    assert out.user_item.item() == pytest.approx(total, abs=1e-6)
    assert step.queue.positions.tolist() == [2, 3, 4, 5, 1]


def test_known_pairs_and_texts_mask_negatives_and_are_counted() -> None:
    """Of items 0..5: 1 is known to go with 0; in pairs, own positives come first."""
    torch.manual_seed(0)
    encoder = make_step().encoder
    known = KnownPairs(torch.tensor([0, 3]), torch.tensor([4, 0]))
    settings = TrainSettings(mask_known_pairs="both", mask_guide="pairs", guide_margin=1.0)
    out = TrainStep(encoder, catalogue(), settings, ALONE, known_pairs=known)(BATCH)
    plain = make_step()(BATCH)
    # states end at 0, 1 | 3, 1, 3; after 0 and at each 3 one known item is among the six, but where it is the target
    ends = [(0, 1), (1, 2), (3, 1), (1, 3), (3, 0)]
    of_users = sum((a, c) in {(0, 4), (3, 0)} for a, t in ends for c in range(6) if c != t)
    # forward, candidates 0, 1, 2 of anchors 0, 0, 3, 2: only (3, 0) is new; backward, 0, 2, 3 of 1, 2, 1, 0: none
    assert of_users == 2
    assert out.masked.tolist()[:2] == [plain.masked.tolist()[0], of_users + 1]
    assert plain.masked.tolist() == [int(plain.masked[0]), 0, 0]
    assert int(out.masked[2]) > 0
    assert out.user_item.item() < plain.user_item.item()
    assert out.item_item.item() < plain.item_item.item()


def test_supcon_in_the_step_learns_all_known_positives() -> None:
    step = make_step(loss="supcon", pair_loss="supcon", pair_ways="forward")
    vectors = step.encode(torch.arange(8))
    found, total = step(BATCH), 0.0
    known: dict[int, set[int]] = {}
    for a, p in PAIRS.tolist():
        known.setdefault(a, set()).add(p)
    for (a, _), weight in zip(PAIRS.tolist(), BATCH.pair_weights.tolist(), strict=True):
        kept = [c for c in (0, 1, 2) if c != a]
        log_chance = dict(zip(kept, (vectors[kept] @ vectors[a] / TEMPERATURE).log_softmax(0).tolist(), strict=True))
        total -= weight * sum(log_chance[p] for p in known[a]) / len(known[a])
    assert found.item_item.item() == pytest.approx(total / 4.5, abs=1e-7)


def test_explicit_negatives_equal_plain_loops_and_push_the_state_away() -> None:
    step = make_step(explicit_share=0.5, user_item_share=0.0, item_item_share=0.0)
    sequences, unwanted = torch.tensor([[-1, 0, 1], [3, 4, 2], [-1, 5, 0]]), torch.tensor([[3, 4], [5, -1], [-1, -1]])
    weights = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    batch = Batch(NOTHING, torch.ones(0), NOTHING, torch.ones(0), sequences, unwanted, weights)
    vectors = step.encode(torch.arange(8))
    last = [row[-1] for row in states(step, vectors, sequences)]

    def above(row: int, item: int) -> float:
        gap = (vectors[sequences[row, -1]] - vectors[item]) @ last[row] / TEMPERATURE
        return float(torch.log1p(torch.exp(-gap)))

    expected = (1.0 * (above(0, 3) + above(0, 4)) / 2 + 2.0 * above(1, 5)) / 3.0  # the third has nothing to say
    out = step(batch)
    assert out.explicit.item() == pytest.approx(expected, abs=1e-7)
    assert out.loss.item() == pytest.approx(0.5 * expected, abs=1e-7)
    optimiser = torch.optim.SGD(step.parameters(), lr=0.1)
    out.loss.backward()
    optimiser.step()
    assert step(batch).explicit.item() < expected


def dropped_step(chunk: int | None, dropout: float, pairs_only: bool = False) -> tuple[TrainStep, Batch]:
    """A step over 40 items with dropout everywhere, and a batch of 24 sequences and 64 pairs."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = EncoderSettings(dimension=8, user_layers=1, user_heads=2, max_history=5, dropout=dropout, item_id_dropout=dropout)
    encoder = Encoder(settings, 6, 40, temperature=0.2, learn_temperature=True).double()
    items = Catalogue(np.arange(40), np.arange(40), [f"i{i}" for i in range(40)], rng.normal(size=(40, 6)))
    train = TrainSettings(negatives="in_batch", cache_chunk_size=chunk, item_item_share=1.0)
    sequences = torch.tensor(rng.integers(0, 40, size=(24, 6)))
    batch = Batch(
        NOTHING if pairs_only else sequences,
        torch.ones(0 if pairs_only else 24, dtype=torch.float64),
        torch.tensor(rng.integers(0, 40, size=(64, 2))),
        torch.linspace(0.5, 1.5, 64, dtype=torch.float64),
    )
    return TrainStep(encoder, items, train, ALONE), batch


def learned(step: TrainStep, batch: Batch) -> tuple[StepOutput, list[Tensor]]:
    torch.manual_seed(3)
    out = step(batch)
    out.loss.backward()
    return out, [p.grad for p in step.parameters() if p.grad is not None]


def test_the_gradient_cache_gives_the_gradients_of_the_whole_batch() -> None:
    (whole, expected), (cached, found) = (learned(*dropped_step(chunk, 0.0)) for chunk in (None, 7))
    assert cached.loss.item() == pytest.approx(whole.loss.item(), abs=1e-12)
    assert cached.masked.tolist() == whole.masked.tolist()
    assert max(float(g.abs().max()) for g in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_the_gradient_cache_encodes_again_with_the_same_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin keeps everything of the same parts; another draw in the second pass would give other gradients."""
    cached, found = learned(*dropped_step(7, 0.4))
    monkeypatch.setattr(gradient_cache, "checkpoint", lambda encode, part, use_reentrant: encode(part))
    kept, expected = learned(*dropped_step(7, 0.4))
    assert cached.loss.item() == pytest.approx(kept.loss.item(), abs=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    monkeypatch.setattr(
        gradient_cache,
        "checkpoint",
        lambda encode, part, use_reentrant: torch.utils.checkpoint.checkpoint(
            encode, part, use_reentrant=False, preserve_rng_state=False
        ),
    )
    _, other_draws = learned(*dropped_step(7, 0.4))
    assert max(float((a - b).abs().max()) for a, b in zip(other_draws, expected, strict=True)) > 1e-3


def held_bytes(step: TrainStep, batch: Batch) -> int:
    """Bytes that the graph of a forward pass keeps for the backward one."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(batch)
    return sum(held.values())


def test_the_gradient_cache_holds_little_of_a_large_batch() -> None:
    """Sixteen times the pairs, over ten times the memory without it, and with it less than the small batch takes."""

    def large(chunk: int | None, times: int) -> int:
        step, batch = dropped_step(chunk, 0.3, pairs_only=True)
        pairs = torch.stack([torch.arange(64 * times) % 40, (torch.arange(64 * times) * 7 + 3) % 40], dim=1)
        return held_bytes(step, replace(batch, pairs=pairs, pair_weights=torch.ones(64 * times, dtype=torch.float64)))

    small, plain, cached = large(None, 1), large(None, 16), large(8, 16)
    assert plain > 8 * small
    assert cached < plain / 8


@pytest.mark.parametrize(
    ("encoder", "train", "said"),
    [
        ({}, {"matryoshka_dims": [256]}, "matryoshka_dims has 256, encoder.dimension is 128"),
        ({"text_training": "full"}, {"mask_guide": "pairs"}, "mask_guide = 'pairs' with text_training = 'full'"),
        ({"text_training": "full"}, {"pair_loss": "distillation"}, "pair_loss = 'distillation' with text_training"),
        ({"text_training": "full"}, {"loss": "distillation"}, "loss = 'distillation' with text_training"),
    ],
)
def test_losses_that_this_encoder_cannot_learn_are_refused(encoder: dict, train: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_losses(EncoderSettings(**encoder), TrainSettings(**train))
    check_losses(EncoderSettings(), TrainSettings(**{**train, **({"matryoshka_dims": [32, 128]} if "dims" in said else {})}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"pair_loss": "sampled_softmax"},
        {"queue_size": 8, "negatives": "in_batch", "loss": "nce"},
        {"loss": "hinge"},
        {"margin": 3.0},
        {"cache_chunk_size": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        TrainSettings(**wrong)
