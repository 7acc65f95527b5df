"""Steps that run in more than one namespace: for the night itself, a scout of mined negatives, a champion's stand-in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys_spark.collaborative import stage as collaborative
from recsys_spark.config import Config
from recsys_spark.config.augment import AugmentSettings
from recsys_spark.config.base import Settings
from recsys_spark.config.learning import OF_THE_MACHINE, EncoderSettings, TrainSettings
from recsys_spark.config.signals import PairsSettings
from recsys_spark.context import Context
from recsys_spark.cooccurrence import stage as cooccurrence
from recsys_spark.embed.text_vectors import text_vectors
from recsys_spark.log import get_logger
from recsys_spark.mine import stage as mine
from recsys_spark.pairs import stage as pairs
from recsys_spark.register import stage as register
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.runs import StageReport
from recsys_spark.training import stage as train

log = get_logger(__name__)
_OF_A_RECIPE: dict[str, type[Settings]] = {
    "pairs": PairsSettings,
    "encoder": EncoderSettings,
    "train": TrainSettings,
    "augment": AugmentSettings,
}


def counted(config: Config, context: Context, measured_with_ease: bool | None = None) -> StageReport:
    """Co-occurrence, and beside it the partners in closed form (see ``collaborative.stage.run``)."""
    done = cooccurrence.run(config, context)
    collaborative.run(config, context, measured_with_ease)
    return done


def _counted_for_training(config: Config, context: Context) -> None:
    """What pairs and training read; lists of a model that is trained aside rest on others' counts."""
    (counted if config.train.ease_teaches else cooccurrence.run)(config, context)


def paired(config: Config, context: Context) -> StageReport:
    """Pairs and negatives. Mined ones need an encoder: one is trained before, without them, in a namespace of its own."""
    negatives = config.pairs.negatives
    if negatives.mined_last:
        without = config.pairs.model_copy(update={"negatives": negatives.model_copy(update={"mined_last": 0})})
        plain, scout = config.model_copy(update={"pairs": without}), replace(context, namespace=f"{context.namespace}/scout")
        _counted_for_training(plain, scout)
        pairs.run(plain, scout)
        mine.run(config, context, Path(train.run(plain, scout, text_vectors).facts["model_dir"]))
    return pairs.run(config, context)


def may_be_compared(champion: ModelVersion, evaluation: Context) -> bool:
    """Whether a model has seen nothing beyond this evaluation's cutoff, and was judged by the same split."""
    seen_until = datetime.fromisoformat(champion.tags["trained_until"])
    same_split = champion.tags.get("split") == register.split_of(evaluation)
    return same_split and seen_until <= register.trained_until(evaluation)


def stand_in(champion: ModelVersion, model_dir: Path, context: Context) -> tuple[ModelVersion, Path]:
    """A model by the champion's recipe, trained to this context's cutoff on the machines there are now, and its folder."""
    recipe = json.loads((model_dir / "recipe.json").read_text())["config"]
    log.info("the champion has seen this holdout: its recipe is trained to the cutoff", version=champion.version)
    sections: dict[str, Any] = {name: kind.model_validate(recipe.get(name, {})) for name, kind in _OF_A_RECIPE.items()}
    here = {name: getattr(context.config.train, name) for name in OF_THE_MACHINE}
    sections["train"] = sections["train"].model_copy(update=here)
    config = context.config.model_copy(update=sections)
    _counted_for_training(config, context)
    paired(config, context)
    trained = train.run(config, context, text_vectors)
    return replace(champion, model_name=f"{champion.model_name}-stand-in"), Path(trained.facts["model_dir"])
