"""The order for one training run: everything that a rank needs to know, as one JSON file in the job's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.package import is_complete
from recsys_spark.errors import ConfigError, TrainingError
from recsys_spark.files import write_json

MAX_TRAINED_TEXT_CATALOGUE = 5_000  # items whose texts can all be encoded, with gradients, in every step
MAX_CATALOGUE = 20_000  # items that every step's states are compared with where negatives = "auto"


@dataclass(frozen=True)
class TrainJob:
    """One training run. ``folder`` is on storage that all ranks see; the files are exact data files of pinned versions.

    Args:
        folder: holds ``inputs/``, ``checkpoints/``, ``metrics.jsonl``, ``result.json`` and the ranks' errors.
        fingerprint: checkpoints of another one are not continued.
        model_dir: where rank 0 exports the model.
        sequence_files, pair_files, validation_files, explicit_files, outcome_files, validation_outcome_files: URLs of Parquet
            files; empty where there are no rows.
        recipe: goes into the exported model's ``recipe.json``.
    """

    folder: str
    fingerprint: str
    model_dir: str
    seed: int
    encoder: EncoderSettings
    train: TrainSettings
    sequence_files: tuple[str, ...]
    pair_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    explicit_files: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    outcome_files: tuple[str, ...] = ()
    validation_outcome_files: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return Path(self.folder) / "job.json"

    @property
    def inputs(self) -> Path:
        return Path(self.folder) / "inputs"

    @property
    def checkpoints(self) -> Path:
        return Path(self.folder) / "checkpoints"

    @property
    def metrics(self) -> Path:
        return Path(self.folder) / "metrics.jsonl"

    @property
    def result(self) -> Path:
        return Path(self.folder) / "result.json"

    @property
    def is_finished(self) -> bool:
        """Whether the result is written and its model is where it says."""
        return self.result.exists() and is_complete(self.model_dir)

    def error_file(self, rank: int) -> Path:
        return Path(self.folder) / f"rank-{rank}.err"

    @property
    def trains_text(self) -> bool:
        return self.encoder.text_training != "frozen"

    def save(self) -> Path:
        """Write ``job.json`` into the job's folder."""
        document = asdict(self) | {
            "encoder": self.encoder.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "augment": self.augment.model_dump(mode="json"),
        }
        write_json(self.path, document)
        return self.path

    @classmethod
    def load(cls, path: str | Path) -> TrainJob:
        """Read what ``save`` wrote.

        Raises:
            TrainingError: no such file.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TrainingError(str(path), "no such file", "a job.json", "the train stage writes it") from None
        document["encoder"] = EncoderSettings.model_validate(document["encoder"])
        document["train"] = TrainSettings.model_validate(document["train"])
        document["augment"] = AugmentSettings.model_validate(document["augment"])
        for name in [key for key in document if key.endswith("_files")]:
            document[name] = tuple(document[name])
        return cls(**document)


def settled(encoder: EncoderSettings, train: TrainSettings, num_items: int) -> TrainSettings:
    """The settings with ``negatives = "auto"`` decided: a step's time grows with the items that it encodes and compares.

    A catalogue that is too large is drawn from by popularity, with the correction of a sampled softmax; where texts are
    learned too, the batch's own items stand in for it.
    """
    if train.negatives != "auto":
        return train
    if encoder.text_training != "frozen":
        kind = "catalogue" if num_items <= MAX_TRAINED_TEXT_CATALOGUE else "in_batch"
    else:
        drawn = "popularity" if train.privacy is None else "uniform"  # what is drawn would tell how popular it is
        kind = "catalogue" if num_items <= MAX_CATALOGUE else drawn
    loss = "sampled_softmax" if kind == "popularity" and train.loss == "softmax" else train.loss
    return train.model_copy(update={"negatives": kind, "loss": loss})


def check_negatives(encoder: EncoderSettings, train: TrainSettings, num_items: int) -> None:
    """Refuse to encode all texts of a large catalogue, with gradients, in every step.

    Raises:
        ConfigError: text is trained against the whole catalogue and that is too large.
    """
    trains_text = encoder.text_training != "frozen"
    if trains_text and train.negatives == "catalogue" and num_items > MAX_TRAINED_TEXT_CATALOGUE:
        raise ConfigError(
            "[train]",
            f"negatives = 'catalogue' with {num_items} items while the text encoder is trained",
            f"at most {MAX_TRAINED_TEXT_CATALOGUE} items",
            "set negatives = 'in_batch', or encoder.text_training = 'frozen'",
        )


def check_losses(encoder: EncoderSettings, train: TrainSettings) -> None:
    """Refuse losses and masks that this encoder cannot be trained with.

    Raises:
        ConfigError: a prefix is longer than the vectors, or texts are to judge while they are being learned.
    """
    longest = max(train.matryoshka_dims, default=0)
    if longest > encoder.dimension:
        found = f"matryoshka_dims has {longest}, encoder.dimension is {encoder.dimension}"
        raise ConfigError("[train]", found, "prefixes no longer than the vectors", "change one of them")
    by_text = {"loss": train.teacher == "text", "pair_loss": True}
    judged = [f"{key} = 'distillation'" for key, texts in by_text.items() if texts and getattr(train, key) == "distillation"]
    judged += [f"mask_guide = '{train.mask_guide}'"] if train.mask_guide != "off" else []
    if judged and encoder.text_training != "frozen":
        found = f"{judged[0]} with text_training = '{encoder.text_training}'"
        raise ConfigError("[train]", found, "text vectors that stay as they are", "set encoder.text_training = 'frozen'")
