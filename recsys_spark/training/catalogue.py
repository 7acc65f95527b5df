"""The items a training knows: their ids, id rows and text, read from the job's inputs folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_spark.errors import TrainingError
from recsys_spark.training.teacher import load_weights

PAD = -1
Attributes = tuple[Sequence[str], NDArray[Any]]
_MAX_HELD_BYTES = 2 << 30  # larger text vectors stay on disk and are read by row
_ITEMS, _IDS, _VALUES = "items.npz", "item_ids.json", "values.json"
_VECTORS, _TOKENS, _COUNTS = "text_vectors.npy", "tokens.npy", "num_tokens.npy"


class Catalogue:
    """N items in ascending item_idx; a *position* is a row here, 0 .. N-1, and -1 is padding.

    Args:
        item_idx: int [N], ascending.
        id_rows: int [N], row of the id embedding, or -1 where the item has no fit event.
        item_ids: item_id of each id row, in order.
        text_vectors: float [N, T], when the text encoder is frozen.
        tokens: (ids int [N, S], num_tokens int [N]), when it is trained.
        num_events: int [N], fit events of each item; None: as if all had as many.
        attributes: (``name=value`` of each row of the attribute embedding, rows int [N, A] of each item, padded with -1).
    """

    def __init__(
        self,
        item_idx: NDArray[Any],
        id_rows: NDArray[Any],
        item_ids: Sequence[str],
        text_vectors: NDArray[Any] | None = None,
        tokens: tuple[NDArray[Any], NDArray[Any]] | None = None,
        device: torch.device | None = None,
        num_events: NDArray[Any] | None = None,
        attributes: Attributes | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.item_idx, self.item_ids = np.asarray(item_idx), list(item_ids)
        self.id_rows = torch.tensor(np.asarray(id_rows), dtype=torch.int64, device=self.device)
        self.known = torch.nonzero(self.id_rows >= 0).flatten()  # positions of items that can be a target
        self.attribute_values: list[str] = list(attributes[0]) if attributes else []
        rows = attributes[1] if attributes else np.zeros((len(item_idx), 0))
        self.value_rows = torch.tensor(rows, dtype=torch.int64, device=self.device)
        self._disk = text_vectors
        self._held: Tensor | None = None
        if text_vectors is not None and text_vectors.nbytes <= _MAX_HELD_BYTES:
            self._held = torch.tensor(np.asarray(text_vectors), device=self.device)
        self._tokens = tokens
        self.ease: Any | None = None  # weights of the teacher, CSR [N, N] between positions
        counts = np.ones(len(self.item_idx)) if num_events is None else np.asarray(num_events)
        self.num_events = torch.tensor(counts, dtype=torch.float64, device=self.device)

    def __len__(self) -> int:
        return len(self.item_idx)

    def events_of_ids(self) -> Tensor:
        """Fit events [K] of each row of the id embedding."""
        counts = torch.zeros(len(self.item_ids), dtype=self.num_events.dtype, device=self.device)
        counts[self.id_rows[self.known]] = self.num_events[self.known]
        return counts

    @property
    def text_dim(self) -> int:
        """T; 0 when there are no text vectors."""
        return 0 if self._disk is None else int(self._disk.shape[1])

    def positions(self, item_idx: NDArray[Any], table: str) -> Tensor:
        """Positions int64 of any array of item_idx; -1 stays -1.

        Raises:
            TrainingError: an item that is not in the catalogue.
        """
        found = np.searchsorted(self.item_idx, item_idx).clip(max=len(self.item_idx) - 1)
        is_item = item_idx != PAD
        unknown = is_item & (self.item_idx[found] != item_idx)
        if unknown.any():
            first = int(item_idx[unknown].flat[0])
            raise TrainingError(f"table '{table}'", f"item_idx {first} is not among the items", do="run pairs again, then train")
        return torch.tensor(np.where(is_item, found, PAD), dtype=torch.int64, device=self.device)

    def text_vectors(self, positions: Tensor) -> Tensor:
        """Cached text vectors [n, T] of positions [n]."""
        if self._held is not None:
            return self._held[positions]
        if self._disk is None:
            raise TrainingError("training inputs", "no text vectors", "text_vectors.npy", "run train again from the start")
        return torch.tensor(self._disk[positions.cpu().numpy()], device=self.device)

    def tokens(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [n, S'] (S' = the longest of them) and token counts [n] of positions [n]."""
        if self._tokens is None:
            raise TrainingError("training inputs", "no tokens", "tokens.npy", "run train again from the start")
        rows = positions.cpu().numpy()
        ids, counts = self._tokens[0][rows], self._tokens[1][rows]
        longest = max(1, int(counts.max(initial=1)))
        return torch.tensor(ids[:, :longest], device=self.device), torch.tensor(counts, device=self.device)


def save_catalogue(
    folder: Path,
    item_idx: NDArray[Any],
    id_rows: NDArray[Any],
    item_ids: Sequence[str],
    text_vectors: NDArray[Any] | None = None,
    tokens: tuple[NDArray[Any], NDArray[Any]] | None = None,
    num_events: NDArray[Any] | None = None,
    attributes: Attributes | None = None,
) -> None:
    """Write the inputs folder (see ``Catalogue`` for the arrays)."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.ones(len(item_idx)) if num_events is None else num_events
    items, rows = item_idx.astype(np.int32), id_rows.astype(np.int32)
    values, value_rows = attributes or ((), np.zeros((len(item_idx), 0)))
    also: dict[str, NDArray[Any]] = {"num_events": counts.astype(np.int64), "value_rows": value_rows.astype(np.int32)}
    np.savez(folder / _ITEMS, item_idx=items, id_row=rows, **also)
    (folder / _VALUES).write_text(json.dumps(list(values), ensure_ascii=False), encoding="utf-8")
    (folder / _IDS).write_text(json.dumps(list(item_ids), ensure_ascii=False), encoding="utf-8")
    if text_vectors is not None:
        np.save(folder / _VECTORS, text_vectors.astype(np.float32, copy=False))
    if tokens is not None:
        np.save(folder / _TOKENS, tokens[0].astype(np.int32, copy=False))
        np.save(folder / _COUNTS, tokens[1].astype(np.int32, copy=False))


def load_catalogue(folder: Path, trains_text: bool, device: torch.device | None = None) -> Catalogue:
    """Read what ``save_catalogue`` wrote; large arrays are mapped, not read."""
    with np.load(folder / _ITEMS) as items:
        item_idx, id_rows, num_events, rows = (items[n] for n in ("item_idx", "id_row", "num_events", "value_rows"))
    item_ids, values = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (_IDS, _VALUES))
    also: dict[str, Any] = {"device": device, "num_events": num_events, "attributes": (values, rows)}
    if trains_text:
        also["tokens"] = (np.load(folder / _TOKENS, mmap_mode="r"), np.load(folder / _COUNTS))
    else:
        also["text_vectors"] = np.load(folder / _VECTORS, mmap_mode="r")
    catalogue = Catalogue(item_idx, id_rows, item_ids, **also)
    catalogue.ease = load_weights(folder, len(catalogue))
    return catalogue
