"""One training step's losses: which items are needed, their vectors, and the tasks over all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.config.learning import TrainSettings
from recsys_spark.encoder.losses import Comparison, weighted_mean
from recsys_spark.encoder.losses.bpr import bpr
from recsys_spark.encoder.losses.softmax import softmax
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.negatives import KnownPairs, Queue
from recsys_spark.encoder.task_weights import TaskWeights
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.catalogue import PAD, Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.augment import History, Views
from recsys_spark.training.feed.batch import Batch, Outcomes, ProfileRows, StepOutput
from recsys_spark.training.metrics import KINDS
from recsys_spark.training.step.candidates import Candidates, CandidateSource
from recsys_spark.training.step.gradient_cache import in_parts
from recsys_spark.training.step.lengths import in_groups
from recsys_spark.training.step.outcomes import outcome_losses
from recsys_spark.training.step.positions import among, distinct, is_counted, locate, trimmed
from recsys_spark.training.step.relations import Between, OwnItems, Partners
from recsys_spark.training.step.share import Shares
from recsys_spark.training.step.texts import text_vectors
from recsys_spark.training.step.views import view_loss
from recsys_spark.training.teacher import Seen

_MAX_SCORES = 1 << 25  # scores held at once by the user-item loss; of more, all are made twice
USER_ITEM, ITEM_ITEM, EXPLICIT, VIEWS = TASKS = ("user_item", "item_item", "explicit", "views")
OUTCOME, PROFILE = "outcome", "profile"  # tasks of encoders with an outcome head, and with a profile tower
TOLD = (USER_ITEM, ITEM_ITEM, EXPLICIT, OUTCOME, PROFILE)  # whose losses go into the figures of a step


@dataclass(frozen=True)
class _Global:
    """What all ranks know of the step. Legend: G items needed, D vector length."""

    sequences: Tensor  # of all ranks, as the pairs
    pairs: Tensor
    batch_items: Tensor  # ascending, as are:
    targets: Tensor  # distinct, of the sequences
    candidates: Candidates | None  # of the user-item loss
    needed_G: Tensor
    vectors_GD: Tensor

    def vectors(self, positions: Tensor) -> Tensor:
        return self.vectors_GD[locate(self.needed_G, positions)]


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
        known_pairs: KnownPairs | None = None,
        augment: AugmentSettings | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.text_encoder = encoder, text_encoder
        self._catalogue, self._settings, self._ranks, self._bfloat16 = catalogue, settings, ranks, bfloat16
        self._shares, self._augment = Shares(settings, catalogue, ranks, known_pairs), augment or AugmentSettings()
        self._task_shares = {
            USER_ITEM: settings.user_item_share,
            ITEM_ITEM: settings.item_item_share,
            EXPLICIT: settings.explicit_share,
            VIEWS: self._augment.view_share,
            OUTCOME: settings.outcome_share,
            PROFILE: settings.profile_share,
        }
        self._in_batch = settings.negatives == "in_batch"
        self._source = CandidateSource(settings, catalogue)
        parts = ((OUTCOME, encoder.outcome), (PROFILE, encoder.profile))
        tasks = (*TASKS, *(name for name, part in parts if part is not None))
        self.task_weights = TaskWeights(tasks).to(catalogue.device) if settings.loss_weights == "learned" else None
        self.queue = Queue(settings.queue_size, encoder.settings.dimension).to(catalogue.device) if settings.queue_size else None

    def forward(self, batch: Batch) -> StepOutput:
        """Shares of the losses, and how many negatives were masked."""
        known = self._global(batch)
        # keeps the graph the same on every rank, whatever its rows are, and with every loss: some use no temperature
        nothing = known.vectors_GD.sum() * 0.0 + self.encoder.temperature * 0.0
        masked = torch.zeros(len(KINDS), dtype=torch.int64, device=known.needed_G.device)
        losses: dict[str, Tensor] = {}  # of the tasks that have rows
        if len(batch.sequences):
            losses[USER_ITEM], masked = self._user_item(batch, known)
        if len(batch.pairs):
            losses[ITEM_ITEM], more = self._item_item(batch, known)
            masked = masked + more
        if len(batch.explicit_sequences):
            losses[EXPLICIT] = self._explicit(batch, known)
        if batch.views is not None:
            losses[VIEWS] = self._views(batch, batch.views, known)
        if batch.outcomes is not None:
            losses[OUTCOME] = self._outcome(batch.outcomes, known)
        if batch.profiles is not None:
            losses[PROFILE] = self._profile(batch.profiles, known)
        if self.queue is not None and self.training:
            self.queue.add(known.batch_items, known.vectors(known.batch_items), batch.shared_seed)
        told = {name: losses.get(name, nothing) for name in TOLD}
        return StepOutput(self._total(losses) + nothing, masked=masked, **told)

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """The tasks by their shares, and by learned weights where these are asked for."""
        tasks = {name: self._task_shares[name] * loss for name, loss in losses.items()}
        if self.task_weights is None:
            first, *others = tasks.values()
            return sum(others, first)
        total: Tensor = self.task_weights(tasks)
        return total

    # -- items and their vectors ------------------------------------------------------------------------------

    def _global(self, batch: Batch) -> _Global:
        """All ranks' rows, the step's candidates, and the vectors of all items needed; the same items on every rank."""
        pairs, sequences = self._ranks.gather_constant(batch.pairs), self._ranks.gather_constant(batch.sequences)
        parts = [sequences.flatten(), pairs.flatten()]
        if len(batch.explicit_sequences):
            parts += [self._ranks.gather_constant(rows).flatten() for rows in (batch.explicit_sequences, batch.explicit_items)]
        changed = [batch.seen] + ([batch.views.first, batch.views.second] if batch.views else [])
        others = [self._ranks.gather_constant(history.items) for history in (changed if batch.history or batch.views else [])]
        batch_items = distinct(torch.cat([*parts, *(rows.flatten() for rows in others)]))
        counted = (others[0] != PAD) & (sequences[:, 1:] != PAD) if others else is_counted(sequences)
        found = sequences[:, 1:][counted]
        targets, candidates, needed = torch.unique(found), None, batch_items
        if len(batch.sequences):
            candidates = self._source.of(batch_items, targets, len(found), batch.shared_seed)
            needed = torch.unique(torch.cat([batch_items, candidates.positions]))
        if batch.outcomes is not None:  # needed, but no candidates: they are there to be judged, not to be negatives
            asked = [self._ranks.gather_constant(rows) for rows in (batch.outcomes.history.items, batch.outcomes.items)]
            needed = distinct(torch.cat([needed, *(rows.flatten() for rows in asked)]))
        if batch.profiles is not None:  # negatives of each other, and of nobody else
            needed = distinct(torch.cat([needed, self._ranks.gather_constant(batch.profiles.target)]))
        return _Global(sequences, pairs, batch_items, targets, candidates, needed, self._item_vectors(needed))

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
        return in_parts(self._encode, positions, self._settings.cache_chunk_size)

    def _encode(self, positions: Tensor) -> Tensor:
        with self._autocast():
            text = self._text(positions).to(next(self.encoder.parameters()).dtype)
            vectors: Tensor = self.encoder.item_vectors(
                text, self._catalogue.id_rows[positions], self._catalogue.value_rows[positions]
            )
            return vectors

    def _text(self, positions: Tensor) -> Tensor:
        if self.text_encoder is None:
            return self._catalogue.text_vectors(positions)
        word_dropout = self.encoder.settings.word_dropout if self.training else 0.0
        return text_vectors(self.text_encoder, self._catalogue, positions, word_dropout)

    def _states(self, histories: History, known: _Global) -> Tensor:
        """User states [B, L, D] of histories [B, L]."""

        def states(rows: Tensor) -> Tensor:  # [B, 1 or 2, L]: items and, where they are read, moments
            items, moments = rows[:, 0], rows[:, 1] if rows.shape[1] > 1 else None
            with self._autocast():
                return self.encoder.user_states(known.vectors(items), items != PAD, moments)

        rows = torch.stack([part for part in (histories.items, histories.moments) if part is not None], 1)
        return in_groups(lambda group: in_parts(states, group, self._settings.cache_chunk_size), rows)

    def _views(self, batch: Batch, views: Views, known: _Global) -> Tensor:
        """Self-supervised loss of the users that both views end in."""
        first, second = (self._states(view, known)[:, -1] for view in (views.first, views.second))
        temperature = self._augment.view_temperature
        return view_loss(first, second, views.rows, batch.sequence_weights, temperature, self._ranks)

    # -- the tasks --------------------------------------------------------------------------------------------

    def _user_item(self, batch: Batch, known: _Global) -> tuple[Tensor, Tensor]:
        """State l of a sequence must find item l+1 among the candidates; padded positions do not count."""
        sequences = trimmed(batch.sequences)
        history, target = batch.seen.last(sequences.shape[1] - 1), sequences[:, 1:]
        states = self._states(history, known)
        counts = (history.items != PAD) & (target != PAD)
        weights = batch.sequence_weights[:, None].expand_as(target)[counts]
        assert known.candidates is not None  # noqa: S101 - there are sequences
        candidates, settings = known.candidates, self._settings
        positions, vectors = candidates.positions, known.vectors(candidates.positions)
        if self.queue is not None and self._in_batch:
            positions, vectors = self.queue.beside(positions, vectors)
        comparison = Comparison(
            states[counts],
            vectors,
            locate(positions, target[counts]),
            self.encoder.temperature,
            settings.similarity,
            draws=candidates.draws,
            log_expected=candidates.log_expected,
        )
        if settings.loss == "direct_au":
            everyone = self._ranks.gather_uneven(comparison.anchors)
            comparison = replace(comparison, all_anchors=everyone, all_targets=known.vectors(known.targets))
        own = OwnItems(sequences if batch.history is None else torch.cat([sequences, history.items], 1), counts, positions)
        between = Between(
            history.items[counts],
            positions,
            comparison.target_idx,
            own=own.of_sequence if self._in_batch else None,
            also=OwnItems(sequences, counts, positions).later if settings.loss == "supcon" else None,
            seen=Seen(history.items, counts),
        )
        share, masked = self._shares.of(settings.loss, comparison, between, weights, _MAX_SCORES // len(positions))
        return share + states.sum() * 0.0, masked

    def _item_item(self, batch: Batch, known: _Global) -> tuple[Tensor, Tensor]:
        """Pairs of the global batch, both ways or forward; other known positives of an anchor are no negatives."""
        settings, found = self._settings, []
        ways = ((0, 1), (1, 0)) if settings.pair_ways == "both" else ((0, 1),)
        for anchor, positive in ways:
            anchors = batch.pairs[:, anchor]
            positions = torch.unique(known.pairs if settings.pair_candidates == "all" else known.pairs[:, positive])
            vectors = known.vectors(positions)
            if self.queue is not None:
                positions, vectors = self.queue.beside(positions, vectors)
            comparison = Comparison(
                known.vectors(anchors),
                vectors,
                locate(positions, batch.pairs[:, positive]),
                self.encoder.temperature,
                settings.similarity,
            )
            if settings.pair_loss == "direct_au":
                ends = known.vectors(known.pairs[:, anchor]), known.vectors(torch.unique(known.pairs[:, positive]))
                comparison = replace(comparison, all_anchors=ends[0], all_targets=ends[1])
            partners = Partners(KnownPairs(known.pairs[:, anchor], known.pairs[:, positive]), anchors, positions)
            several = settings.pair_loss == "supcon"
            between = Between(
                anchors,
                positions,
                comparison.target_idx,
                own=partners.itself if several else partners.itself_or_known,
                also=partners.known if several else None,
            )
            found.append(self._shares.of(settings.pair_loss, comparison, between, batch.pair_weights))
        shares, masked = [share for share, _ in found], [counts for _, counts in found]
        return sum(shares[1:], shares[0]) / len(shares), sum(masked[1:], masked[0])

    def _explicit(self, batch: Batch, known: _Global) -> Tensor:
        """The last state of each history must score its next item above those that its user is known not to want (BPR)."""
        sequences = trimmed(batch.explicit_sequences)
        states = self._states(History(sequences[:, :-1]), known)[:, -1]
        items = batch.explicit_items
        real = (items != PAD) & is_counted(sequences)[:, -1:] & (items != sequences[:, -1:])
        positions = distinct(torch.cat([sequences[:, -1], items.flatten()]))
        others = ~among(items.masked_fill(~real, PAD), positions)
        target, similarity = locate(positions, sequences[:, -1]), self._settings.similarity
        losses = bpr(Comparison(states, known.vectors(positions), target, self.encoder.temperature, similarity, mask=others))
        weights = batch.explicit_weights * real.any(1)
        return self._ranks.world * weighted_mean(losses, weights, self._ranks.sum(weights.sum())) + states.sum() * 0.0

    def _outcome(self, rows: Outcomes, known: _Global) -> Tensor:
        """Binary cross-entropy of the outcome head, whose users are their states before the events."""
        states = self._states(rows.history.last(trimmed(rows.history.items).shape[1]), known)[:, -1]
        losses = outcome_losses(self.encoder, states, known.vectors(rows.items), rows.happened)
        share = self._ranks.world * weighted_mean(losses, rows.weights, self._ranks.sum(rows.weights.sum()))
        return share + states.sum() * 0.0

    def _profile(self, rows: ProfileRows, known: _Global) -> Tensor:
        """InfoNCE of users by their texts among the items that all users of the step are asked for; what else they met is
        no negative."""
        positions = torch.unique(self._ranks.gather_constant(rows.target))
        with self._autocast():
            users = self.encoder.profile_vectors(rows.text_vectors.to(known.vectors_GD.dtype))
        target, similarity = locate(positions, rows.target), self._settings.similarity
        met = among(rows.items, positions)  # the target too, which is never masked
        losses = softmax(Comparison(users, known.vectors(positions), target, self.encoder.temperature, similarity, mask=met))
        weights = torch.ones_like(losses)
        return self._ranks.world * weighted_mean(losses, weights, self._ranks.sum(weights.sum()))

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self._catalogue.device.type, torch.bfloat16, enabled=self._bfloat16):
            yield
