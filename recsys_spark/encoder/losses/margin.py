"""Max-margin ranking: the positive a margin above every negative."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses.comparison import Comparison


def margin_ranking(comparison: Comparison, margin: float) -> Tensor:
    """How far each negative is inside the margin below the target, as a mean over the negatives, [B].

    ``loss_b = mean_n max(0, margin - s_bt + s_bn)``, s the similarity, not divided by tau (max-margin loss of PinSage, Ying
    et al. 2018, arXiv 1806.01973, equation 1). ``bpr`` is its smooth form without a margin; ``triplet_hard`` looks at the
    worst negative only.
    """
    scores_BC = comparison.similarities()
    return comparison.mean_over_negatives(F.relu(margin - comparison.of_target(scores_BC) + scores_BC))
