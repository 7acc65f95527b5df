"""The page: every section, the figures given, escaped text, and nothing loaded from anywhere."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recsys_spark.report.data import Fates, Listed, Metric, ProbabilityRow, Reason, ReportData, Sample, StageRow
from recsys_spark.report.html import count, difference_rows, duration, metric_table, render, signed, systems_of
from recsys_spark.report.stage import write_page

SECTIONS = ("data", "quarantine", "training", "metrics", "segments", "tail", "fusion", "users", "neighbours", "stages")
TITLES = (
    "Star Wars (1977)",
    'The "Crying" Game & more',
    "<script>alert('x')</script>",
    "Amélie 🎬 (2001)",
    "الرسالة (1976)",
    "Fargo (1996)",
    "Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb (1963)",
    "L.A. Confidential (1997)",
)


def _metrics() -> list[Metric]:
    rows = []
    base = {"fused": 1.0, "cooccurrence": 0.86, "popularity": 0.45}
    levels = {"ndcg": 0.105, "recall": 0.191, "hit_rate": 0.191, "map": 0.079, "mrr": 0.079, "precision": 0.0191, "f1": 0.0347}
    for system, factor in base.items():
        for name, level in levels.items():
            for k, share in ((5, 0.7), (10, 1.0), (20, 1.4)):
                value = factor * level * share
                rows.append(Metric(system, name, k, "all", value, value * 0.88, value * 1.12, 943))
        rows.append(Metric(system, "auc", 0, "all", 0.7 + 0.2 * factor, 0.69 + 0.2 * factor, 0.71 + 0.2 * factor, 943))
        for name, value in (("coverage", 0.41 * factor), ("gini", 0.93 - 0.1 * factor), ("novelty", 9.4 + factor)):
            rows.append(Metric(system, name, 10, "all", value, None, None, 943))
        for place, segment in enumerate(("item_head", "item_torso", "item_tail", "item_cold")):
            value = factor * (0.17, 0.1, 0.05, 0.03)[place]
            rows.append(Metric(system, "ndcg", 10, segment, value, value * 0.7, value * 1.3, (210, 530, 190, 13)[place]))
        for place, segment in enumerate(("user_light", "user_medium", "user_heavy")):
            value = factor * (0.14, 0.1, 0.07)[place]
            rows.append(Metric(system, "ndcg", 10, segment, value, value * 0.75, value * 1.25, 314))
    for other, value in (("cooccurrence", 0.0147), ("popularity", 0.0578)):
        rows.append(Metric(f"fused - {other}", "ndcg", 10, "all", value, value - 0.009, value + 0.009, 943))
        rows.append(Metric(f"fused - {other}", "recall", 10, "all", 0.002, -0.011, 0.015, 943))
    return rows


def _sample(ref_id: str, shift: int, source: str) -> Sample:
    titles = [TITLES[(n + shift) % len(TITLES)] for n in range(len(TITLES))]
    listed = [
        Listed(
            n,
            f"i{n}",
            title,
            3.2 / n,
            source,
            [
                Reason("cooccurrence", "with Return of the Jedi (1983)", 0.46),
                Reason("attribute", "Sci-Fi", 0.21),
                Reason("popular", "popular", 0.1),
            ][: 1 + n % 3],
        )
        for n, title in enumerate(titles, 1)
    ]
    return Sample(ref_id, ref_id if source else titles[0], listed, titles[:5] if source else [], 148)


def full_data() -> ReportData:
    """A night as MovieLens-100K gives one."""
    loss = [[5.0 * n, 3.9 + 3.4 * math.exp(-n / 25) + 0.05 * math.sin(n)] for n in range(1, 121)]
    events = [58_000 / (1 + n) ** 1.1 for n in range(50)]
    stages = [("ingest", "live", 21.4, {"events": 100_000, "items": 1_682, "users": 943, "quarantine": 37})]
    stages += [
        (s, "eval/19981101T000000-1f2e3d4c", t, r)
        for s, t, r in (
            ("holdout", 2.1, {"holdout": 1_886}),
            ("cooccurrence", 14.2, {"cooccurrence": 336_400}),
            ("train", 184.0, {}),
            ("evaluate", 11.9, {"metrics": 412}),
        )
    ]
    stages += [("recommend", "live", 3_725.0, {"recommendations": 18_860, "item_neighbours": 33_640})]
    return ReportData(
        name="movielens-100k",
        as_of="1998-11-01 00:00:00 UTC",
        run_id="19981101T000000-1f2e3d4c",
        eval_namespace="eval/19981101T000000-1f2e3d4c",
        code_version="a1b2c3d4e5f6",
        model_name="movielens-100k",
        model_version=3,
        gate_passed=True,
        gate_reason="no champion, and the challenger beats both baselines: "
        "ndcg@10 against cooccurrence +0.0147 [+0.0057, +0.0237], margin 0.01",
        publishes="encoder",
        cutoff="holdout leave_one_out 0123456789abcdef, end 1998-11-01T00:00:00+00:00",
        counts={
            "num_events": 99_963,
            "num_users": 943,
            "num_items": 1_682,
            "num_items_with_text": 1_681,
            "first_event": "1997-09-20 03:05:10",
            "last_event": "1998-04-22 23:10:38",
        },
        fates=[
            Fates("events", 1, 100_000, 99_950, 13, 0, 37),
            Fates("items", 1, 1_682, 1_682, 0, 0, 0),
            Fates("users", 2, 950, 943, 0, 0, 0),
        ],
        quarantine=[("events", "ts is 0 or more than a day in the future", 30), ("events", "item_id is <empty>", 7)],
        training={
            "epochs": 12,
            "best_epoch": 9,
            "validation_recall": 0.2013,
            "steps": 600,
            "ranks": 1,
            "device": "cpu",
            "examples_per_second": 5312.4,
            "seconds": 143.2,
            "privacy": {"epsilon": 7.9876, "delta": 0.000106, "noise_multiplier": 1.41, "users": 943},
        },
        loss_curve=loss,
        recall_curve=[[float(e), 0.2013 - 0.0012 * (e - 9) ** 2] for e in range(1, 13)],
        probabilities=[
            ProbabilityRow("outcome of an event", "base rate for all", 0.5312, 0.0, 4_321),
            ProbabilityRow("outcome of an event", "calibrated", 0.4107, 0.0123, 4_321),
        ],
        profile={"users": 94, "k": 10, "recall": 0.1234, "recall_as_item": 0.0512, "recall_popular": 0.0987},
        metrics=_metrics(),
        item_events=events,
        item_places=[900 / (1 + n) ** 0.6 for n in range(50)],
        weights={"encoder": 1.0, "cooccurrence": 0.3, "text": 0.1, "popularity": 0.0},
        new_items={"per_ten": 3, "eagerness": 2.5, "loss": 0.004, "share_of_lists": 0.21},
        rerank={"diversity": 0.7, "max_per_ten": {"category": 4}, "similarity": "encoder", "depth": 5},
        diversities=[(n / 10, 0.12 - 0.0002 * n**2, 0.3 + 0.02 * n) for n in range(11)],
        samples=[_sample("196", 0, "personal"), _sample("u-<b>7</b>", 2, "personal"), _sample("42", 5, "profile")],
        neighbours=[_sample("50", 0, ""), _sample("181", 3, ""), _sample("7", 6, "")],
        stages=[StageRow(s, n, t, "2026-11-22 03:12:44 UTC", r, "0f1e2d3c4b5a6978") for s, n, t, r in stages],
        versions={"recommendations": 4, "item_neighbours": 4, "fallback_recommendations": 2, "shortfalls": 0},
        published_at="2026-11-22 04:20:01 UTC",
    )


EMPTY = ReportData("debug", "2024-02-01 00:00:00 UTC", "r1", "eval/r1", "abc")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset") and value:
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parsed(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    return tags


@pytest.fixture(scope="module")
def page() -> str:
    return render(full_data())


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    tags = _parsed(page)
    assert "http" not in page
    assert not re.search(r"@import|url\((?!#)|javascript:", page)
    assert {"script", "img", "iframe", "link", "object"}.isdisjoint(tags.tags)
    assert all(link.startswith("#") for link in tags.links)
    assert {link.removeprefix("#") for link in tags.links} <= set(tags.ids)


def test_ids_are_unique(page: str) -> None:
    ids = _parsed(page).ids
    assert len(ids) == len(set(ids))


def test_every_section_is_there_with_its_plot(page: str) -> None:
    tags = _parsed(page)
    assert set(SECTIONS) <= set(tags.ids)
    assert tags.tags.count("svg") == 8


def test_titles_are_escaped(page: str) -> None:
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "u-&lt;b&gt;7&lt;/b&gt;" in page
    text = "".join(_parsed(page).text)
    for title in TITLES:
        assert title in text


def test_figures_are_those_given(page: str) -> None:
    text = " ".join("".join(_parsed(page).text).split())
    data = full_data()
    for expected in (data.name, data.run_id, data.gate_reason, "version 3", data.cutoff, "Gate: passed", data.published_at):
        assert expected in text
    assert "99\u202f963" in page
    assert ">0.1050<small>0.0924 to 0.1176</small>" in page  # NDCG@10 of fused
    assert "+0.0147" in page
    assert "if 2.5 times its chance is. On validation 21.0% of the lists hold one, which costs 0.40% of NDCG@10" in text
    assert "+0.0057 to +0.0237" in page
    assert "7 rows unaccounted for" in page  # users: 950 read, 943 kept
    assert page.count("adds up") == 2
    assert "with Return of the Jedi (1983) (46%)" in text
    assert "1 h 2 min" in page
    assert "0f1e2d3c4b5a6978" in page


def test_what_the_model_promises_users_is_said(page: str) -> None:
    assert "epsilon 7.99, delta 1.1e-04" in page


def test_probabilities_are_judged_beside_the_base_rate(page: str) -> None:
    text = " ".join(" ".join(_parsed(page).text).split())
    assert "outcome of an event base rate for all 0.5312 0.0000 4 321 outcome of an event calibrated 0.4107 0.0123 4 321" in text
    assert "Probabilities" not in render(EMPTY)


def test_the_profile_tower_is_judged_beside_no_tower_and_popularity(page: str) -> None:
    text = " ".join(" ".join(_parsed(page).text).split())
    assert "Of 94 users whose profile text was not learned from, the items they met are found with recall@10" in text
    assert "0.1234 by the profile tower, 0.0512 by their text taken for an item's, 0.0987 by popularity." in text
    assert "Users with only a text" not in render(EMPTY)


def test_weights_of_profile_texts_are_said_where_they_were_chosen(page: str) -> None:
    assert "Users of whom only a profile text is known" not in page
    told = render(replace(full_data(), fusion={"profile": {"text": 0.5, "encoder": 0.0, "popularity": 1.0}}))
    assert "chosen on new users of the validation: its words 0.5, popularity 1." in told


def test_an_empty_night_renders_every_section() -> None:
    page = render(EMPTY)
    assert set(SECTIONS) <= set(_parsed(page).ids)
    assert "<svg" not in page
    for line in ("Gate: not decided", "No ledger", "No row is in quarantine", "Nothing was measured", "No run is recorded"):
        assert line in page
    failed = render(replace(EMPTY, gate_passed=False, publishes="cooccurrence", gate_reason="does not beat popularity"))
    assert "Gate: not passed; co-occurrence lists go out" in failed


def test_tables_order_and_verdicts() -> None:
    data = full_data()
    assert systems_of(data.metrics) == ["fused", "cooccurrence", "popularity"]
    rows = metric_table([m for m in data.metrics if m.k == 10 and m.segment == "all"], ["popularity", "fused"])
    assert rows[0][0] == "NDCG@10"
    assert [m.system for m in rows[0][1] if m] == ["popularity", "fused"]
    verdicts = {(r["system"], r["label"]): r["verdict"] for r in difference_rows(data)}
    assert verdicts["fused \u2212 popularity", "NDCG@10"] == "better"
    assert verdicts["fused \u2212 popularity", "Recall@10"] == "no clear difference"


def test_the_same_data_gives_the_same_page(page: str) -> None:
    assert render(full_data()) == page


def test_small_formats() -> None:
    assert [duration(s) for s in (0.04, 59.9, 61, 3_725)] == ["0.0 s", "59.9 s", "1 min 1 s", "1 h 2 min"]
    assert count(1_234_567) == "1\u202f234\u202f567"
    assert signed(-0.5) == "\u22120.5000"


def test_page_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "reports" / "r.html"
    write_page(target, "first")
    write_page(target, "second")
    assert target.read_text(encoding="utf-8") == "second"
    assert [p.name for p in target.parent.iterdir()] == ["r.html"]


if __name__ == "__main__":  # a page to look at: python -m tests.unit.test_report_html page.html
    import sys

    write_page(Path(sys.argv[1]), render(full_data()))


def test_targets_that_no_list_may_hold_are_told_of() -> None:
    page = render(replace(full_data(), num_targets=2_000, targets_out_of_reach=140))
    assert "Of the 2,000 targets 140 can be in nobody's list" in page
    assert "can be in nobody's list" not in render(full_data())
