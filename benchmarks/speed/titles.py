"""Titles made of the text model's own words, for rows that encode texts or learn from them; needs no Spark."""

from __future__ import annotations

import numpy as np

from recsys_spark.encoder.text_source import minilm_folder

MODEL_FOLDER = minilm_folder()


def titles(number: int, seed: int = 4) -> list[str]:
    """Distinct titles of 2 to 14 words of the model's own vocabulary, frequent words more often."""
    rng = np.random.default_rng(seed)
    known = (MODEL_FOLDER / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = np.array([word for word in known if word.isascii() and word.isalpha() and len(word) > 2])
    chance = 1.0 / np.arange(10, len(words) + 10) ** 0.8
    lengths = np.minimum(2 + rng.geometric(1 / 5, number), 14)
    drawn = rng.choice(words, int(lengths.sum()), p=chance / chance.sum())
    ends = np.cumsum(lengths)
    return [f"{' '.join(drawn[end - length : end])} {n}" for n, (end, length) in enumerate(zip(ends, lengths, strict=True))]
