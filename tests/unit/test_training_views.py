"""The loss of two views and the adversarial step, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.errors import TrainingError
from recsys_spark.training.catalogue import Catalogue, load_catalogue
from recsys_spark.training.feed.augment import History, Views
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.feed.batches import Batches
from recsys_spark.training.job import TrainJob
from recsys_spark.training.step.adversarial import moved
from recsys_spark.training.step.train_step import TrainStep
from recsys_spark.training.step.views import view_loss
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import ALONE, write_job


def test_view_loss_equals_plain_loops_and_equal_rows_are_no_negatives() -> None:
    torch.manual_seed(0)
    first, second = (nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=-1) for _ in range(2))
    rows = torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6]])
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    total = 0.0
    for here, there in ((first, second), (second, first)):
        for b in range(4):
            allowed = [c for c in range(4) if c == b or rows[c].tolist() != rows[b].tolist()]
            scores = {c: math.exp((here[b] @ there[c]).item() / 0.5) for c in allowed}
            total -= weights[b].item() * math.log(scores[b] / sum(scores.values())) / 2
    assert view_loss(first, second, rows, weights, 0.5, ALONE).item() == pytest.approx(total / 6.5, abs=1e-9)


def make_step(share: float) -> TrainStep:
    torch.manual_seed(0)
    settings = EncoderSettings(dimension=4, user_layers=1, user_heads=1, max_history=3, dropout=0.0, item_id_dropout=0.0)
    vectors = np.random.default_rng(0).normal(size=(8, 5))
    catalogue = Catalogue(np.arange(8), np.arange(8), [f"i{i}" for i in range(8)], vectors)
    encoder = Encoder(settings, 5, 8).double()
    return TrainStep(encoder, catalogue, TrainSettings(negatives="in_batch"), ALONE, augment=AugmentSettings(view_share=share))


def batch() -> Batch:
    sequences = torch.tensor([[-1, 0, 1, 2], [3, 1, 4, 0]])
    first, second = torch.tensor([[-1, 1, 2], [1, -1, 0]]), torch.tensor([[-1, 6, 2], [4, 1, 0]])
    views = Views(History(first), History(second), sequences[:, 1:])
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    return Batch(sequences, weights, torch.tensor([[0, 1]]), torch.ones(1, dtype=torch.float64), views=views)


def test_the_loss_adds_that_of_the_views_by_its_share() -> None:
    """Item 6 stands in a view alone: it must be among the items whose vectors are made."""
    step, rows = make_step(0.3), batch()
    assert rows.views is not None
    loss, user_item, item_item, *_ = step(rows)
    vectors = step.encode(torch.arange(8))
    ends = [step.encoder.user_vectors(vectors[v.items.clamp(min=0)], v.items >= 0) for v in (rows.views.first, rows.views.second)]
    of_views = view_loss(ends[0], ends[1], rows.views.rows, rows.sequence_weights, 0.5, ALONE)
    assert of_views.item() > 0.01
    assert loss.item() == pytest.approx((user_item + 0.1 * item_item + 0.3 * of_views).item(), abs=1e-9)
    plain, user_alone, *_ = step(replace(rows, views=None))
    assert plain.item() == pytest.approx((user_alone + 0.1 * item_item).item(), abs=1e-9)


def test_states_see_the_changed_history_and_are_asked_for_the_true_items() -> None:
    step, rows = make_step(0.0), replace(batch(), views=None)
    same = replace(rows, history=History(rows.sequences[:, :-1]))
    assert step(same)[1].item() == step(rows)[1].item()
    other = replace(rows, history=History(torch.tensor([[-1, 6, 1], [3, -1, 4]])))
    vectors = step.encode(torch.arange(8))
    states = step.encoder.user_states(vectors[other.seen.items.clamp(min=0)], other.seen.items >= 0)
    needed, total, weight = [0, 1, 2, 3, 4, 6], 0.0, 0.0
    for b, (history, sequence) in enumerate(zip(other.seen.items.tolist(), rows.sequences.tolist(), strict=True)):
        for place, item in enumerate(history):
            if item < 0:
                continue
            target = sequence[place + 1]
            allowed = [c for c in needed if c == target or c not in {*history, *sequence}]
            scores = {c: math.exp((states[b, place] @ vectors[c]).item() / 0.07) for c in allowed}
            total -= rows.sequence_weights[b].item() * math.log(scores[target] / sum(scores.values()))
            weight += rows.sequence_weights[b].item()
    pairs_items = step(other)[1].item()
    assert pairs_items == pytest.approx(total / weight, abs=1e-6)


def test_moved_rows_stand_epsilon_up_their_gradient_and_come_back() -> None:
    table = nn.Parameter(torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 3.0]]))
    before = table.detach().clone()
    (table[0] * torch.tensor([3.0, -4.0])).sum().backward()
    with moved(table, 0.5):
        torch.testing.assert_close(table.detach() - before, torch.tensor([[0.3, -0.4], [0.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(table.detach(), before)


def trainer_of(tmp_path: Path, name: str, **augment: object) -> tuple[TrainJob, Batches]:
    job = replace(write_job(tmp_path / name, **{"batch_size": 48}), augment=AugmentSettings(**augment))
    return job, Batches(job, load_catalogue(job.inputs, False), 0, 1)


def test_the_adversarial_loss_is_that_of_moved_ids_and_adds_its_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_parallel", lambda _, model: model)
    job = write_job(tmp_path, encoder={"dropout": 0.0, "item_id_dropout": 0.0})
    found = {}
    for epsilon in (0.0, 0.2):
        trainer = Trainer(replace(job, augment=AugmentSettings(adversarial_epsilon=epsilon, adversarial_share=0.5)), ALONE)
        rows, _ = next(trainer.batches.from_step(0))
        loss = trainer.model(rows)[0]
        loss.backward()
        ids = trainer.encoder.item_tower.ids.weight  # type: ignore[union-attr]
        plain = ids.grad.clone()
        with moved(ids, 0.2):
            worse = trainer.model(rows)[0]
            (expected,) = torch.autograd.grad(0.5 * worse, ids)
        assert worse.item() > loss.item()
        trainer._adversarial(rows)
        torch.testing.assert_close(ids.grad, plain if epsilon == 0 else plain + expected)
        trainer.step(rows, str)
        found[epsilon] = ids.detach().clone()
    assert not torch.allclose(found[0.0], found[0.2]), "a step of training takes the second loss in"


def test_batches_are_those_of_seed_step_and_rank_and_a_resumed_feed_goes_on(tmp_path: Path) -> None:
    options = {"crop_chance": 0.5, "reorder_chance": 0.5, "substitute_chance": 0.5, "mask_chance": 0.5, "view_share": 1.0}
    options |= {"view_operations": ["crop", "substitute"], "label_noise": 0.1}
    job, batches = trainer_of(tmp_path, "a", **options)

    def taken(start: int, stop: int, rank: int = 0) -> list[torch.Tensor]:
        feed = Batches(job, load_catalogue(job.inputs, False), rank, 1 + rank)
        found = [batch for batch, _ in islice(feed.from_step(start), stop - start)]
        return [torch.cat([b.sequences[:, 1:], b.seen.items, b.views.first.items, b.views.second.items], 1) for b in found]

    whole = taken(0, 4)
    for one, two in zip(whole[2:], taken(2, 4), strict=True):
        assert torch.equal(one, two)
    _, plain = trainer_of(tmp_path, "b")
    unchanged = [batch for batch, _ in islice(plain.from_step(0), 2)]
    assert unchanged[0].history is None
    assert unchanged[0].views is None
    assert not torch.equal(whole[0][:, :6], unchanged[0].sequences[:, 1:])
    assert batches.steps_per_epoch == plain.steps_per_epoch
    assert _drawn(batches, unchanged[0], 3) == _drawn(batches, unchanged[0], 3)
    other_rank = Batches(job, load_catalogue(job.inputs, False), 1, 2)
    three = [_drawn(batches, unchanged[0], 3), _drawn(batches, unchanged[0], 4), _drawn(other_rank, unchanged[0], 3)]
    assert three[0] != three[1] != three[2] != three[0]


def _drawn(batches: Batches, rows: Batch, step: int) -> list[list[int]]:
    seen: list[list[int]] = batches._changed(rows, None, step).seen.items.tolist()
    return seen


def test_rare_items_weigh_more_where_asked(tmp_path: Path) -> None:
    job, _ = trainer_of(tmp_path, "a", tail_power=1.0)
    catalogue = load_catalogue(job.inputs, False)
    catalogue.num_events = torch.arange(1.0, 31.0)
    (rows, _), *_ = islice(Batches(job, catalogue, 0, 1).from_step(0), 1)
    (plain, _), *_ = islice(Batches(replace(job, augment=AugmentSettings()), catalogue, 0, 1).from_step(0), 1)
    assert torch.equal(rows.sequences, plain.sequences)
    each = [15.5 / (i + 1) for i in rows.sequences[0, 1:].tolist() if i >= 0]
    assert (rows.sequence_weights / plain.sequence_weights)[0].item() == pytest.approx(np.mean(each), rel=1e-5)
    assert (rows.pair_weights / plain.pair_weights)[0].item() == pytest.approx(
        (15.5 / (rows.pairs[0] + 1.0)).mean().item(), rel=1e-5
    )


def test_substitution_without_pairs_says_what_to_do(tmp_path: Path) -> None:
    job = replace(write_job(tmp_path, pair_sizes=[]), augment=AugmentSettings(substitute_chance=0.1))
    with pytest.raises(TrainingError, match=r"training_pairs.*no rows to substitute items by"):
        Batches(job, load_catalogue(job.inputs, False), 0, 1)


def test_words_are_dropped_in_training_alone_where_the_text_model_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_parallel", lambda _, model: model)
    options = {"text_training": "full", "dropout": 0.0, "item_id_dropout": 0.0}
    jobs = [write_job(tmp_path / str(chance), encoder=options | {"word_dropout": chance}) for chance in (0.0, 0.5)]
    plain, dropping = (Trainer(job, ALONE).model for job in jobs)
    for model in (plain, dropping):
        model.text_encoder.eval()  # type: ignore[union-attr]
        model.training = True  # its own drop-out aside
    rows = torch.arange(20)
    assert (plain.encode(rows) - dropping.encode(rows)).abs().amax(1).gt(1e-3).sum() > 10
    torch.testing.assert_close(plain.eval().encode(rows), dropping.eval().encode(rows))
