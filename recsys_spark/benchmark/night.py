"""The stages of a night's evaluation in a namespace of their own: how every protocol is run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.night import BASELINES, Night
from recsys_spark.recommend.arrangement import Arrangement
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.model import ModelRef
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.runs import StageReport
from recsys_spark.tables.store import Commit
from recsys_spark.tables.visible import HoldoutCutoff

ENCODER, NO_PLACES = "encoder", "fused-without-places"  # these go into namespaces
STAGES = ("cooccurrence", "pairs", "train", "embed", "recommend", "evaluate")


class BenchmarkNight(Night):
    """Never published.

    Args:
        namespace: ``benchmark/<name>``.
        holdout: the held-out events ``(event_id, role)`` of all events.
        places: also measure the fused lists without places for new items.
        fusion: how to fuse, chosen elsewhere; None: as the model version has it.
    """

    def __init__(
        self,
        config: Config,
        spark: SparkSession,
        namespace: str,
        holdout: Callable[[DataFrame], DataFrame],
        places: bool = False,
        fusion: Fusion | None = None,
    ) -> None:
        super().__init__(config, spark)
        self._namespace, self._holdout, self._places, self._given = namespace, holdout, places, fusion

    @property
    def eval_namespace(self) -> str:
        return self._namespace

    @cached_property
    def evaluation(self) -> Context:
        chosen = self._holdout(self.store.read("events", "live"))
        self.store.replace("holdout", self.eval_namespace, chosen, Commit(self.run_id, "holdout", self.run_id))
        holdout = self.store.read("holdout", self.eval_namespace)
        cutoff = HoldoutCutoff(holdout, self.config.as_of, self.eval_namespace)
        return Context(self.spark, self.store, self.config, self.eval_namespace, cutoff, self.run_id)

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Each partner alone."""
        alone = ["text", *(["ease"] if self.config.collaborative.ease.enabled != "off" else [])]
        alone += ["transitions"] if self.config.collaborative.transitions.enabled else []
        alone += ["als"] if self.config.collaborative.als.enabled else []
        return {**BASELINES, **{name: {name: 1.0} for name in alone if name in self.config.recommend.partners}}

    @property
    def further_systems(self) -> tuple[str, ...]:
        alone = (ENCODER,) if "encoder" in self.config.recommend.partners else ()
        return (*alone, *((NO_PLACES,) if self._places else ()))

    def _fusion(self, model: ModelVersion | None) -> tuple[Fusion, Arrangement]:
        fusion, arrangement = super()._fusion(model)
        return self._given or fusion, arrangement

    def _opponent(self, challenger: ModelVersion | None) -> ModelVersion | None:
        """None: each seed is judged by itself. The model of the seed before would be trained once more, as its stand-in."""
        return None

    def _baselines(self, targets: DataFrame) -> None:
        """Each with the memory of the past that suits it best on validation: no rival is made weaker than it is."""
        chosen = self._fusion(self._model("eval"))[0]
        for name, weights in self.baselines.items():
            fusion = Fusion(weights, decays=chosen.decays, half_life_days=chosen.half_life_days)
            self._alone(name, None, fusion, targets)

    def recommend(self, namespace: str) -> StageReport:
        done = super().recommend(namespace)
        targets, challenger = self._targets(), self._model("eval")
        model = None if challenger is None else ModelRef(challenger.model_name, challenger.version)
        fusions = {ENCODER: Fusion({"encoder": 1.0}), NO_PLACES: self._fusion(challenger)[0]}
        for name in self.further_systems:
            self._alone(name, model, fusions[name], targets)
        return done
