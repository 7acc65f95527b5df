"""Fusing partners before the cut: the weighted sum of their z-scores, in tiles for the search and exactly for the chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.scoring.rough import COARSENESS, RoughScores
from recsys_spark.recommend.scoring.scores import DenseScores, Float64, FloatArray, Ints, Precision, Scores

DECIMALS = 9  # scores closer than this are ties


@dataclass(frozen=True)
class Part:
    """One partner's say: its name, weight, and scores of the block's users; ``factor [N]``: of the weight, by item."""

    name: str
    weight: float
    scores: Scores
    factor: FloatArray | None = None

    def tile(self, start: int, stop: int, dtype: Precision) -> FloatArray:
        """What it adds to items ``start..stop``."""
        tile = self.scores.tile(self.weight, start, stop, dtype)
        return tile if self.factor is None else tile * self.factor[start:stop].astype(dtype)

    def at(self, rows: Ints, cols: Ints) -> Float64:
        """What it adds to single cells, in float64: ``[C]``."""
        share = self.weight * self.scores.at(rows, cols)
        return share if self.factor is None else share * self.factor[cols]

    def columns(self, cols: Ints) -> Part:
        """The same for these items alone."""
        return Part(self.name, self.weight, self.scores.columns(cols), None if self.factor is None else self.factor[cols])

    def error(self, dtype: Precision) -> Float64:
        """``[B]``: how far rounding may move what it adds."""
        largest = 1.0 if self.factor is None else float(np.abs(self.factor).max(initial=0.0))
        return self.scores.error(self.weight * largest, dtype)


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

    def by_partner(self) -> dict[str, Scores]:
        """What each partner says, by its name."""
        return {part.name: part.scores for part in self.parts}

    def tile(self, start: int, stop: int, dtype: Precision) -> FloatArray:
        """Fused scores of items ``start..stop``: ``[B, stop - start]``, free to overwrite."""
        tiles = [part.tile(start, stop, dtype) for part in self.parts]
        own = [tile for tile in tiles if len(tile) == self.num_users]
        total = own[0] if own else np.zeros((self.num_users, stop - start), dtype)
        for tile in tiles:
            if tile is not total:
                np.add(total, tile, out=total)
        return total

    def tile_bits(self, start: int, stop: int) -> npt.NDArray[np.int16] | None:
        """Bits of the scores where they are products in bfloat16 (``roughly``), free to overwrite; elsewhere None."""
        first = self.parts[0] if self.parts else None
        if first is None or not isinstance(first.scores, RoughScores):
            return None
        return first.scores.tile_bits(first.weight, start, stop)

    def columns(self, cols: Ints) -> Fused:
        """The scores of these items alone, each as it is among all."""
        parts = tuple(part.columns(cols) for part in self.parts)
        return Fused(parts, self.num_users, len(cols))

    def shares(self, rows: Ints, cols: Ints) -> dict[str, Float64]:
        """What each partner adds to the score of single cells: name -> ``[C]`` (weight x z-score)."""
        return {part.name: part.at(rows, cols) for part in self.parts}

    def at(self, rows: Ints, cols: Ints) -> Float64:
        """Fused scores of single cells in float64, rounded to ``DECIMALS``: ``[C]``."""
        return total_of(self.shares(rows, cols), len(rows))

    def roughly(self) -> Fused:
        """The same with products in the hardware's fastest type, where that pays: where one dense partner speaks alone."""
        if len(self.parts) != 1 or self.parts[0].factor is not None:
            return self
        if not isinstance(self.parts[0].scores, DenseScores) or self.parts[0].scores.rough is None:
            return self
        alone = replace(self.parts[0], scores=RoughScores(self.parts[0].scores, self.parts[0].scores.rough))
        return replace(self, parts=(alone,), coarseness=COARSENESS)

    def slack(self, dtype: Precision) -> Float64:
        """``[B]``: a score of a tile in ``dtype`` is at most half of this (and its ``coarseness``) away from the exact one."""
        error = np.zeros(self.num_users)
        for part in self.parts:
            error += part.error(dtype)
        return 2.0 * error + 4.0 * 10.0**-DECIMALS


def total_of(shares: dict[str, Float64], num_cells: int) -> Float64:
    """Fused score out of its shares, rounded so that equal scores are equal in every run."""
    total = np.zeros(num_cells)
    for share in shares.values():
        total += share
    rounded: Float64 = np.round(total, DECIMALS) + 0.0  # -0.0 is 0.0
    return rounded
