"""Negatives: drawn with the chances they promise, queued without repetition, and masked where they are none."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys_spark.config.losses import LossName, LossSettings
from recsys_spark.encoder.negatives import KnownPairs, Queue, Sampler, log_in_batch
from recsys_spark.training.step.candidates import CandidateSource
from recsys_spark.training.step.positions import among
from recsys_spark.training.step.relations import Between, Guide, OwnItems

EVENTS = torch.tensor([8.0, 0.0, 1.0, 27.0, 64.0])
KNOWN = torch.tensor([True, True, True, False, True])


@pytest.mark.parametrize(("power", "mass"), [(0.0, [1, 1, 1, 0, 1]), (1.0, [8, 1, 1, 0, 64]), (1 / 3, [2, 1, 1, 0, 4])])
def test_items_are_drawn_by_the_power_of_their_events_and_only_known_ones(power: float, mass: list[float]) -> None:
    sampler = Sampler(EVENTS, KNOWN, power)
    drawn = sampler.draw(40_000, seed=5)
    expected = torch.tensor(mass, dtype=torch.float64) / sum(mass)
    share = torch.zeros(5, dtype=torch.float64).index_put((drawn.positions,), drawn.times.double()) / 40_000
    torch.testing.assert_close(share, expected, atol=0.01, rtol=0)
    log_expected = sampler.log_expected(drawn.positions, 40_000).double()
    torch.testing.assert_close(log_expected.exp() / 40_000, expected[expected > 0], atol=1e-6, rtol=1e-5)


def test_the_same_seed_draws_the_same_and_another_one_others() -> None:
    sampler = Sampler(torch.ones(1_000), torch.ones(1_000, dtype=torch.bool), 1.0)
    torch.manual_seed(1)
    first = sampler.draw(50, 7)
    torch.manual_seed(2)
    assert torch.equal(sampler.draw(50, 7).positions, first.positions)
    assert not torch.equal(sampler.draw(50, 8).positions[:40], first.positions[:40])


def test_the_chance_to_stand_in_a_batch() -> None:
    found = log_in_batch(torch.tensor([3.0, 0.0, 6.0]), torch.tensor([0, 1, 2]), 4).exp()
    expected = [1 - (1 - share) ** 4 for share in (0.3, 0.1, 0.6)]
    torch.testing.assert_close(found, torch.tensor(expected))


def vectors_of(positions: Tensor, step: int) -> Tensor:
    return torch.stack([positions.double(), torch.full((len(positions),), float(step), dtype=torch.float64)], dim=1).float()


@given(st.lists(st.sets(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=8), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_a_queue_holds_each_item_once_newest_first_out_last(steps: list[set[int]], size: int) -> None:
    """Against a list that does the same: what was put in last is there, with the vector of that step."""
    queue = Queue(size, 2)
    plain: list[tuple[int, int] | None] = [None] * size
    place = 0
    for step, items in enumerate(steps):
        batch = torch.tensor(sorted(items))
        if len(batch) > size:
            chosen = torch.randperm(len(batch), generator=torch.Generator().manual_seed(step))[:size]
        else:
            chosen = torch.arange(len(batch))
        queue.add(batch, vectors_of(batch, step), seed=step)
        plain = [None if held and held[0] in batch[chosen].tolist() else held for held in plain]
        for item in batch[chosen].tolist():
            plain[place % size] = (item, step)
            place += 1
    held = {p: v.tolist() for p, v in zip(queue.positions.tolist(), queue.vectors, strict=True) if p >= 0}
    assert held == {entry[0]: [float(entry[0]), float(entry[1])] for entry in plain if entry}
    fresh = torch.tensor([2, 5])
    positions, vectors = queue.beside(fresh, vectors_of(fresh, 99))
    assert positions.tolist() == sorted({2, 5, *held})
    newest = dict(vectors.tolist())
    assert newest[2] == newest[5] == 99.0
    assert all(newest[item] == held[item][1] for item in held if item not in (2, 5))


def test_a_queue_survives_in_its_state() -> None:
    queue, other = Queue(4, 2), Queue(4, 2)
    queue.add(torch.tensor([3, 1]), torch.ones(2, 2), 0)
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.add(torch.tensor([7, 8, 9]), torch.zeros(3, 2), 0)
    assert torch.equal(queue.positions, other.positions)
    assert queue.positions.tolist() == [9, 1, 7, 8]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=6)
)
@settings(max_examples=60, deadline=None)
def test_known_pairs_are_found_among_candidates(pairs: list[tuple[int, int]], anchors: list[int]) -> None:
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    candidates = torch.tensor([1, 3, 4, 8])
    found = KnownPairs(table[:, 0], table[:, 1]).among(torch.tensor(anchors), candidates)
    assert found.tolist() == [[(a, c) in set(pairs) for c in (1, 3, 4, 8)] for a in anchors]
    assert KnownPairs(table[:, 0], table[:, 1]).among(torch.tensor(anchors), candidates[:0]).shape == (len(anchors), 0)


def test_own_items_of_a_sequence_and_the_later_ones() -> None:
    sequences = torch.tensor([[-1, 4, 2, 9], [2, 2, 7, 4]])
    counts = torch.tensor([[False, True, True], [True, True, True]])
    candidates = torch.tensor([2, 4, 5, 9])
    own = OwnItems(sequences, counts, candidates)
    assert own.of_sequence(slice(0, 5)).int().tolist() == [[1, 1, 0, 1]] * 2 + [[1, 1, 0, 0]] * 3
    assert own.of_sequence(slice(3, 5)).int().tolist() == [[1, 1, 0, 0]] * 2
    later = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    assert own.later(slice(0, 5)).int().tolist() == later
    assert own.later(slice(2, 4)).int().tolist() == later[2:4]
    assert among(torch.tensor([[-1, -1]]), candidates).sum() == 0


def text(angle: float) -> list[float]:
    return [math.cos(math.radians(angle)), math.sin(math.radians(angle))]


@pytest.mark.parametrize(("margin", "expected"), [(0.0, [0, 1, 0, 0, 0]), (0.2, [0, 1, 0, 1, 0]), (-0.1, [0, 0, 0, 0, 0])])
def test_the_guide_excludes_what_is_more_like_the_anchor_than_its_positive(margin: float, expected: list[int]) -> None:
    """Anchor at 0 degrees, its positive at 30; candidates at 30 (itself), 20, 80, 40 and one without text."""
    candidates = torch.tensor([text(30), text(20), text(80), text(40), [0.0, 0.0]])
    guide = Guide(torch.tensor([text(0), [0.0, 0.0], text(0)]), candidates, torch.tensor([0, 0, 4]))
    between = Between(torch.tensor([7, 7, 7]), torch.arange(5), guide.target_idx, guide=guide, margin=margin)
    found = between.relate(slice(0, 3))
    assert found.mask is not None
    assert found.mask.int().tolist() == [expected, [0] * 5, [0] * 5]  # an anchor or a positive without text judges nothing
    assert found.masked is not None
    assert found.masked.tolist() == [0, 0, sum(expected)]


def test_a_masked_cell_counts_for_the_first_reason_and_a_positive_for_none() -> None:
    anchors, candidates, target = torch.tensor([1, 2]), torch.tensor([1, 2, 3, 4]), torch.tensor([2, 3])
    table = KnownPairs(torch.tensor([1, 1, 1, 2]), torch.tensor([1, 3, 4, 3]))

    def itself(rows: slice) -> Tensor:
        return candidates[None, :] == anchors[rows][:, None]

    def also(rows: slice) -> Tensor:
        return torch.tensor([[False, False, False, True], [False] * 4])[rows]

    plain = Between(anchors, candidates, target, own=itself, known_pairs=table)
    found = plain.relate(slice(0, 2))
    assert found.mask is not None
    assert found.masked is not None
    assert found.mask.int().tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
    assert found.masked.tolist() == [2, 2, 0]
    several = Between(anchors, candidates, target, own=itself, also=also, known_pairs=table).relate(slice(0, 2))
    assert several.mask is not None
    assert several.masked is not None
    assert several.mask.int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0]]
    assert several.masked.tolist() == [2, 1, 0]


@pytest.mark.parametrize(("loss", "expected"), [("sampled_softmax", [1, 4]), ("nce", [1, 4]), ("softmax", [0, 1, 2, 4])])
def test_who_is_reckoned_with_by_chance_is_a_target(loss: LossName, expected: list[int]) -> None:
    """How often a history's or a pair's item comes is not what ``log_in_batch`` says: it is no negative of such a loss."""
    settings = LossSettings(loss=loss, negatives="in_batch")
    items = SimpleNamespace(num_events=torch.tensor([5.0, 1.0, 1.0, 1.0, 3.0]))
    source = CandidateSource(settings, items)  # type: ignore[arg-type]
    found = source.of(torch.tensor([0, 1, 2, 4]), torch.tensor([1, 4]), 3, 0)
    assert found.positions.tolist() == expected
    if found.log_expected is not None:
        torch.testing.assert_close(found.log_expected, log_in_batch(items.num_events, found.positions, 3))
