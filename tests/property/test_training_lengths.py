"""The user tower group by group gives what it gives in one piece, gradients included."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.user_tower import UserTower
from recsys_spark.training.step.lengths import SHORTEST, by_length, in_groups

NUM_ITEMS, WIDTH, LENGTH = 9, 8, 40


def tower() -> UserTower:
    torch.manual_seed(1)
    settings = EncoderSettings(time_gaps=True)
    return UserTower(WIDTH, 2, 2, 12, 0.0, settings.moments).double()


@st.composite
def histories(draw: st.DrawFn) -> Tensor:
    """Rows of items and moments [B, 2, L]: short, long, with holes, and without any item."""
    lengths = draw(st.lists(st.integers(0, LENGTH), min_size=1, max_size=12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    items = torch.randint(0, NUM_ITEMS, (len(lengths), LENGTH), generator=generator)
    items[torch.rand(items.shape, generator=generator) < draw(st.sampled_from([0.0, 0.3]))] = -1
    for row, length in enumerate(lengths):
        items[row, : LENGTH - length] = -1
    return torch.stack([items, torch.randint(0, 8, items.shape, generator=generator)], 1)


@settings(max_examples=30)
@given(rows=histories())
def test_groups_equal_the_whole(rows: Tensor) -> None:
    model, vectors = tower(), torch.randn(NUM_ITEMS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for way in (lambda states: states(rows), lambda states: in_groups(states, rows)):
        own = vectors.clone().requires_grad_()
        states = way(lambda part, own=own: model(own[part[:, 0].clamp(min=0)], part[:, 0] != -1, part[:, 1]))
        weights = torch.linspace(0.5, 1.5, states.numel(), dtype=torch.float64).view(states.shape)
        found.append((states.detach(), torch.autograd.grad((weights * states).sum(), [own, *model.parameters()])))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-10, rtol=0)
    for one, other in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


@given(rows=histories())
def test_each_row_is_in_one_group_as_wide_as_the_longest(rows: Tensor) -> None:
    items = rows[:, 0]
    groups = by_length(items)
    assert sorted(torch.cat([g for g, _ in groups]).tolist()) == list(range(len(items)))
    for members, width in groups:
        assert (items[members, : LENGTH - width] == -1).all()
        assert width == 1 or (items[members, LENGTH - width] != -1).any()
        narrow = [int((items[row] != -1).nonzero()[0, 0]) for row in members if (items[row] != -1).any()]
        assert all(LENGTH - first > width // 2 for first in narrow) or width <= SHORTEST
