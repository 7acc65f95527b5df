"""What the outcome head learns by, and what it says of held-out events."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.model import Encoder
from recsys_spark.errors import TrainingError
from recsys_spark.training.feed.batch import Outcomes
from recsys_spark.training.step.lengths import last_states

_ROWS_AT_ONCE = 1_024


def outcome_losses(encoder: Encoder, states_OD: Tensor, items_OD: Tensor, happened_O: Tensor) -> Tensor:
    """Binary cross-entropy [O], in nats, of what came of each event given the state before it and its item.

    Raises:
        TrainingError: the encoder has no outcome head.
    """
    logits_O = _logits(encoder, states_OD, items_OD)
    return F.binary_cross_entropy_with_logits(logits_O, happened_O.to(logits_O.dtype), reduction="none")


@torch.no_grad()
def outcome_logits(encoder: Encoder, vectors_ND: Tensor, rows: Outcomes) -> Tensor:
    """Logits [O] before calibration, from the vectors of all items."""
    found = []
    parts = zip(rows.history.split(_ROWS_AT_ONCE), torch.split(rows.items, _ROWS_AT_ONCE), strict=True)
    for history, items_O in parts:
        found.append(_logits(encoder, last_states(encoder, vectors_ND, history), vectors_ND[items_O]))
    return torch.cat(found)


def _logits(encoder: Encoder, states_OD: Tensor, items_OD: Tensor) -> Tensor:
    if encoder.outcome is None:
        raise TrainingError("outcomes", "an encoder without an outcome head", do="set train.outcome_share above 0")
    logits_O: Tensor = encoder.outcome(states_OD, items_OD)
    return logits_O
