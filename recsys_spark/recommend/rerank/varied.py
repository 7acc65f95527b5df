"""Which candidate stands at each place of a list that is to vary: the greedy choice of a determinantal point process."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.new_items import TEN
from recsys_spark.recommend.rerank.limits import Room
from recsys_spark.recommend.scoring.scores import Float64, Ints

QUALITY = 0.5  # how much more the best candidate is worth than the last: exp(2 x that) (docs/decisions/022)
_LEAST = 1e-12  # of what a candidate adds, where rounding leaves less
_NOTHING = 1e-6  # what is added up to here is rounding
_NO_ROOM = 1e6  # such candidates come after all others


def varied(
    scores_BW: Float64, alike_BWW: npt.NDArray[np.float32] | None, diversity: float, fixed_BK: Ints, room: Room | None = None
) -> Ints:
    """The candidate (column, -1: none left) at each of K places of B users' lists, out of W of each.

    Each place goes to the candidate that adds most to ``det L`` of the list so far, for ``L_ij = q_i q_j (d alike_ij + (1 - d)
    [i = j])``, ``q = exp(QUALITY r)``, r the score between the user's last candidate (0) and best (1), d the diversity: Chen,
    Zhang and Zhou 2018 (Algorithm 1, by a growing Cholesky factor), similarities shrunk as by Wilhelm et al. 2018. With d = 0
    that is the order of the scores. Of equal candidates the first wins. Where none that is left has room, limits give way.

    Args:
        scores_BW: -inf: not to be chosen but where it is fixed.
        alike_BWW: in [0, 1], positive semi-definite; None: nothing is like anything.
        fixed_BK: columns that stand at a place whatever they add, where they have room; -1: open.

    Memory: K x B x W numbers.
    """
    (users, width), everyone = scores_BW.shape, np.arange(len(scores_BW))
    quality_BW = np.exp(QUALITY * _between(scores_BW))
    free_BW, adds_BW = np.isfinite(scores_BW), quality_BW**2
    factor_KBW = np.zeros((fixed_BK.shape[1], users, width))
    found = np.full(fixed_BK.shape, -1, np.int64)
    for place in range(fixed_BK.shape[1]):
        if room is not None and place % TEN == 0:
            room.clear()
        left_BW = np.True_ if room is None else room.left()
        value_BW = np.where(free_BW, np.where(left_BW, adds_BW, adds_BW - _NO_ROOM), -np.inf)
        chosen = value_BW.argmax(axis=1)
        fixed = fixed_BK[:, place]
        stands = (fixed >= 0) & np.broadcast_to(left_BW, scores_BW.shape)[everyone, fixed]
        chosen = np.where(stands, fixed, np.where(np.isfinite(value_BW[everyone, chosen]), chosen, -1))
        found[:, place] = chosen
        if room is not None:
            room.take(chosen)
        free_BW[everyone, chosen] &= chosen < 0
        if alike_BWW is None:
            continue
        before = factor_KBW[:place]
        own = diversity * quality_BW[everyone, chosen][:, None] * quality_BW * alike_BWW[everyone, chosen]
        own -= np.einsum("kb,kbw->bw", before[:, everyone, chosen], before)
        adds_B = adds_BW[everyone, chosen]
        own /= np.sqrt(adds_B)[:, None]
        # of one that adds nothing ``own`` is rounding alone, which the division would raise without end
        factor_KBW[place] = np.where(((chosen >= 0) & (adds_B > _NOTHING))[:, None], own, 0.0)
        adds_BW = np.maximum(adds_BW - factor_KBW[place] ** 2, _LEAST)
    return found


def _between(scores_BW: Float64) -> Float64:
    """Scores of a user's candidates as shares of the way from the last (0) to the best (1); of none but equal ones 0."""
    there = np.isfinite(scores_BW)
    lowest = np.where(there, scores_BW, np.inf).min(axis=1, keepdims=True)
    highest = np.where(there, scores_BW, -np.inf).max(axis=1, keepdims=True)
    spread = np.where(highest > lowest, highest - lowest, 1.0)
    found: Float64 = np.where(there, np.where(there, scores_BW, 0.0) - np.where(there, lowest, 0.0), 0.0) / spread
    return found
