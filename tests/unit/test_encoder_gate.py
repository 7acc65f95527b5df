"""The gate between text and id, and attribute values: against plain formulas, and through the model folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.attributes import attribute_rows, dictionary, values_of
from recsys_spark.encoder.item_tower import ItemTower, mean_values
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.pyfunc_model import EncoderModel
from recsys_spark.encoder.text_encoder import TextEncoder

OPTIONS = {"text_model": "tiny", "dtype": "float32", "dimension": 8, "max_tokens": 16, "user_layers": 1, "max_history": 5}
GATED = EncoderSettings(**OPTIONS, item_gate="learned", attributes=["category", "brand"], time_gaps=True, context=["hour"])
COUNTS = [1.0, 20.0, 3_000.0]
VALUES = ["brand=ace", "category=garden", "category=kitchen"]


def tower(settings: EncoderSettings = GATED) -> ItemTower:
    torch.manual_seed(0)
    made = ItemTower(settings, 12, 3, COUNTS, len(VALUES)).double()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)
        if made.gate is not None:
            made.gate.add_(torch.linspace(-1.0, 1.0, 8))
    return made.eval()


def test_the_gate_is_events_over_events_plus_k() -> None:
    made, text = tower(), torch.randn(3, 12, dtype=torch.float64)
    found = made(text, torch.tensor([0, 1, 2]))
    assert made.gate is not None
    for row, count in enumerate(COUNTS):
        gate = count / (count + made.gate.exp())
        expected = (1 - gate) * made.project(text[row]) + gate * made.ids.weight[row]  # type: ignore[union-attr]
        torch.testing.assert_close(found[row], F.normalize(expected, dim=0), atol=1e-6, rtol=0)


def test_few_events_leave_an_item_its_text_many_its_id_and_none_the_text_alone() -> None:
    made = tower()
    text = torch.randn(1, 12, dtype=torch.float64)
    by_text, by_id = made(text, torch.tensor([-1])), F.normalize(made.ids.weight, dim=-1)  # type: ignore[union-attr]
    torch.testing.assert_close(by_text[0], F.normalize(made.project(text[0]), dim=0))
    near_id = [(made(text, torch.tensor([row])) @ by_id[row]).item() for row in range(3)]
    near_text = [(made(text, torch.tensor([row])) @ by_text[0]).item() for row in range(3)]
    assert near_id[0] < near_id[1] < near_id[2]
    assert near_id[2] > 0.999
    assert near_text[0] == max(near_text)
    torch.testing.assert_close(made(torch.zeros(3, 12, dtype=torch.float64), torch.arange(3)), by_id)


def test_a_dropped_id_is_the_text_alone() -> None:
    made = tower(GATED.model_copy(update={"item_id_dropout": 1.0})).train()
    text = torch.randn(3, 12, dtype=torch.float64)
    torch.testing.assert_close(made(text, torch.arange(3)), made(text, torch.tensor([-1, -1, -1])))


def test_attributes_add_the_mean_of_their_values_and_describe_an_item_without_text() -> None:
    made = tower(GATED.model_copy(update={"item_gate": "sum"}))
    text, rows = torch.randn(2, 12, dtype=torch.float64), torch.tensor([[0, 2, -1], [-1, -1, -1]])
    found = made(text, torch.tensor([1, -1]), rows)
    values = made.values.weight  # type: ignore[union-attr]
    expected = made.project(text[0]) + made.ids.weight[1] + (values[0] + values[2]) / 2  # type: ignore[union-attr]
    torch.testing.assert_close(found[0], F.normalize(expected, dim=0))
    torch.testing.assert_close(found[1], F.normalize(made.project(text[1]), dim=0))
    only = made(torch.zeros(1, 12, dtype=torch.float64), torch.tensor([-1]), torch.tensor([[2]]))
    torch.testing.assert_close(only[0], F.normalize(values[2], dim=0))


def test_means_of_values_and_their_gradients_equal_the_plain_formula() -> None:
    """Rows of no, one and several values, one of them twice; padding in between."""
    weights = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    rows = torch.tensor([[0, -1, 2], [-1, -1, -1], [4, 4, 1], [-1, 3, -1]])
    kept = rows != -1
    means = (weights[rows.clamp(min=0)] * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)
    found, pull = mean_values(weights, rows, kept), torch.arange(16.0, dtype=torch.float64).reshape(4, 4)
    torch.testing.assert_close(found, means)
    for made, plain in zip(*(torch.autograd.grad((out * pull).sum(), weights) for out in (found, means)), strict=True):
        torch.testing.assert_close(made, plain)


def test_values_are_dropped_in_training_at_the_rate_asked_for() -> None:
    made = tower(GATED.model_copy(update={"attribute_dropout": 0.3})).train()
    rows = torch.ones(4_000, 1, dtype=torch.int64)
    found = made(torch.zeros(4_000, 12, dtype=torch.float64), torch.full((4_000,), -1), rows)
    assert (found == 0).all(-1).double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_values_come_from_category_and_attributes_and_rare_ones_are_left_out() -> None:
    names = ["category", "brand"]
    items = [
        values_of("garden|tools", {"brand": "ace", "colour": "red"}, names),
        values_of("garden", None, names),
        values_of(None, {"brand": " ace |  | ace"}, names),
    ]
    assert items == [["category=garden", "category=tools", "brand=ace"], ["category=garden"], ["brand=ace"]]
    known = dictionary(items, 2)
    assert known == ["brand=ace", "category=garden"]
    row_of = {value: row for row, value in enumerate(known)}
    assert attribute_rows(items, row_of, 2).tolist() == [[1, 0], [1, -1], [0, -1]]
    assert attribute_rows(items, row_of, 1).tolist() == [[1], [1], [0]]


def test_gate_and_attributes_go_through_the_model_folder_and_its_pyfunc(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(GATED, 32, 3, counts=COUNTS, num_values=len(VALUES))
    with torch.no_grad():
        for weight in (encoder.item_tower.ids.weight, encoder.item_tower.values.weight):  # type: ignore[union-attr]
            weight.normal_()
    text = TextEncoder.load("tiny", 16, "float32")
    model = load_model(save_model(tmp_path / "model", encoder, text, ["a", "b", "c"], 0.07, {}, VALUES))
    assert model.encoder.item_tower.counts.tolist() == COUNTS
    texts, ids = ["garden rake", "kitchen pan", ""], ["a", None, None]
    values = [["category=garden", "category=unseen"], [], ["brand=ace"]]
    found = model.encode_items(texts, ids, values)
    with torch.no_grad():
        rows = torch.tensor([[1], [-1], [0]])
        expected = encoder.eval().item_vectors(torch.tensor(text.encode(texts)), torch.tensor([0, -1, -1]), rows)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found[0], model.encode_items(texts[:1], ids[:1])[0], atol=1e-3)

    served = EncoderModel()
    served._model, served._names = model, GATED.attributes
    rows_in = [
        {"text": "garden rake", "item_id": "a", "category": "garden"},
        {"text": "kitchen pan", "category": float("nan"), "attributes": None},
        {"text": "", "attributes": {"brand": "ace"}},
    ]
    np.testing.assert_allclose(served.predict(None, rows_in), found, atol=1e-6)  # type: ignore[arg-type]
    users = served.predict(None, [rows_in[:2]], {"tower": "user"})  # type: ignore[arg-type]
    np.testing.assert_allclose(users[0], model.encode_users(found[None, :2], np.ones((1, 2), bool))[0], atol=1e-6)
    told = [rows_in[0], rows_in[1] | {"gap_seconds": 60, "hour": 9}]
    users = served.predict(None, [told], {"tower": "user"})  # type: ignore[arg-type]
    expected_user = model.encode_users(found[None, :2], np.ones((1, 2), bool), np.array([[0, 6 + 32 * 10]]))[0]
    np.testing.assert_allclose(users[0], expected_user, atol=1e-6)
