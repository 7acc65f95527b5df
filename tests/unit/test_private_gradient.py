"""Shortened gradients of single users equal those of autograd, user by user; noise and what it costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from recsys_spark.encoder.user_tower import UserTower
from recsys_spark.training.private.gradient import Clipped, PublicCandidates, clipped_gradient

ITEMS, DIMENSION, TEMPERATURE = 9, 8, 0.3
ROWS = torch.tensor(
    [
        [-1, -1, -1, 2, 5],
        [0, 1, 0, 1, 0],  # items that come again, as histories and as targets
        [3, 3, 3, 3, 3],
        [-1, 8, 7, 6, 5],
        [-1, -1, -1, -1, 4],  # nothing to learn from
    ]
)


def _tower(dropout: float = 0.0) -> UserTower:
    torch.manual_seed(5)
    return UserTower(DIMENSION, 2, 2, 4, dropout).double()


def _vectors() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(torch.randn(ITEMS, DIMENSION, dtype=torch.float64, generator=generator), dim=1)


def _states(tower: UserTower):  # type: ignore[no-untyped-def]
    def states(weights: dict[str, Tensor], items: Tensor, is_item: Tensor, moments: Tensor | None) -> Tensor:
        found: Tensor = functional_call(tower, weights, (items[None], is_item[None], None if moments is None else moments[None]))
        return found[0]

    return states


def _fast(tower: UserTower, rows: Tensor, candidates: PublicCandidates, clip_norm: float) -> Clipped:
    weights = {name: p.detach() for name, p in tower.named_parameters()}
    return clipped_gradient(_states(tower), weights, _vectors(), (rows, None), candidates, TEMPERATURE, clip_norm)


def _slow_loss(tower: UserTower, vectors: Tensor, row: Tensor, candidates: PublicCandidates) -> Tensor:
    """By the formula: for each state -log of the target's share of exp(scores), each candidate counted N / C times."""
    history, targets = row[:-1], row[1:]
    states = tower(vectors[history.clamp(min=0)][None], (history != -1)[None])[0]
    losses = []
    for state, item, target in zip(states, history, targets, strict=True):
        if item == -1 or target == -1:
            continue
        others = [c for c in candidates.positions.tolist() if c != target]
        weight = candidates.num_items / len(candidates.positions)
        wanted = (state @ vectors[target] / TEMPERATURE).exp()
        rest = sum((weight * (state @ vectors[c] / TEMPERATURE).exp() for c in others), torch.zeros((), dtype=torch.float64))
        losses.append(-(wanted / (wanted + rest)).log())
    return torch.stack(losses).mean() if losses else vectors.sum() * 0.0


@pytest.mark.parametrize("positions", [range(ITEMS), (1, 3, 5, 6), (0,)])
@pytest.mark.parametrize("clip_norm", [1e9, 0.5, 0.01])
def test_sum_of_shortened_gradients_equals_autograd_user_by_user(positions: range | tuple[int, ...], clip_norm: float) -> None:
    tower, candidates = _tower(), PublicCandidates(torch.tensor(list(positions)), ITEMS)
    found = _fast(tower, ROWS, candidates, clip_norm)
    names = [name for name, _ in tower.named_parameters()]
    expected = {name: torch.zeros_like(p) for name, p in tower.named_parameters()}
    by_vectors = torch.zeros(ITEMS, DIMENSION, dtype=torch.float64)
    for user, row in enumerate(ROWS):
        vectors = _vectors().requires_grad_()
        loss = _slow_loss(tower, vectors, row, candidates)
        gradients = torch.autograd.grad(loss, [vectors, *tower.parameters()], allow_unused=True, materialize_grads=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        share = min(1.0, clip_norm / norm) if norm else 1.0
        by_vectors += share * gradients[0]
        for name, gradient in zip(names, gradients[1:], strict=True):
            expected[name] += share * gradient
        assert float(found.losses_B[user]) == pytest.approx(loss.item(), abs=1e-12)
        assert float(found.norms_B[user]) == pytest.approx(norm, rel=1e-9, abs=1e-12)
    torch.testing.assert_close(found.vectors_ND, by_vectors, rtol=1e-9, atol=1e-12)
    for name in names:
        torch.testing.assert_close(found.weights[name], expected[name], rtol=1e-9, atol=1e-12)


def test_no_user_moves_the_sum_by_more_than_the_clip_norm() -> None:
    tower, candidates, clip_norm = _tower(), PublicCandidates(torch.arange(ITEMS), ITEMS), 0.05
    whole = _fast(tower, ROWS, candidates, clip_norm)
    for user in range(len(ROWS)):
        without = _fast(tower, torch.cat([ROWS[:user], ROWS[user + 1 :]]), candidates, clip_norm)
        moved = (whole.vectors_ND - without.vectors_ND).square().sum()
        moved += sum(((whole.weights[n] - without.weights[n]).square().sum() for n in whole.weights), torch.zeros(()))
        assert math.sqrt(float(moved)) <= clip_norm * (1 + 1e-9)


def test_dropout_is_the_same_in_the_loss_and_in_its_gradient() -> None:
    tower, candidates = _tower(dropout=0.5), PublicCandidates(torch.arange(ITEMS), ITEMS)
    tower.train()
    torch.manual_seed(1)
    found = _fast(tower, ROWS[1:2], candidates, 1e9)
    step = 1e-6
    with torch.no_grad():
        for name, p in tower.named_parameters():
            p -= step * found.weights[name]
    torch.manual_seed(1)
    moved = _fast(tower, ROWS[1:2], candidates, 1e9)
    by_weights = sum((g.square().sum() for g in found.weights.values()), torch.zeros((), dtype=torch.float64))
    assert float(found.losses_B - moved.losses_B) / step == pytest.approx(float(by_weights), rel=1e-3)
