"""The partners, seen from the items: what each keeps about the whole catalogue, and how it scores a block of users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys_spark.recommend.scoring.scores import Float64, FloatArray, FullScores, Ints, SharedScores, SparseScores, as_rows
from recsys_spark.recommend.scoring.vector_items import EncoderItems, FactorItems
from recsys_spark.words import words_of

PERSONAL = ("encoder", "cooccurrence", "transitions", "ease", "als", "text")  # partners that look at the user
BEHAVIOURAL = ("encoder", "cooccurrence", "transitions", "ease", "als")  # those that events taught
PAST = ("cooccurrence", "transitions", "ease", "als", "text")  # those that weigh each history item by its age
_LESS = 1e-3  # of an event: what decides among items whose recent events are all but equal
_LARGEST_COSINE = 1.0 + 1e-6  # with what rounding may add
MAX_TERM_SHARE = 0.5  # a word on more than this share of the items is left out of the text vectors


@dataclass(frozen=True)
class RelatedItems:
    """Item-to-item weights (a co-occurrence measure, transitions, EASE), CSR ``[N, N]``: cell (a, b) is what a in the history
    says of b."""

    rows: Any

    @classmethod
    def of(cls, item_a: Ints, item_b: Ints, values: FloatArray, num_items: int) -> RelatedItems:
        """From positions; cells outside the catalogue (-1) or without a finite value are left out."""
        kept = (item_a >= 0) & (item_b >= 0) & np.isfinite(values)
        cells = (values[kept].astype(np.float64), (item_a[kept], item_b[kept]))
        return cls(as_rows(sparse.csr_matrix(cells, shape=(num_items, num_items))))

    def knows(self, history: Any) -> npt.NDArray[np.bool_]:
        """Whether any history item has a row: ``[B]``."""
        filled = (np.diff(self.rows.indptr) > 0).astype(np.float64)
        found: npt.NDArray[np.bool_] = history @ filled > 0
        return found

    def scores(self, history: Any) -> SparseScores:
        """Sum of the rows of a user's items, weighted by ``history`` (CSR ``[B, N]``)."""
        return SparseScores(as_rows(history @ self.rows))


@dataclass(frozen=True)
class TextItems:
    """TF-IDF rows of the item texts, CSR ``[N, F]`` with unit rows."""

    vectoriser: Any
    by_item: Any

    @classmethod
    def of(cls, texts: list[str]) -> TextItems | None:
        """None where no text holds a word that tells items apart."""
        vectoriser = TfidfVectorizer(analyzer=words_of, sublinear_tf=True, max_df=max(2, int(MAX_TERM_SHARE * len(texts))))
        try:
            by_item = as_rows(vectoriser.fit_transform(texts))
        except ValueError:  # scikit-learn's way of saying: no word left
            return None
        return cls(vectoriser, by_item)

    def profiles(self, history: Any) -> Any:
        """Unit rows ``[B, F]``: the weighted sum of the texts of a user's items (zero where they have none)."""
        return _unit_rows(history @ self.by_item)

    def queries(self, texts: list[str]) -> Any:
        """Unit rows ``[B, F]`` of free texts."""
        return as_rows(self.vectoriser.transform(texts))

    def scores(self, profiles: Any) -> FullScores:
        """Cosines of profiles ``[B, F]`` and items, as sparse items x dense profiles over the terms that occur in them."""
        used = np.unique(profiles.indices)
        place = np.full(profiles.shape[1], len(used))  # the row of zeros behind the last used term
        place[used] = np.arange(len(used))
        narrow = (self.by_item.data, place[self.by_item.indices], self.by_item.indptr)
        terms = np.zeros((len(used) + 1, profiles.shape[0]))
        terms[:-1] = profiles[:, used].toarray().T
        return FullScores(sparse.csr_matrix(narrow, shape=(self.by_item.shape[0], len(used) + 1)) @ terms, _LARGEST_COSINE)


@dataclass(frozen=True)
class RecentEvents:
    """Events per item where one weighs ``2^(-age / half-life)``: ``counts [N]``, and CSR ``[V, N]`` per value of the context
    key (None where there is none)."""

    counts: Float64
    context_counts: Any = None


@dataclass(frozen=True)
class PopularityItems:
    """Events per item: ``counts [N]`` overall, and CSR ``[V, N]`` per value of the context key.

    ``half_life_days``: after which an event counts half in what is popular (one of ``recent``); None: all count alike.
    """

    counts: Float64
    context_values: tuple[str, ...] = ()
    context_counts: Any = None
    recent: Mapping[float, RecentEvents] = field(default_factory=dict)
    half_life_days: float | None = None

    def lately(self, half_life_days: float | None) -> PopularityItems:
        """With events that count half after so many days, and nothing kept for other half-lives."""
        kept = {} if half_life_days is None else {half_life_days: self.recent[half_life_days]}
        return replace(self, recent=kept, half_life_days=half_life_days)

    @cached_property
    def event_texts(self) -> tuple[Any, Ints]:
        """ "7 events", for every number of events that an item has (Arrow strings), and which of these is each item's [N]."""
        return self._told(self.counts)

    def event_texts_in(self, context: str | None) -> tuple[Any, Ints]:
        """As ``event_texts``, of the events in a context that is known."""
        if context is None or context not in self.context_values:
            return self.event_texts
        if context not in self._event_texts_of:
            self._event_texts_of[context] = self._told(self.context_counts[self.context_values.index(context)].toarray().ravel())
        return self._event_texts_of[context]

    @cached_property
    def _event_texts_of(self) -> dict[str, tuple[Any, Ints]]:
        """Made once for all blocks, as contexts are met."""
        return {}

    def _told(self, counts: Float64) -> tuple[Any, Ints]:
        numbers, code = np.unique(counts.astype(np.int64), return_inverse=True)
        told = "events" if self.half_life_days is None else "events, the latest count most"
        return pa.array([f"{number} {told}" for number in numbers], pa.string()), code

    def scores(self, num_users: int, context: str | None = None) -> SharedScores:
        """log(1 + events); in a context by its own events first, among equals by the events of all."""
        return SharedScores(self.row(context), num_users)

    def row(self, context: str | None = None) -> Float64:
        """``[N]``, as in ``scores``; with a half-life by recent events first, among equals by those of all times."""
        known = context is not None and context in self.context_values
        counts, own, share = self.counts, self.context_counts, 1.0
        if self.half_life_days is not None:
            recent = self.recent[self.half_life_days]
            counts, own, share = _then(recent.counts, self.counts, _LESS), recent.context_counts, _LESS
        if known:
            counts = _then(own[self.context_values.index(str(context))].toarray().ravel(), counts, share)
        found: Float64 = np.log1p(counts)
        return found


def _then(first: Float64, among_equals: Float64, share: float) -> Float64:
    """``first``, and what decides among equals as less than ``share`` of an event."""
    found: Float64 = first + share * among_equals / (among_equals.max(initial=0.0) + 1.0)
    return found


@dataclass(frozen=True)
class Partners:
    """What is there to score with; None where a partner has nothing (no model, no co-occurrence, no text).

    ``decays``: how the history is weighted for single partners (the n-th last item by decay^n); others take the block's.
    ``weight_factors``: factors ``[N]`` of a partner's weight, by item, where the fusion has them.
    """

    popularity: PopularityItems
    encoder: EncoderItems | None = None
    cooccurrence: RelatedItems | None = None
    text: TextItems | None = None
    ease: RelatedItems | None = None
    als: FactorItems | None = None
    transitions: RelatedItems | None = None
    decays: Mapping[str, float] = field(default_factory=dict)
    weight_factors: Mapping[str, FloatArray] = field(default_factory=dict)

    def weighing(self, name: str, past: float | None) -> Partners:
        """For one partner by itself: without factors, and this partner with a memory of its own (see ``fusion_ndcg.Feature``)."""
        if name == "popularity":
            return replace(self, popularity=self.popularity.lately(past), decays={}, weight_factors={})
        return replace(self, decays={} if past is None else {name: past}, weight_factors={})

    @property
    def tiled(self) -> bool:
        """Whether no partner holds a block's scores of all items at once."""
        return not self.related and self.text is None

    @property
    def related(self) -> dict[str, RelatedItems]:
        """Those that are item-to-item weights, by name."""
        found = {"cooccurrence": self.cooccurrence, "transitions": self.transitions, "ease": self.ease}
        return {name: rows for name, rows in found.items() if rows is not None}

    def present(self) -> tuple[str, ...]:
        """Names of the partners that are there, personal ones first."""
        return (*(name for name in PERSONAL if getattr(self, name) is not None), "popularity")


def _unit_rows(matrix: Any) -> Any:
    rows = as_rows(matrix)
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return as_rows(sparse.diags(scale) @ rows)
