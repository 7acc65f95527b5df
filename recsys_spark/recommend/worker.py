"""What a Spark task does with its users: blocks of Arrow rows in; lists, shortfalls and ranks of targets out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_spark.config.serving import EvaluateSettings
from recsys_spark.recommend.arrow import flat_list, output_batch, reason_lists, vector_rows
from recsys_spark.recommend.catalogue import Catalogue
from recsys_spark.recommend.explain import Explainer
from recsys_spark.recommend.fallback import Group, groups
from recsys_spark.recommend.filters import Filter, shortfall_reason
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.model import PROFILE
from recsys_spark.recommend.new_items import (
    SOURCE,
    SPARE,
    NewItems,
    best_new,
    known_lists,
    new_positions,
    not_listed,
    with_new_items,
)
from recsys_spark.recommend.rerank.lists import Flags, Rerank, reranked
from recsys_spark.recommend.rules import NO_SEGMENTS, SegmentLists
from recsys_spark.recommend.scoring.blocks import Block, Past, fuse, seen_matrix, users_per_block
from recsys_spark.recommend.scoring.fuse import Fused
from recsys_spark.recommend.scoring.partners import Partners
from recsys_spark.recommend.scoring.scores import Ints
from recsys_spark.recommend.topk.best import Best, best
from recsys_spark.recommend.topk.targets import Targets
from recsys_spark.threads import one_thread

LISTS, SHORTFALLS, RANKS = "recommendations", "shortfalls", "target_ranks"


@dataclass(frozen=True)
class Side:
    """The item side, broadcast once: the catalogue and what each partner keeps about it."""

    catalogue: Catalogue
    partners: Partners
    segments: SegmentLists = NO_SEGMENTS

    def fused_by(self, fusion: Fusion, settings: EvaluateSettings) -> Side:
        """With the decays, the half-life and the item factors of this fusion."""
        factors = fusion.weight_factors(self.partners.popularity.counts, settings.head_share, settings.tail_share)
        popularity = self.partners.popularity.lately(fusion.half_life_days)
        return replace(self, partners=replace(self.partners, popularity=popularity, decays=fusion.decays, weight_factors=factors))

    @cached_property
    def new_positions(self) -> Ints:
        """Items that have no event yet and may be recommended."""
        return new_positions(self.partners, self.catalogue.allowed)

    def new_items_of(self, task: Task) -> NewItems | None:
        """How new items get into lists; None where they have no places, or there are none."""
        settings = task.new_items
        return settings if settings is not None and settings.slots(task.k) and len(self.new_positions) else None

    @cached_property
    def new_share(self) -> float:
        """Of the items that may be recommended."""
        return len(self.new_positions) / max(int(self.catalogue.allowed.sum()), 1)


@dataclass(frozen=True)
class Task:
    """How lists are made."""

    weights: dict[str, float]
    k: int
    decay: float
    max_reasons: int
    user_block: int
    item_tile: int
    rank_targets: bool = False
    new_items: NewItems | None = None
    by_history: tuple[dict[str, float], ...] = ()  # weights by user segment; none: those of all
    profile: dict[str, float] = field(default_factory=lambda: PROFILE)  # weights where only a profile text is known
    rerank: Rerank | None = None

    def width(self, new_items: NewItems | None) -> int:
        """Candidates of a user that lists are made of."""
        with_spare = self.k if new_items is None else self.k + SPARE
        return with_spare if self.rerank is None else max(with_spare, self.rerank.depth * self.k)


def list_batches(batches: Iterator[Any], broadcast: Any, task: Task) -> Iterator[Any]:
    """For ``mapInArrow``: rows of ``users.user_rows`` with vectors and targets in, ``arrow.OUTPUT`` out."""
    one_thread()
    side: Side = broadcast.value
    rows = users_per_block(task.user_block, len(side.catalogue), side.partners.tiled)
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield from _lists_of(batch.slice(start, rows), side, task)


def block_of(batch: Any, side: Side, decay: float) -> Block:
    """Arrow rows as a block: items and seen as CSR, missing vectors as zeros, profile texts as TF-IDF rows."""
    catalogue, partners = side.catalogue, side.partners
    lengths, items = flat_list(batch.column("items"))
    met_lengths, met = flat_list(batch.column("seen"))
    dimension = partners.encoder.vectors.shape[1] if partners.encoder is not None else 0
    queries = None
    if partners.text is not None and "profile_text" in batch.schema.names:
        queries = partners.text.queries([text or "" for text in batch.column("profile_text").to_pylist()])
    past = Past(lengths, catalogue.positions(items), len(catalogue))
    return Block(
        past.weighted(decay),
        seen_matrix(met_lengths, catalogue.positions(met), len(catalogue)),
        vector_rows(batch.column("vector"), dimension),
        queries,
        past,
    )


def _lists_of(batch: Any, side: Side, task: Task) -> Iterator[Any]:
    block = block_of(batch, side, task.decay)
    user_ids = batch.column("user_id")
    contexts = batch.column("context").to_pylist()
    segment_of = side.segments.number(batch.column("segment").to_pylist())
    lengths, target_idx = flat_list(batch.column("target_idx"))
    owners = np.repeat(np.arange(batch.num_rows), lengths)
    cols = side.catalogue.positions(target_idx)
    target_ids = batch.column("target_ids").flatten()
    for group in groups(block, side.partners, task.weights, contexts, task.by_history, task.profile):
        place = np.full(block.num_users, -1)
        place[group.users] = np.arange(len(group.users))
        mine = np.flatnonzero(place[owners] >= 0)
        cells = (place[owners[mine]], cols[mine]) if task.rank_targets else None
        part = block.take(group.users)
        allowed = Filter.of(side.catalogue.allowed, part.seen, side.segments, segment_of[group.users])
        yield from _group_lists(part, allowed, group, side, task, user_ids.take(group.users), cells, target_ids.take(mine))


def _group_lists(
    block: Block,
    allowed: Filter,
    group: Group,
    side: Side,
    task: Task,
    user_ids: Any,
    cells: tuple[Ints, Ints] | None,
    target_ids: Any,
) -> Iterator[Any]:
    # factors by item segment belong to the weights of users with a history; others' were chosen without
    partners = side.partners if group.personal else replace(side.partners, weight_factors={})
    fused = fuse(block, partners, group.weights, group.context, group.profile)
    targets = None if cells is None else Targets.of(fused, allowed, *cells)
    new_items = side.new_items_of(task) if group.personal else None
    wide = best(fused, allowed, task.width(new_items), task.item_tile, targets)
    chosen, is_new = arranged(block, fused, wide, allowed, side, task, new_items)
    explainer = Explainer(side.catalogue, partners, task.max_reasons)
    yield output_batch(
        LISTS,
        len(chosen.rows),
        owner_id=user_ids.take(chosen.rows),
        rank=chosen.ranks.astype(np.int32),
        item_id=side.catalogue.id_strings.take(chosen.cols),
        score=chosen.scores,
        source=pa.array([*group.sources, SOURCE]).take(np.where(is_new, len(group.sources), chosen.rows)),
        reasons=reason_lists(explainer.reasons(block, chosen, group.context, group.profile)),
    )
    num_candidates = allowed.num_candidates()
    yield _short(chosen, allowed, num_candidates, task.k, user_ids)
    if targets is not None:
        yield output_batch(
            RANKS,
            len(targets.rows),
            owner_id=user_ids.take(targets.rows),
            item_id=target_ids,
            rank=targets.ranks.astype(np.int32),
            number=num_candidates[targets.rows].astype(np.int32),
        )


def arranged(
    block: Block, fused: Fused, wide: Best, allowed: Filter, side: Side, task: Task, new_items: NewItems | None
) -> tuple[Best, Flags]:
    """Lists out of the best candidates, and which of their cells are new items: the best known items and the new ones whose
    chances earn them a place among these, put in order once more where the task says so.

    Args:
        wide: the best ``task.width(new_items)`` of all items.
    """
    if new_items is None:
        main = listed = wide.take(np.flatnonzero(wide.ranks <= task.k))
        is_new = np.zeros(len(listed.rows), np.bool_)
    else:
        positions, slots = side.new_positions, new_items.slots(task.k)
        main = known_lists(wide, task.width(new_items), fused, allowed, positions, task.k, task.item_tile)
        offer = best_new(block, side.partners, positions, allowed, task.k + slots, task.item_tile, fused)
        listed, is_new = with_new_items(main, offer, new_items, side.new_share, task.k)
    if task.rerank is None:
        return listed, is_new
    further = np.isin(wide.cols, side.new_positions, invert=True) if new_items is not None else np.ones(len(wide.rows), np.bool_)
    pool = main.joined(wide.take(np.flatnonzero(further & not_listed(main, wide))))
    in_order = pool.take(np.argsort(pool.rows, kind="stable"))
    return reranked(in_order, listed, is_new, task.k, task.rerank, (side.catalogue, side.partners))


def _short(chosen: Best, allowed: Filter, num_candidates: Ints, k: int, user_ids: Any) -> Any:
    """Shortfall rows of the users with fewer than ``k`` items."""
    got = np.bincount(chosen.rows, minlength=len(user_ids))
    short = np.flatnonzero(got < k)
    num_allowed = allowed.num_allowed()
    in_segment = np.zeros(len(user_ids), np.bool_) if allowed.segment_of is None else allowed.segment_of >= 0
    reasons = [shortfall_reason(int(num_allowed[u]), int(num_candidates[u]), k, bool(in_segment[u])) for u in short]
    return output_batch(SHORTFALLS, len(short), owner_id=user_ids.take(short), number=got[short].astype(np.int32), reason=reasons)
