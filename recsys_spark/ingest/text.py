"""Text of items and users: composed from a template, normalised, cut; without Spark but for one Arrow function."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.ingest import TEMPLATE_FIELD

# a literal between two fields = what closes the left one, what separates, what labels or opens the right one
_LITERAL = re.compile(r"([)\]}\"'»”%!?]*)([\s.,;:|/\\–—-]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """One field of a template with the literals that come and go with it."""

    field: str
    separator: str  # before it, when some field before is filled
    opening: str  # before it
    closing: str  # after it


def parse_template(template: str) -> list[Piece]:
    """``"{title} ({year}). {genres}"`` -> its fields with their literals; a template without fields has no pieces."""
    parts = TEMPLATE_FIELD.split(template)
    names, literals = parts[1::2], parts[0::2]
    pieces: list[Piece] = []
    for number, name in enumerate(names):
        separator, opening = ("", literals[0]) if number == 0 else _split(literals[number])[1:]
        last = number == len(names) - 1
        closing = literals[-1] if last else _split(literals[number + 1])[0]
        pieces.append(Piece(name.strip(), separator, opening, closing))
    return pieces


def template_fields(template: str) -> list[str]:
    """Names of the fields in a template, in its order."""
    return [piece.field for piece in parse_template(template)]


def _split(literal: str) -> tuple[str, str, str]:
    matched = _LITERAL.fullmatch(literal)
    return ("", "", literal) if matched is None else (matched[1], matched[2], matched[3])


def composed(template: str, field: Callable[[str], Column]) -> Column:
    """The template filled in; a field that is empty (null) leaves nothing behind, its separators and labels included."""
    text, any_before = F.lit(""), F.lit(False)
    for piece in parse_template(template):
        value = field(piece.field)
        separator = F.when(any_before, F.lit(piece.separator)).otherwise(F.lit(""))
        filled = F.concat(separator, F.lit(piece.opening), value, F.lit(piece.closing))
        text = F.concat(text, F.coalesce(filled, F.lit("")))
        any_before = any_before | value.isNotNull()
    return text


def normalise(text: str | None, max_chars: int) -> str:
    """NFKC, control characters and runs of white space made one space, cut to ``max_chars`` code points.

    Marks of right-to-left text and the joiners inside emoji stay: they are format characters, not control ones.
    """
    if not text:
        return ""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())[:max_chars].rstrip()


def normalised(text: Column, max_chars: int) -> Column:
    """``normalise`` for a column."""

    def batch(texts: pd.Series) -> pd.Series:
        return texts.map(lambda one: normalise(one, max_chars))

    make: Any = F.pandas_udf  # type: ignore[attr-defined]  # its stubs know no plain function
    column: Column = make(batch, "string")(text)
    return column
