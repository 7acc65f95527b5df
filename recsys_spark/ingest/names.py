"""A source's own names and texts, made safe for Spark's expressions and patterns."""

from __future__ import annotations

import re

MALFORMED = "__malformed"  # our column beside the source's: the raw record where a line does not parse, else null


def quoted(column: str) -> str:
    """A column name that may hold dots, colons or backticks, for ``F.col``."""
    return "`" + column.replace("`", "``") + "`"


def literal_pattern(text: str) -> str:
    """A regular expression that matches just this text."""
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def literal_path(path: str) -> str:
    """A path that Hadoop does not take for a pattern: ``log[1].csv`` is one file."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)
