"""The recommend stage: one pass over the users with all partners, then neighbours and lists for unknown users."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.collaborative.stage import FACTORS, TRANSITIONS, WEIGHTS
from recsys_spark.config import Config
from recsys_spark.config.serving import RecommendSettings
from recsys_spark.context import Context
from recsys_spark.parallel import side_by_side
from recsys_spark.recommend.arrangement import PLAIN, Arrangement
from recsys_spark.recommend.arrow import OUTPUT
from recsys_spark.recommend.fallback import unknown_user_lists
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.list_files import COLUMNS, files_of, with_files
from recsys_spark.recommend.model import PROFILE, ModelRef, usable
from recsys_spark.recommend.neighbours.choose import Anchors, neighbour_lists
from recsys_spark.recommend.neighbours.users import USER_NEIGHBOURS, near_users
from recsys_spark.recommend.neighbours.whole_catalogue import NEIGHBOURS, neighbour_weights
from recsys_spark.recommend.prefix import first_dimensions
from recsys_spark.recommend.rules import Rules, read_rules
from recsys_spark.recommend.side import Recency, item_side
from recsys_spark.recommend.users import active_since, user_rows, with_targets, with_vectors
from recsys_spark.recommend.worker import LISTS, RANKS, SHORTFALLS, Side, Task, list_batches
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.instants import instant
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written, kept, slice_of
from recsys_spark.tables.task_files import Made, Staged, Target, partition_text, target_of
from recsys_spark.tables.visible import InstantCutoff, Rows

FALLBACK = "fallback_recommendations"
Part = tuple[list[Written], dict[str, Any]]  # tables, and figures for the report


@dataclass(frozen=True)
class _Run:
    """What one call of the stage works on."""

    config: Config
    context: Context
    model: ModelRef | None
    fusion: Fusion
    upstream: str
    targets: DataFrame | None
    neighbours: bool
    arrangement: Arrangement

    @property
    def settings(self) -> RecommendSettings:
        return self.config.recommend

    @property
    def vectors(self) -> str:
        """The namespace that embeddings are read from."""
        return (self.model and self.model.namespace) or self.upstream

    @property
    def user_neighbours(self) -> bool:
        """Whether they are asked for, and there are vectors to find them by."""
        return self.neighbours and self.targets is None and self.model is not None and self.settings.user_neighbours > 0


def run(
    config: Config,
    context: Context,
    model: ModelRef | None = None,
    fusion: Fusion | None = None,
    upstream: str | None = None,
    targets: DataFrame | None = None,
    neighbours: bool | None = None,
    arrangement: Arrangement = PLAIN,
) -> StageReport:
    """Write recommendations, shortfalls, fallback_recommendations, item_neighbours and, where ``recommend.user_neighbours``
    asks for them, user_neighbours of a namespace; with targets, recommendations and target_ranks.

    Args:
        model: the version whose vectors are read; None: no encoder takes part.
        fusion: how partners are fused; the caller passes that of the model version. None: the config's weights, or a prior.
        upstream: the namespace that co-occurrence and embeddings are read from (where the model does not say that they lie in
            another); default: the context's.
        targets: ``(user_id, user_idx, item_idx)``; their ranks among all allowed items go to target_ranks, and only their
            users get lists.
        neighbours: write those of items and users too; default: unless ``upstream`` is another namespace, as for baselines.
        arrangement: what becomes of the fused order before it is a list; default: nothing.

    Raises:
        ConfigError: weights that cannot be used. InputError: lists that cannot be read, or no item to recommend.
        MissingTableError: an earlier stage has not run.
    """
    chosen = usable(config.recommend, fusion, model is not None)
    work = _Run(
        config, context, model, chosen, upstream or context.namespace, targets, _wanted(neighbours, upstream), arrangement
    )
    rules = read_rules(config.recommend)
    return context.run_stage(_plan(work, rules), lambda commit: _write(work, rules, commit))


def _wanted(neighbours: bool | None, upstream: str | None) -> bool:
    return upstream is None if neighbours is None else neighbours


def _plan(work: _Run, rules: Rules) -> StagePlan:
    context = work.context
    inputs = {
        "fit": context.events_content("fit"),
        "history": context.events_content("history"),
        "items": context.items_content(),
        "users": context.users_content(),
        **{name: context.store.content(name, work.upstream) for name in ("cooccurrence", TRANSITIONS, WEIGHTS, FACTORS)},
    }
    if work.model is not None:
        inputs |= {table: context.store.content(table, work.vectors) for table in ("item_embeddings", "user_embeddings")}
    if work.targets is not None:
        inputs["targets"] = content_hash(work.targets.select("user_id", "user_idx", "item_idx"))
    settings = {
        "recommend": work.settings.model_dump(mode="json"),
        "search": work.config.search.model_dump(mode="json"),
        "fusion": work.fusion.document(),
        "measure": work.config.cooccurrence.rank_by,
        "shares": [work.config.evaluate.head_share, work.config.evaluate.tail_share],
        "separator": work.config.attribute_separator,
        "model": None if work.model is None else [work.model.name, work.model.version],
        "rules": rules.document(),
        "seed": work.config.seed,
        "as_of": context.as_of.isoformat(),
        "cutoff": context.cutoff.describe(),
        "neighbours": work.neighbours,
        "run_id": context.run_id if work.targets is None else "",  # readers find lists by it; measured ones by their namespace
        **work.arrangement.document(),
    }
    return StagePlan("recommend", settings, inputs, _outputs(work))


def _outputs(work: _Run) -> tuple[str, ...]:
    """Lists are measured (with targets) or served: only who is served needs what stands in for a list."""
    if work.targets is not None:
        return (LISTS, RANKS)
    near = (NEIGHBOURS, *((USER_NEIGHBOURS,) if work.user_neighbours else ())) if work.neighbours else ()
    return (LISTS, SHORTFALLS, FALLBACK, *near)


def _write(work: _Run, rules: Rules, commit: Commit) -> tuple[list[Written], dict[str, Any]]:
    side = _item_side(work, rules)
    rules.tell_unknown(side.catalogue.item_ids)
    broadcast = work.context.spark.sparkContext.broadcast(side)
    parts: list[Callable[[], Part]] = [lambda: _write_lists(work, broadcast, commit)]
    if work.neighbours and work.targets is None:
        parts.append(lambda: _write_neighbours(work, side, broadcast, commit))
    if work.user_neighbours:
        parts.append(lambda: _write_user_neighbours(work, commit))
    if work.targets is None:
        parts.append(lambda: _write_fallback(work, side, commit))
    try:
        done: list[Part] = side_by_side(*parts)
    finally:
        broadcast.unpersist()
    written = [table for tables, _ in done for table in tables]
    facts = {
        "weights": work.fusion.weights,
        "fusion": work.fusion.document(),
        **work.arrangement.document(),
        "partners": list(side.partners.present()),
        "num_items": len(side.catalogue),
        "num_allowed": int(side.catalogue.allowed.sum()),
        "model_version": None if work.model is None else work.model.version,
    }
    return written, facts | {name: fact for _, found in done for name, fact in found.items()}


def _item_side(work: _Run, rules: Rules) -> Side:
    # what was popular lately is known up to where lists start; a holdout by events hides validation from all but histories
    rows: Rows = "history" if isinstance(work.context.cutoff, InstantCutoff) else "fit"
    recency = Recency.at(work.fusion.half_life_days, rows)
    side = item_side(work.config, work.context, _vectors(work, "item_embeddings"), work.upstream, rules, recency)
    return side.fused_by(work.fusion, work.config.evaluate)


def _vectors(work: _Run, table: str) -> DataFrame | None:
    """Those of the model version; None without a model."""
    if work.model is None:
        return None
    rows = work.context.store.read(table, work.vectors)
    own = rows.where((F.col("model_name") == work.model.name) & (F.col("model_version") == work.model.version))
    return first_dimensions(own, work.settings.dimensions)


def _user_frame(work: _Run) -> DataFrame:
    settings, context = work.settings, work.context
    cutoff = context.cutoff
    last_moment = cutoff.history_until if isinstance(cutoff, InstantCutoff) else cutoff.end
    since = active_since(last_moment, settings.active_days)
    keys = settings.context_key, settings.segment_key
    events, users = context.events("history"), context.users()
    if work.targets is not None:
        measured = work.targets.select("user_idx").distinct()
        events, users = (frame.join(measured, "user_idx", "left_semi") for frame in (events, users))
    rows = user_rows(events, users, settings.history_items, settings.filter_seen, since, *keys)
    vectors = _vectors(work, "user_embeddings")
    named = with_targets(rows, work.targets, context.store.read("items", context.namespace))
    columns = ("user_id", "items", "seen", "vector", "profile_text", "context", "segment", "target_idx", "target_ids")
    tasks = 2 * context.spark.sparkContext.defaultParallelism
    return with_vectors(named, vectors).repartition(tasks, "user_idx").select(*columns)


def _task(work: _Run, weights: dict[str, float], k: int) -> Task:
    settings = work.settings
    return Task(
        weights,
        k,
        settings.decay,
        settings.max_reasons,
        settings.user_block,
        settings.item_tile,
        work.targets is not None,
        work.arrangement.new_items,
        tuple(work.fusion.by_history()) if work.fusion.segments else (),
        work.fusion.profile or PROFILE,
        work.arrangement.rerank,
    )


def _write_lists(work: _Run, broadcast: Any, commit: Commit) -> Part:
    make = functools.partial(list_batches, broadcast=broadcast, task=_task(work, work.fusion.weights, work.settings.k))
    made, target = Made(_user_frame(work), make, OUTPUT), _target(work, LISTS)
    with kept((made if target is None else with_files(made, LISTS, COLUMNS[LISTS], target)).frame) as rows:
        written = [_put(work, LISTS, rows, target, commit)]
        short, ranks = (rows.where(F.col("table") == name) for name in (SHORTFALLS, RANKS))
        user = F.col("owner_id").alias("user_id")
        if work.targets is None:
            frame = short.select(user, F.col("number").alias("num_items"), "reason")
            written.append(_replace(work, SHORTFALLS, frame, commit))
        else:
            frame = ranks.select(user, "item_id", "rank", F.col("number").alias("num_candidates"))
            written.append(work.context.store.replace(RANKS, work.context.namespace, frame, commit))
    return written, {}


def _write_neighbours(work: _Run, side: Side, broadcast: Any, commit: Commit) -> Part:
    task = _task(work, neighbour_weights(work.fusion.weights, side.partners), work.settings.neighbours_k)
    anchors = Anchors(work.config, side, broadcast, _vectors(work, "item_embeddings"), task)
    with neighbour_lists(anchors, work.context.spark) as (made, facts):
        target = _target(work, NEIGHBOURS)
        rows = (made if target is None else with_files(made, NEIGHBOURS, COLUMNS[NEIGHBOURS], target)).frame
        return [_put(work, NEIGHBOURS, rows, target, commit)], {"neighbours": facts}


def _target(work: _Run, table: str) -> Target | None:
    """Where tasks put the rows of a table; None where only Spark can write it."""
    folder = work.context.store.task_folder(table, work.context.namespace)
    return None if folder is None else target_of(folder, contract(table), _constants(work, table))


def _constants(work: _Run, table: str) -> dict[str, Any]:
    """What is the same in all rows of this run."""
    version = None if work.model is None else work.model.version
    return {"run_id": work.context.run_id} | ({"model_version": version} if table == LISTS else {})


def _put(work: _Run, table: str, rows: DataFrame, target: Target | None, commit: Commit) -> Written:
    """Replace this run's slice by what tasks have put into files, or by the rows of ``arrow.OUTPUT`` themselves."""
    if target is not None:
        staged = Staged(target.folder, files_of(rows), {"as_of": partition_text(work.context.as_of)})
        return work.context.store.replace(table, work.context.namespace, staged, commit, where=_slice(work))
    named = rows.where(F.col("table") == table).withColumns({n: F.lit(v) for n, v in _constants(work, table).items()})
    types = {column.name: column.dataType for column in contract(table).schema if column.name != "as_of"}
    frame = named.select(*[F.col(COLUMNS[table].get(name, name)).cast(kind).alias(name) for name, kind in types.items()])
    return _replace(work, table, frame, commit)


def _write_user_neighbours(work: _Run, commit: Commit) -> Part:
    vectors = _vectors(work, "user_embeddings")
    if vectors is None:
        raise ValueError("neighbours of users without a model")
    lists, facts = near_users(vectors, work.config)
    return [_replace(work, USER_NEIGHBOURS, lists, commit)], {"user_neighbours": facts}


def _write_fallback(work: _Run, side: Side, commit: Commit) -> Part:
    segments = side.segments if work.settings.segment_key == work.settings.context_key else None
    rows = list(unknown_user_lists(side.catalogue, side.partners, work.settings.k, segments, work.arrangement.rerank))
    frame = local_frame(work.context.spark, rows, "context string, rank int, item_id string, score double")
    return [_replace(work, FALLBACK, frame, commit)], {}


def _replace(work: _Run, table: str, frame: DataFrame, commit: Commit) -> Written:
    """Replace this run's slice of a table."""
    context = work.context
    stamped = frame.withColumn("run_id", F.lit(context.run_id)).withColumn("as_of", instant(context.as_of))
    return context.store.replace(table, context.namespace, stamped, commit, where=_slice(work))


def _slice(work: _Run) -> str:
    return slice_of(as_of=work.context.as_of.isoformat(), run_id=work.context.run_id)
