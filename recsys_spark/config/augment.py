"""Settings of augmentation: what is changed at random in training's rows, all of it off by default."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_spark.config.base import Settings

Operation = Literal["crop", "mask", "reorder", "substitute"]


class AugmentSettings(Settings):
    """Chances are per sequence, shares are of its items, both from 0 (off) to 1.

    The chances change what the user-item loss sees; what it must find stays what truly came next. The views are for
    the self-supervised loss of user states (CL4SRec), and draw one of ``view_operations`` for each view of each sequence.
    """

    crop_chance: float = Field(0.0, ge=0, le=1)  # of a sequence: only a stretch of crop_share of its items is used
    crop_share: float = Field(0.6, gt=0, le=1)
    mask_chance: float = Field(0.0, ge=0, le=1)  # of a sequence: mask_share of the items in its history are not seen
    mask_share: float = Field(0.3, ge=0, lt=1)
    reorder_chance: float = Field(0.0, ge=0, le=1)  # of a sequence: a stretch of reorder_share of its history is shuffled
    reorder_share: float = Field(0.3, gt=0, le=1)
    substitute_chance: float = Field(0.0, ge=0, le=1)  # of a sequence: substitute_share of its history become neighbours
    substitute_share: float = Field(0.2, ge=0, le=1)
    neighbours: int = Field(10, ge=1)  # heaviest training pairs of an item that may stand in for it
    tail_power: float = Field(0.0, ge=0, le=1)  # rows weigh as their items' (events)^-power: rare items count more often
    label_noise: float = Field(0.0, ge=0, lt=1)  # of a target: another item, drawn evenly, is asked for in its place
    view_share: float = Field(0.0, ge=0)  # weight of the loss of two views of a history; 0: none are made
    view_temperature: float = Field(0.5, gt=0)
    view_operations: list[Operation] = ["crop", "mask", "reorder"]
    adversarial_epsilon: float = Field(0.0, ge=0)  # how far each item's id part is moved against the loss (FGM); 0: off
    adversarial_share: float = Field(1.0, gt=0)  # weight of the loss there

    @model_validator(mode="after")
    def _views_need_an_operation(self) -> AugmentSettings:
        if self.view_share > 0 and not self.view_operations:
            raise ValueError("view_share above 0 needs at least one of view_operations")
        return self

    @property
    def substitutes(self) -> bool:
        """Whether neighbours of items are needed."""
        return self.substitute_chance > 0 or (self.view_share > 0 and "substitute" in self.view_operations)

    @property
    def changes_sequences(self) -> bool:
        """Whether the user-item loss sees other rows than the feed's."""
        return max(self.crop_chance, self.mask_chance, self.reorder_chance, self.substitute_chance, self.label_noise) > 0
