"""Cosine contrastive loss: positives towards 1, negatives below a margin, each by itself."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses.comparison import Comparison


def cosine_contrastive(comparison: Comparison, margin: float) -> Tensor:
    """Pulls the target to cosine 1 and pushes only those negatives away that are above the margin, [B].

    ``loss_b = (1 - cos_bt) + mean_n max(0, cos_bn - margin)`` (SimpleX, Mao et al. 2021, arXiv 2109.12613, equation 1, with the
    weight of negatives at 1; for two items a PyTorch CosineEmbeddingLoss, after Hadsell et al. 2006). Always the cosine,
    whatever the similarity; no comparison of positive and negative, as ``margin_ranking`` makes.
    """
    cosines_BC = replace(comparison, similarity="cosine").similarities()
    pushed_B = comparison.mean_over_negatives(F.relu(cosines_BC - margin))
    return 1 - comparison.of_target(cosines_BC)[:, 0] + pushed_B
