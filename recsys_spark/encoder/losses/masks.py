"""Candidates that are no fair negatives, from a short list of known positives per anchor."""

from __future__ import annotations

from torch import Tensor

PAD = -1


def known_positive_mask(
    anchor_item_idx: Tensor, candidate_item_idx: Tensor, target_idx: Tensor, known_item_idx: Tensor | None = None
) -> Tensor:
    """Candidates that are no fair negatives of an anchor, bool [B, C] for ``info_nce``'s mask (True = excluded).

    Excluded are: the positive's item standing at another place (duplicates in the batch), the anchor's own item, and
    the anchor's other known positives. The target itself is never excluded.

    Args:
        anchor_item_idx: int [B], item_idx of the anchor; -1 where the anchor is a user.
        candidate_item_idx: int [C], item_idx of each candidate.
        target_idx: int64 [B], the row of the positive among the candidates.
        known_item_idx: int [B, M], item_idx of further known positives, padded with -1; or None.
    """
    candidate_C = candidate_item_idx[None, :]
    excluded_BC = candidate_C == candidate_item_idx[target_idx][:, None]
    excluded_BC = excluded_BC | (candidate_C == anchor_item_idx[:, None])
    if known_item_idx is not None:
        for column in known_item_idx.unbind(1):  # one [B, C] at a time: [B, M, C] would not fit
            excluded_BC = excluded_BC | (candidate_C == column[:, None])
    excluded_BC = excluded_BC & (candidate_C != PAD)
    return excluded_BC.scatter(1, target_idx[:, None], False)
