"""Text of items: templates whose empty fields leave nothing behind, and normalisation."""

from __future__ import annotations

import pytest

from recsys_spark.config.ingest import attribute_columns
from recsys_spark.ingest.rownumbers import plain_path
from recsys_spark.ingest.text import normalise, parse_template, template_fields


def fill(template: str, **values: str) -> str:
    """What ``composed`` does, on plain strings."""
    text = ""
    for piece in parse_template(template):
        value = values.get(piece.field)
        if value is not None:
            separator = piece.separator if text else ""
            text += separator + piece.opening + value + piece.closing
    return text


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{title}. {genres}", {"title": "Alien", "genres": "Horror"}, "Alien. Horror"),
        ("{title}. {genres}", {"title": "Alien"}, "Alien"),
        ("{title}. {genres}", {"genres": "Horror"}, "Horror"),
        ("{title}. {genres}", {}, ""),
        ("{title} ({year}). {genres}", {"title": "Alien", "year": "1979", "genres": "Horror"}, "Alien (1979). Horror"),
        ("{title} ({year}). {genres}", {"title": "Alien", "genres": "Horror"}, "Alien. Horror"),
        ("{title} ({year})", {"title": "Alien"}, "Alien"),
        ("{title} ({year})", {"year": "1979"}, "(1979)"),
        ("Title: {title}. Genre: {genres}", {"title": "Alien"}, "Title: Alien"),
        ("Title: {title}. Genre: {genres}", {"genres": "Horror"}, "Genre: Horror"),
        ("{a}, {b}, {c}", {"a": "1", "c": "3"}, "1, 3"),
        ("no field", {}, ""),
    ],
)
def test_empty_fields_leave_nothing_behind(template: str, values: dict[str, str], expected: str) -> None:
    assert fill(template, **values) == expected


def test_template_fields_are_named_in_order() -> None:
    assert template_fields("{title} ({release.year:token})") == ["title", "release.year:token"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        ("", ""),
        ("  a\n\tb\x00c  ", "a b c"),
        ("ﬁne ① ｆｕｌｌ", "fine 1 full"),
        ("e\u0301", "é"),
        ("مرحبا \u200fעולם", "مرحبا \u200fעולם"),
        ("👩\u200d👩\u200d👧 ok", "👩\u200d👩\u200d👧 ok"),
        ("\x1b\x07", ""),
    ],
)
def test_normalise(text: str | None, expected: str) -> None:
    assert normalise(text, 100) == expected


def test_long_texts_are_cut_by_code_points_without_a_trailing_space() -> None:
    assert normalise("😀" * 100_000, 2_000) == "😀" * 2_000
    assert normalise("ab cd", 3) == "ab"


def test_attributes_go_by_our_name_where_they_are_mapped() -> None:
    columns = {"user_id": "user_id:token", "job": "occupation:token"}
    assert attribute_columns(columns, ["occupation:token", "zip"]) == {"job": "occupation:token", "zip": "zip"}
    assert attribute_columns(columns, ["job"]) == {"job": "occupation:token"}


def test_spellings_of_a_path_are_one() -> None:
    assert plain_path("file:///tmp/a%20b.csv") == plain_path("file:/tmp/a b.csv") == "file:/tmp/a b.csv"
