"""What synthetic events are like: popularity, sessions, funnels, first days, flaws; made without Spark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys_spark.synthetic import flaws
from recsys_spark.synthetic.blocks import Plan
from recsys_spark.synthetic.catalogue import catalogue
from recsys_spark.synthetic.choices import CART, PURCHASE, VIEW, choices
from recsys_spark.synthetic.robots import EVENTS_PER_ROBOT
from recsys_spark.synthetic.sessions import DAY_MS, sessions
from recsys_spark.synthetic.settings import SyntheticSettings, parse_settings
from recsys_spark.synthetic.words import COMMON_WORDS, WORDS_PER_TOPIC, categories, titles, vocabulary

PURE = {"robots": 0.0, "duplicates": 0.0, "bad_rows": 0.0}
SMALL: dict[str, Any] = {"events": 30_000, "users": 1_500, "items": 300, "topics": 6, "days": 20}


def made(**values: Any) -> pd.DataFrame:
    plan = Plan(parse_settings(SMALL | values))
    return pa.Table.from_batches([plan.batch(block) for block in range(plan.blocks)]).to_pandas()


@pytest.mark.parametrize("zipf", [0.0, 0.6, 1.1])
def test_popularity_falls_as_asked(zipf: float) -> None:
    log = made(**PURE, events=200_000, users=10_000, items=1_000, topics=10, zipf=zipf)
    counts = log["item_id"].value_counts().to_numpy()
    ranks = np.arange(3, 201)  # the first of few topics suffers most from the luck of its topic
    slope = np.polyfit(np.log(ranks), np.log(counts[2:200]), 1)[0]
    assert slope == pytest.approx(-zipf, abs=0.1)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
@pytest.mark.parametrize("users", [2_000, 50_000])
def test_the_number_of_events_is_close_to_what_was_asked(sigma: float, users: int) -> None:
    plan = Plan(parse_settings({**PURE, "events": 300_000, "users": users, "activity_sigma": sigma}))
    rows = sum(plan.counts(block)["rows"] for block in range(plan.blocks))
    assert rows == pytest.approx(300_000, rel=0.005)


def test_activity_is_log_normal() -> None:
    per_user = np.log(made(**PURE, users=600, activity_sigma=0.8)["user_id"].value_counts())
    assert per_user.std() == pytest.approx(0.8, abs=0.05)
    assert per_user.mean() == pytest.approx(np.log(30_000 / 600) - 0.8**2 / 2, abs=0.05)


def test_blocks_differ_and_do_not_depend_on_each_other() -> None:
    plan = Plan(parse_settings({"events": 400_000, "users": 30_000}))
    assert plan.people_blocks == 4
    assert plan.robot_blocks == 1
    last = plan.batch(3)
    catalogue.cache_clear()
    assert Plan(plan.settings).batch(3).equals(last)
    assert not plan.batch(2).column(2).equals(last.column(2))
    other = Plan(plan.settings.model_copy(update={"seed": 2}))
    assert not other.batch(3).column(2).equals(last.column(2))


def test_a_rate_of_flaws_changes_nothing_else() -> None:
    clean, spoilt = made(**PURE), made(**PURE | {"bad_rows": 0.1})
    same = (clean == spoilt) | (clean.isna() & spoilt.isna())
    assert (clean["event_id"] == spoilt["event_id"]).all()
    assert same.all(axis=1).mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("log_format", ["parquet", "csv"])
def test_counts_are_those_of_the_rows(log_format: str) -> None:
    settings = parse_settings(SMALL | {"bad_rows": 0.05, "duplicates": 0.02, "robots": 0.002, "format": log_format})
    plan = Plan(settings)
    log = made(bad_rows=0.05, duplicates=0.02, robots=0.002, format=log_format)
    counts = {name: sum(plan.counts(block)[name] for block in range(plan.blocks)) for name in plan.counts(0)}
    by_event = log["event_id"].value_counts()
    ts = pd.to_datetime(log["ts"], errors="coerce", utc=True)
    user = log["event_id"].str.extract(r"e(\d+)-")[0].astype(int)
    robots = user >= settings.users
    assert counts == {
        "rows": len(log),
        "users": user[~robots].nunique(),
        "robots": 3,
        "robot_events": int(robots.sum()),
        "duplicates": int((by_event == 2).sum()),
        "missing_user_id": int(log["user_id"].isna().sum()),
        "missing_item_id": int(log["item_id"].isna().sum()),
        "ts_zero": int((ts == pd.Timestamp(0, tz="UTC")).sum()),
        "ts_far_future": int((ts == pd.Timestamp("2200-01-01", tz="UTC")).sum()),
        "unknown_item_id": int(log["item_id"].str.startswith(flaws.UNKNOWN_ITEM, na=False).sum()),
        "negative_value": int((log["value"] < 0).sum()),
        "ts_not_a_time": int(ts.isna().sum()),
    }
    assert (counts["ts_not_a_time"] > 0) == (log_format == "csv")
    assert log[log.duplicated()]["event_id"].nunique() == counts["duplicates"]
    assert robots.sum() == 3 * EVENTS_PER_ROBOT


def test_times_lie_within_the_log_and_items_after_their_first_day() -> None:
    log = made(duplicates=0.0, bad_rows=0.0, robots=0.002, new_items=0.5)
    items = catalogue(parse_settings(SMALL | {"duplicates": 0.0, "bad_rows": 0.0, "robots": 0.002, "new_items": 0.5}))
    assert log["ts"].min() >= pd.Timestamp("2024-01-01", tz="UTC")
    assert log["ts"].max() < pd.Timestamp("2024-01-21", tz="UTC")
    day = (log["ts"] - pd.Timestamp("2024-01-01", tz="UTC")).dt.days.to_numpy()
    first = items.first_day[log["item_id"].str[1:].astype(int)]
    assert (day >= first).all()
    assert (first > 0).mean() > 0.1
    hours = log["ts"].dt.hour.value_counts()
    assert hours[20] > 5 * hours[3]


def test_sessions_keep_to_a_topic_and_go_on_to_the_next_item() -> None:
    settings = SyntheticSettings(**SMALL, activity_sigma=0.3, new_items=0.0, explore=0.1, next_item=0.4, cart=0.0)
    items, visits = catalogue(settings), sessions(settings, 0, 1_500)
    item = choices(settings, items, visits, 0, 1_500).item
    later = np.flatnonzero(~visits.opens)
    same_topic = items.topic[item[later]] == items.topic[item[later - 1]]
    is_next = item[later] == items.further(item[later - 1], np.ones(len(later), int))
    assert same_topic.mean() > 0.8
    assert is_next.mean() == pytest.approx(0.42, abs=0.05)  # 0.4, and what is drawn by chance
    assert np.bincount(visits.session).mean() == pytest.approx(settings.session_events, rel=0.1)
    length = visits.ts_ms[np.append(np.flatnonzero(visits.opens)[1:], len(item)) - 1] - visits.ts_ms[visits.opens]
    assert length.mean() / 60_000 == pytest.approx(settings.session_minutes, rel=0.1)
    assert (visits.session_day == visits.ts_ms[visits.opens] // DAY_MS).all()


@pytest.mark.parametrize(
    "values",
    [
        {"events": 1, "users": 50, "items": 2, "topics": 1},
        {"events": 500, "users": 1, "items": 2, "topics": 2, "days": 4, "session_events": 1, "session_minutes": 1},
        {"events": 500, "users": 5, "preferred": 0.0, "explore": 1.0, "cart": 1.0, "purchase": 1.0, "next_item": 1.0},
        {"events": 500, "users": 5, "duplicates": 0.25, "bad_rows": 0.25, "robots": 1.0, "zipf": 3.0, "new_items": 0.9},
        {"events": 9_000, "users": 2, "days": 4, "session_events": 1_000, "session_minutes": 9_000, "activity_sigma": 3.0},
    ],
)
def test_extremes_make_logs_too(values: dict[str, Any]) -> None:
    plan = Plan(parse_settings({"items": 50, "topics": 7} | values))
    for block in range(plan.blocks):
        batch = plan.batch(block)
        assert batch.num_rows == plan.counts(block)["rows"]
        assert batch.column("ts").null_count == 0


def test_a_funnel_stays_with_its_item() -> None:
    settings = SyntheticSettings(**SMALL, cart=0.3, purchase=0.5)
    visits = sessions(settings, 0, 1_500)
    chosen = choices(settings, catalogue(settings), visits, 0, 1_500)
    for kind, before in ((CART, VIEW), (PURCHASE, CART)):
        places = np.flatnonzero(chosen.kind == kind)
        assert len(places) > 1_000
        assert (chosen.kind[places - 1] == before).all()
        assert (chosen.item[places - 1] == chosen.item[places]).all()
        assert (visits.session[places - 1] == visits.session[places]).all()
    assert (chosen.kind == PURCHASE).sum() / (chosen.kind == CART).sum() < 0.5


def test_drift_moves_topics() -> None:
    calm, moving = (catalogue(SyntheticSettings(**SMALL, drift=drift, new_items=0.0)) for drift in (0.0, 1.5))
    shares = [np.diff(c.topic_sums.reshape(20, 6) - np.arange(20)[:, None], axis=1, prepend=0.0) for c in (calm, moving)]
    assert np.ptp(shares[0], axis=0).max() < 1e-9
    assert np.ptp(shares[1], axis=0).max() > 0.1


def test_titles_tell_the_topic() -> None:
    settings = SyntheticSettings(**SMALL)
    words = vocabulary(settings.seed, settings.topics).to_pylist()
    assert len(set(words)) == len(words) == 6 * WORDS_PER_TOPIC + COMMON_WORDS
    topic = np.array([2, 5])
    own = [set(words[t * WORDS_PER_TOPIC + 1 : (t + 1) * WORDS_PER_TOPIC]) for t in topic]
    for title, mine in zip(titles(settings, topic, 0).to_pylist(), own, strict=True):
        first, second, third, common, number = title.lower().split()
        assert len({first, second, third} & mine) == 3
        assert common in words[-COMMON_WORDS:]
        assert 1 <= int(number) < 1_000
    assert categories(settings, topic).to_pylist() == [words[2 * WORDS_PER_TOPIC], words[5 * WORDS_PER_TOPIC]]
