"""The profile tower: users of whom only a text is known."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import read_description
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.errors import ConfigError, TrainingError
from recsys_spark.training.catalogue import PAD, Catalogue
from recsys_spark.training.distributed import process_group
from recsys_spark.training.feed.batch import Batch, ProfileRows
from recsys_spark.training.feed.profiles import Profiles, load_profiles, profile_figures, save_profiles
from recsys_spark.training.job import TrainJob
from recsys_spark.training.loop import train
from recsys_spark.training.metrics import read_metrics
from recsys_spark.training.step.train_step import TrainStep
from tests.debug_data import debug_config
from tests.training_fixture import ALONE, NUM_ITEMS, TEXT_DIM, write_job

TEMPERATURE = 0.2
SETTINGS = EncoderSettings(text_model="tiny", dimension=8, user_layers=1, max_history=4, dropout=0.0, item_id_dropout=0.0)


def _catalogue(num_items: int = 6, dim: int = 5) -> Catalogue:
    texts = np.random.default_rng(1).normal(size=(num_items, dim)).astype(np.float32)
    return Catalogue(np.arange(num_items) * 10, np.arange(num_items), [f"i{n}" for n in range(num_items)], text_vectors=texts)


def test_a_user_starts_as_the_unknown_item_with_their_text() -> None:
    torch.manual_seed(0)
    plain = Encoder(SETTINGS, 5, 6)
    torch.manual_seed(0)
    encoder = Encoder(SETTINGS, 5, 6).with_profile_tower()
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
    texts = torch.randn(4, 5)
    texts[2] = 0.0
    as_items = plain.item_vectors(texts, torch.full((4,), -1))
    torch.testing.assert_close(encoder.profile_vectors(texts), as_items)
    torch.testing.assert_close(plain.profile_vectors(texts), as_items)
    assert encoder.profile is not None
    torch.nn.init.normal_(encoder.profile.out.weight)
    moved = encoder.profile_vectors(texts)
    assert not torch.allclose(moved[0], as_items[0], atol=1e-2)
    torch.testing.assert_close(moved.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))


def test_the_loss_is_the_plain_formula_without_what_else_a_user_met() -> None:
    catalogue = _catalogue()
    encoder = Encoder(SETTINGS, 5, 6, temperature=TEMPERATURE).with_profile_tower().double()
    assert encoder.profile is not None
    torch.nn.init.normal_(encoder.profile.out.weight)
    items = torch.tensor([[PAD, 0, 3], [1, 2, 4], [PAD, PAD, 5]])
    rows = ProfileRows(torch.randn(3, 5, dtype=torch.float64), items, torch.tensor([0, 2, 5]))
    sequences = torch.tensor([[0, 1, 2]])
    batch = Batch(sequences, torch.ones(1), torch.zeros((0, 2), dtype=torch.int64), torch.zeros(0), profiles=rows)
    step = TrainStep(encoder, catalogue, TrainSettings(profile_share=0.5, batch_size=1), ALONE).eval()
    found = step(batch)

    users = encoder.profile_vectors(rows.text_vectors)
    vectors = encoder.item_vectors(catalogue.text_vectors(torch.arange(6)).double(), torch.arange(6))
    expected = []
    for user, target in enumerate(rows.target.tolist()):
        fair = [item for item in (0, 2, 5) if item == target or item not in items[user].tolist()]
        logits = torch.stack([users[user] @ vectors[item] / TEMPERATURE for item in fair])
        expected.append(-logits.log_softmax(0)[fair.index(target)])
    torch.testing.assert_close(found.profile, torch.stack(expected).mean())
    torch.testing.assert_close(found.loss, found.user_item + 0.5 * found.profile)
    without = step(replace(batch, profiles=None))
    torch.testing.assert_close(without.user_item, found.user_item)  # its items are nobody else's negatives
    torch.autograd.backward(found.profile)
    assert float(encoder.profile.inner.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def _profiles(num_users: int, lengths: list[int]) -> Profiles:
    items = np.full((num_users, 3), PAD)
    for user in range(num_users):
        length = lengths[user % len(lengths)]
        items[user, 3 - length :] = np.arange(length) + 3 * user
    vectors = np.arange(num_users, dtype=np.float32)[:, None].repeat(2, 1)
    return Profiles(vectors, torch.tensor(items))


def test_rows_are_drawn_by_their_seed_evenly_and_never_of_held_users() -> None:
    profiles = _profiles(20, [1, 2, 3])
    assert profiles.num_fit == 18
    first, again, other = (profiles.drawn(9_000, ("a", n)) for n in (1, 1, 2))
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.target, other.target)
    users = first.text_vectors[:, 0].long()
    assert torch.equal(first.items, profiles.items[users])
    assert ((first.items == first.target[:, None]) & (first.items != PAD)).any(1).all()
    drawn = Counter(first.target.tolist())
    assert set(drawn) == {item for item in profiles.items[:18].flatten().tolist() if item != PAD}
    expected = {user: 9_000 / 18 / (user % 3 + 1) for user in range(18)}  # each of a user's items as often as the others
    assert all(abs(count - expected[item // 3]) < 6 * expected[item // 3] ** 0.5 for item, count in drawn.items())
    assert profiles.held()[0][:, 0].tolist() == [18.0, 19.0]


def test_recall_of_held_users_by_three_rankings() -> None:
    """Item n lies on axis n; held user 18 says axis 0 and met 0 and 1, held user 19 says axis 4 and met 5."""
    vectors = np.zeros((20, 6), np.float32)
    vectors[18, 0] = vectors[19, 4] = 1.0
    items = torch.full((20, 2), PAD)
    items[18], items[19, 1] = torch.tensor([0, 1]), 5

    class Axes:
        def profile_vectors(self, texts: torch.Tensor) -> torch.Tensor:
            return texts.roll(1, dims=1)  # one axis further

        def item_vectors(self, texts: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            assert (rows == -1).all()
            return texts

    catalogue = Catalogue(np.arange(6), np.arange(6), list("abcdef"), num_events=np.array([9, 0, 0, 0, 0, 8]))
    axes: Any = Axes()
    figures = profile_figures(axes, torch.eye(6), Profiles(vectors, items), catalogue, 1)
    # the tower names 1 and 5: one of at most one each; as items they name 0 and 4; the popular one is 0
    assert figures == {"recall": 1.0, "recall_as_item": 0.5, "recall_popular": 0.5, "k": 1, "users": 2}


def _job(folder: Path, **train: Any) -> TrainJob:
    """Users whose text says where on the ring they walk, by other axes than the items' own texts do."""
    job = write_job(folder, profile_share=1.0, profile_batch_size=64, item_item_share=0.0, epochs=40, patience=100, **train)
    rng = np.random.default_rng(7)
    place = rng.integers(0, NUM_ITEMS, 400)
    axes = rng.normal(size=(NUM_ITEMS, TEXT_DIM)).astype(np.float32)
    items = (place[:, None] + np.arange(2)) % NUM_ITEMS * 10
    save_profiles(job.inputs, axes[place] + 0.1 * rng.normal(size=(400, TEXT_DIM)).astype(np.float32), items)
    return job


def test_held_users_find_their_items_by_a_text_that_no_item_has(tmp_path: Path) -> None:
    job = _job(tmp_path)
    with process_group(60) as ranks:
        train(job, ranks)
    figures = json.loads(job.result.read_text())["profile"]
    assert figures["users"] == 40
    assert figures["recall"] > 0.8 > 0.5 > figures["recall_popular"]
    losses = [line["profile_loss"] for line in read_metrics(job.metrics)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert read_description(job.model_dir).profile_tower
    model = load_model(job.model_dir)
    texts = ["young and fond of walking", ""]
    vectors = model.encode_profiles(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1.0, 0.0], atol=1e-6)
    moved = F.cosine_similarity(torch.tensor(vectors[:1]), torch.tensor(model.encode_items(texts[:1])))
    assert float(moved) < 0.999


def test_profiles_that_are_not_there_are_one_clear_error(tmp_path: Path) -> None:
    job = write_job(tmp_path, profile_share=1.0)
    with pytest.raises(TrainingError, match="no profiles"), process_group(60) as ranks:
        train(job, ranks)
    save_profiles(job.inputs, np.zeros((0, TEXT_DIM), np.float32), np.zeros((0, 3), np.int32))
    with pytest.raises(TrainingError, match="no user with a profile text"):
        load_profiles(job.inputs, _catalogue())


@pytest.mark.parametrize(
    ("users", "training", "message"),
    [(None, "frozen", r"needs \[ingest.users\]"), ("users.csv", "last_layers", "text_training = 'frozen'")],
)
def test_settings_that_cannot_be(tmp_path: Path, users: str | None, training: str, message: str) -> None:
    from recsys_spark.config import parse_config

    settings: dict[str, Any] = debug_config(tmp_path, tmp_path / "w")
    if users is not None:
        settings["ingest"]["users"] = {"path": users, "columns": {"user_id": "user"}}
    settings["train"] = {**settings["train"], "profile_share": 0.1}
    settings["encoder"] = {**settings["encoder"], "text_training": training}
    with pytest.raises(ConfigError, match=message):
        parse_config(settings)
