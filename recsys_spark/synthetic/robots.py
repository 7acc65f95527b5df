"""Robots: users beside the people, each with one burst that crawls the catalogue at an inhuman rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_spark.synthetic.catalogue import Catalogue, Ints
from recsys_spark.synthetic.randomness import Stream, generator
from recsys_spark.synthetic.sessions import DAY_MS
from recsys_spark.synthetic.settings import SyntheticSettings

EVENTS_PER_ROBOT = 600
_PAUSE_MS = (100, 300)  # about 300 events a minute for two minutes: one calendar minute holds more than 200


@dataclass(frozen=True)
class Crawl:
    """The events of a block of robots, all ``[E]``: place of the robot, number of the event, ms after start, item."""

    robot: Ints
    number: Ints
    ts_ms: Ints
    item: Ints


def crawl(settings: SyntheticSettings, items: Catalogue, block: int, num_robots: int) -> Crawl:
    """Each robot visits items by their number, from a random one on; those that do not exist yet are passed by for others."""
    rng = generator(settings.seed, Stream.ROBOTS, block)
    shape = (num_robots, EVENTS_PER_ROBOT)
    after = np.cumsum(rng.integers(*_PAUSE_MS, shape), axis=1)
    start = rng.integers(0, settings.days * DAY_MS - EVENTS_PER_ROBOT * _PAUSE_MS[1], num_robots)
    ts_ms = (start[:, None] + after).reshape(-1)
    item = ((rng.integers(0, settings.items, num_robots)[:, None] + np.arange(EVENTS_PER_ROBOT)) % settings.items).reshape(-1)
    day = np.repeat(start // DAY_MS, EVENTS_PER_ROBOT)
    other = items.draw(items.draw_topic(day, rng.random(len(day))), day, rng.random(len(day)))
    number = np.tile(np.arange(EVENTS_PER_ROBOT), num_robots)
    robot = np.repeat(np.arange(num_robots), EVENTS_PER_ROBOT)
    return Crawl(robot, number, ts_ms, np.where(items.first_day[item] <= day, item, other))
