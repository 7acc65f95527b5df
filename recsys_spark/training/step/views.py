"""The self-supervised loss of user states: two views of one history must find each other among all."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_spark.encoder.losses import info_nce
from recsys_spark.training.distributed import Ranks


def view_loss(first: Tensor, second: Tensor, rows: Tensor, weights: Tensor, temperature: float, ranks: Ranks) -> Tensor:
    """This rank's share, times R, of the mean InfoNCE both ways between two views of each row, over all ranks' rows.

    ``loss_b = -log( exp(u_b . v_b / tau) / sum_c exp(u_b . v_c / tau) )``, c over the global batch's rows that differ
    from b's, and the same with u and v exchanged; CL4SRec, Xie et al. 2020 (arXiv 2010.14395), eq. 4, with the other views
    of one side only, as in Radford et al. 2021 (arXiv 2103.00020).

    Args:
        first: float [B, D], unit states u of the first views.
        second: float [B, D], unit states v of the second views.
        rows: int64 [B, W], the histories both were made of: a row equal to the anchor's is no negative of it.
        weights: float [B].
    """
    size, everybody = len(rows), ranks.gather_constant(rows)
    same = torch.unique(everybody, dim=0, return_inverse=True)[1]
    mine = torch.arange(size, device=rows.device) + ranks.rank * size
    mask = same[mine][:, None] == same[None, :]
    total = ranks.sum(weights.sum())
    ways = [
        info_nce(anchors, ranks.gather(candidates), mine, temperature, mask, weights, total)
        for anchors, candidates in ((first, second), (second, first))
    ]
    return ranks.world * (ways[0] + ways[1]) / 2
