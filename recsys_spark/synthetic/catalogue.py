"""The items as arrays, the same in every process: topic, popularity, first day, price, and what to draw from on a day."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.synthetic.randomness import Stream, generator
from recsys_spark.synthetic.settings import SyntheticSettings

Ints = npt.NDArray[Any]  # int32 or int64
Floats = npt.NDArray[np.float64]

SERIES_LENGTH = 8  # items of one series in the knowledge graph: neighbours in the chain
_PERIOD_DAYS = (20.0, 90.0)  # of a topic's swing
_PRICE_LOG_MEAN, _PRICE_LOG_SIGMA = 3.0, 0.8


@dataclass(frozen=True)
class Catalogue:
    """n items, T topics, D days. Items are numbered 0 .. n-1, without meaning in the number.

    Two orders are kept. Drawing: by topic, then first day, so that the items of a topic that exist on a day are a prefix
    and one search in running sums of popularity draws one of them. Chain: by topic, then popularity, so that going on to
    the next item hardly changes how popular items are.

    Args:
        topic: ``[n]``.
        first_day: ``[n]``, days after the start of the log.
        price: ``[n]``, in no currency.
        draw_item: ``[n]``, items in drawing order; ``draw_sum`` ``[n]``, their running popularity.
        topic_start: ``[T]``, where a topic begins in both orders; ``topic_size`` ``[T]``.
        present: ``[T, D]`` items of the topic that exist on the day; ``present_sum`` their popularity.
        chain_item: ``[n]``, items in chain order; ``chain_place`` ``[n]``, the place of an item in its topic's chain.
        drift: ``[T, D]``, factor of the topic's popularity on the day.
        topic_sums: ``[D * T]``, day d's running shares of topics, plus d: one search draws a topic for any day.
        liked_sums: ``[T]``, running shares by which users come to prefer topics.
    """

    topic: Ints
    first_day: Ints
    price: Floats
    draw_item: Ints
    draw_sum: Floats
    topic_start: Ints
    topic_size: Ints
    present: Ints
    present_sum: Floats
    chain_item: Ints
    chain_place: Ints
    drift: Floats
    topic_sums: Floats
    liked_sums: Floats

    def draw(self, topic: Ints, day: Ints, u: Floats) -> Ints:
        """An item for each (topic, day), by popularity among those that exist; ``u`` uniform in [0, 1)."""
        first = self.topic_start[topic]
        before = np.where(first > 0, self.draw_sum[first - 1], 0.0)
        place = np.searchsorted(self.draw_sum, before + u * self.present_sum[topic, day], side="right")
        # rounding may lead one place beyond the prefix
        drawn: Ints = self.draw_item[np.clip(place, first, first + self.present[topic, day] - 1)]
        return drawn

    def draw_topic(self, day: Ints, u: Floats) -> Ints:
        """A topic for each day, by the popularity of what exists then, drift included."""
        topics = len(self.topic_size)
        place = np.searchsorted(self.topic_sums, day + u, side="right") - day.astype(np.int64) * topics
        drawn: Ints = np.clip(place, 0, topics - 1)
        return drawn

    def further(self, item: Ints, steps: Ints) -> Ints:
        """The item ``steps`` places on in the chain of its topic; after the last comes the first."""
        topic = self.topic[item]
        place = (self.chain_place[item] + steps) % self.topic_size[topic]
        reached: Ints = self.chain_item[self.topic_start[topic] + place]
        return reached


@lru_cache(maxsize=1)
def catalogue(settings: SyntheticSettings) -> Catalogue:
    """The catalogue of these settings; kept by each worker process."""
    rng = generator(settings.seed, Stream.CATALOGUE)
    n, topics, days = settings.items, settings.topics, settings.days
    popularity = (1.0 + rng.permutation(n)) ** -settings.zipf
    topic = rng.integers(0, topics, n, dtype=np.int32)
    topic[:topics] = np.arange(topics)
    is_new = rng.random(n) < settings.new_items
    first_day = np.where(is_new, rng.integers(1, days, n), 0).astype(np.int32)
    first_day[:topics] = 0  # each topic has an item from the first day on
    price = np.round(np.exp(_PRICE_LOG_MEAN + _PRICE_LOG_SIGMA * rng.standard_normal(n)), 2)

    draw_item = np.lexsort((first_day, topic))
    size = np.bincount(topic, minlength=topics)
    start = np.cumsum(size) - size
    chain_item = np.lexsort((-popularity, topic))
    chain_place = np.empty(n, np.int64)
    chain_place[chain_item] = np.arange(n) - np.repeat(start, size)
    cell = topic.astype(np.int64) * days + first_day
    present = np.bincount(cell, minlength=topics * days).reshape(topics, days).cumsum(axis=1)
    present_sum = np.bincount(cell, popularity, minlength=topics * days).reshape(topics, days).cumsum(axis=1)
    drift = _drift(settings)
    return Catalogue(
        topic=topic,
        first_day=first_day,
        price=price,
        draw_item=draw_item,
        draw_sum=np.cumsum(popularity[draw_item]),
        topic_start=start,
        topic_size=size,
        present=present,
        present_sum=present_sum,
        chain_item=chain_item,
        chain_place=chain_place,
        drift=drift,
        topic_sums=_topic_sums(present_sum * drift),
        liked_sums=np.cumsum(present_sum[:, -1]) / present_sum[:, -1].sum(),
    )


def _drift(settings: SyntheticSettings) -> Floats:
    """``exp(drift * sin(2 pi (day / period + phase)))`` with a period and a phase per topic: ``[T, D]``."""
    rng = generator(settings.seed, Stream.DRIFT)
    period, phase = rng.uniform(*_PERIOD_DAYS, settings.topics), rng.random(settings.topics)
    turns = np.arange(settings.days)[None, :] / period[:, None] + phase[:, None]
    factor: Floats = np.exp(settings.drift * np.sin(2 * np.pi * turns))
    return factor


def _topic_sums(weight: Floats) -> Floats:
    """``[T, D]`` weights as running shares per day, each day's raised by its number: ``[D * T]``, ascending."""
    sums = np.cumsum(weight, axis=0) / weight.sum(axis=0)
    raised: Floats = (sums + np.arange(weight.shape[1])[None, :]).T.reshape(-1)
    return raised
