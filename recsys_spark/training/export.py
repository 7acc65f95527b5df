"""Rank 0's last act: the model folder and the figures of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import save_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.files import write_json
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.job import TrainJob


def export(
    job: TrainJob, encoder: Encoder, text_encoder: TextEncoder | None, catalogue: Catalogue, result: dict[str, Any]
) -> None:
    """Write the model folder (whole or not at all), then ``result.json``, whose presence says that all is done."""
    settings = job.encoder
    text = text_encoder or TextEncoder.load(settings.text_model, settings.max_tokens, settings.dtype)
    recipe = job.recipe | {"training": result, "fingerprint": job.fingerprint}
    Path(job.model_dir).parent.mkdir(parents=True, exist_ok=True)
    known, values = catalogue.item_ids, catalogue.attribute_values
    calibrated = result.get("calibration", {}).get("temperature")
    save_model(job.model_dir, encoder, text, known, float(encoder.temperature), recipe, values, calibrated)
    write_json(job.result, result)
