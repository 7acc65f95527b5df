"""How alike an anchor and a candidate are: dot product, cosine, or the distance with a minus sign."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from recsys_spark.config.losses import Similarity

_TINY = 1e-12  # squared distances below it count as it: the square root has no slope at 0


def dot(anchors_BD: Tensor, candidates_CD: Tensor) -> Tensor:
    """``s_bc = a_b . c_c``, [B, C]; of unit vectors the cosine, which is what the towers give."""
    return anchors_BD @ candidates_CD.T


def cosine(anchors_BD: Tensor, candidates_CD: Tensor) -> Tensor:
    """``s_bc = a_b . c_c / (|a_b| |c_c|)``, [B, C]; a zero vector is like nothing (0)."""
    return F.normalize(anchors_BD, dim=-1) @ F.normalize(candidates_CD, dim=-1).T


def euclidean(anchors_BD: Tensor, candidates_CD: Tensor) -> Tensor:
    """``s_bc = -|a_b - c_c|``, [B, C]; of unit vectors it orders as the cosine does, for ``|a - c|^2 = 2 - 2 cos``."""
    squares_BC = anchors_BD.square().sum(-1)[:, None] + candidates_CD.square().sum(-1)[None, :]
    return -(squares_BC - 2 * anchors_BD @ candidates_CD.T).clamp(min=_TINY).sqrt()


SIMILARITIES: dict[Similarity, Callable[[Tensor, Tensor], Tensor]] = {"dot": dot, "cosine": cosine, "euclidean": euclidean}
