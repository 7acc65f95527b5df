"""A night: what each of its steps does, which namespace and cutoff each sees, and what passes from one to the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.code_version import code_version
from recsys_spark.collaborative.stage import measured_ease
from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.embed import stage as embed
from recsys_spark.embed.text_vectors import text_vectors
from recsys_spark.errors import MachineError, MissingTableError
from recsys_spark.evaluate import stage as evaluate
from recsys_spark.evaluate.gate import GateDecision
from recsys_spark.evaluate.split import cutoff_for
from recsys_spark.evaluate.targets import check_test, held_out_targets
from recsys_spark.ingest import stage as ingest
from recsys_spark.log import get_logger
from recsys_spark.night_names import run_id_of
from recsys_spark.publish import stage as publish
from recsys_spark.recommend import stage as recommend
from recsys_spark.recommend.arrangement import Arrangement
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.model import ModelRef
from recsys_spark.register import stage as register
from recsys_spark.registry import CHAMPION, REPLACED, ModelVersion, Registry
from recsys_spark.report import stage as report
from recsys_spark.steps import counted, may_be_compared, paired, stand_in
from recsys_spark.tables.runs import StageReport, find_run
from recsys_spark.tables.store import Store
from recsys_spark.tables.visible import InstantCutoff
from recsys_spark.training import stage as train

log = get_logger(__name__)
BASELINES: dict[str, dict[str, float]] = {"cooccurrence": {"cooccurrence": 1.0}, "popularity": {"popularity": 1.0}}


class Night:
    """One run of everything for one ``as_of``. Each step can also run alone, in another process, in this order."""

    def __init__(self, config: Config, spark: SparkSession) -> None:
        self.config, self.spark = config, spark
        self.store = Store(spark, config.warehouse)

    # -- what the steps share ---------------------------------------------------------------------------------

    @cached_property
    def run_id(self) -> str:
        """Same settings, code and visible inputs: the same id. It names the namespace ``eval/<run_id>``."""
        live = self._unnamed
        seen = [live.events_content("history"), live.items_content(), live.users_content()]
        shown = live.shown_content("history")
        seen += [shown] if shown else []
        parts = [self.config.identity(), code_version(), *seen]
        return run_id_of(self.config.as_of, hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest())

    @property
    def eval_namespace(self) -> str:
        return f"eval/{self.run_id}"

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Systems that the fused lists are measured against: name -> partner weights."""
        return BASELINES

    @property
    def further_systems(self) -> tuple[str, ...]:
        """Other systems whose lists lie beside those of the baselines, to be measured with them."""
        return ()

    @cached_property
    def live(self) -> Context:
        return replace(self._unnamed, run_id=self.run_id)

    @cached_property
    def _unnamed(self) -> Context:
        """``live`` before its run id is known, which is made of what it sees."""
        return self._context("live", "unknown")

    @cached_property
    def evaluation(self) -> Context:
        cutoff = cutoff_for(self.config, self.store, self.eval_namespace)
        return Context(self.spark, self.store, self.config, self.eval_namespace, cutoff, self.run_id)

    def context(self, namespace: str) -> Context:
        """``live`` or ``eval``."""
        return self.live if namespace == "live" else self.evaluation

    def release(self) -> None:
        """Let go of the frames held for this night."""
        for name in ("_unnamed", "evaluation"):
            if name in self.__dict__:
                self.__dict__[name].release()

    def _context(self, namespace: str, run_id: str) -> Context:
        as_of = self.config.as_of
        return Context(self.spark, self.store, self.config, namespace, InstantCutoff(as_of, as_of, as_of), run_id)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.config.tracking_uri, self.config.registry.experiment)

    def facts(self, stage: str, namespace: str | None = None) -> dict[str, Any]:
        """What the newest finished run of ``stage`` reported.

        Raises:
            MissingTableError: that stage has not run.
        """
        where = namespace or self.eval_namespace
        found = self._recorded(stage, where)
        if found is None:
            raise MissingTableError(f"stage '{stage}'", f"has not run in {where}", do=f"run 'recsys-spark {stage}' first")
        return found

    def _recorded(self, stage: str, namespace: str) -> dict[str, Any] | None:
        row = find_run(self.store, namespace, stage)
        return None if row is None else json.loads(row["facts"] or "{}")

    # -- the steps --------------------------------------------------------------------------------------------

    def ingest(self, namespace: str = "live") -> StageReport:
        return ingest.run(self.config, self._context("live", f"ingest-{self.config.as_of:%Y%m%dT%H%M%S}"))

    def cooccurrence(self, namespace: str) -> StageReport:
        if namespace == "eval":
            check_test(self.evaluation)
        facts = None if namespace == "eval" else self._recorded("collaborative", self.eval_namespace)
        return counted(self.config, self.context(namespace), None if facts is None else measured_ease(facts))

    def pairs(self, namespace: str = "eval") -> StageReport:
        return paired(self.config, self.evaluation)

    def train(self, namespace: str = "eval") -> StageReport:
        trained = train.run(self.config, self.evaluation, text_vectors)
        register.run(self.config, self.evaluation, self.registry, Path(trained.facts["model_dir"]), trained.facts)
        return trained

    def without_model(self) -> None:
        """What later steps do without a model, done ahead: they find it standing."""
        self._baselines(self._targets())
        with suppress(MachineError):  # the ranks have the memory: it is done in its own time
            self.cooccurrence("live")

    def embed(self, namespace: str) -> StageReport | None:
        model = self._model(namespace)
        if model is None:
            return None
        measured = self._targets() if namespace == "eval" else None
        return embed.run(self.config, self.context(namespace), model, self._model_dir(model), measured)

    def recommend(self, namespace: str) -> StageReport:
        if namespace == "live":
            model = self._model("live")
            fusion, arrangement = self._fusion(model)
            config = self.config if model else with_partners(self.config, fusion.weights)
            return recommend.run(config, self.live, _ref(model), fusion, arrangement=arrangement)
        targets = self._targets()
        challenger = self._model("eval")
        fusion, arrangement = self._fusion(challenger)
        done = recommend.run(
            self.config, self.evaluation, _ref(challenger), fusion, targets=targets, neighbours=False, arrangement=arrangement
        )
        self._baselines(targets)
        champion = self._opponent(challenger)
        if champion is not None:
            self._champion(champion, targets)
        return done

    def evaluate(self, namespace: str = "eval") -> StageReport:
        """Metrics, the gate, and on a pass the champion alias."""
        others = (*self.baselines, *self.further_systems)
        systems = {"fused": self.eval_namespace} | {name: self._system_namespace(name) for name in others}
        challenger = self._model("eval")
        champion = self._opponent(challenger)
        if champion is not None:
            systems[CHAMPION] = self._system_namespace(CHAMPION)
        done = evaluate.run(self.config, self.evaluation, systems)
        decision = self.gate()
        if decision.passed and challenger is not None:
            self._promote(challenger)
        return done

    def publish(self, namespace: str = "live") -> Path:
        """The one commit that makes the night visible, then the report."""
        model = self._model("live")
        publish.run(self.config, self.live, model.version if model else None, self.gate().reason)
        return report.write_report(self.config, self.live, self.eval_namespace, self.gate())

    def gate(self) -> GateDecision:
        """The verdict on this night's challenger, from table metrics."""
        return evaluate.decide(self.config, self.evaluation)

    # -- models -----------------------------------------------------------------------------------------------

    def _model(self, namespace: str) -> ModelVersion | None:
        """In eval the challenger of this run; in live the champion, or None where none has passed the gate yet."""
        name = self.config.model_name
        if namespace == "eval":
            return self.registry.resolve(name, str(self.facts("register")["model_version"]))
        return self.registry.holder(name, CHAMPION)

    def _model_dir(self, model: ModelVersion) -> Path:
        return self.registry.download(model, self.config.work_dir / "downloads" / f"{model.model_name}-{model.version}")

    def _fusion(self, model: ModelVersion | None) -> tuple[Fusion, Arrangement]:
        """How partners are fused (weights of the config come first) and lists arranged, as the model version has it.

        Without a model see ``_without_model``.
        """
        if model is None:
            return self._without_model(), Arrangement.without_model(self.config.recommend)
        document = json.loads((self._model_dir(model) / "fusion.json").read_text())
        fixed = self.config.recommend.weights
        fusion = Fusion.from_document(document)
        if fixed:
            fusion = Fusion(fixed, profile=fusion.profile, half_life_days=fusion.half_life_days)
        return fusion, Arrangement.from_document(document, self.config.recommend)

    def _without_model(self) -> Fusion:
        """Co-occurrence alone: the config's weights may ask for an encoder that is not there. What profile texts are worth, and
        how soon popularity forgets, holds without one, too, as this night's validation has it."""
        chosen = self._recorded("register", self.eval_namespace) or {}
        profile, fusion = chosen.get("profile") or {}, chosen.get("fusion") or {}
        weights = BASELINES["cooccurrence"]
        return Fusion(weights, profile=profile.get("weights"), half_life_days=fusion.get("half_life_days"))

    def _opponent(self, challenger: ModelVersion | None) -> ModelVersion | None:
        """The champion the challenger meets; after its own promotion still the one it replaced, so that reruns agree."""
        champion = self._model("live")
        if champion is None or challenger is None:
            return None
        if champion.version == challenger.version:
            replaced = champion.tags.get(REPLACED, "")
            return self.registry.resolve(self.config.model_name, replaced) if replaced else None
        return champion

    def _promote(self, challenger: ModelVersion) -> None:
        now = publish.current(self.store)
        if now is not None and publish.is_older(self.config.as_of, now):
            log.warning(
                "not promoted: readers see a later night already", model=challenger.model_name, version=challenger.version
            )
        elif CHAMPION not in challenger.aliases:
            self.registry.promote(challenger)
            log.info("promoted", model=challenger.model_name, version=challenger.version)

    # -- the other systems of the comparison ------------------------------------------------------------------

    def _targets(self) -> DataFrame:
        return held_out_targets(self.evaluation)

    def _system_namespace(self, name: str) -> str:
        """Of another system's lists; below ``systems/``, for a namespace must not lie inside a table of the same name."""
        return f"{self.eval_namespace}/systems/{name}"

    def _nested(self, name: str) -> Context:
        return Context(
            self.spark,
            self.store,
            self.config,
            self._system_namespace(name),
            self.evaluation.cutoff,
            self.run_id,
            self.evaluation.cache,
        )

    def _baselines(self, targets: DataFrame) -> None:
        for name, weights in self.baselines.items():
            self._alone(name, None, Fusion(weights), targets)

    def _alone(self, name: str, model: ModelRef | None, fusion: Fusion, targets: DataFrame) -> None:
        config = with_partners(self.config, fusion.weights)
        recommend.run(config, self._nested(name), model, fusion, upstream=self.eval_namespace, targets=targets)

    def _champion(self, champion: ModelVersion, targets: DataFrame) -> None:
        """The champion's lists for the same users, from the challenger's counts and vectors in a namespace of its own.

        One trained beyond this cutoff has seen the holdout: its recipe, trained to this cutoff, stands in for it.
        """
        context, model_dir = self._nested(CHAMPION), self._model_dir(champion)
        fusion, arrangement = self._fusion(champion)
        if not may_be_compared(champion, self.evaluation):
            champion, model_dir = stand_in(champion, model_dir, context)
        embed.run(context.config, context, champion, model_dir, targets)
        model = ModelRef(champion.model_name, champion.version, context.namespace)
        recommend.run(self.config, context, model, fusion, self.eval_namespace, targets, arrangement=arrangement)


def with_partners(config: Config, names: Iterable[str]) -> Config:
    """These partners take part even where ``recommend.partners`` leaves them out of the fused lists: what a challenger has
    to beat is measured all the same, and stands in where no model is."""
    partners = config.recommend.partners
    missing = [name for name in names if name not in partners]
    if not missing:
        return config
    return config.model_copy(update={"recommend": config.recommend.model_copy(update={"partners": [*partners, *missing]})})


def _ref(model: ModelVersion | None) -> ModelRef | None:
    return None if model is None else ModelRef(model.model_name, model.version)


@contextmanager
def closing_night(night: Night) -> Iterator[None]:
    """Release what the night holds, however it ends."""
    try:
        yield
    finally:
        night.release()
