"""Where every random number comes from: a generator per (seed, stream, block), so that cores and partitions never matter."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Independent sources of numbers: changing the rate of one thing leaves all others as they are."""

    CATALOGUE = 0
    WORDS = 1
    TITLES = 2
    DRIFT = 3
    ACTIVITY = 4
    SESSIONS = 5
    CHOICES = 6
    FLAWS = 7
    ROBOTS = 8


def generator(seed: int, stream: Stream, block: int = 0) -> np.random.Generator:
    """The generator of one block. The same NumPy release gives the same numbers; NumPy does not promise it across releases."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, int(stream), block])))
