"""Users with a profile text: what the profile tower learns by, and how well it finds what held-out ones met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_spark.encoder.item_tower import UNKNOWN
from recsys_spark.encoder.model import Encoder
from recsys_spark.errors import TrainingError
from recsys_spark.training.catalogue import PAD, Catalogue
from recsys_spark.training.feed.augment import generator_of
from recsys_spark.training.feed.batch import ProfileRows

HELD_SHARE = 0.1  # of the users, to judge by
_ROWS, _VECTORS, _TABLE = "profiles.npz", "profile_vectors.npy", "training_sequences"
_AT_ONCE = 512


@dataclass(frozen=True)
class Profiles:
    """U users in the order of a hash: ``vectors`` of their texts, float [U, T], and positions of items they met, int64
    [U, M], padded with -1 on the left. The last tenth is not learned from."""

    vectors: NDArray[np.float32]
    items: Tensor

    @property
    def num_fit(self) -> int:
        """Users to learn from: the first ones."""
        return len(self.vectors) - int(HELD_SHARE * len(self.vectors))

    def drawn(self, number: int, seed: tuple[Any, ...]) -> ProfileRows:
        """That many users, and of each one of their items, drawn evenly by ``seed``."""
        draw = generator_of(seed)
        rows = torch.randint(self.num_fit, (number,), generator=draw)
        items = self.items[rows.to(self.items.device)]
        padding = (items == PAD).sum(1)
        place = padding + (torch.rand(number, generator=draw).to(items.device) * (items.shape[1] - padding)).long()
        return ProfileRows(self._text(rows), items, items.gather(1, place[:, None])[:, 0])

    def held(self) -> tuple[Tensor, Tensor]:
        """Text vectors and items of the users not learned from."""
        rows = torch.arange(self.num_fit, len(self.vectors))
        return self._text(rows), self.items[rows.to(self.items.device)]

    def _text(self, rows: Tensor) -> Tensor:
        return torch.tensor(self.vectors[rows.numpy()], device=self.items.device)


def save_profiles(folder: Path, vectors: NDArray[np.float32], items: NDArray[np.int32]) -> None:
    """Write the users' text vectors [U, T] and item_idx [U, M] beside the catalogue's arrays, in the order of a hash."""
    np.save(folder / _VECTORS, vectors.astype(np.float32, copy=False))
    np.savez(folder / _ROWS, items=items.astype(np.int32))


def load_profiles(folder: Path, catalogue: Catalogue) -> Profiles:
    """Read what ``save_profiles`` wrote; the vectors are mapped, not read.

    Raises:
        TrainingError: there are none, or not one user to learn from.
    """
    if not (folder / _ROWS).exists():
        raise TrainingError("training inputs", "no profiles", _ROWS, "run train again from the start")
    with np.load(folder / _ROWS) as rows:
        found = Profiles(np.load(folder / _VECTORS, mmap_mode="r"), catalogue.positions(rows["items"], _TABLE))
    if found.num_fit == 0:
        do = "map ingest.users.columns, or set train.profile_share = 0: a tower that learned nothing would be in the model"
        raise TrainingError("training inputs", "no user with a profile text and an event", "some", do)
    return found


@torch.no_grad()
def profile_figures(
    encoder: Encoder, item_vectors_ND: Tensor, profiles: Profiles, catalogue: Catalogue, k: int
) -> dict[str, Any]:
    """Mean share of their items (at most ``k``) that held-out users have among their ``k`` best, by three rankings:
    ``recall`` of the tower, ``recall_as_item`` without it, ``recall_popular``. Their own events are in the other losses,
    their texts in none."""
    text, items = profiles.held()
    if not len(text):
        return {}
    popular_N = catalogue.num_events.to(item_vectors_ND)

    def recall(scores_of: Callable[[slice], Tensor]) -> float:
        parts = [slice(first, first + _AT_ONCE) for first in range(0, len(text), _AT_ONCE)]
        return float(torch.cat([_recall(scores_of(rows), items[rows], k) for rows in parts]).mean())

    unknown = torch.full((len(text),), UNKNOWN, device=text.device)
    return {
        "recall": recall(lambda rows: encoder.profile_vectors(text[rows]) @ item_vectors_ND.T),
        "recall_as_item": recall(lambda rows: encoder.item_vectors(text[rows], unknown[rows]) @ item_vectors_ND.T),
        "recall_popular": recall(lambda rows: popular_N.expand(len(text[rows]), -1)),
        "k": k,
        "users": len(text),
    }


def _recall(scores_BN: Tensor, items_BM: Tensor, k: int) -> Tensor:
    best_BK = scores_BN.topk(min(k, scores_BN.shape[1]), dim=1).indices
    hits_B = ((items_BM[:, :, None] == best_BK[:, None, :]) & (items_BM != PAD)[:, :, None]).any(2).sum(1)
    return hits_B / (items_BM != PAD).sum(1).clamp(1, k)
