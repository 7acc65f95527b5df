"""Changed histories: what each change may do and may not do, on any rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.training.feed.augment import (
    History,
    Views,
    changed,
    crop_places,
    generator_of,
    mask_places,
    neighbour_table,
    noisy_labels,
    reorder_places,
    substitute,
    tail_weights,
    taken,
    two_views,
)

WIDTH, NUM_ITEMS = 8, 30
KNOWN = torch.arange(NUM_ITEMS)
NEAR = torch.full((NUM_ITEMS, 2), -1)
NEAR[:25, 0] = torch.arange(25) + 3  # items 25.. have no neighbour
quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 10_000)
shares = st.floats(0.05, 1.0)


def rows(seed: int, width: int = WIDTH, num: int = 6) -> Tensor:
    """Distinct items of random length >= 2, padded on the left."""
    rng = np.random.default_rng(seed)
    found = np.stack([rng.permutation(NUM_ITEMS)[:width] for _ in range(num)])
    for row in found:
        row[: rng.integers(0, width - 1)] = -1
    return torch.tensor(found)


def real(row: Tensor) -> list[int]:
    return [i for i in row.tolist() if i >= 0]


@quick
@given(seeds, shares)
def test_a_crop_is_a_stretch_of_the_row_at_its_right_end(seed: int, share: float) -> None:
    items = rows(seed)
    cropped = taken(items, crop_places(items, generator_of((seed,)), 1.0, share, least=2), -1)
    for before, after in zip(items, cropped, strict=True):
        old, new = real(before), real(after)
        assert len(new) == min(len(old), max(2, round(len(old) * share)))
        assert after.tolist() == [-1] * (WIDTH - len(new)) + new
        start = old.index(new[0])
        assert old[start : start + len(new)] == new


@quick
@given(seeds, shares)
def test_a_reordered_row_has_the_same_items_and_moves_them_within_the_stretch_alone(seed: int, share: float) -> None:
    items = rows(seed)
    places, inside = reorder_places(items, generator_of((seed,)), 1.0, share)
    after = taken(items, places, -1)
    assert torch.equal(after.sort(1).values, items.sort(1).values)
    assert torch.equal(after[~inside], items[~inside])
    assert (items[inside] >= 0).all()
    sizes = torch.tensor([max(1, round(len(real(row)) * share)) for row in items])
    assert torch.equal(inside.sum(1), sizes)


@quick
@given(seeds, st.floats(0, 0.9))
def test_masking_hides_items_where_they_stand_and_never_the_newest(seed: int, share: float) -> None:
    items = rows(seed)
    after = taken(items, mask_places(items, generator_of((seed,)), 1.0, share), -1)
    assert torch.equal(after[after >= 0], items[after >= 0])
    assert torch.equal(after[:, -1], items[:, -1])


@quick
@given(seeds)
def test_a_substitute_is_a_neighbour_that_is_not_in_the_row(seed: int) -> None:
    items = rows(seed)
    after = substitute(items, generator_of((seed,)), 1.0, 1.0, NEAR)
    for before, new in zip(items, after, strict=True):
        for old, item in zip(before.tolist(), new.tolist(), strict=True):
            free = 0 <= old < 25 and old + 3 not in before.tolist()
            assert item == (old + 3 if free else old)


@quick
@given(seeds, st.floats(0, 0.9))
def test_no_asked_state_has_seen_its_target(seed: int, share: float) -> None:
    """Items of a row are distinct here, so a target that a state has seen came from the future."""
    options = AugmentSettings(
        crop_chance=0.5, reorder_chance=1.0, reorder_share=0.8, mask_chance=0.5, mask_share=share, substitute_chance=1.0
    )
    sequences = rows(seed)
    targets, seen = changed(sequences, None, options, generator_of((seed,)), KNOWN, NEAR)
    asked = 0
    for target_row, seen_row in zip(targets.tolist(), seen.items.tolist(), strict=True):
        for place, item in enumerate(seen_row):
            if item >= 0 and target_row[place + 1] >= 0:
                asked += 1
                assert target_row[place + 1] not in seen_row[: place + 1]
    assert asked > 0


def test_without_a_chance_nothing_changes_and_gaps_go_with_their_items() -> None:
    sequences, moments = rows(1), rows(1) * 2 + 2  # padding gets 0
    targets, seen = changed(sequences, moments, AugmentSettings(), generator_of((1,)), KNOWN, NEAR)
    assert torch.equal(targets, sequences)
    assert torch.equal(seen.items, sequences[:, :-1])
    assert seen.moments is not None
    assert torch.equal(seen.moments, moments[:, :-1])
    options = AugmentSettings(crop_chance=1.0, reorder_chance=1.0, mask_chance=1.0)
    _, seen = changed(sequences, moments, options, generator_of((2,)), KNOWN, NEAR)
    assert seen.moments is not None
    assert not torch.equal(seen.items, sequences[:, :-1])
    assert torch.equal(seen.moments, seen.items * 2 + 2)


@pytest.mark.parametrize("kind", ["crop", "mask", "reorder", "substitute"])
def test_views_differ_from_each_other_and_are_those_of_the_seed(kind: str) -> None:
    items = torch.stack([torch.randperm(NUM_ITEMS, generator=generator_of((i,)))[:20] for i in range(50)])
    options = AugmentSettings(view_share=1.0, view_operations=[kind], substitute_share=0.5)  # type: ignore[list-item]

    def made(seed: int) -> Views:
        return two_views(History(items), options, generator_of((seed,)), NEAR)

    one, again, other = made(1), made(1), made(2)
    assert torch.equal(one.first.items, again.first.items)
    assert torch.equal(one.second.items, again.second.items)
    assert not torch.equal(one.first.items, other.first.items)
    assert not torch.equal(one.first.items, one.second.items)
    assert not torch.equal(one.first.items, items)


def test_a_chance_and_a_share_are_met_on_average() -> None:
    items = torch.arange(20).expand(2_000, 20)
    masked = taken(items, mask_places(items, generator_of((1,)), 0.5, 0.4), -1)
    touched = (masked < 0).any(1)
    assert touched.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (masked[touched, :-1] < 0).double().mean().item() == pytest.approx(0.4, abs=0.02)
    noisy = noisy_labels(items, generator_of((1,)), 0.3, torch.arange(100, 200))
    assert (noisy[:, 1:] >= 100).double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(noisy[:, 0], items[:, 0]), "the first item is nobody's target"


def test_neighbours_are_the_heaviest_pairs_and_ties_go_to_the_lower_position() -> None:
    anchors, items = np.array([2, 0, 0, 0, 2]), np.array([1, 3, 1, 2, 0])
    weights = np.array([1.0, 0.5, 2.0, 0.5, 1.0], dtype=np.float32)
    assert neighbour_table(anchors, items, weights, 4, 2).tolist() == [[1, 2], [-1, -1], [0, 1], [-1, -1]]
    assert neighbour_table(anchors[:0], items[:0], weights[:0], 2, 3).tolist() == [[-1], [-1]]


def test_tail_weights_are_powers_of_the_events_of_a_rows_items() -> None:
    counts = torch.tensor([100.0, 1.0, 0.0])
    items = torch.tensor([[-1, 0], [0, 1], [2, 1]])
    mean = 102 / 3
    head, tail = (100 / mean) ** -0.5, (1 / mean) ** -0.5
    torch.testing.assert_close(tail_weights(items, counts, 0.5), torch.tensor([head, (head + tail) / 2, tail]))
    assert tail_weights(items, counts, 0.0).tolist() == [1.0, 1.0, 1.0]
