"""Block and allow lists: where they come from, what they say of an item, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.recommend.rules import Rule, Rules, SegmentLists, read_rules

FILE = """item_id,segment,rule,why
a,,,x
"b ""quoted"", with comma",,block,y
c,de,block,z
d,de,allow,z
e,de,allow,z
f,,allow,z
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "lists.csv"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_rules_come_from_config_and_file(listed: Path) -> None:
    settings = RecommendSettings(block_items=["g"], allow_items=["h"], lists_path=str(listed), segment_key="country")
    rules = read_rules(settings)
    assert rules.everybody == Rule(frozenset({"a", 'b "quoted", with comma', "g"}), frozenset({"f", "h"}))
    assert rules.segments == {"de": Rule(frozenset({"c"}), frozenset({"d", "e"}))}
    assert read_rules(RecommendSettings()) == Rules()


def test_a_block_outweighs_an_allowance() -> None:
    rule = Rule(frozenset({"a"}), frozenset({"a", "b"}))
    assert [rule.permits(item) for item in "abc"] == [False, True, False]
    assert Rule().permits("c")


def test_rules_of_segments_over_a_catalogue() -> None:
    rules = Rules(segments={"fr": Rule(frozenset({"b"})), "de": Rule(allowed=frozenset({"a"}))})
    lists = SegmentLists.of(rules, np.array(["a", "b", "c"], object))
    assert lists.names == ("de", "fr")
    assert lists.allowed.tolist() == [[True, False, False], [True, False, True]]
    assert lists.number(["fr", None, "it", "de"]).tolist() == [1, -1, -1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item\na\n", "columns item; expected a column item_id"),
        ("item_id,rule\na,block\nb,deny\n", "line 3: rule 'deny'; expected block or allow"),
        ("item_id,Segment\na,kids\n", "column 'Segment'; expected column 'segment', or a name unlike it"),
        ("item_id,rules\na,allow\n", "column 'rules'; expected column 'rule'"),
        ("rule,item_id\nblock\n", "line 2: no item_id; expected an item's id in every row"),
        ("", r"columns \(none\); expected a column item_id"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lists.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_rules(RecommendSettings(lists_path=str(path)))


def test_a_file_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    path.write_text("segment, item_id ,rule\n kids ,a,allow\n\n,b, block \n", encoding="utf-8-sig")
    settings = RecommendSettings(lists_path=str(path), segment_key="age")
    assert read_rules(settings) == Rules(Rule(frozenset({"b"})), {"kids": Rule(allowed=frozenset({"a"}))})
    path.write_bytes("item_id\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"bytes that are not UTF-8 .*save it as UTF-8"):
        read_rules(settings)


def test_a_missing_file_and_a_missing_key_are_told(tmp_path: Path, listed: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_rules(RecommendSettings(lists_path=str(tmp_path / "absent.csv")))
    with pytest.raises(ConfigError, match="a segment 'de' and no segment_key"):
        read_rules(RecommendSettings(lists_path=str(listed)))
