"""What a training step is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_spark.training.feed.augment import History, Views

_NO_ROWS = torch.zeros((0, 2), dtype=torch.int64)


@dataclass(frozen=True)
class Outcomes:
    """Events that there is an answer for, O of them.

    Args:
        history: what their users had met before, items [O, L], padded on the left; all padding where there was nothing.
        items: [O], what the events were about.
        happened: float [O], 1 where an event was of the wanted kind, else 0.
        weights: [O].
    """

    history: History
    items: Tensor
    happened: Tensor
    weights: Tensor


class ProfileRows(NamedTuple):
    """Users of whom a text is known: its vectors float [F, T], positions of items they met [F, M], padded with -1, and which
    of these is to be found, [F]."""

    text_vectors: Tensor
    items: Tensor
    target: Tensor


@dataclass(frozen=True)
class Batch:
    """One rank's rows, as positions in the catalogue (int64, -1 = padding). All ranks have the same B, P and E.

    Args:
        sequences: [B, L+1] histories, padded on the left; item l+1 is the target of state l. B = 0: no user-item loss.
        sequence_weights: [B].
        pairs: [P, 2] anchor and positive. P = 0: no item-item loss.
        pair_weights: [P].
        explicit_sequences: [E, L+1], as ``sequences``; only the last state counts. E = 0: no explicit loss.
        explicit_items: [E, M], what the user is known not to want, padded.
        explicit_weights: [E].
        shared_seed: the same on every rank, another one in every step; negatives are drawn by it.
        history: what the user tower sees in place of ``sequences[:, :-1]``, where that was changed or comes with times.
        outcomes: events for the outcome head; None: it learns nothing in this step.
        profiles: users for the profile tower; None: there is none.
        views: two changed histories of each row, for the self-supervised loss.
    """

    sequences: Tensor
    sequence_weights: Tensor
    pairs: Tensor
    pair_weights: Tensor
    explicit_sequences: Tensor = _NO_ROWS
    explicit_items: Tensor = _NO_ROWS
    explicit_weights: Tensor = _NO_ROWS[:, 0]
    shared_seed: int = 0
    history: History | None = None
    views: Views | None = None
    outcomes: Outcomes | None = None
    profiles: ProfileRows | None = None

    @property
    def seen(self) -> History:
        """What the states of ``sequences`` have seen, [B, L]."""
        return History(self.sequences[:, :-1]) if self.history is None else self.history


class StepOutput(NamedTuple):
    """This rank's shares: their sums over the ranks, divided by R, are the losses. ``masked``: counts by ``metrics.KINDS``."""

    loss: Tensor
    user_item: Tensor
    item_item: Tensor
    explicit: Tensor
    masked: Tensor
    outcome: Tensor
    profile: Tensor
