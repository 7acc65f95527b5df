"""What a word is in a text of any script, for whoever compares items by their words."""

from __future__ import annotations

import regex

# scripts that put no spaces between words; both Java's and Python's (package regex) patterns read this, inside brackets
UNSPACED = r"\p{IsHan}\p{IsHiragana}\p{IsKatakana}\u30fc\p{IsThai}\p{IsLao}\p{IsKhmer}\p{IsMyanmar}"
LETTERS = r"\p{L}\p{M}\p{N}"
_ASCII, _RUN, _PARTS = (
    regex.compile(pattern) for pattern in (r"\w\w+", rf"[{LETTERS}_]+", rf"(?P<unspaced>[{UNSPACED}]+)|[^{UNSPACED}]+")
)


def words_of(text: str) -> list[str]:
    """Lower-case words of two signs and more, with their marks; of a script without spaces each two neighbouring signs (as
    search engines index it), or the one there is."""
    lowered = text.lower()
    if lowered.isascii():
        return list(_ASCII.findall(lowered))
    return [word for run in _RUN.findall(lowered) for part in _PARTS.finditer(run) for word in _of_part(part)]


def _of_part(part: regex.Match[str]) -> list[str]:
    signs = part.group()
    if part.group("unspaced") is None:
        return [signs] if len(signs) > 1 else []
    return [signs[place : place + 2] for place in range(max(len(signs) - 1, 1))]
