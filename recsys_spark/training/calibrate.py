"""Probabilities of the trained model, calibrated on validation rows by rank 0: which item is next, what comes of an event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from recsys_spark.encoder.calibration import Calibration, calibrate
from recsys_spark.encoder.outcome_calibration import OutcomeCalibration, calibrate_outcomes
from recsys_spark.log import get_logger
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.batches import validation_outcomes, validation_sequences
from recsys_spark.training.feed.profiles import load_profiles, profile_figures
from recsys_spark.training.job import TrainJob
from recsys_spark.training.step.outcomes import outcome_logits
from recsys_spark.training.step.train_step import TrainStep
from recsys_spark.training.validate import all_item_vectors, masked_scores

log = get_logger(__name__)
_MAX_SCORES = 1 << 24  # of users that are looked at; more of them are thinned out evenly


def calibrations(model: TrainStep, job: TrainJob, catalogue: Catalogue) -> dict[str, Any]:
    """Figures of the training's result: ``calibration`` of the next item and, with an outcome head, ``outcome``; each is
    absent where validation does not tell. The head is calibrated in place. With a profile tower, ``profile`` tells what it
    finds for held-out users."""
    alone = Ranks(0, 1, catalogue.device, None, None)
    model.eval()
    vectors = functools.cache(lambda: all_item_vectors(model, catalogue, alone))  # where any row asks for them
    found = {"calibration": _next_item(model, job, catalogue, vectors), "outcome": _outcome(model, job, catalogue, vectors)}
    figures = {name: figures.document() for name, figures in found.items() if figures is not None}
    if job.train.profile_share > 0:
        profiles = load_profiles(job.inputs, catalogue)
        figures["profile"] = profile_figures(model.encoder, vectors(), profiles, catalogue, job.train.validation_k)
    return figures


def _next_item(model: TrainStep, job: TrainJob, catalogue: Catalogue, vectors: Callable[[], Tensor]) -> Calibration | None:
    """Of all ranks' validation sequences; None without any whose item can be found.

    Candidates are all items outside of the history, as in validation recall.
    """
    rows = validation_sequences(job, catalogue, 0, 1)
    if rows is None:
        return None
    every = -(-len(rows.items) // max(1, _MAX_SCORES // len(vectors())))
    scores, target, possible = masked_scores(model.encoder, vectors(), rows.thinned(every))
    return calibrate(scores[possible], target[possible], float(model.encoder.temperature))


def _outcome(model: TrainStep, job: TrainJob, catalogue: Catalogue, vectors: Callable[[], Tensor]) -> OutcomeCalibration | None:
    """Of the validation outcomes; None without a head, or too few events of a kind, in which case logits stay as learned."""
    head = model.encoder.outcome
    if head is None:
        return None
    rows = validation_outcomes(job, catalogue)
    found = None if rows is None else calibrate_outcomes(outcome_logits(model.encoder, vectors(), rows), rows.happened > 0.5)
    if found is None:
        log.warning("outcomes are not calibrated: validation needs two events of each kind", table="validation_outcomes")
        return None
    head.calibrate(found.slope, found.offset)
    return found
