"""Profile tower: users of whom only a text is known, in the space of the items they go on to meet."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ProfileTower(nn.Module):
    """Unit vectors [B, D] from text vectors [B, T] and the vectors [B, D] that items with these texts would have.

    ``u = normalise(item(text) + W2 gelu(W1 norm(text)))``: the second tower of a two-tower retrieval model (Yi et al. 2019),
    as a correction of the first. ``W2`` starts at 0, so a user starts as the unknown item with their text and moves as far as
    what described users meet carries it. A text of zeros gives zeros.
    """

    def __init__(self, text_dim: int, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.inner, self.out = nn.Linear(text_dim, 2 * dimension), nn.Linear(2 * dimension, dimension, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, text_vectors_BT: Tensor, as_items_BD: Tensor) -> Tensor:
        has_text_B1 = (text_vectors_BT != 0).any(-1, keepdim=True)
        moved_BD = self.out(F.gelu(self.inner(self.norm(text_vectors_BT)))) * has_text_B1
        return F.normalize(as_items_BD + moved_BD, dim=-1)
