"""What a user gets when no personal partner knows them: profile text, then popular in context, then popular."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.catalogue import Catalogue
from recsys_spark.recommend.model import PROFILE
from recsys_spark.recommend.rerank.lists import Rerank, reranked
from recsys_spark.recommend.rules import SegmentLists
from recsys_spark.recommend.scoring.blocks import Block, signals
from recsys_spark.recommend.scoring.partners import BEHAVIOURAL, PERSONAL, Partners
from recsys_spark.recommend.scoring.scores import Ints, SharedScores
from recsys_spark.recommend.topk.best import Best
from recsys_spark.segments import history_codes

MAX_CONTEXTS = 1_000  # fallback lists are made for this many values of the context key, those with most events


@dataclass(frozen=True)
class Group:
    """Users of a block that are scored alike. ``sources`` names, per user, what their list rests on."""

    users: Ints
    weights: dict[str, float]
    sources: list[str]
    context: str | None = None
    profile: bool = False
    personal: bool = False  # scored by what the user has met


def groups(
    block: Block,
    partners: Partners,
    weights: dict[str, float],
    contexts: list[str | None],
    by_history: Sequence[dict[str, float]] = (),
    profile: dict[str, float] = PROFILE,
) -> Iterator[Group]:
    """Deal a block's users to the first way of scoring that says something about them.

    personal (encoder, co-occurrence, EASE or ALS knows the user) or item_text (only the texts of their items do), then the
    profile text, then what is popular in their context, then what is popular. Weights without a personal partner (the popularity
    baseline) make every list popular; ``profile`` weights without any but popularity's pass profile texts over.
    """
    known = signals(block, partners)
    used = {name: known[name] & (weights.get(name, 0.0) != 0.0) for name in PERSONAL}
    described = _described(block, partners)
    by_profile = known["encoder"] & (_met(block) == 0)  # they have a vector by their profile (``embed.profile_users``)
    used["encoder"] = used["encoder"] & ~by_profile
    by_behaviour = np.logical_or.reduce([used[name] for name in BEHAVIOURAL])
    personal = by_behaviour | used["text"]
    if personal.any():
        for users, own in _by_segment(block, np.flatnonzero(personal), weights, by_history):
            yield Group(users, own, ["personal" if b else "item_text" for b in by_behaviour[users]], personal=True)
    if not any(weights.get(name, 0.0) != 0.0 for name in PERSONAL):
        yield Group(np.arange(block.num_users), {"popularity": 1.0}, ["popular"] * block.num_users)
        return
    left = ~personal
    for some, own in _profile_weights(by_profile, described & ~by_profile, profile):
        users = np.flatnonzero(left & some)
        if len(users):
            yield Group(users, own, ["profile"] * len(users), profile=True)
            left[users] = False
    yield from _impersonal(partners, left, contexts)


def _profile_weights(
    with_vector: npt.NDArray[np.bool_], with_words: npt.NDArray[np.bool_], profile: dict[str, float]
) -> Iterator[tuple[Any, dict[str, float]]]:
    """The weights of those with a vector and of the others, where they are more than what is popular."""
    words = {name: weight for name, weight in profile.items() if name != "encoder"}
    for some, weights in ((with_vector, profile), (with_words, words)):
        if any(weight for name, weight in weights.items() if name != "popularity"):
            yield some, weights


def _met(block: Block) -> Ints:
    """How many items each user has met, those that left the catalogue too ``[B]``."""
    return np.diff(block.history.indptr) if block.past is None else block.past.lengths


def _described(block: Block, partners: Partners) -> npt.NDArray[np.bool_]:
    """Users whose profile text has a word that some item has, ``[B]``."""
    if partners.text is None or block.queries is None:
        return np.zeros(block.num_users, np.bool_)
    found: npt.NDArray[np.bool_] = np.diff(block.queries.indptr) > 0
    return found


def _by_segment(
    block: Block, users: Ints, weights: dict[str, float], by_history: Sequence[dict[str, float]]
) -> Iterator[tuple[Ints, dict[str, float]]]:
    """The users by the length of their history, each part with its weights; those with equal weights together."""
    if not by_history or block.past is None:
        yield users, weights
        return
    codes = history_codes(block.past.lengths[users])
    left = list(range(len(by_history)))
    while left:
        own = by_history[left[0]]
        alike = [code for code in left if by_history[code] == own]
        left = [code for code in left if code not in alike]
        some = users[np.isin(codes, alike)]
        if len(some):
            yield some, own


def _impersonal(partners: Partners, left: npt.NDArray[np.bool_], contexts: list[str | None]) -> Iterator[Group]:
    known = set(partners.popularity.context_values)
    of = np.array([value if value in known else None for value in contexts], object)
    for value in sorted({v for v, open_ in zip(of, left, strict=True) if open_ and v is not None}):
        users = np.flatnonzero(left & (of == value))
        yield Group(users, {"popularity": 1.0}, ["context"] * len(users), context=value)
    rest = np.flatnonzero(left & (of == None))  # noqa: E711  (elementwise)
    if len(rest):
        yield Group(rest, {"popularity": 1.0}, ["popular"] * len(rest))


def unknown_user_lists(
    catalogue: Catalogue, partners: Partners, k: int, segments: SegmentLists | None = None, rerank: Rerank | None = None
) -> Iterator[tuple[str, int, str, float]]:
    """Lists for users unknown at night: ``(context, rank, item_id, score)``; context "" is for all.

    ``segments``: rules of contexts, where these are what segments are made by.
    """
    width = k if rerank is None else rerank.depth * k
    for context in ("", *partners.popularity.context_values):
        z = SharedScores(partners.popularity.row(context or None), 1).at(
            np.zeros(len(catalogue), np.int64), np.arange(len(catalogue))
        )
        number = -1 if segments is None else int(segments.number([context])[0])
        allowed = catalogue.allowed & segments.allowed[number] if segments is not None and number >= 0 else catalogue.allowed
        score = np.where(allowed, np.round(z, 9) + 0.0, -np.inf)
        first = np.argsort(-score, kind="stable")[:width]
        first = first[allowed[first]]
        found = Best(np.zeros(len(first), np.int64), first, np.arange(1, len(first) + 1), score[first], {})
        if rerank is not None:
            found, _ = reranked(found, found, np.zeros(len(first), np.bool_), k, rerank, (catalogue, partners))
        for rank, position, value in zip(found.ranks, found.cols, found.scores, strict=True):
            yield context, int(rank), str(catalogue.item_ids[position]), float(value)
