"""Why an item is in a list: the history items, shared attributes and popularity that carried its score, with their shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.blocks import Block
from recsys_spark.recommend.catalogue import Catalogue
from recsys_spark.recommend.partners import PERSONAL, Partners
from recsys_spark.recommend.scores import Float64, Ints, as_rows
from recsys_spark.recommend.topk import Best

_SHARE_DECIMALS = 6
_CELLS_AT_ONCE = 1_024
_LEAST_SHARE = 0.005  # a further reason below this would be shown as 0%


@dataclass(frozen=True)
class Reasons:
    """Reasons of C recommendations, laid end to end: recommendation c owns those from ``offsets[c]`` to ``offsets[c + 1]``.

    kinds: ``cooccurrence`` (met together with the user's item ref_id), ``history`` or ``similar`` (like the item ref_id by
    encoder or text), ``attribute`` (ref_id = its name, text = the shared value or words), ``popular``. ``contributions``
    are shares of what speaks for the item: in [0, 1], together at most 1.
    """

    offsets: npt.NDArray[np.int32]
    kinds: npt.NDArray[Any]
    ref_ids: npt.NDArray[Any]
    texts: npt.NDArray[Any]
    contributions: Float64


@dataclass(frozen=True)
class Explainer:
    """Everything a reason may point at."""

    catalogue: Catalogue
    partners: Partners
    max_reasons: int
    history_kind: str = "history"

    def reasons(self, block: Block, best: Best, context: str | None = None, profile: bool = False) -> Reasons:
        """At least one and at most ``max_reasons`` reasons for each chosen item, the weightiest first.

        A partner's share is its part of the positive weighted z-scores. Co-occurrence and text deal theirs to the history
        items exactly as these made the score; the encoder's, which is not a sum over items, is dealt by
        decay x similarity. Text goes to a shared attribute where there is one.
        """
        if not len(best.rows):
            nothing = np.empty(0, object)
            return Reasons(np.zeros(1, np.int32), nothing, nothing, nothing, np.empty(0))
        shares = _positive_shares(best)
        items, weights = _padded(block.history)
        together = self._together(items, weights, best) * shares["cooccurrence"][:, None]
        alike = self._alike(block, items, weights, best) * shares["encoder"][:, None]
        attribute, value = self._shared_attributes(block, best)
        by_text = shares["text"].copy()
        if profile:
            attribute, value = self._shared_words(block, best)
        else:
            dealt = self._text_alike(items, weights, best) * np.where(value == "", by_text, 0.0)[:, None]
            alike, by_text = alike + dealt, np.where(value == "", 0.0, by_text)
        history = together + alike
        slots = _cut(np.concatenate([history, by_text[:, None], shares["popularity"][:, None]], axis=1))
        pick, kept = self._pick(slots, value != "")
        return self._write(pick, kept, slots, _Told(items[best.rows], together > alike, attribute, value, context or ""), best)

    def _together(self, items: Ints, weights: Float64, best: Best) -> Float64:
        if self.partners.cooccurrence is None:
            return np.zeros((len(best.rows), items.shape[1]))
        anchors = items[best.rows]
        cells = self.partners.cooccurrence.rows[np.maximum(anchors, 0).ravel(), np.repeat(best.cols, items.shape[1])]
        return _dealt(np.asarray(cells).reshape(anchors.shape) * weights[best.rows])

    def _alike(self, block: Block, items: Ints, weights: Float64, best: Best) -> Float64:
        if self.partners.encoder is None:
            return np.zeros((len(best.rows), items.shape[1]))
        vectors = self.partners.encoder.vectors
        met = vectors[np.maximum(items, 0)]  # [B, L, D]
        dots = np.empty((len(best.rows), items.shape[1]))
        for begin in range(0, len(dots), _CELLS_AT_ONCE):
            part = slice(begin, begin + _CELLS_AT_ONCE)
            dots[part] = (met[best.rows[part]].astype(np.float64) * vectors[best.cols[part], None]).sum(axis=2)
        return _dealt(np.maximum(dots, 0.0) * weights[best.rows])

    def _text_alike(self, items: Ints, weights: Float64, best: Best) -> Float64:
        if self.partners.text is None:
            return np.zeros((len(best.rows), items.shape[1]))
        by_item = self.partners.text.by_item
        left = by_item[np.maximum(items[best.rows], 0).ravel()]
        right = by_item[np.repeat(best.cols, items.shape[1])]
        dots = np.asarray(left.multiply(right).sum(axis=1)).reshape(len(best.rows), items.shape[1])
        return _dealt(dots * weights[best.rows])

    def _shared_attributes(self, block: Block, best: Best) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Name and value of the attribute that an item shares with the history, the most telling one; "" for none."""
        attributes = self.catalogue.attributes
        if not attributes.shape[1]:
            return _objects([""] * len(best.rows)), _objects([""] * len(best.rows))
        rarity = np.log(attributes.shape[0] / np.maximum(np.asarray(attributes.sum(axis=0)).ravel(), 1.0))
        liked = as_rows(block.history @ attributes)
        common = as_rows(attributes[best.cols].multiply(liked[best.rows]).multiply(rarity[None, :]))
        found = _best_column(common)
        names = [str(self.catalogue.attribute_names[i]).split(": ", 1) if i >= 0 else ["", ""] for i in found]
        return _objects([n[0] for n in names]), _objects([n[1] for n in names])

    def _shared_words(self, block: Block, best: Best) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The word of a profile text that speaks most for an item."""
        nothing = _objects([""] * len(best.rows))
        if self.partners.text is None or block.queries is None:
            return nothing, nothing
        common = as_rows(self.partners.text.by_item[best.cols].multiply(block.queries[best.rows]))
        words = self.partners.text.vectoriser.get_feature_names_out()
        texts = _objects([str(words[i]) if i >= 0 else "" for i in _best_column(common)])
        return _objects(["profile_text" if text else "" for text in texts]), texts

    def _pick(self, slots: Float64, has_attribute: npt.NDArray[np.bool_]) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The weightiest slots of each item; where nothing speaks for it, a shared attribute, else how popular it is."""
        count = min(self.max_reasons, slots.shape[1])
        pick = np.argsort(-slots, axis=1, kind="stable")[:, :count]
        shares = np.take_along_axis(slots, pick, axis=1)
        none, kept = shares[:, 0] <= 0, shares >= _LEAST_SHARE
        pick[none, 0] = slots.shape[1] - np.where(has_attribute[none], 2, 1)
        kept[:, 0] = True
        return pick, kept

    def _write(self, pick: Ints, kept: npt.NDArray[np.bool_], slots: Float64, told: _Told, best: Best) -> Reasons:
        which, place = np.nonzero(kept)
        slot = pick[which, place]
        length = told.anchors.shape[1]
        from_history, from_attribute = slot < length, slot == length
        kinds, ref_ids, texts = (np.empty(len(slot), object) for _ in range(3))
        kinds[:], ref_ids[:] = "popular", told.context
        texts[:] = [f"{int(count)} events" for count in self.partners.popularity.counts[best.cols[which]]]
        kinds[from_attribute] = "attribute"
        ref_ids[from_attribute], texts[from_attribute] = (found[which[from_attribute]] for found in (told.attribute, told.value))
        owner, column = which[from_history], slot[from_history]
        item = told.anchors[owner, column]
        kinds[from_history] = np.where(told.mostly_together[owner, column], "cooccurrence", self.history_kind)
        ref_ids[from_history], texts[from_history] = self.catalogue.item_ids[item], self.catalogue.titles[item]
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
        return Reasons(offsets, kinds, ref_ids, texts, slots[which, slot])


@dataclass(frozen=True)
class _Told:
    """What a slot stands for: history items ``[C, L]`` (and whether co-occurrence says most), attribute, context."""

    anchors: Ints
    mostly_together: npt.NDArray[np.bool_]
    attribute: npt.NDArray[Any]
    value: npt.NDArray[Any]
    context: str


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


def _objects(values: list[str]) -> npt.NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out
