"""Why an item is in a list: the history items, shared attributes and popularity that carried its score, with their shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_spark.recommend.catalogue import Catalogue
from recsys_spark.recommend.scoring.blocks import Block
from recsys_spark.recommend.scoring.partners import PAST, PERSONAL, Partners, RelatedItems
from recsys_spark.recommend.scoring.scores import Float64, Ints, as_rows
from recsys_spark.recommend.scoring.vector_items import EncoderItems, FactorItems
from recsys_spark.recommend.topk.best import Best

_SHARE_DECIMALS = 6
_POPULAR, _ATTRIBUTE, _TOGETHER, _HISTORY = range(4)  # kinds of reasons
_LEAST_SHARE = 0.005  # a further reason below this would be shown as 0%


@dataclass(frozen=True)
class Reasons:
    """Reasons of C recommendations, laid end to end: recommendation c owns those from ``offsets[c]`` to ``offsets[c + 1]``.

    kinds: ``cooccurrence`` (met together with the user's item ref_id), ``history`` or ``similar`` (like the item ref_id by
    encoder or text), ``attribute`` (ref_id = its name, text = the shared value or words), ``popular``. ``contributions``
    are shares of what speaks for the item: in [0, 1], together at most 1. The strings are Arrow arrays.
    """

    offsets: npt.NDArray[np.int32]
    kinds: Any
    ref_ids: Any
    texts: Any
    contributions: Float64


@dataclass(frozen=True)
class Explainer:
    """Everything a reason may point at."""

    catalogue: Catalogue
    partners: Partners
    max_reasons: int
    history_kind: str = "history"

    def reasons(self, block: Block, best: Best, context: str | None = None, profile: bool = False) -> Reasons:
        """At least one and at most ``max_reasons`` reasons for each chosen item, the weightiest first; none where that is 0.

        A partner's share is its part of the positive weighted z-scores. Co-occurrence, transitions, EASE and text deal
        theirs to the history items exactly as these made the score; the encoder's and that of ALS, which are no sums over
        items, are dealt by decay x similarity. Text goes to a shared attribute where there is one.
        """
        if not len(best.rows) or not self.max_reasons:
            nothing = pa.array([], pa.string())
            return Reasons(np.zeros(len(best.rows) + 1, np.int32), nothing, nothing, nothing, np.empty(0))
        shares = _positive_shares(best)
        items, weights = _padded(block.history)
        own = {name: self._own_weights(name, block, weights) for name in PAST}
        related = self.partners.related.items()
        parts = [_together(rows, items, own[name], best) * shares[name][:, None] for name, rows in related]
        together = sum(parts, np.zeros((len(best.rows), items.shape[1])))
        vectors = {"encoder": self.partners.encoder, "als": self.partners.als}
        parts = [_alike(held, items, own.get(name, weights), best) * shares[name][:, None] for name, held in vectors.items()]
        alike = parts[0] + parts[1]
        shared = self._shared_words(block, best) if profile else self._shared_attributes(block, best)
        by_text = shares["text"].copy()
        if not profile:
            dealt = self._text_alike(items, own["text"], best) * np.where(shared.found, 0.0, by_text)[:, None]
            alike, by_text = alike + dealt, np.where(shared.found, by_text, 0.0)
        history = together + alike
        slots = _cut(np.concatenate([history, by_text[:, None], shares["popularity"][:, None]], axis=1))
        pick, kept = self._pick(slots, shared.found)
        return self._write(pick, kept, slots, _Told(items[best.rows], together > alike, shared, context or ""), best)

    def _own_weights(self, name: str, block: Block, weights: Float64) -> Float64:
        """``[B, L]``: what each history item weighs for this partner."""
        decay = self.partners.decays.get(name)
        return weights if decay is None else _padded(block.history_at(decay))[1]

    def _text_alike(self, items: Ints, weights: Float64, best: Best) -> Float64:
        if self.partners.text is None or not weights.any():
            return np.zeros((len(best.rows), items.shape[1]))
        by_item = self.partners.text.by_item
        left = by_item[np.maximum(items[best.rows], 0).ravel()]
        right = by_item[np.repeat(best.cols, items.shape[1])]
        dots = np.asarray(left.multiply(right).sum(axis=1)).reshape(len(best.rows), items.shape[1])
        return _dealt(dots * weights[best.rows])

    def _shared_attributes(self, block: Block, best: Best) -> _Shared:
        """The attribute that an item shares with the history, the most telling one."""
        attributes = self.catalogue.attributes
        if not attributes.shape[1]:
            return _shared(np.full(len(best.rows), -1), np.empty(0, object))
        rarity = np.log(attributes.shape[0] / np.maximum(np.asarray(attributes.sum(axis=0)).ravel(), 1.0))
        liked = as_rows(block.history @ attributes)
        common = as_rows(attributes[best.cols].multiply(liked[best.rows]).multiply(rarity[None, :]))
        return _shared(_best_column(common), self.catalogue.attribute_names)

    def _shared_words(self, block: Block, best: Best) -> _Shared:
        """The word of a profile text that speaks most for an item."""
        if self.partners.text is None or block.queries is None:
            return _shared(np.full(len(best.rows), -1), np.empty(0, object))
        common = as_rows(self.partners.text.by_item[best.cols].multiply(block.queries[best.rows]))
        return _shared(_best_column(common), self.partners.text.vectoriser.get_feature_names_out(), "profile_text")

    def _pick(self, slots: Float64, has_attribute: npt.NDArray[np.bool_]) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The weightiest slots of each item; where nothing speaks for it, a shared attribute, else how popular it is."""
        pick, shares = _largest(slots, min(self.max_reasons, slots.shape[1]))
        none, kept = shares[:, 0] <= 0, shares >= _LEAST_SHARE
        pick[none, 0] = slots.shape[1] - np.where(has_attribute[none], 2, 1)
        kept[:, 0] = True
        return pick, kept

    def _write(self, pick: Ints, kept: npt.NDArray[np.bool_], slots: Float64, told: _Told, best: Best) -> Reasons:
        """Every string is taken out of one table by its number: contexts or event counts, shared values, items."""
        which, place = np.nonzero(kept)
        slot, length = pick[which, place], told.anchors.shape[1]
        counts, count_of = self.partners.popularity.event_texts_in(told.context)
        num_shared = len(told.shared.refs)
        kind, ref, text = np.full(len(slot), _POPULAR), np.zeros(len(slot), np.int64), count_of[best.cols[which]]
        by = np.flatnonzero(slot == length)
        kind[by], ref[by], text[by] = _ATTRIBUTE, 1 + told.shared.code[which[by]], len(counts) + told.shared.code[which[by]]
        by = np.flatnonzero(slot < length)
        owner, column = which[by], slot[by]
        item = told.anchors[owner, column] + num_shared
        kind[by], ref[by], text[by] = (
            np.where(told.mostly_together[owner, column], _TOGETHER, _HISTORY),
            1 + item,
            len(counts) + item,
        )
        kinds = pa.array(["popular", "attribute", "cooccurrence", self.history_kind])
        refs = pa.concat_arrays([pa.array([told.context]), told.shared.refs, self.catalogue.id_strings])
        texts = pa.concat_arrays([counts, told.shared.texts, self.catalogue.title_strings])
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
        return Reasons(offsets, kinds.take(kind), refs.take(ref), texts.take(text), slots[which, slot])


def _together(related: RelatedItems | None, items: Ints, weights: Float64, best: Best) -> Float64:
    """How much of each chosen item's score comes from each history item ``[C, L]``, by item-to-item weights."""
    if related is None or not weights.any():
        return np.zeros((len(best.rows), items.shape[1]))
    anchors = items[best.rows]
    cells = related.rows[np.maximum(anchors, 0).ravel(), np.repeat(best.cols, items.shape[1])]
    return _dealt(np.asarray(cells).reshape(anchors.shape) * weights[best.rows])


def _alike(held: EncoderItems | FactorItems | None, items: Ints, weights: Float64, best: Best) -> Float64:
    """How alike each history item is to each chosen item, by their vectors: shares ``[C, L]``."""
    dots = np.zeros((len(best.rows), items.shape[1]))
    if held is None:
        return dots
    begins = np.searchsorted(best.rows, np.arange(len(items) + 1))
    for user in np.flatnonzero(weights.any(axis=1)):
        met, listed = items[user][items[user] >= 0], slice(begins[user], begins[user + 1])
        # one product [listed, met] per user: a few hundred vectors, which stay in the cache
        dots[listed, : len(met)] = held.vectors[best.cols[listed]].astype(np.float64) @ held.vectors[met].T.astype(np.float64)
    return _dealt(np.maximum(dots, 0.0) * weights[best.rows])


@dataclass(frozen=True)
class _Shared:
    """What each item shares with the user: ``code [C]`` of a reference and a text (Arrow strings), -1 for nothing."""

    code: Ints
    refs: Any
    texts: Any

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        return self.code >= 0


@dataclass(frozen=True)
class _Told:
    """What a slot stands for: history items ``[C, L]`` (and whether co-occurrence says most), shared values, context."""

    anchors: Ints
    mostly_together: npt.NDArray[np.bool_]
    shared: _Shared
    context: str


def _shared(columns: Ints, names: npt.NDArray[Any], ref: str | None = None) -> _Shared:
    """Of ``columns [C]`` of a matrix (-1: none) whose columns are called ``names``: ``ref`` and the name, or "ref: name"."""
    used = np.unique(columns[columns >= 0])
    parts = [str(name).split(": ", 1) if ref is None else [ref, str(name)] for name in names[used]]
    code = np.where(columns >= 0, np.searchsorted(used, columns), -1)
    return _Shared(code, *(pa.array([part[n] for part in parts], pa.string()) for n in range(2)))


def _largest(slots: Float64, count: int) -> tuple[Ints, Float64]:
    """Columns and values ``[C, count]`` of the largest cells of each row, the first among equals first."""
    left, rows = slots.copy(), np.arange(len(slots))
    pick, found = np.empty((len(slots), count), np.int64), np.empty((len(slots), count))
    for place in range(count):
        pick[:, place] = left.argmax(axis=1)
        found[:, place] = left[rows, pick[:, place]]
        left[rows, pick[:, place]] = -np.inf
    return pick, found


def _positive_shares(best: Best) -> dict[str, Float64]:
    """What speaks for each item, by partner: shares of the positive parts, which sum to 1 (or are all 0)."""
    positive = {name: np.maximum(share, 0.0) for name, share in best.shares.items()}
    total = sum(positive.values(), np.zeros(len(best.rows)))
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    nothing = np.zeros(len(best.rows))
    return {name: positive.get(name, nothing) * scale for name in (*PERSONAL, "popularity")}


def _padded(history: Any) -> tuple[Ints, Float64]:
    """CSR ``[B, N]`` as positions ``[B, L]`` (-1 where a history is shorter) and weights ``[B, L]`` (0 there)."""
    lengths = np.diff(history.indptr)
    width = max(int(lengths.max(initial=0)), 1)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(history.nnz) - np.repeat(history.indptr[:-1], lengths)
    items, weights = np.full((len(lengths), width), -1, np.int64), np.zeros((len(lengths), width))
    items[rows, place], weights[rows, place] = history.indices, history.data
    return items, weights


def _cut(shares: Float64) -> Float64:
    """Shares cut (not rounded up, so that they never pass 1) to 6 decimals; 0.5 less the last bit of a float is still 0.5."""
    scale = 10.0**_SHARE_DECIMALS
    found: Float64 = np.floor(shares * scale + 1e-3) / scale
    return found


def _dealt(parts: Float64) -> Float64:
    """Rows scaled to sum 1; a row without a positive part stays 0."""
    positive = np.maximum(parts, 0.0)
    total = positive.sum(axis=1, keepdims=True)
    return np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)


def _best_column(matrix: Any) -> Ints:
    """Column of the largest positive cell of each row of a CSR matrix, the first among equals; -1 for none."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    order = order[matrix.data[order] > 0]
    found = np.full(matrix.shape[0], -1, np.int64)
    found[rows[order][::-1]] = matrix.indices[order][::-1]
    return found
