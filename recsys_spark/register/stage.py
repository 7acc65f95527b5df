"""Choose the fusion weights with the trained encoder, then log one model version and call it the challenger."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.code_version import code_version
from recsys_spark.collaborative.stage import FACTORS, TRANSITIONS, WEIGHTS
from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.embed.encode import item_vectors, user_vectors
from recsys_spark.embed.profiles import encode_profiles, profile_rows
from recsys_spark.histories import histories
from recsys_spark.log import get_logger
from recsys_spark.recommend.prefix import first_dimensions
from recsys_spark.register.fusion_fit import FusionFit, fit_fusion, fusion_users
from recsys_spark.register.profile_fit import ProfileFit, fit_profiles
from recsys_spark.registry import ModelVersion, Registry
from recsys_spark.tables.runs import StagePlan, StageReport, fingerprint
from recsys_spark.tables.store import Commit, Written
from recsys_spark.tables.visible import HoldoutCutoff, InstantCutoff

log = get_logger(__name__)
CHALLENGER = "challenger"
_FUSED_BY = {
    "partners",
    "weights",
    "filter_seen",
    "history_items",
    "history_decay",
    "popularity_half_life_days",
    "new_items_per_ten",
    "new_item_demand",
    "max_new_item_loss",
    "profile_weights",
    "rerank",
    "dimensions",
}


def run(config: Config, context: Context, registry: Registry, model_dir: Path, training: dict[str, Any]) -> StageReport:
    """Register the model in ``model_dir`` as challenger; its version is ``facts["model_version"]``.

    A rerun finds the version by its fingerprint: killed between logging and recording, it is not logged twice.
    """
    settings = {
        "recommend": config.recommend.model_dump(mode="json", include=_FUSED_BY),
        "registry": config.registry.model_dump(mode="json"),
        "max_fusion_users": config.evaluate.max_fusion_users,
        "shares": [config.evaluate.head_share, config.evaluate.tail_share],
        "code": code_version(),
        "model_name": config.model_name,
        "seed": config.seed,
    }
    profiles = config.ingest.users is not None and bool(config.ingest.users.template)
    if profiles:
        settings["profile_users"] = config.embed.profile_users
    inputs = {
        "model": model_dir.name,
        **{name: context.content(name) for name in ("cooccurrence", TRANSITIONS, WEIGHTS, FACTORS)},
        "validation": context.events_content("validation"),
        "items": context.items_content(),
        **({"users": context.users_content()} if profiles else {}),
    }
    plan = StagePlan("register", settings, inputs, (), lambda facts: _stands(registry, config.model_name, facts))

    def body(_: Commit) -> tuple[list[Written], dict[str, Any]]:
        fit, profile = _fusion(config, context, model_dir, profiles)
        (model_dir / "fusion.json").write_text(json.dumps(fit.document(), indent=1))
        tags = _tags(config, context, fingerprint("register", settings, inputs), training)
        best = [[0, float(training.get("validation_recall") or 0.0)]]
        metrics = {"train_loss": training.get("loss_curve", []), "epoch_recall": training.get("recall_curve", [])}
        metrics["validation_recall"] = best
        metrics |= _probabilities(training)
        version = registry.log_version(config.model_name, model_dir, tags, metrics, _params(config))
        registry.set_alias(config.model_name, CHALLENGER, version)
        table = [[weights, round(ndcg, 6)] for weights, ndcg in sorted(fit.table, key=lambda row: -row[1])[:10]]
        return [], {
            "model_version": version,
            "model_name": config.model_name,
            "weights": fit.fusion.weights,
            "fusion": fit.fusion.document(),
            "tried": table,
            "new_items": fit.places.document(),
            "rerank": fit.rerank.document(),
            "profile": None if profile is None else profile.document(),
        }

    return context.run_stage(plan, body)


def _probabilities(training: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Figures of the calibrated probabilities, ``next_item_*`` and ``outcome_*``, each a single point."""
    named = {"next_item": training.get("calibration") or {}, "outcome": training.get("outcome") or {}}
    return {f"{name}_{key}": [[0, float(value)]] for name, found in named.items() for key, value in found.items()}


def _fusion(config: Config, context: Context, model_dir: Path, profiles: bool) -> tuple[FusionFit, ProfileFit | None]:
    """Weights on validation users, whose vectors come from fit histories only, and those of profile texts on new ones."""
    items = context.kept(item_vectors(context, model_dir, context.items()))
    past = histories(context.events("fit"), config.encoder.max_history, config.encoder.moments)
    asked = past.join(fusion_users(config, context).select("user_idx"), "user_idx", "left_semi")
    users = user_vectors(context, model_dir, asked, items)
    size = config.recommend.dimensions  # weights and chances are chosen by the vectors that lists are made with
    served = first_dimensions(items.select("item_idx", "vector"), size)
    fit = fit_fusion(config, context, served, first_dimensions(users.select("user_idx", "vector"), size))
    log.info("fusion weights chosen on validation", **fit.fusion.weights)
    if not profiles:
        return fit, None

    def by_profile(newcomers: DataFrame) -> DataFrame:
        rows = profile_rows(context.users(), model_dir).join(newcomers, "user_idx", "left_semi")
        return first_dimensions(encode_profiles(context, model_dir, rows), size)

    vectors = by_profile if config.embed.profile_users else None
    profile = fit_profiles(config, context, served, vectors, fit.fusion.half_life_days)
    if profile is not None:
        fit = replace(fit, fusion=replace(fit.fusion, profile=profile.weights))
    return fit, profile


def _stands(registry: Registry, model_name: str, facts: dict[str, Any]) -> bool:
    return any(v.version == facts.get("model_version") for v in registry.versions(model_name))


def trained_until(context: Context) -> datetime:
    """The instant that nothing fitted goes beyond: the start of the validation, or the end of a holdout by events."""
    return context.cutoff.fit_until if isinstance(context.cutoff, InstantCutoff) else context.cutoff.end


def split_of(context: Context) -> str:
    """The kind of split, and of one by a given table which: what another one holds out, a model may have been trained on."""
    split, cutoff = context.config.evaluate.split, context.cutoff
    return cutoff.name if split == "table" and isinstance(cutoff, HoldoutCutoff) else split


def _tags(config: Config, context: Context, identity: str, training: dict[str, Any]) -> dict[str, str]:
    last = context.events("fit").agg(F.max("ts")).first()
    return {
        "fingerprint": identity,
        "run_id": context.run_id,
        "namespace": context.namespace,
        "split": split_of(context),
        "trained_until": trained_until(context).isoformat(),
        "last_fit_event": str(last[0]) if last else "",
        **privacy_tags(training),
    }


def privacy_tags(training: dict[str, Any]) -> dict[str, str]:
    """What the encoder's weights promise users, where they promise anything."""
    found = training.get("privacy") or {}
    return {f"privacy_{name}": f"{found[name]:.6g}" for name in ("epsilon", "delta", "noise_multiplier") if name in found}


def _params(config: Config) -> dict[str, Any]:
    return {**config.encoder.model_dump(mode="json"), **config.train.model_dump(mode="json", exclude={"work_dir"})}


def resolve(config: Config, reference: str) -> ModelVersion:
    """The model version behind an alias or number (see ``Registry.resolve``)."""
    return Registry(config.tracking_uri, config.registry.experiment).resolve(config.model_name, reference)
