"""The head that says whether an event turns out to be of the wanted kind: a purchase, a like."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OutcomeHead(nn.Module):
    """``logit = u' W v + a' u + c' v + b`` of a user's state u before an event and the vector v of its item.

    Logistic regression on products of the two vectors: ``b`` is the base rate, ``c' v`` how often it comes of such items,
    ``a' u`` how often of such users, and ``u' W v`` what this user makes of this item. A small network over [u, v, u * v]
    would hold more than few positive events can teach, and a scaled ``<u, v>`` alone less than is needed: users are trained
    to be near what they meet next, not what they buy. All weights start at 0, so every probability at 1/2, and no
    random number is drawn. A user without a past has the zero state: what is left is the item's share.

    ``slope`` and ``offset`` are those of Platt scaling, fitted after training; they lie with the weights.

    Args:
        dimension: D, of both vectors.
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.interaction = nn.Parameter(torch.zeros(dimension, dimension))
        self.user, self.item = nn.Parameter(torch.zeros(dimension)), nn.Parameter(torch.zeros(dimension))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, users_BD: Tensor, items_BD: Tensor) -> Tensor:
        """Logits [B] of user states and the items of the same rows, before calibration."""
        both_B = ((users_BD @ self.interaction) * items_BD).sum(-1)
        logits_B: Tensor = both_B + users_BD @ self.user + items_BD @ self.item + self.bias
        return logits_B

    def chances(self, users_BD: Tensor, items_BD: Tensor) -> Tensor:
        """Calibrated probabilities [B]."""
        return torch.sigmoid(self.slope * self(users_BD, items_BD) + self.offset)

    @torch.no_grad()
    def calibrate(self, slope: float, offset: float) -> None:
        """Set what probabilities are calibrated by."""
        self.slope.fill_(slope)
        self.offset.fill_(offset)
