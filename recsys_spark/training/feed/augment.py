"""Histories changed at random, and the tables that this needs: pure functions of rows and a generator.

Legend: B sequences, W places of one, N items of the catalogue, M neighbours kept of one. Padding is -1, on the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_spark.config.augment import AugmentSettings, Operation
from recsys_spark.ranges import position_in_group
from recsys_spark.training.catalogue import PAD
from recsys_spark.training.feed.plan import derived_seed


@dataclass(frozen=True)
class History:
    """What the user tower sees: positions [B, W] (-1: nothing there) and, where it is told of them, moments [B, W]."""

    items: Tensor
    moments: Tensor | None = None

    def at(self, places: Tensor) -> History:
        """The history with place w taken from ``places[b, w]`` of the same row; -1 leaves nothing there."""
        return History(taken(self.items, places, PAD), None if self.moments is None else taken(self.moments, places, 0))

    def split(self, size: int) -> Iterator[History]:
        """Parts of at most ``size`` rows."""
        for start in range(0, len(self.items), size):
            rows = slice(start, start + size)
            yield History(self.items[rows], None if self.moments is None else self.moments[rows])

    def thinned(self, every: int) -> History:
        """Each ``every``-th row."""
        return History(self.items[::every], None if self.moments is None else self.moments[::every])

    def last(self, width: int) -> History:
        """The last ``width`` places."""
        first = self.items.shape[1] - width
        return History(self.items[:, first:], None if self.moments is None else self.moments[:, first:])

    def to(self, device: torch.device) -> History:
        return History(self.items.to(device), None if self.moments is None else self.moments.to(device))


@dataclass(frozen=True)
class Views:
    """Two changed histories of each row, and ``rows`` [B, W], what they were before: equal rows are no negatives."""

    first: History
    second: History
    rows: Tensor

    def to(self, device: torch.device) -> Views:
        return Views(self.first.to(device), self.second.to(device), self.rows.to(device))


# -- one change each ---------------------------------------------------------------------------------------------------


def crop_places(items: Tensor, generator: torch.Generator, chance: float, share: float, least: int = 1) -> Tensor:
    """Places [B, W] of a random stretch of ``share`` of a row's items (at least ``least``), moved to the right end.

    Crop of CL4SRec (Xie et al. 2020, arXiv 2010.14395, eq. 6). A row is left alone with 1 - ``chance``.
    """
    size, width = (items != PAD).sum(1), items.shape[1]
    kept = _stretch(size, share, least)
    end = size - (torch.rand(len(items), generator=generator) * (size - kept + 1)).long().clamp(max=size - kept)
    whole = ~_chosen(len(items), generator, chance)
    kept, end = torch.where(whole, size, kept), torch.where(whole, size, end)
    from_right = torch.arange(width - 1, -1, -1)[None, :]
    column = width - size[:, None] + end[:, None] - 1 - from_right
    return torch.where(from_right < kept[:, None], column, PAD)


def mask_places(items: Tensor, generator: torch.Generator, chance: float, share: float) -> Tensor:
    """Places [B, W] with each item but the newest hidden with chance ``share``, in rows chosen with ``chance``.

    The mask of CL4SRec (eq. 7): the place stays, so the tower knows that something was there.
    """
    hidden = torch.rand(items.shape, generator=generator) < share
    hidden &= _chosen(len(items), generator, chance)[:, None]
    hidden[:, -1] = False  # its state is the user's
    return _own_places(items).masked_fill(hidden, PAD)


def reorder_places(items: Tensor, generator: torch.Generator, chance: float, share: float) -> tuple[Tensor, Tensor]:
    """Places [B, W] with a random stretch of ``share`` of a row's items shuffled, and where that stretch is, bool [B, W].

    Reorder of CL4SRec (eq. 8).
    """
    size, width = (items != PAD).sum(1), items.shape[1]
    long = _stretch(size, share, 1) * _chosen(len(items), generator, chance)
    start = width - size + (torch.rand(len(items), generator=generator) * (size - long + 1)).long().clamp(max=size - long)
    place = torch.arange(width)[None, :].expand_as(items)
    inside = (place >= start[:, None]) & (place < (start + long)[:, None])
    key = start[:, None] + torch.rand(items.shape, generator=generator, dtype=torch.float64) * long[:, None]
    return torch.where(inside, key, place.double()).argsort(dim=1, stable=True), inside


def substitute(items: Tensor, generator: torch.Generator, chance: float, share: float, neighbours: Tensor) -> Tensor:
    """Items [B, W], each replaced with chance ``share`` by one of its neighbours, in rows chosen with ``chance``.

    After CoSeRec (Liu et al. 2021, arXiv 2108.06479), with co-occurring items as the similar ones. An item stays where it
    has no neighbour, or where the neighbour is in the row already: it may be what a state must find.

    Args:
        neighbours: int64 [N, M] positions, padded with -1 on the right.
    """
    wanted = (torch.rand(items.shape, generator=generator) < share) & _chosen(len(items), generator, chance)[:, None]
    near_BWM = neighbours[items.clamp(min=0)]
    number = (near_BWM != PAD).sum(-1)
    drawn = (torch.rand(items.shape, generator=generator) * number).long().clamp(max=(number - 1).clamp(min=0))
    found = near_BWM.gather(-1, drawn[..., None])[..., 0]
    in_row = (found[:, :, None] == items[:, None, :]).any(-1)
    return torch.where(wanted & (items != PAD) & (number > 0) & ~in_row, found, items)


def noisy_labels(sequences: Tensor, generator: torch.Generator, chance: float, known: Tensor) -> Tensor:
    """Sequences [B, W] with each item but a row's first replaced with ``chance`` by any of ``known`` [K].

    DisturbLabel (Xie et al. 2016, arXiv 1605.00055): a few wrong targets keep the model from being too sure.
    """
    drawn = known[torch.randint(len(known), sequences.shape, generator=generator)]
    wrong = (torch.rand(sequences.shape, generator=generator) < chance) & (sequences != PAD)
    wrong[:, 0] = False
    return torch.where(wrong, drawn, sequences)


def taken(values: Tensor, places: Tensor, fill: int) -> Tensor:
    """``values[b, places[b, w]]``, and ``fill`` where the place is -1."""
    return values.gather(1, places.clamp(min=0)).masked_fill(places == PAD, fill)


def _chosen(rows: int, generator: torch.Generator, chance: float) -> Tensor:
    return torch.rand(rows, generator=generator) < chance


def _stretch(size: Tensor, share: float, least: int) -> Tensor:
    """Length of a stretch of ``share`` of ``size`` items: at least ``least`` where there are so many."""
    return torch.minimum((size.double() * share).round().long().clamp(min=least), size)


def _own_places(items: Tensor) -> Tensor:
    return torch.arange(items.shape[1])[None, :].expand_as(items)


# -- all that a batch needs --------------------------------------------------------------------------------------------


def changed(
    sequences: Tensor, moments: Tensor | None, settings: AugmentSettings, generator: torch.Generator, known: Tensor, near: Tensor
) -> tuple[Tensor, History]:
    """Sequences [B, L+1] to take targets from, and histories [B, L] to see: crop, then changes of what is seen.

    A state is asked only where what it has seen is what it saw before, but for hidden and substituted items: within a
    shuffled stretch nothing is asked, for the next item may have come forward.

    Args:
        known: int64 [K], positions that label noise may draw.
        near: int64 [N, M], neighbours; read where items are substituted.
    """
    whole = History(sequences, moments).at(crop_places(sequences, generator, settings.crop_chance, settings.crop_share, least=2))
    targets = whole.items
    seen = History(targets[:, :-1], None if whole.moments is None else whole.moments[:, :-1])
    if settings.substitute_chance > 0:
        chance, share = settings.substitute_chance, settings.substitute_share
        pad = torch.full_like(targets[:, :1], PAD)
        replaced = substitute(torch.cat([pad, targets], 1), generator, chance, share, near)  # sees the last target as well
        seen = History(replaced[:, 1:-1], seen.moments)
    places, inside = reorder_places(seen.items, generator, settings.reorder_chance, settings.reorder_share)
    seen = seen.at(places)
    seen = seen.at(mask_places(seen.items, generator, settings.mask_chance, settings.mask_share))
    if settings.label_noise > 0:
        targets = noisy_labels(targets, generator, settings.label_noise, known)
    not_asked = torch.zeros_like(targets, dtype=torch.bool)
    not_asked[:, 1:-1] = inside[:, 1:] & inside[:, :-1]  # states of the stretch but its last; they ask for the place after
    return targets.masked_fill(not_asked, PAD), seen


def two_views(rows: History, settings: AugmentSettings, generator: torch.Generator, near: Tensor) -> Views:
    """Two views of each history, each made by one of ``settings.view_operations``, drawn evenly (CL4SRec)."""
    first, second = (_view(rows, settings, generator, near) for _ in range(2))
    return Views(first, second, rows.items)


def _view(rows: History, settings: AugmentSettings, generator: torch.Generator, near: Tensor) -> History:
    items, names = rows.items, settings.view_operations
    drawn = torch.randint(len(names), (len(items),), generator=generator)
    view = rows
    for number, name in enumerate(names):
        made = _operation(name, rows, settings, generator, near)
        mine = (drawn == number)[:, None]
        moments = None if made.moments is None or view.moments is None else torch.where(mine, made.moments, view.moments)
        view = History(torch.where(mine, made.items, view.items), moments)
    return view


def _operation(name: Operation, rows: History, settings: AugmentSettings, generator: torch.Generator, near: Tensor) -> History:
    if name == "crop":
        return rows.at(crop_places(rows.items, generator, 1.0, settings.crop_share))
    if name == "mask":
        return rows.at(mask_places(rows.items, generator, 1.0, settings.mask_share))
    if name == "reorder":
        return rows.at(reorder_places(rows.items, generator, 1.0, settings.reorder_share)[0])
    return History(substitute(rows.items, generator, 1.0, settings.substitute_share, near), rows.moments)


# -- tables and weights ------------------------------------------------------------------------------------------------


def neighbour_table(
    anchors: NDArray[np.int64], items: NDArray[np.int64], weights: NDArray[np.float32], num_items: int, at_most: int
) -> NDArray[np.int64]:
    """The heaviest partners of each position, int64 [N, M <= at_most], padded with -1; ties go to the lower position."""
    order = np.lexsort((items, -weights, anchors))
    anchors, items = anchors[order], items[order]
    rank = position_in_group(anchors)
    kept = rank < at_most
    table = np.full((num_items, max(1, int(rank[kept].max(initial=0)) + 1)), PAD, dtype=np.int64)
    table[anchors[kept], rank[kept]] = items[kept]
    return table


def tail_weights(items: Tensor, counts: Tensor, power: float) -> Tensor:
    """Weight [B] of each row of items [B, n]: the mean of ``(events of the item / mean over items)^-power``.

    In the mean over a batch's rows this is what drawing rows by these weights would give (importance weighting), without
    the repeated rows; 0 leaves every row at 1. Padding does not count.

    Args:
        counts: float [N], events of each position that training may see; below 1 counts as 1.
    """
    seen = counts.clamp(min=1.0)
    each = (seen / seen.mean()) ** -power
    real = items != PAD
    summed = (each[items.clamp(min=0)] * real).sum(1)
    return (summed / real.sum(1).clamp(min=1)).to(torch.float32)


def generator_of(key: Sequence[int | str]) -> torch.Generator:
    """A CPU generator seeded by any key."""
    return torch.Generator().manual_seed(derived_seed(*key))
