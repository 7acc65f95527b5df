"""Third stage: reads events, items, co-occurrence and knowledge graph; writes pairs, negatives and the training tables."""

from __future__ import annotations

from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.errors import ConfigError
from recsys_spark.pairs.examples import SOURCES, mixed, overlap, with_provenance
from recsys_spark.pairs.negatives import dislikes, mined, shown, training_negatives
from recsys_spark.pairs.outcomes import asked_events, left_alone, outcomes
from recsys_spark.pairs.positives.behaviour import behaviour
from recsys_spark.pairs.positives.collaborative import collaborative
from recsys_spark.pairs.positives.knowledge_graph import knowledge_graph
from recsys_spark.pairs.positives.text import text
from recsys_spark.pairs.sequences import training_sequences, validation_sequences
from recsys_spark.parallel import side_by_side
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written
from recsys_spark.tables.visible import Rows

OUTPUTS = ("pairs", "negatives", "training_pairs", "training_sequences", "validation_sequences")
EXPLICIT = "training_negatives"  # written where ``pairs.negatives.per_user`` asks for it
OUTCOMES = ("training_outcomes", "validation_outcomes")  # written where ``pairs.outcomes`` asks for them


def run(config: Config, context: Context) -> StageReport:
    """Write the tables of ``OUTPUTS``; nothing is learned from events beyond the cutoff's ``fit``.

    Facts: pairs per source, per two sources and per split, training pairs, sequences, dislikes.

    Raises:
        MissingTableError: behaviour is enabled and the co-occurrence stage has not run in this namespace, or mined
            negatives are asked for and nothing has mined them.
        ConfigError: behaviour ranks by a measure that co-occurrence does not compute.
    """
    _check(config)
    settings = {"pairs": config.pairs.model_dump(mode="json"), "seed": config.seed}
    settings["moments"] = [[part.name, part.size] for part in config.encoder.moments]  # a key may be a query or a category

    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        parts = (_write_pairs, _write_sequences, _write_outcomes)
        written = [w for part in side_by_side(*[partial(part, config, context, commit) for part in parts]) for w in part]
        rows = {f"num_{w.table}": w.rows for w in written}
        return written, {**overlap(context.read("pairs")), **rows}

    outputs = (*OUTPUTS, EXPLICIT) if config.pairs.negatives.per_user else OUTPUTS
    outputs = (*outputs, *OUTCOMES) if config.pairs.outcomes.about != "off" else outputs
    return context.run_stage(StagePlan("pairs", settings, _inputs(config, context), outputs), body)


def _check(config: Config) -> None:
    wanted, counted = config.pairs.behaviour, config.cooccurrence
    known = list(dict.fromkeys([*counted.measures, counted.rank_by]))
    if wanted.enabled and wanted.measure not in known:
        found = f"measure '{wanted.measure}' is not computed"
        raise ConfigError("[pairs.behaviour]", found, f"one of {', '.join(known)}", "or add it to cooccurrence.measures")


def _inputs(config: Config, context: Context) -> dict[str, str]:
    """Contents of what the enabled sources read; a disabled source's input does not matter."""
    inputs = {
        "events fit": context.events_content("fit"),
        "events validation": context.events_content("validation"),
        "items": context.items_content(),
    }
    if config.pairs.behaviour.enabled:
        inputs["cooccurrence"] = context.content("cooccurrence")
    if config.pairs.knowledge_graph.enabled:
        inputs["knowledge_graph"] = context.content("knowledge_graph")
    if config.pairs.negatives.shown_types:
        inputs["shown fit"] = context.shown_content("fit")
        if config.pairs.outcomes.about == "type":
            inputs["shown validation"] = context.shown_content("validation")
    if config.pairs.negatives.mined_last:
        inputs["mined_negatives"] = context.content("mined_negatives")
    return inputs


def _write_pairs(config: Config, context: Context, commit: Commit) -> list[Written]:
    settings, namespace = config.pairs, context.namespace
    items = _items(context).persist()
    try:
        found = with_provenance(_positives(config, context, items), config.seed, settings.validation_share)
        pairs = context.store.replace("pairs", namespace, found, commit)
    finally:
        items.unpersist()
    shares = {source: float(getattr(settings, source).share) for source in SOURCES}
    mix = mixed(context.read("pairs"), shares)
    negatives = _negatives(config, context)
    return [
        pairs,
        context.store.replace("training_pairs", namespace, mix, commit, num_files=settings.num_files),
        context.store.replace("negatives", namespace, negatives, commit),
        *_write_explicit(config, context, commit),
    ]


def _negatives(config: Config, context: Context) -> DataFrame:
    settings, fit, split = config.pairs.negatives, context.events("fit"), (config.seed, config.pairs.validation_share)
    found = dislikes(fit, *split)
    if settings.shown_types:
        found = found.unionByName(shown(context.shown("fit"), fit, settings.shown_at_least, *split))
    if settings.mined_last:
        found = found.unionByName(mined(context.read("mined_negatives"), *split))
    return found


def _write_explicit(config: Config, context: Context, commit: Commit) -> list[Written]:
    """After table negatives, out of it."""
    settings, namespace = config.pairs, context.namespace
    if not settings.negatives.per_user:
        return []
    fit, per_user = context.events("fit"), settings.negatives.per_user
    frame = training_negatives(context.read("negatives"), fit, per_user, settings.max_history)
    return [context.store.replace(EXPLICIT, namespace, frame, commit, num_files=settings.num_files)]


def _write_outcomes(config: Config, context: Context, commit: Commit) -> list[Written]:
    """Of fit events with fit histories for training; of validation events, with all that came before, for calibration."""
    settings, store, moments = config.pairs, context.store, config.encoder.moments
    if settings.outcomes.about == "off":
        return []
    written = []
    roles: tuple[tuple[Rows, Rows], ...] = (("fit", "fit"), ("validation", "history"))
    for name, (rows, past) in zip(OUTCOMES, roles, strict=True):
        asked = asked_events(context.events(rows), settings.outcomes)
        if settings.outcomes.about == "type" and settings.negatives.shown_types:
            asked = asked.unionByName(left_alone(context.shown(rows), context.events(past), _items(context)))
        frame = outcomes(asked, context.events(past), settings.outcomes.per_user, settings.max_history, moments)
        written.append(store.replace(name, context.namespace, frame, commit, num_files=settings.num_files))
    return written


def _items(context: Context) -> DataFrame:
    """``item_id, item_idx, text`` of the visible items that have text or an event to fit on: an item known from a
    validation event alone would tell of that event."""
    met = context.events("fit").select("item_idx").distinct().withColumn("_met", F.lit(True))
    return context.items().join(met, "item_idx", "left").where("has_text OR _met").select("item_id", "item_idx", "text")


def _positives(config: Config, context: Context, items: DataFrame) -> dict[str, DataFrame]:
    """Rows of the enabled sources; a frame without rows stands in when none is."""
    settings, found = config.pairs, {}
    if settings.behaviour.enabled:
        found["behaviour"] = behaviour(context.read("cooccurrence"), items, settings.behaviour)
    if settings.collaborative.enabled:
        found["collaborative"] = collaborative(context.events("fit"), settings.collaborative, config.seed)
    if settings.knowledge_graph.enabled:
        triples = context.store.read_or_empty("knowledge_graph", context.namespace)
        found["knowledge_graph"] = knowledge_graph(triples, items, settings.knowledge_graph)
    if settings.text.enabled:
        found["text"] = text(items, settings.text)
    return found or {"behaviour": context.store.read_or_empty("pairs", context.namespace).limit(0)}


def _write_sequences(config: Config, context: Context, commit: Commit) -> list[Written]:
    settings, store = config.pairs, context.store
    fit, validation, moments = context.events("fit"), context.events("validation"), config.encoder.moments
    frames = {
        "training_sequences": training_sequences(fit, settings.max_history, moments),
        "validation_sequences": validation_sequences(fit, validation, settings.max_history, moments),
    }
    return [store.replace(name, context.namespace, frame, commit, num_files=settings.num_files) for name, frame in frames.items()]
