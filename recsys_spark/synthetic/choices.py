"""What people do: the topic of each session, the item and the type of each event, the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_spark.synthetic.catalogue import Catalogue, Floats, Ints
from recsys_spark.synthetic.randomness import Stream, generator
from recsys_spark.synthetic.sessions import Sessions
from recsys_spark.synthetic.settings import SyntheticSettings

EVENT_TYPES = ("view", "cart", "purchase")
VIEW, CART, PURCHASE = range(3)
DEVICES = ("phone", "desktop", "tablet")
_DEVICE_SUMS = np.cumsum([0.6, 0.3, 0.1])
_USUAL_DEVICE = 0.85  # share of a user's sessions on the usual device
_TOPIC_SHARES = np.array([0.6, 0.3, 0.1])  # of a user's preferred topics, before drift


@dataclass(frozen=True)
class Choices:
    """``item``, ``kind`` (place in ``EVENT_TYPES``) and ``device`` (place in ``DEVICES``) of each event, all ``[E]``."""

    item: Ints
    kind: Ints
    device: Ints


def choices(settings: SyntheticSettings, items: Catalogue, made: Sessions, block: int, num_users: int) -> Choices:
    """What the users of a block choose in their sessions."""
    rng = generator(settings.seed, Stream.CHOICES, block)
    topic = _session_topics(settings, items, made, rng, num_users)
    device = _session_devices(made, rng, num_users)
    kind = _kinds(settings, made.opens, rng)
    item = _items(settings, items, made, topic, kind, rng)
    return Choices(item, kind, device[made.session])


def _session_topics(
    settings: SyntheticSettings, items: Catalogue, made: Sessions, rng: np.random.Generator, num_users: int
) -> Ints:
    """One of the user's preferred topics, in fashion or not; else any topic of the day."""
    liked = np.searchsorted(items.liked_sums, rng.random((num_users, len(_TOPIC_SHARES))), side="right")
    mine = np.minimum(liked, settings.topics - 1)[made.session_user]
    sums = np.cumsum(_TOPIC_SHARES * items.drift[mine, made.session_day[:, None]], axis=1)
    chosen = (rng.random(len(mine))[:, None] * sums[:, -1:] >= sums).sum(axis=1).clip(0, len(_TOPIC_SHARES) - 1)
    topic = mine[np.arange(len(mine)), chosen]
    elsewhere = rng.random(len(mine)) >= settings.preferred
    any_topic = items.draw_topic(made.session_day, rng.random(len(mine)))
    return np.where(elsewhere, any_topic, topic)


def _session_devices(made: Sessions, rng: np.random.Generator, num_users: int) -> Ints:
    usual = np.searchsorted(_DEVICE_SUMS, rng.random(num_users), side="right")[made.session_user]
    other = np.searchsorted(_DEVICE_SUMS, rng.random(len(made.session_user)), side="right")
    device = np.where(rng.random(len(other)) < _USUAL_DEVICE, usual, other)
    return device.clip(0, len(DEVICES) - 1).astype(np.int8)


def _kinds(settings: SyntheticSettings, opens: npt.NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """A funnel: a cart event only after a view of the same session, a purchase only after a cart event.

    A cart event is left out where the event before is itself a candidate, or the one before that a cart event: so what a
    cart event follows is always a view, without a loop over events.
    """
    cart = (rng.random(len(opens)) < settings.cart) & ~opens
    cart[1:] &= ~cart[:-1].copy()
    cart[2:] &= ~cart[:-2].copy()
    purchase = np.zeros_like(cart)
    purchase[1:] = cart[:-1] & ~opens[1:] & (rng.random(max(len(opens) - 1, 0)) < settings.purchase)
    kind = np.zeros(len(opens), np.int8)
    kind[cart], kind[purchase] = CART, PURCHASE
    return kind


def _items(
    settings: SyntheticSettings, items: Catalogue, made: Sessions, topic: Ints, kind: Ints, rng: np.random.Generator
) -> Ints:
    """Views draw from the session's topic (or, exploring, another), or go on to the next item; the rest stays."""
    follows = ~made.opens
    goes_on = (rng.random(len(kind)) < settings.next_item) & follows & (kind == VIEW)
    drawn = np.flatnonzero(~(goes_on | (kind != VIEW)))
    day = made.session_day[made.session]
    drawn_topic, drawn_day = topic[made.session[drawn]], day[drawn]
    explores = (rng.random(len(drawn)) < settings.explore) & follows[drawn]
    drawn_topic[explores] = items.draw_topic(drawn_day[explores], rng.random(int(explores.sum())))
    uniform: Floats = rng.random(len(drawn))
    head = items.draw(drawn_topic, drawn_day, uniform)

    is_drawn = np.zeros(len(kind), bool)
    is_drawn[drawn] = True
    head_no = np.cumsum(is_drawn) - 1
    walked = np.cumsum(goes_on)
    steps = walked - walked[drawn][head_no]
    item = head[head_no]
    on = np.flatnonzero(steps)
    there = items.further(item[on], steps[on])
    item[on] = np.where(items.first_day[there] <= day[on], there, item[on])  # what does not exist yet: the same again
    chosen: Ints = item
    return chosen
