"""How well new items are found, and at what price, on users and items that training never saw; no test event is read.

python -m benchmarks.quality.new_items DIR [--hidden 0.1]

A quarter of the users is held out, a share of the items hidden from all others, and each user's last event dropped (it is the
test of the leave-one-out protocol). The production stages train on the rest. Then each event of a held-out user with a hidden
item asks for it, by the items before; and the last event with another item asks for that. A hidden item of an ordinary cold
draw is no substitute: its users' later events have been learned from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.benchmark.folder import settings_for
from recsys_spark.benchmark.night import STAGES, BenchmarkNight
from recsys_spark.collaborative.ease import ease_weights
from recsys_spark.config.serving import RecommendSettings, SparkSettings
from recsys_spark.embed.encode import item_vectors
from recsys_spark.encoder.packaged_model import PackagedModel, load_model
from recsys_spark.errors import InputError
from recsys_spark.evaluate.split import leave_one_out
from recsys_spark.night import closing_night
from recsys_spark.recommend.new_items import WEIGHTS, NewItems
from recsys_spark.recommend.scoring.blocks import Past
from recsys_spark.recommend.scoring.partners import TextItems
from recsys_spark.register.new_items_fit import EAGERNESS, Lists, fit_known
from recsys_spark.session import build_session

HELD_OUT_USERS, LEAST_HISTORY, TEN = 0.25, 2, 10
_EASE_L2, _EASE_DECAY, _TEXT_DECAY = 300.0, 0.7, 0.8
_FUSED = {"encoder": 1.0, "ease": 0.15, "text": 0.3}  # of known items, about as validation chooses
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """Histories (positions of items, oldest first) and the item that each asks for."""

    histories: list[list[int]]
    targets: NDArray[np.int64]


def draw(name: str, of: str) -> float:
    """A number from [0, 1) that belongs to this id."""
    return int(hashlib.sha1(f"{of}:{name}".encode()).hexdigest()[:8], 16) / 2**32


def split(data: Path, hidden_share: float, out: Path) -> tuple[list[str], NDArray[np.bool_], Asked, Asked]:
    """Writes what training may see into ``out``; item ids, which are hidden, and what hidden and other items are asked by."""
    events = pd.read_parquet(data / "events.parquet")
    order = "pos" if "pos" in events else "ts"
    events = events.sort_values(["user_id", order], kind="stable")
    events = events[events.groupby("user_id").cumcount(ascending=False) > 0]
    items = pd.read_parquet(data / "items.parquet")
    item_ids = items["item_id"].tolist()
    position = {item_id: place for place, item_id in enumerate(item_ids)}
    events = events[events["item_id"].isin(position)]
    hidden = np.array([draw(item_id, "item") < hidden_share for item_id in item_ids])
    held_out = events["user_id"].map(lambda user: draw(user, "user") < HELD_OUT_USERS)
    seen = events[~held_out & ~events["item_id"].map(lambda item_id: bool(hidden[position[item_id]]))]
    seen = seen[seen.groupby("user_id")["item_id"].transform("size") >= LEAST_HISTORY + 1]
    out.mkdir(parents=True, exist_ok=True)
    seen.assign(pos=seen.groupby("user_id").cumcount()).drop(columns=["ts"], errors="ignore").to_parquet(out / "events.parquet")
    items.to_parquet(out / "items.parquet")
    new: list[tuple[list[int], int]] = []
    known: list[tuple[list[int], int]] = []
    for _, own in events[held_out].groupby("user_id"):
        history: list[int] = []
        for place in (position[item_id] for item_id in own["item_id"]):
            if not hidden[place]:
                history.append(place)
            elif len(history) >= LEAST_HISTORY:
                new.append((list(history), place))
        if len(history) > LEAST_HISTORY + 1:
            known.append((history[:-1], history[-1]))
    return item_ids, hidden, _asked(new), _asked(known)


def _asked(rows: list[tuple[list[int], int]]) -> Asked:
    return Asked([history for history, _ in rows], np.array([target for _, target in rows]))


def trained(folder: Path, work: Path, item_ids: list[str]) -> tuple[PackagedModel, Floats]:
    """The model of the production stages and its vectors of all items, hidden ones by their text."""
    spark = build_session(SparkSettings(), "recsys-spark new items")
    night = BenchmarkNight(settings_for(folder, work / "warehouse", 0, {}), spark, "benchmark/new-items", leave_one_out)
    with closing_night(night):
        night.ingest()
        for stage in STAGES[: STAGES.index("train") + 1]:
            getattr(night, stage)("eval")
        model_dir = Path(str(night.facts("train")["model_dir"]))
        rows = item_vectors(night.evaluation, model_dir, night.evaluation.items()).select("item_id", "vector").toPandas()
        vector = rows.set_index("item_id")["vector"]
    return load_model(model_dir), np.stack([vector[item_id] for item_id in item_ids]).astype(np.float32)


def ease(folder: Path, item_ids: list[str]) -> Floats:
    """EASE's weights [N, N] of what training may see."""
    events, num_items = pd.read_parquet(folder / "events.parquet"), len(item_ids)
    position = pd.Series(np.arange(num_items), index=item_ids)
    rows, columns = pd.factorize(events["user_id"])[0], position[events["item_id"]].to_numpy()
    met = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(rows.max() + 1, num_items))
    met.data[:] = 1.0
    weights: Floats = ease_weights(met.T @ met, _EASE_L2).astype(np.float32)
    return weights


class Scorer:
    """z-scores [B, N] of encoder, EASE and TF-IDF for histories."""

    def __init__(self, model: PackagedModel, vectors: Floats, weights: Floats, texts: list[str]) -> None:
        self._model, self._vectors, self._ease = model, vectors, weights
        words = TextItems.of(texts)
        if words is None:
            raise InputError("items", "no word that tells them apart", "texts", "choose a folder with item texts")
        self._words = words

    def __call__(self, histories: list[list[int]]) -> dict[str, Floats]:
        length = self._model.settings.max_history
        rows = np.full((len(histories), length), -1)
        for row, history in zip(rows, histories, strict=True):
            row[length - min(len(history), length) :] = history[-length:]
        users = self._model.encode_histories(self._vectors, rows)
        past = _past(histories, len(self._vectors))
        text = self._words.scores(self._words.profiles(past.weighted(_TEXT_DECAY))).by_item.T
        parts = {"encoder": users @ self._vectors.T, "ease": past.weighted(_EASE_DECAY) @ self._ease, "text": text}
        return {name: _standardised(np.asarray(part, np.float32)) for name, part in parts.items()}


def _past(histories: list[list[int]], num_items: int) -> Past:
    lengths = np.array([len(history) for history in histories])
    return Past(lengths, np.concatenate(histories), num_items)


def _standardised(scores: Floats) -> Floats:
    found: Floats = (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-9)
    return found


def fused_scores(asked: Asked, z: dict[str, Floats]) -> Floats:
    """[B, N], -inf for items of the history."""
    fused = sum((weight * z[name] for name, weight in _FUSED.items()), np.zeros_like(z["text"]))
    fused[_met(asked, fused.shape[1])] = -np.inf
    return fused


def lists_of(asked: Asked, z: dict[str, Floats], hidden: NDArray[np.bool_], slots: int) -> Lists:
    """First tens of known items, and the chances of the best hidden ones."""
    fused = fused_scores(asked, z)
    fused[:, hidden] = -np.inf
    own = sum((weight * z[name][:, hidden] for name, weight in WEIGHTS.items()), np.zeros((len(fused), int(hidden.sum()))))
    raised = np.exp(own - own.max(1, keepdims=True))
    chances = raised / raised.sum(1, keepdims=True)
    known, new = np.argsort(-fused, axis=1)[:, :TEN], np.argsort(-chances, axis=1)[:, :slots]
    wanted, positions = asked.targets[:, None], np.flatnonzero(hidden)
    return Lists(
        np.take_along_axis(fused, known, 1).astype(np.float64),
        known == wanted,
        np.take_along_axis(chances, new, 1),
        positions[new] == wanted,
        np.ones(len(fused), np.int64),
        np.zeros(len(fused), np.int64),
    )


def frontier(new: Lists, known: Lists, plain: tuple[float, float], share: float, per_ten: int) -> list[dict[str, float]]:
    """For each eagerness: what users of known items lose, how many new items are found, and what both make of all users.

    Args:
        plain: NDCG@10 of new and of known items in lists by fused scores alone, that losses and gains are told against.
    """
    places = NewItems(per_ten, 0.0, *fit_known(known), demand=1.0)
    chances = [places.known_chances(lists.known) for lists in (new, known)]
    rows: list[dict[str, float]] = []
    for eagerness in EAGERNESS:
        tried = replace(places, eagerness=eagerness)
        of_new, of_known = (lists.ndcg(tried.order(c, lists.new, share)) for c, lists in zip(chances, (new, known), strict=True))
        found = {"hit_rate_new": float((of_new > 0).mean()), "ndcg_new": float(of_new.mean())}
        everyone = (1 - share) * float(of_known.mean()) + share * found["ndcg_new"]
        gain = everyone / ((1 - share) * plain[1] + share * plain[0]) - 1
        rows.append({"eagerness": eagerness, "loss_known": 1 - float(of_known.mean()) / plain[1], **found, "gain_all": gain})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Train, print the frontier beside TF-IDF's hit rate, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with events.parquet and items.parquet")
    parser.add_argument("--hidden", type=float, default=0.1, help="share of the items that are new")
    parser.add_argument("--work", type=Path, default=Path("work/new-items"), help="where tables and models go")
    arguments = parser.parse_args(argv)
    work = arguments.work / arguments.data.name
    item_ids, hidden, new, known = split(arguments.data, arguments.hidden, work / "seen")
    model, vectors = trained(work / "seen", work, item_ids)
    items = pd.read_parquet(work / "seen" / "items.parquet")
    texts = items.drop(columns=["item_id"]).astype(str).agg(" ".join, axis=1).tolist()
    scorer = Scorer(model, vectors, ease(work / "seen", item_ids), texts)
    z_new, z_known = scorer(new.histories), scorer(known.histories)
    of_text = np.where(_met(new, len(item_ids)), -np.inf, z_new["text"])
    text_hits = float((_ranks(of_text, new.targets) < TEN).mean())
    plain = [_ranks(fused_scores(asked, z), asked.targets) for asked, z in ((new, z_new), (known, z_known))]
    by_score = tuple(float(((ranks < TEN) / np.log2(ranks + 2.0)).mean()) for ranks in plain)
    share, per_ten = float(hidden.mean()), RecommendSettings().new_items_per_ten
    of_new, of_known = lists_of(new, z_new, hidden, per_ten), lists_of(known, z_known, hidden, per_ten)
    rows = frontier(of_new, of_known, (by_score[0], by_score[1]), share, per_ten)
    print(
        f"by fused scores alone: new items HR@10 {(plain[0] < TEN).mean():.4f} NDCG@10 {by_score[0]:.4f}, known {by_score[1]:.4f}"
    )
    asks = f"{len(new.targets)} asks for {int(hidden.sum())} new items, {len(known.targets)} for others"
    print(f"{asks}; TF-IDF HR@10 {text_hits:.4f}")
    for row in rows:
        print("  ".join(f"{name} {value:.4f}" for name, value in row.items()))
    print(json.dumps({"row": "new-items", "data": arguments.data.name, "hidden": share, "text": text_hits, "frontier": rows}))


def _met(asked: Asked, num_items: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = _past(asked.histories, num_items).weighted(1.0).toarray() > 0
    return found


def _ranks(scores: Floats, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    own = np.take_along_axis(scores, targets[:, None], 1)
    found: NDArray[np.int64] = (scores > own).sum(1)
    return found


if __name__ == "__main__":
    main()
