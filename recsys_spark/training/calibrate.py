"""Next-item probabilities of the trained model, calibrated on the validation sequences by rank 0."""

from __future__ import annotations

from recsys_spark.encoder.calibration import Calibration, calibrate
from recsys_spark.training.batches import validation_sequences
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.job import TrainJob
from recsys_spark.training.step import TrainStep
from recsys_spark.training.validate import all_item_vectors, masked_scores

_MAX_SCORES = 1 << 24  # of users that are looked at; more of them are thinned out evenly


def calibrated(model: TrainStep, job: TrainJob, catalogue: Catalogue) -> Calibration | None:
    """Figures of all ranks' validation sequences; None without any whose item can be found.

    Candidates are all items outside of the history, as in validation recall.
    """
    alone = Ranks(0, 1, catalogue.device, None, None)
    rows = validation_sequences(job, catalogue, alone.rank, alone.world)
    if rows is None:
        return None
    model.eval()
    vectors = all_item_vectors(model, catalogue, alone)
    every = -(-len(rows.items) // max(1, _MAX_SCORES // len(vectors)))
    scores, target, possible = masked_scores(model.encoder, vectors, rows.thinned(every))
    return calibrate(scores[possible], target[possible], float(model.encoder.temperature))
