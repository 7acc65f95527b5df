"""May the challenger become champion? A pure rule on paired differences (DESIGN section 2; docs/decisions/005)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recsys_spark.config.serving import GateSettings
from recsys_spark.errors import InputError
from recsys_spark.evaluate.significance import Interval

CHALLENGER = "fused"
BASELINES = ("cooccurrence", "popularity")


@dataclass(frozen=True)
class GateDecision:
    """``publish`` says whose lists go out: a model's (the new or the standing champion's) or co-occurrence alone."""

    passed: bool
    reason: str
    publish: Literal["encoder", "cooccurrence"]


def decide(challenger_minus: Mapping[str, Interval], settings: GateSettings) -> GateDecision:
    """Judge the challenger by its paired differences to the other systems.

    With a champion: pass when the lower end of (challenger - champion) lies above -margin; otherwise the champion
    stays. Without one: pass when against popularity and against co-occurrence the mean difference is above 0 and its
    lower end above -margin; otherwise co-occurrence lists are published.

    Args:
        challenger_minus: system ('champion', 'cooccurrence', 'popularity') -> interval of the difference.
        settings: the metric's name, its k, and the margin.

    Raises:
        InputError: no champion, and a baseline is missing.
    """
    name = f"{settings.metric}@{settings.k}"
    if "champion" in challenger_minus:
        difference = challenger_minus["champion"]
        passed = difference.low > -settings.margin
        verdict = "the challenger becomes champion" if passed else "the champion stays"
        return GateDecision(passed, f"{_shown('champion', name, difference, settings.margin)}; {verdict}", "encoder")
    missing = [b for b in BASELINES if b not in challenger_minus]
    if missing:
        raise InputError(
            "gate", f"no difference to {', '.join(missing)}", "a champion, or both baselines", "run evaluate with them"
        )
    shown = "; ".join(_shown(b, name, challenger_minus[b], settings.margin) for b in BASELINES)
    lost = [b for b in BASELINES if not _beats(challenger_minus[b], settings.margin)]
    if lost:
        what = f"no champion, and the challenger does not beat {' or '.join(lost)}"
        return GateDecision(False, f"{what}: {shown}; co-occurrence lists are published", "cooccurrence")
    return GateDecision(True, f"no champion, and the challenger beats both baselines: {shown}", "encoder")


def _beats(difference: Interval, margin: float) -> bool:
    return difference.value > 0 and difference.low > -margin


def _shown(system: str, name: str, difference: Interval, margin: float) -> str:
    interval = f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{name} against {system} {interval}, margin {margin:g}"


def differences(rows: Iterable[Mapping[str, Any]], settings: GateSettings) -> dict[str, Interval]:
    """What ``decide`` reads, out of rows of table metrics (or the fact ``main`` of evaluate)."""
    prefix = f"{CHALLENGER} - "
    return {
        str(row["system"]).removeprefix(prefix): Interval(row["value"], row["low"], row["high"])
        for row in rows
        if str(row["system"]).startswith(prefix)
        and (row["name"], row["k"], row["segment"]) == (settings.metric, settings.k, "all")
    }
