"""Losses by the names that the configuration knows."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from recsys_spark.config.losses import LossName, LossSettings
from recsys_spark.encoder.losses.bpr import bpr
from recsys_spark.encoder.losses.comparison import Comparison, Loss
from recsys_spark.encoder.losses.cosine import cosine_contrastive
from recsys_spark.encoder.losses.direct_au import direct_au
from recsys_spark.encoder.losses.distillation import distillation
from recsys_spark.encoder.losses.margin import margin_ranking
from recsys_spark.encoder.losses.matryoshka import matryoshka
from recsys_spark.encoder.losses.nce import nce
from recsys_spark.encoder.losses.sampled_softmax import sampled_softmax
from recsys_spark.encoder.losses.softmax import softmax
from recsys_spark.encoder.losses.supcon import supcon
from recsys_spark.encoder.losses.triplet import triplet_hard, triplet_semi_hard

LOSSES: dict[LossName, Callable[[Comparison, LossSettings], Tensor]] = {
    "softmax": lambda c, s: softmax(c),
    "sampled_softmax": lambda c, s: sampled_softmax(c),
    "supcon": lambda c, s: supcon(c),
    "nce": lambda c, s: nce(c),
    "bpr": lambda c, s: bpr(c),
    "triplet_hard": lambda c, s: triplet_hard(c, s.margin),
    "triplet_semi_hard": lambda c, s: triplet_semi_hard(c, s.margin),
    "margin": lambda c, s: margin_ranking(c, s.margin),
    "cosine": lambda c, s: cosine_contrastive(c, s.margin),
    "direct_au": lambda c, s: direct_au(c, s.uniformity_weight),
    "distillation": lambda c, s: distillation(c, s.teacher_share),
}
WHOLE_BATCH: frozenset[LossName] = frozenset(["direct_au"])  # compare anchors with each other: not in chunks of anchors


def chosen_loss(name: LossName, settings: LossSettings) -> Loss:
    """The loss of that name with the settings' options, on prefixes of the vectors where ``matryoshka_dims`` asks for it."""

    def loss(comparison: Comparison) -> Tensor:
        return LOSSES[name](comparison, settings)

    dims = settings.matryoshka_dims
    return matryoshka(loss, dims, settings.matryoshka_weights) if dims else loss
