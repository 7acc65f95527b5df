"""Titles out of made-up words: each topic has its own, so that a title tells the topic of its item."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_spark.synthetic.catalogue import Ints
from recsys_spark.synthetic.randomness import Stream, generator
from recsys_spark.synthetic.settings import SyntheticSettings

WORDS_PER_TOPIC = 12  # the first is the topic's name
COMMON_WORDS = 80  # used by all topics
TITLE_WORDS = 3  # of the topic
_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in "aeiou"]
_SYLLABLES_PER_WORD = 3


@lru_cache(maxsize=1)
def vocabulary(seed: int, topics: int) -> Any:
    """All words as an Arrow array, each once: ``WORDS_PER_TOPIC`` per topic in the order of topics, then the common ones."""
    base = len(_SYLLABLES)
    count = topics * WORDS_PER_TOPIC + COMMON_WORDS
    codes = generator(seed, Stream.WORDS).permutation(base**_SYLLABLES_PER_WORD)[:count]
    parts = [codes // base**power % base for power in range(_SYLLABLES_PER_WORD)]
    return pa.array(["".join(_SYLLABLES[part] for part in word) for word in zip(*parts, strict=True)], pa.string())


def categories(settings: SyntheticSettings, topic: Ints) -> Any:
    """The name of each topic, ``[B]`` strings."""
    return vocabulary(settings.seed, settings.topics).take(pa.array(topic.astype(np.int64) * WORDS_PER_TOPIC))


def titles(settings: SyntheticSettings, topic: Ints, block: int) -> Any:
    """Titles of a block of items, ``[B]`` strings: three words of the topic, one of all topics, a number below 1,000."""
    words = vocabulary(settings.seed, settings.topics)
    rng = generator(settings.seed, Stream.TITLES, block)
    picks = np.argsort(rng.random((len(topic), WORDS_PER_TOPIC - 1)), axis=1)[:, :TITLE_WORDS] + 1
    own = [words.take(pa.array(topic.astype(np.int64) * WORDS_PER_TOPIC + picks[:, n])) for n in range(TITLE_WORDS)]
    common = words.take(pa.array(settings.topics * WORDS_PER_TOPIC + rng.integers(0, COMMON_WORDS, len(topic))))
    number = pa.array(rng.integers(1, 1_000, len(topic))).cast(pa.string())
    return pc.binary_join_element_wise(pc.utf8_capitalize(own[0]), *own[1:], common, number, " ")
