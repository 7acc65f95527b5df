"""Fusing partners before the cut: the weighted sum of their z-scores, in tiles for the search and exactly for the chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys_spark.recommend.rough import COARSENESS, RoughScores
from recsys_spark.recommend.scores import DenseScores, Float64, FloatArray, Ints, Precision, Scores

DECIMALS = 9  # scores closer than this are ties


@dataclass(frozen=True)
class Part:
    """One partner's say: its name, weight, and scores of the block's users."""

    name: str
    weight: float
    scores: Scores


@dataclass(frozen=True)
class Fused:
    """``sum over partners of weight x (score - mean) / std``, mean and std per user over the whole catalogue.

    A sparse partner scores 0 where it has nothing; a partner whose scores are all equal for a user adds 0 for that user.
    ``coarseness``: the share of itself by which rounding moves a finished score of a tile (0: not after the last sum).
    """

    parts: tuple[Part, ...]
    num_users: int
    num_items: int
    coarseness: float = 0.0

    def tile(self, start: int, stop: int, dtype: Precision) -> FloatArray:
        """Fused scores of items ``start..stop``: ``[B, stop - start]``, free to overwrite."""
        tiles = [part.scores.tile(part.weight, start, stop, dtype) for part in self.parts]
        own = [tile for tile in tiles if len(tile) == self.num_users]
        total = own[0] if own else np.zeros((self.num_users, stop - start), dtype)
        for tile in tiles:
            if tile is not total:
                np.add(total, tile, out=total)
        return total

    def columns(self, cols: Ints) -> Fused:
        """The scores of these items alone, each as it is among all."""
        parts = tuple(Part(part.name, part.weight, part.scores.columns(cols)) for part in self.parts)
        return Fused(parts, self.num_users, len(cols))

    def shares(self, rows: Ints, cols: Ints) -> dict[str, Float64]:
        """What each partner adds to the score of single cells: name -> ``[C]`` (weight x z-score)."""
        return {part.name: part.weight * part.scores.at(rows, cols) for part in self.parts}

    def at(self, rows: Ints, cols: Ints) -> Float64:
        """Fused scores of single cells in float64, rounded to ``DECIMALS``: ``[C]``."""
        return total_of(self.shares(rows, cols), len(rows))

    def roughly(self) -> Fused:
        """The same with products in the hardware's fastest type, where that pays: where one dense partner speaks alone."""
        if len(self.parts) != 1 or not isinstance(self.parts[0].scores, DenseScores) or self.parts[0].scores.rough is None:
            return self
        alone = replace(self.parts[0], scores=RoughScores(self.parts[0].scores, self.parts[0].scores.rough))
        return replace(self, parts=(alone,), coarseness=COARSENESS)

    def slack(self, dtype: Precision) -> Float64:
        """``[B]``: a score of a tile in ``dtype`` is at most half of this (and its ``coarseness``) away from the exact one."""
        error = np.zeros(self.num_users)
        for part in self.parts:
            error += part.scores.error(part.weight, dtype)
        return 2.0 * error + 4.0 * 10.0**-DECIMALS


def total_of(shares: dict[str, Float64], num_cells: int) -> Float64:
    """Fused score out of its shares, rounded so that equal scores are equal in every run."""
    total = np.zeros(num_cells)
    for share in shares.values():
        total += share
    rounded: Float64 = np.round(total, DECIMALS) + 0.0  # -0.0 is 0.0
    return rounded
