"""EASE as a teacher: its weights as a file of the job's inputs, and its opinion of candidates by what a state has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

_FILE = "item_weights.npz"
_PAD = -1


def weights_between(
    item_idx: NDArray[Any], item_a: NDArray[Any], lengths: NDArray[Any], item_b: NDArray[Any], weight: NDArray[Any]
) -> Any:
    """CSR float32 [N, N] of the rows of table item_weights, between positions in the catalogue; items not in it are left out.

    Args:
        item_idx: int [N], ascending: the catalogue.
        item_a: int [A], one a row of the table.
        lengths: int [A], weights of each row.
        item_b, weight: [sum of lengths], all rows end to end.
    """
    ends = np.repeat(item_a, lengths), np.asarray(item_b)
    places = [np.searchsorted(item_idx, end).clip(max=len(item_idx) - 1) for end in ends]
    known = (item_idx[places[0]] == ends[0]) & (item_idx[places[1]] == ends[1])
    cells = np.asarray(weight, np.float32)[known], (places[0][known], places[1][known])
    return sparse.csr_matrix(cells, shape=(len(item_idx), len(item_idx)))


def save_weights(folder: Path, weights: Any) -> None:
    """Write CSR weights [N, N] into the inputs folder."""
    np.savez(folder / _FILE, data=weights.data, indices=weights.indices, indptr=weights.indptr)


def load_weights(folder: Path, num_items: int) -> Any | None:
    """What ``save_weights`` wrote; None where this job has no such teacher."""
    if not (folder / _FILE).exists():
        return None
    with np.load(folder / _FILE) as parts:
        cells = parts["data"], parts["indices"], parts["indptr"]
    return sparse.csr_matrix(cells, shape=(num_items, num_items))


@dataclass(frozen=True)
class Seen:
    """What B states have seen.

    Args:
        histories: int64 [H, L], positions, padded.
        counts: bool [H, L], where the states stand, row by row: a state has seen the items up to its own place.
    """

    histories: Tensor
    counts: Tensor

    def rows(self, rows: slice) -> Tensor:
        """Items int64 [b, L] of some states, padded."""
        row, place = self.counts.nonzero()[rows].unbind(1)
        later = torch.arange(self.histories.shape[1], device=row.device)[None, :] > place[:, None]
        return self.histories[row].masked_fill(later, _PAD)


class EaseOpinion:
    """EASE's scores of a step's candidates for each state, the state's own mean and spread taken out.

    ``s_bc = sum_{i seen by b} B_ic`` (Steck 2019, arXiv 1905.03375), each item once however often it was met, as the weights
    were fitted; then ``(s_bc - mean_b) / std_b`` over all C candidates, so that one temperature serves short histories and
    long ones, whose sums differ in size. A state of whose items EASE knows nothing finds all candidates alike (0).

    Args:
        weights: B, CSR [N, N] between positions.
        seen: by the states.
        candidates: int64 [C], positions.
    """

    def __init__(self, weights: Any, seen: Seen, candidates: Tensor) -> None:
        self._seen, self._device = seen, candidates.device
        met = seen.histories.cpu().numpy()
        self._met = np.unique(met[met != _PAD])
        self._weights = weights[self._met][:, candidates.cpu().numpy()].astype(np.float32)

    def scores(self, rows: slice) -> Tensor:
        """Float32 [b, C] of some states, without gradient."""
        sums = (self._history(self._seen.rows(rows).cpu().numpy()) @ self._weights).toarray()
        sums -= sums.mean(axis=1, keepdims=True)
        spread = sums.std(axis=1, keepdims=True)
        np.divide(sums, spread, out=sums, where=spread > 0)
        return torch.from_numpy(sums).to(self._device)

    def _history(self, items: NDArray[Any]) -> Any:
        """CSR [b, U] of ones at the items of each row, U those met in this step."""
        row, place = np.nonzero(items != _PAD)
        columns = np.searchsorted(self._met, items[row, place])
        met = sparse.csr_matrix((np.ones(len(row), np.float32), (row, columns)), shape=(len(items), len(self._met)))
        met.data[:] = 1.0  # SciPy has added up what stood there several times
        return met
