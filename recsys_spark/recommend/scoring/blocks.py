"""A block of users (or of items, for their neighbours) as arrays, and what the partners can say about each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_spark.ranges import ranges
from recsys_spark.recommend.scoring.fuse import Fused, Part
from recsys_spark.recommend.scoring.partners import PERSONAL, Partners
from recsys_spark.recommend.scoring.scores import FloatArray, Ints, Scores, as_rows

MAX_BLOCK_BYTES = 256 * 2**20
_BYTES_PER_CELL = 24  # a sparse partner's rows and their copy by item, were every cell filled


def users_per_block(user_block: int, num_items: int, tiled: bool = False) -> int:
    """Users scored together: at most ``user_block``, and fewer where scores of all items could pass 256 MiB.

    ``tiled``: no more than a tile of scores is ever held (see ``Partners.tiled``).
    """
    if tiled:
        return user_block
    return max(1, min(user_block, MAX_BLOCK_BYTES // (_BYTES_PER_CELL * max(num_items, 1))))


@dataclass(frozen=True)
class Past:
    """Histories of B users end to end, oldest first: ``lengths [B]``, ``positions`` in a catalogue of ``num_items``."""

    lengths: Ints
    positions: Ints
    num_items: int

    def weighted(self, decay: float) -> Any:
        """As ``history_matrix``."""
        return history_matrix(self.lengths, self.positions, decay, self.num_items)

    def take(self, users: Ints) -> Past:
        begins = np.cumsum(self.lengths) - self.lengths
        cells = ranges(begins[users], self.lengths[users])
        return Past(self.lengths[users], self.positions[cells], self.num_items)


@dataclass(frozen=True)
class Block:
    """B users: ``history`` and ``seen`` are CSR ``[B, N]`` (weights; 1 where met), ``vectors`` ``[B, D]`` with zero rows
    where the encoder knows nothing, ``queries`` CSR ``[B, F]`` of profile texts (None where there are none), ``past`` the
    histories in order, for partners with a decay of their own (None: ``history`` is all there is)."""

    history: Any
    seen: Any
    vectors: FloatArray
    queries: Any = None
    past: Past | None = None

    @property
    def num_users(self) -> int:
        return int(self.history.shape[0])

    def take(self, users: Ints) -> Block:
        queries = None if self.queries is None else self.queries[users]
        past = None if self.past is None else self.past.take(users)
        return Block(self.history[users], self.seen[users], self.vectors[users], queries, past)

    def history_at(self, decay: float | None) -> Any:
        """The history with the n-th last item at ``decay^n``; None: as the block has it."""
        return self.history if decay is None or self.past is None else self.past.weighted(decay)


def history_matrix(lengths: Ints, positions: Ints, decay: float, num_items: int) -> Any:
    """CSR ``[B, N]`` out of histories laid end to end, oldest first; the n-th last item weighs ``decay^n`` (the last: 1).

    An item met twice has the sum of its weights; positions of -1 are items outside the catalogue.
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths)
    age = ends[rows] - 1 - np.arange(len(positions))
    known = positions >= 0
    cells = (decay ** age[known].astype(np.float64), (rows[known], positions[known]))
    return as_rows(sparse.csr_matrix(cells, shape=(len(lengths), num_items)))


def seen_matrix(lengths: Ints, positions: Ints, num_items: int) -> Any:
    """CSR ``[B, N]`` with 1 where the user has met the item."""
    met = history_matrix(lengths, positions, 1.0, num_items)
    met.data[:] = 1.0
    return met


def signals(block: Block, partners: Partners) -> dict[str, npt.NDArray[np.bool_]]:
    """Which users each personal partner has something to say about: name -> ``[B]``."""
    nothing = np.zeros(block.num_users, np.bool_)
    found = dict.fromkeys(PERSONAL, nothing)
    if partners.encoder is not None:
        found["encoder"] = block.vectors.any(axis=1)
    for name, related in partners.related.items():
        found[name] = related.knows(block.history)
    if partners.als is not None:
        found["als"] = partners.als.knows(block.history)
    if partners.text is not None:
        found["text"] = np.diff(partners.text.profiles(block.history).indptr) > 0
    return found


def fuse(
    block: Block,
    partners: Partners,
    weights: dict[str, float],
    context: str | None = None,
    profile: bool = False,
    given: Mapping[str, Scores] | None = None,
) -> Fused:
    """The partners with a weight, scoring a block.

    Args:
        context: popularity is that of this context.
        profile: text is scored by the users' profile texts, not by their histories.
        given: scores of partners that have scored this block, in this way, before.
    """
    parts = []
    for name in partners.present():
        if weights.get(name, 0.0) != 0.0:
            scores = (given or {}).get(name) or _scores(name, block, partners, context, profile)
            parts.append(Part(name, weights[name], scores, partners.weight_factors.get(name)))
    return Fused(tuple(parts), block.num_users, int(block.history.shape[1]))


def _scores(name: str, block: Block, partners: Partners, context: str | None, profile: bool) -> Scores:
    if name == "encoder" and partners.encoder is not None:
        return partners.encoder.scores(block.vectors)
    history = block.history_at(partners.decays.get(name))
    if name in partners.related:
        return partners.related[name].scores(history)
    if name == "als" and partners.als is not None:
        return partners.als.scores(history)
    if name == "text" and partners.text is not None:
        return partners.text.scores(block.queries if profile else partners.text.profiles(history))
    return partners.popularity.scores(block.num_users, context)
