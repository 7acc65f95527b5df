"""User tower: causal attention over the history of item vectors, one unit vector for each position in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_spark.config.moments import Part
from recsys_spark.encoder.query_table import QueryTable


class Block(nn.Module):
    """One pre-norm transformer block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.chance = heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, allowed_B1LL: Tensor, last: bool = False) -> Tensor:
        """States [B, L, D]; with ``last`` those of the last position alone [B, 1, D], to which all others are only looked up."""
        kept_BKD = x_BLD[:, -1:] if last else x_BLD
        seen_BKD = self._attention(self.norm_attention(x_BLD), allowed_B1LL[:, :, -kept_BKD.shape[1] :])
        kept_BKD = kept_BKD + self.dropout(seen_BKD)
        mixed_BKD: Tensor = kept_BKD + self.dropout(self.mlp(self.norm_mlp(kept_BKD)))
        return mixed_BKD

    def _attention(self, x_BLD: Tensor, allowed_B1KL: Tensor) -> Tensor:
        query, key, value = self._query_key_value(x_BLD, allowed_B1KL.shape[2])
        chance = self.chance if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed_B1KL, dropout_p=chance)
        batch, _, asked, _ = seen.shape
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(batch, asked, x_BLD.shape[2]))
        return mixed

    def _query_key_value(self, x_BLD: Tensor, asked: int) -> Sequence[Tensor]:
        """Each [B, heads, L, width / heads]; queries of the last ``asked`` positions."""
        batch, length, width = x_BLD.shape
        if asked == length:
            split = self.query_key_value(x_BLD).view(batch, length, 3, self.heads, width // self.heads)
            together: Sequence[Tensor] = split.permute(2, 0, 3, 1, 4).unbind(0)
            return together
        linear = self.query_key_value
        query = F.linear(x_BLD[:, -asked:], linear.weight[:width], linear.bias[:width])
        key_value = F.linear(x_BLD, linear.weight[width:], linear.bias[width:])
        key, value = key_value[..., :width], key_value[..., width:]
        return [part.view(batch, -1, self.heads, width // self.heads).transpose(1, 2) for part in (query, key, value)]


class UserTower(nn.Module):
    """States [B, L, D] of histories [B, L, D]; state l has seen items 0..l and nothing later.

    A causal transformer as in SASRec (Kang & McAuley 2018). Positions are learned and counted from the end: the newest
    item is always at position 0, so padding on the left, or a shorter array, changes nothing. Items further back than
    ``max_history`` share the last position. Each part of a moment (``recsys_spark.config.moments``: the time since the item
    before, hour, weekday, device) adds a vector of its own; for times after TiSASRec (Li et al. 2020), which learns one for
    every pair of items. What was searched for adds one made of its text (``queries``).
    """

    def __init__(
        self, dimension: int, layers: int, heads: int, max_history: int, dropout: float, parts: Sequence[Part] = ()
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(dimension)  # unit vectors have components of about 1/sqrt(D); the blocks expect about 1
        self.positions = nn.Embedding(max_history, dimension)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(dimension, heads, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dimension)
        self._parts = tuple(part for part in parts if not part.is_query)
        self._query = next((part for part in parts if part.is_query), None)
        self.queries: QueryTable | None = None
        tables = [nn.Embedding(part.size, dimension) for part in self._parts]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)
        self.moments = nn.ModuleList(tables)

    def forward(self, history_BLD: Tensor, is_item_BL: Tensor, moments_BL: Tensor | None = None) -> Tensor:
        """Unit states [B, L, D]; zero at padding. ``is_item_BL`` is False at padding, whose vectors are not read.

        ``moments_BL``: int64, read by a tower with parts of them; None: nothing is known.
        """
        return self._states(history_BLD, is_item_BL, moments_BL, last=False)

    def last(self, history_BLD: Tensor, is_item_BL: Tensor, moments_BL: Tensor | None = None) -> Tensor:
        """The last of these states alone [B, D], for two thirds of the work: the last block makes no other."""
        return self._states(history_BLD, is_item_BL, moments_BL, last=True)[:, 0]

    def _states(self, history_BLD: Tensor, is_item_BL: Tensor, moments_BL: Tensor | None, last: bool) -> Tensor:
        length = history_BLD.shape[1]
        from_end_L = torch.arange(length - 1, -1, -1, device=history_BLD.device).clamp(max=self.positions.num_embeddings - 1)
        items_BLD = history_BLD.masked_fill(~is_item_BL[..., None], 0.0)
        x_BLD = items_BLD * self.scale + self.positions(from_end_L)
        known_BL = torch.zeros_like(is_item_BL, dtype=torch.int64) if moments_BL is None else moments_BL
        for part, table in zip(self._parts, self.moments, strict=True):
            x_BLD = x_BLD + table(known_BL // part.unit % part.size)
        if self._query is not None and self.queries is not None:
            x_BLD = x_BLD + self.queries(known_BL // self._query.unit % self._query.size)
        x_BLD = self.dropout(x_BLD)
        allowed_B1LL = _allowed(is_item_BL)
        for number, block in enumerate(self.blocks, start=1):
            x_BLD = block(x_BLD, allowed_B1LL, last=last and number == len(self.blocks))
        states_BKD = self.norm(x_BLD)
        states_BKD = states_BKD.float() if states_BKD.dtype == torch.bfloat16 else states_BKD
        unit_BKD: Tensor = F.normalize(states_BKD, dim=-1) * is_item_BL[:, -states_BKD.shape[1] :, None]
        return unit_BKD


def _allowed(is_item_BL: Tensor) -> Tensor:
    """Who may look at whom, bool [B, 1, L, L]: real items not after oneself; oneself always, else padding has nothing."""
    length = is_item_BL.shape[1]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=is_item_BL.device).tril()
    itself_LL = torch.eye(length, dtype=torch.bool, device=is_item_BL.device)
    return ((causal_LL & is_item_BL[:, None, :]) | itself_LL)[:, None]
