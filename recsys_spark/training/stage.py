"""Stage train: writes the ranks' inputs, starts them, and reports what they learned."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.learning import EncoderSettings
from recsys_spark.context import Context
from recsys_spark.encoder.adapt import adapted_model
from recsys_spark.encoder.attributes import attribute_rows, dictionary, values_of
from recsys_spark.encoder.package import is_complete
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.errors import InputError, MissingTableError, PendingError
from recsys_spark.log import get_logger
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written
from recsys_spark.training.catalogue import Attributes, save_catalogue
from recsys_spark.training.inputs import TextVectors, collect_vectors, collect_weights, write_profiles, write_queries
from recsys_spark.training.job import TrainJob, check_losses, check_negatives
from recsys_spark.training.launcher import launch
from recsys_spark.training.metrics import loss_curve, masked_per_epoch, read_metrics, recall_curve
from recsys_spark.training.teacher import save_weights

log = get_logger(__name__)
_TABLES = ("training_pairs", "training_sequences", "validation_sequences")
_EXPLICIT = "training_negatives"  # where train.explicit_share is above 0
_EASE = "item_weights"  # where train.teacher asks for it
_OUTCOMES = ("training_outcomes", "validation_outcomes")  # where train.outcome_share is
_NO_RESULT = {
    "start_ranks",
    "max_restarts",
    "timeout_seconds",
    "checkpoint_every_steps",
    "work_dir",
}  # change nothing in the model


def run(config: Config, context: Context, text_vectors: TextVectors) -> StageReport:
    """Train the encoder on this namespace's training tables.

    Everything lies in ``work_dir/<namespace>/<fingerprint>/``, so a run that was killed finds its checkpoints.
    ``facts["model_dir"]`` is the model folder; its name holds the fingerprint.

    Raises:
        MissingTableError: EASE is to teach, and the namespace has no weights of it.
        PendingError: ``train.start_ranks`` is false and the ranks have not finished; all they need is written.
    """
    if config.train.ease_teaches and context.store.rows(_EASE, context.namespace) == 0:
        raise MissingTableError(
            "train.teacher = 'ease'",
            f"table '{_EASE}' of {context.namespace} has no rows",
            "weights of EASE",
            "run cooccurrence with collaborative.ease.enabled = 'on', or set teacher = 'text'",
        )
    settings = {
        "encoder": config.encoder.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=_NO_RESULT),
        "augment": config.augment.model_dump(mode="json"),
        "seed": config.seed,
    }
    tables = (*_tables(config), _EASE) if config.train.ease_teaches else _tables(config)
    inputs = {table: context.content(table) for table in tables} | {"items": context.items_content()}
    inputs["known_items"] = content_hash(_fitted(context))
    if config.train.profile_share > 0:
        inputs["users"] = context.users_content()
    plan = StagePlan("train", settings, inputs, (), _stands)

    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        job = _job(config, context, commit.fingerprint)
        if not job.is_finished:
            if config.train.start_ranks or not job.path.exists():  # else ranks that others started may be reading
                job.path.unlink(missing_ok=True)  # where it is, the inputs are whole
                adapted, within = _adapted(config, context)
                job = _job(adapted, within, commit.fingerprint)
                _write_inputs(adapted, within, job, text_vectors)
                job.save()
            if not config.train.start_ranks:
                raise _pending(job)
            launch(job.path, config.train, context.spark)
        return [], _facts(job)

    return context.run_stage(plan, body)


def _pending(job: TrainJob) -> PendingError:
    ranks = f"torchrun --nproc-per-node {job.train.ranks} -m recsys_spark.training.run {job.path}"
    what = "no result of the ranks yet (train.start_ranks = false)"
    return PendingError("train", what, "", f"start them where {job.folder} can be reached: {ranks}; then run this again")


def _stands(facts: dict[str, Any]) -> bool:
    return is_complete(facts.get("model_dir", ""))


def _job(config: Config, context: Context, fingerprint: str) -> TrainJob:
    folder = config.work_dir / context.namespace / fingerprint
    files = {table: tuple(context.store.files(table, context.namespace)) for table in _tables(config)}
    return TrainJob(
        folder=str(folder.absolute()),
        fingerprint=fingerprint,
        model_dir=str(folder.absolute() / f"model-{fingerprint}"),
        seed=config.seed,
        encoder=config.encoder,
        train=config.train,
        augment=config.augment,
        sequence_files=files["training_sequences"],
        pair_files=files["training_pairs"],
        validation_files=files["validation_sequences"],
        explicit_files=files.get(_EXPLICIT, ()),
        outcome_files=files.get(_OUTCOMES[0], ()),
        validation_outcome_files=files.get(_OUTCOMES[1], ()),
        recipe={"config": config.model_dump(mode="json"), "cutoff": context.cutoff.describe()},
    )


def _adapted(config: Config, context: Context) -> tuple[Config, Context]:
    """Both with the text model that training starts from: another one where the settings ask to adapt it."""
    if config.encoder.adapt == "none":
        return config, context
    texts = [row["text"] for row in context.items().where("has_text").select("text").distinct().collect()]
    log.info("train: adapting the text model", how=config.encoder.adapt, texts=len(texts))
    settings = adapted_model(config.encoder, texts, config.seed, config.work_dir / "adapted")
    changed = config.model_copy(update={"encoder": settings})
    return changed, replace(context, config=changed)


def _tables(config: Config) -> tuple[str, ...]:
    explicit = (_EXPLICIT,) if config.train.explicit_share > 0 else ()
    return (*_TABLES, *explicit, *(_OUTCOMES if config.train.outcome_share > 0 else ()))


def _fitted(context: Context) -> DataFrame:
    """Items with an event that may be fitted on, and how many: ``item_idx, num_events``."""
    return context.events("fit").groupBy("item_idx").agg(F.count(F.lit(1)).alias("num_events"))


def _write_inputs(config: Config, context: Context, job: TrainJob, text_vectors: TextVectors) -> None:
    """The items, in order of item_idx; those with a fit event get a row of the id embedding, in the same order."""
    columns = ["item_idx", "item_id", "text", "category", "attributes"]
    items = context.items().select(*columns).toPandas().sort_values("item_idx", ignore_index=True)
    if items.empty:
        raise InputError("items", "no visible item", "at least one", "check ingest.items and as_of")
    check_negatives(config.encoder, config.train, len(items))
    check_losses(config.encoder, config.train)
    item_idx = items["item_idx"].to_numpy(np.int32)
    fitted = _fitted(context).toPandas().set_index("item_idx")["num_events"]
    known = np.isin(item_idx, fitted.index.to_numpy(np.int32))
    num_events = fitted.reindex(item_idx, fill_value=0).to_numpy(np.int64)
    if config.train.privacy is not None:  # which items were met, and how often, is not told of
        known, num_events = np.ones(len(items), bool), np.ones(len(items), np.int64)
    id_rows = np.where(known, np.cumsum(known) - 1, -1)
    item_ids = items["item_id"][known].tolist()
    log.info("train: inputs", items=len(items), known_items=len(item_ids))
    if config.train.ease_teaches:
        job.inputs.mkdir(parents=True, exist_ok=True)
        save_weights(job.inputs, collect_weights(context.read(_EASE), item_idx))
    also: dict[str, Any] = {"num_events": num_events, "attributes": _attributes(config.encoder, items)}
    if job.trains_text:
        encoder = TextEncoder.load(config.encoder.text_model, config.encoder.max_tokens, "float32")
        save_catalogue(job.inputs, item_idx, id_rows, item_ids, tokens=encoder.tokenise(items["text"].tolist()), **also)
        return
    vectors = collect_vectors(text_vectors(context, context.items()), item_idx)
    save_catalogue(job.inputs, item_idx, id_rows, item_ids, text_vectors=vectors, **also)
    if config.train.profile_share > 0:
        write_profiles(config, context, job.inputs, text_vectors)
    if config.encoder.query_key is not None:
        write_queries(config, context, job.inputs, text_vectors)


def _attributes(settings: EncoderSettings, items: pd.DataFrame) -> Attributes:
    """The dictionary of the named attributes' values, and each item's rows in it."""
    names = settings.attributes
    columns = zip(items["category"], items["attributes"], strict=True)
    values = [values_of(category, dict(attributes or {}), names) for category, attributes in columns] if names else []
    known = dictionary(values, settings.attribute_min_items)
    width = settings.max_attribute_values if known else 0
    rows = attribute_rows(values or [[]] * len(items), {value: row for row, value in enumerate(known)}, width)
    return known, rows


def _facts(job: TrainJob) -> dict[str, Any]:
    lines = read_metrics(job.metrics)
    result: dict[str, Any] = json.loads(job.result.read_text(encoding="utf-8"))
    curves = {"loss_curve": loss_curve(lines), "recall_curve": recall_curve(lines)}
    return {"model_dir": job.model_dir, **result, **curves, "masked_per_epoch": masked_per_epoch(lines)}
