"""The item side of a run: the catalogue and its partners, made once for all systems that rank the same items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from pyspark.sql import DataFrame

from recsys_spark.collaborative.stage import FACTORS, TRANSITIONS, WEIGHTS
from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.errors import InputError
from recsys_spark.recommend.catalogue import Catalogue, Item, build_catalogue
from recsys_spark.recommend.gather import (
    encoder_items,
    factor_items,
    items_in_order,
    popularity_items,
    recent_events,
    related_items,
    weighted_items,
)
from recsys_spark.recommend.rules import Rules, SegmentLists
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RecentEvents, TextItems
from recsys_spark.recommend.worker import Side
from recsys_spark.tables.visible import Rows

T = TypeVar("T")


@dataclass(frozen=True)
class Recency:
    """What popularity is to know of recent events: those of ``rows``, for each of these half-lives (days)."""

    half_lives: tuple[float, ...] = ()
    rows: Rows = "fit"
    by_context: bool = True

    @classmethod
    def at(cls, half_life: float | None, rows: Rows = "fit", by_context: bool = True) -> Recency:
        """For one half-life; None: nothing is to be known."""
        return cls(() if half_life is None else (half_life,), rows, by_context)


def item_side(
    config: Config,
    context: Context,
    vectors: DataFrame | None,
    upstream: str,
    rules: Rules | None = None,
    recency: Recency = Recency(),
) -> Side:
    """Catalogue and partners out of what ``context`` sees and out of the co-occurrence of ``upstream``.

    All but the encoder is kept in the context's cache: fusing, the challenger and the baselines share it.

    Args:
        vectors: ``(item_idx, vector)`` of the encoder; None: it takes no part.
        rules: which items lists may hold; None: all.
        recency: the half-lives that the popularity can be taken at.

    Raises:
        InputError: no item is visible.
    """
    wanted, measure = config.recommend.partners, config.cooccurrence.rank_by
    ordered = context.once("items in order", lambda: _ordered(config, context))
    apart = config.attribute_separator
    rules = rules or Rules()
    catalogue = context.once(f"catalogue {rules.everybody.document()}", lambda: build_catalogue(ordered, rules.everybody, apart))
    fit, key = context.events("fit"), config.recommend.context_key
    popularity = context.once("popularity", lambda: popularity_items(fit, catalogue, key))
    if recency.half_lives:
        popularity = replace(popularity, recent=_recent(config, context, catalogue, popularity, recency))
    encoder = cooccurrence = transitions = text = ease = als = None
    if vectors is not None and "encoder" in wanted:
        encoder = encoder_items(vectors, catalogue)
    if "cooccurrence" in wanted:
        rows = context.store.read("cooccurrence", upstream)
        name = f"{measure} of {upstream} {context.store.content('cooccurrence', upstream)}"
        cooccurrence = context.once(name, lambda: related_items(rows, catalogue, measure))
    collaborative = config.collaborative
    if "ease" in wanted and collaborative.ease.enabled != "off":
        ease = _fitted(context, WEIGHTS, upstream, lambda rows: weighted_items(rows, catalogue))
    if "transitions" in wanted and collaborative.transitions.enabled:
        transitions = _fitted(context, TRANSITIONS, upstream, lambda rows: weighted_items(rows, catalogue))
    if "als" in wanted and collaborative.als.enabled:
        als = _fitted(context, FACTORS, upstream, lambda rows: factor_items(rows, catalogue, collaborative.als))
    if "text" in wanted:
        text = context.once("words", lambda: TextItems.of([item.text for item in ordered]))
    return Side(
        catalogue,
        Partners(popularity, encoder, cooccurrence, text, ease, als, transitions),
        SegmentLists.of(rules, catalogue.item_ids),
    )


def _recent(
    config: Config, context: Context, catalogue: Catalogue, popularity: PopularityItems, recency: Recency
) -> dict[float, RecentEvents]:
    key = config.recommend.context_key if recency.by_context else None
    make = lambda: recent_events(context.events(recency.rows), catalogue, key, popularity, recency.half_lives)  # noqa: E731
    return context.once(f"{recency}", make)


def _fitted(context: Context, table: str, upstream: str, make: Callable[[DataFrame], T | None]) -> T | None:
    """What ``make`` makes of a partner's table, once for each content of it; None where there is no such table."""
    if not context.store.exists(table, upstream):
        return None
    name = f"{table} of {upstream} {context.store.content(table, upstream)}"
    return context.once(name, lambda: make(context.store.read(table, upstream)))


def _ordered(config: Config, context: Context) -> list[Item]:
    ordered = items_in_order(context.items(), config.seed)
    if not ordered:
        raise InputError(
            "recommend", "the catalogue is empty", "at least one visible item", "run ingest with events or items first"
        )
    return ordered
