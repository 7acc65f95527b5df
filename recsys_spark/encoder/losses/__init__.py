"""Contrastive losses, one per file, each a value per anchor from a ``Comparison``; chosen by name in ``choose``."""

from recsys_spark.encoder.losses.choose import LOSSES, WHOLE_BATCH, chosen_loss
from recsys_spark.encoder.losses.comparison import Comparison, Loss
from recsys_spark.encoder.losses.masks import known_positive_mask
from recsys_spark.encoder.losses.mean import Relate, Relations, in_chunks, weighted_mean
from recsys_spark.encoder.losses.softmax import full_softmax, info_nce
from recsys_spark.encoder.losses.symmetric import nt_xent, symmetric_info_nce

__all__ = [
    "LOSSES",
    "WHOLE_BATCH",
    "Comparison",
    "Loss",
    "Relate",
    "Relations",
    "chosen_loss",
    "full_softmax",
    "in_chunks",
    "info_nce",
    "known_positive_mask",
    "nt_xent",
    "symmetric_info_nce",
    "weighted_mean",
]
