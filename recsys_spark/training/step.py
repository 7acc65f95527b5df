"""One training step's losses: which items are needed, their vectors, and the two tasks over all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recsys_spark.config.learning import TrainSettings
from recsys_spark.encoder.losses import full_softmax, info_nce
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.catalogue import PAD, Catalogue
from recsys_spark.training.distributed import Ranks

_MAX_SCORES = 1 << 24  # scores held at once by the full softmax
_TEXTS_AT_ONCE = 256  # texts whose activations are held at once when the text encoder is trained


@dataclass(frozen=True)
class Batch:
    """One rank's rows, as positions in the catalogue (int64, -1 = padding). All ranks have the same B and P.

    Args:
        sequences: [B, L+1] histories, padded on the left; item l+1 is the target of state l. B = 0: no user-item loss.
        sequence_weights: [B].
        pairs: [P, 2] anchor and positive. P = 0: no item-item loss.
        pair_weights: [P].
    """

    sequences: Tensor
    sequence_weights: Tensor
    pairs: Tensor
    pair_weights: Tensor


class TrainStep(nn.Module):
    """What DistributedDataParallel wraps: a batch in, this rank's share of the losses out.

    Legend: G items needed by all ranks in this step, D vector length, P pairs or positions, C candidates, R ranks.

    The loss of a step is a mean over all ranks' rows, weighted: sum over ranks of (weight x loss) / sum of all weights.
    DDP averages gradients over the ranks, so each rank's share is multiplied by R; the average is then exactly the
    gradient of that mean, and R ranks learn what one rank with the R batches together would.
    """

    def __init__(
        self,
        encoder: Encoder,
        catalogue: Catalogue,
        settings: TrainSettings,
        ranks: Ranks,
        text_encoder: TextEncoder | None = None,
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.text_encoder = encoder, text_encoder
        self._catalogue, self._settings, self._ranks, self._bfloat16 = catalogue, settings, ranks, bfloat16
        self._in_batch = settings.negatives == "in_batch"

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Shares of (loss, user-item loss, item-item loss); their sums over the ranks, divided by R, are the losses."""
        all_pairs = self._ranks.gather_constant(batch.pairs)
        needed_G = self._needed(batch, all_pairs)
        vectors_GD = self._item_vectors(needed_G)
        nothing = vectors_GD.sum() * 0.0  # keeps the graph the same on every rank, whatever its rows are
        user_item = self._user_item(batch, needed_G, vectors_GD) if len(batch.sequences) else nothing
        item_item = self._item_item(batch, all_pairs, needed_G, vectors_GD) if len(batch.pairs) else nothing
        loss = self._settings.user_item_share * user_item + self._settings.item_item_share * item_item
        return loss + nothing, user_item, item_item

    def _needed(self, batch: Batch, all_pairs: Tensor) -> Tensor:
        """Positions [G], ascending, the same on every rank: the global batch's items, and all that can be candidates."""
        sequences = self._ranks.gather_constant(batch.sequences)
        parts = [sequences.flatten(), all_pairs.flatten()]
        if not self._in_batch and len(batch.sequences):
            parts.append(self._catalogue.known)
        positions = torch.cat(parts)
        needed: Tensor = torch.unique(positions[positions != PAD])
        return needed

    def _item_vectors(self, needed_G: Tensor) -> Tensor:
        """Vectors [G, D]. Each rank computes an equal part and they are gathered, gradients included; with cached text
        and the whole catalogue a part costs less than its transport, and every rank computes all."""
        world = self._ranks.world
        if world == 1 or not (self._in_batch or self.text_encoder is not None):
            return self.encode(needed_G)
        size = -(-len(needed_G) // world)
        padded = torch.cat([needed_G, needed_G[-1:].expand(size * world - len(needed_G))])
        mine = padded[self._ranks.rank * size : (self._ranks.rank + 1) * size]
        return self._ranks.gather(self.encode(mine))[: len(needed_G)]

    def encode(self, positions: Tensor) -> Tensor:
        """Item vectors [n, D] of positions [n]."""
        with self._autocast():
            text = self._text(positions).to(next(self.encoder.parameters()).dtype)
            vectors: Tensor = self.encoder.item_vectors(text, self._catalogue.id_rows[positions])
            return vectors

    def _text(self, positions: Tensor) -> Tensor:
        if self.text_encoder is None:
            return self._catalogue.text_vectors(positions)
        parts = []
        for start in range(0, len(positions), _TEXTS_AT_ONCE):
            ids, counts = self._catalogue.tokens(positions[start : start + _TEXTS_AT_ONCE])
            again = torch.is_grad_enabled() and len(positions) > _TEXTS_AT_ONCE
            parts.append(
                checkpoint(self.text_encoder, ids, counts, use_reentrant=False) if again else self.text_encoder(ids, counts)
            )
        return torch.cat(parts)

    def _user_item(self, batch: Batch, needed_G: Tensor, vectors_GD: Tensor) -> Tensor:
        """State l of a sequence must find item l+1 among the candidates; padded positions do not count."""
        sequences = _trimmed(batch.sequences)
        history, target = sequences[:, :-1], sequences[:, 1:]
        is_item = history != PAD
        with self._autocast():
            states = self.encoder.user_states(vectors_GD[_locate(needed_G, history)], is_item)
        counts = is_item & (target != PAD)
        weights = batch.sequence_weights[:, None].expand_as(target)[counts]
        total = self._ranks.sum(weights.sum())
        candidates = needed_G if self._in_batch else self._catalogue.known
        vectors = vectors_GD if self._in_batch else vectors_GD[_locate(needed_G, candidates)]
        mask = self._own_items(sequences, needed_G)[counts.nonzero()[:, 0]] if self._in_batch else None
        share = full_softmax(
            states[counts],
            vectors,
            _locate(candidates, target[counts]),
            self.encoder.temperature,
            mask,
            weights,
            total,
            chunk_size=max(1, _MAX_SCORES // len(candidates)),
        )
        return self._ranks.world * share + states.sum() * 0.0

    @staticmethod
    def _own_items(sequences: Tensor, needed_G: Tensor) -> Tensor:
        """Bool [B, G]: items of the sequence itself are known positives, no fair negatives."""
        own = torch.zeros(len(sequences), len(needed_G), dtype=torch.bool, device=sequences.device)
        real = sequences != PAD
        own[real.nonzero()[:, 0], _locate(needed_G, sequences[real])] = True
        return own

    def _item_item(self, batch: Batch, all_pairs: Tensor, needed_G: Tensor, vectors_GD: Tensor) -> Tensor:
        """InfoNCE both ways over the global batch's pairs; other known positives of an anchor are masked."""
        total = self._ranks.sum(batch.pair_weights.sum())
        ways = []
        for anchor, positive in ((0, 1), (1, 0)):
            candidates = torch.unique(all_pairs[:, positive])
            ways.append(
                info_nce(
                    vectors_GD[_locate(needed_G, batch.pairs[:, anchor])],
                    vectors_GD[_locate(needed_G, candidates)],
                    _locate(candidates, batch.pairs[:, positive]),
                    self.encoder.temperature,
                    _known(batch.pairs[:, anchor], candidates, all_pairs[:, anchor], all_pairs[:, positive]),
                    batch.pair_weights,
                    total,
                )
            )
        return self._ranks.world * (ways[0] + ways[1]) / 2

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self._catalogue.device.type, torch.bfloat16, enabled=self._bfloat16):
            yield


def _locate(ascending: Tensor, positions: Tensor) -> Tensor:
    """Rows of ``positions`` in ``ascending``, which holds them all; padding lands anywhere."""
    return torch.searchsorted(ascending, positions.contiguous()).clamp(max=len(ascending) - 1)


def _known(anchors: Tensor, candidates: Tensor, pair_anchors: Tensor, pair_items: Tensor) -> Tensor:
    """Bool [P, C]: the candidate is the anchor itself or another known positive of it."""
    distinct, row = torch.unique(pair_anchors, return_inverse=True)
    known = torch.zeros(len(distinct), len(candidates), dtype=torch.bool, device=anchors.device)
    known[row, _locate(candidates, pair_items)] = True
    return known[_locate(distinct, anchors)] | (candidates[None, :] == anchors[:, None])


def _trimmed(sequences: Tensor) -> Tensor:
    """Without the columns that are padding in every row; at least two stay."""
    used = (sequences != PAD).any(0)
    first = int(used.to(torch.int8).argmax()) if bool(used.any()) else sequences.shape[1]
    return sequences[:, min(first, sequences.shape[1] - 2) :]
