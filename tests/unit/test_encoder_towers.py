"""The towers: unit vectors, text that works alone, causality, and left padding that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.errors import ConfigError

SETTINGS = EncoderSettings(dimension=8, user_layers=2, user_heads=2, max_history=6, item_id_dropout=0.5, dropout=0.2)


def make(settings: EncoderSettings = SETTINGS, text_dim: int = 12, num_known: int = 4) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(settings, text_dim, num_known).double()
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)
    return encoder.eval()


def histories(length: int, batch: int = 3, width: int = 8) -> Tensor:
    torch.manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(batch, length, width, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("padding", [1, 3, 9])
def test_left_padding_changes_nothing(padding: int) -> None:
    encoder, real = make(), histories(3)
    garbage = torch.full((3, padding, 8), 1e6, dtype=torch.float64)
    is_item = torch.cat([torch.zeros(3, padding), torch.ones(3, 3)], 1).bool()
    alone = encoder.user_states(real, torch.ones(3, 3, dtype=torch.bool))
    padded = encoder.user_states(torch.cat([garbage, real], 1), is_item)
    torch.testing.assert_close(padded[:, padding:], alone, rtol=0, atol=1e-12)
    assert padded[:, :padding].abs().sum() == 0


@pytest.mark.parametrize(("layers", "length"), [(1, 5), (3, 5), (2, 1)])
def test_states_are_unit_and_the_last_one_is_the_user(layers: int, length: int) -> None:
    encoder, real = make(SETTINGS.model_copy(update={"user_layers": layers})), histories(length)
    mask = torch.ones(3, length, dtype=torch.bool)
    mask[0, :2], mask[1] = False, False  # a shorter history, and none
    states = encoder.user_states(real, mask)
    torch.testing.assert_close(states.norm(dim=-1), mask.double())
    torch.testing.assert_close(encoder.user_vectors(real, mask), states[:, -1], rtol=0, atol=1e-12)


def test_a_state_sees_nothing_later_and_all_that_is_earlier() -> None:
    encoder = make()
    real = histories(5, batch=1).requires_grad_()
    state = encoder.user_states(real, torch.ones(1, 5, dtype=torch.bool))[0, 2].sum()
    (gradient,) = torch.autograd.grad(state, real)
    assert (gradient[0, :3].abs().sum(-1) > 0).all()
    assert gradient[0, 3:].abs().sum() == 0


def test_order_matters_and_only_the_newest_places_differ_beyond_max_history() -> None:
    encoder, real = make(), histories(3)
    mask = torch.ones(3, 3, dtype=torch.bool)
    assert not torch.allclose(encoder.user_vectors(real, mask), encoder.user_vectors(real.flip(1), mask), atol=1e-3)
    assert encoder.user_vectors(histories(11), torch.ones(3, 11, dtype=torch.bool)).shape == (3, 8)


def test_a_history_of_padding_alone_is_zero_and_has_finite_gradients() -> None:
    encoder = make().train()
    mask = torch.tensor([[False, False], [False, True], [True, True]])
    states = encoder.user_states(histories(2), mask)
    assert states[0].abs().sum() == 0
    (states[..., 0] ** 2).sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in encoder.user_tower.parameters() if w.grad is not None)


def test_item_vectors_are_unit_and_an_unknown_id_is_the_text_alone() -> None:
    encoder = make()
    text = torch.randn(3, 12, dtype=torch.float64)
    known, unknown = encoder.item_vectors(text, torch.tensor([0, 1, 3])), encoder.item_vectors(text, torch.tensor([-1, -1, -1]))
    torch.testing.assert_close(known.norm(dim=-1), torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(known, unknown, atol=1e-3)
    text_only = make(SETTINGS.model_copy(update={"use_item_id": False}))
    text_only.item_tower.project.load_state_dict(encoder.item_tower.project.state_dict())
    torch.testing.assert_close(text_only.item_vectors(text, torch.tensor([0, 1, 3])), unknown)


def test_an_item_without_text_keeps_its_id_and_without_both_is_zero() -> None:
    encoder = make().train()
    found = encoder.item_vectors(torch.zeros(200, 12, dtype=torch.float64), torch.tensor([2] * 199 + [-1]))
    expected = torch.nn.functional.normalize(encoder.item_tower.ids.weight[2], dim=-1)
    torch.testing.assert_close(found[:199], expected.expand(199, 8))
    assert found[199].abs().sum() == 0
    (found**2).sum().backward()
    assert torch.isfinite(encoder.item_tower.ids.weight.grad).all()


def test_ids_are_dropped_per_item_in_training_at_the_rate_asked_for() -> None:
    encoder = make().train()
    text = torch.randn(1, 12, dtype=torch.float64).expand(4_000, 12)
    rows = torch.zeros(4_000, dtype=torch.int64)
    text_only = encoder.eval().item_vectors(text[:1], torch.tensor([-1]))
    dropped = torch.isclose(encoder.train().item_vectors(text, rows), text_only).all(-1).double().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.05)
    assert not torch.isclose(encoder.eval().item_vectors(text, rows), text_only).all(-1).any()


def test_no_known_item_is_allowed() -> None:
    encoder = Encoder(SETTINGS, 12, 0)
    assert encoder.item_vectors(torch.randn(2, 12), torch.tensor([-1, -1])).shape == (2, 8)


def test_temperature_is_learned_only_where_asked_and_never_below_its_floor() -> None:
    fixed, learned = Encoder(SETTINGS, 12, 4, 0.05), Encoder(SETTINGS, 12, 4, 0.001, learn_temperature=True)
    assert fixed.temperature.item() == pytest.approx(0.05)
    assert not fixed.temperature.requires_grad
    assert learned.temperature.requires_grad
    assert learned.temperature.item() == pytest.approx(0.01)


def test_a_dimension_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="dimension 9, user_heads 2"):
        Encoder(SETTINGS.model_copy(update={"dimension": 9}), 12, 4)


MOMENTS = SETTINGS.model_copy(update={"time_gaps": True, "context": ["hour", "device"]})


def test_each_part_of_a_moment_adds_its_vector_and_none_known_is_all_zeros() -> None:
    encoder, real, mask = make(MOMENTS), histories(3), torch.ones(3, 3, dtype=torch.bool)
    tables = [table.weight for table in encoder.user_tower.moments]
    assert [len(table) for table in tables] == [32, 25, 512]
    moments = torch.tensor([[3 + 32 * 7 + 32 * 25 * 100, 0, 31], [5, 32 * 24, 32 * 25 * 511], [0, 0, 0]])
    added = tables[0][moments % 32] + tables[1][moments // 32 % 25] + tables[2][moments // 800]
    plain = make(SETTINGS)
    plain.user_tower.load_state_dict(encoder.user_tower.state_dict(), strict=False)
    shifted = real + added / encoder.user_tower.scale
    torch.testing.assert_close(encoder.user_states(real, mask, moments), plain.user_states(shifted, mask))
    zeros = torch.zeros(3, 3, dtype=torch.int64)
    assert torch.equal(encoder.user_states(real, mask), encoder.user_states(real, mask, zeros))


def test_a_moment_is_seen_by_later_states_alone_and_not_at_padding() -> None:
    encoder, real = make(MOMENTS), histories(4, batch=1)
    mask = torch.tensor([[False, True, True, True]])
    before, after, padding = torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[0, 0, 9, 0]]), torch.tensor([[9, 0, 0, 0]])
    states, changed = encoder.user_states(real, mask, before), encoder.user_states(real, mask, after)
    assert torch.equal(states[:, :2], changed[:, :2])
    assert (states[:, 2:] != changed[:, 2:]).any(-1).all()
    assert torch.equal(states, encoder.user_states(real, mask, padding))
