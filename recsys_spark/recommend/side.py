"""The item side of a run: the catalogue and its partners, made once for all systems that rank the same items."""

from __future__ import annotations

from pyspark.sql import DataFrame

from recsys_spark.collaborative.stage import FACTORS, TRANSITIONS, WEIGHTS
from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.errors import InputError
from recsys_spark.recommend.catalogue import Item, build_catalogue
from recsys_spark.recommend.gather import (
    encoder_items,
    factor_items,
    items_in_order,
    popularity_items,
    related_items,
    weighted_items,
)
from recsys_spark.recommend.partners import Partners, TextItems
from recsys_spark.recommend.rules import Rules, SegmentLists
from recsys_spark.recommend.worker import Side


def item_side(config: Config, context: Context, vectors: DataFrame | None, upstream: str, rules: Rules | None = None) -> Side:
    """Catalogue and partners out of what ``context`` sees and out of the co-occurrence of ``upstream``.

    All but the encoder is kept in the context's cache: fusing, the challenger and the baselines share it.

    Args:
        vectors: ``(item_idx, vector)`` of the encoder; None: it takes no part.
        rules: which items lists may hold; None: all.

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
    encoder = cooccurrence = transitions = text = ease = als = None
    if vectors is not None and "encoder" in wanted:
        encoder = encoder_items(vectors, catalogue)
    if "cooccurrence" in wanted:
        rows = context.store.read("cooccurrence", upstream)
        name = f"{measure} of {upstream} {context.store.content('cooccurrence', upstream)}"
        cooccurrence = context.once(name, lambda: related_items(rows, catalogue, measure))
    collaborative = config.collaborative
    if "ease" in wanted and collaborative.ease.enabled != "off" and context.store.exists(WEIGHTS, upstream):
        weights = context.store.read(WEIGHTS, upstream)
        name = f"{WEIGHTS} of {upstream} {context.store.content(WEIGHTS, upstream)}"
        ease = context.once(name, lambda: weighted_items(weights, catalogue))
    if "transitions" in wanted and collaborative.transitions.enabled and context.store.exists(TRANSITIONS, upstream):
        following = context.store.read(TRANSITIONS, upstream)
        name = f"{TRANSITIONS} of {upstream} {context.store.content(TRANSITIONS, upstream)}"
        transitions = context.once(name, lambda: weighted_items(following, catalogue))
    if "als" in wanted and collaborative.als.enabled and context.store.exists(FACTORS, upstream):
        factors = context.store.read(FACTORS, upstream)
        name = f"{FACTORS} of {upstream} {context.store.content(FACTORS, upstream)}"
        als = context.once(name, lambda: factor_items(factors, catalogue, collaborative.als))
    if "text" in wanted:
        text = context.once("words", lambda: TextItems.of([item.text for item in ordered]))
    return Side(
        catalogue,
        Partners(popularity, encoder, cooccurrence, text, ease, als, transitions),
        SegmentLists.of(rules, catalogue.item_ids),
    )


def _ordered(config: Config, context: Context) -> list[Item]:
    ordered = items_in_order(context.items(), config.seed)
    if not ordered:
        raise InputError(
            "recommend", "the catalogue is empty", "at least one visible item", "run ingest with events or items first"
        )
    return ordered
