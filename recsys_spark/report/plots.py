"""Figures of the report as inline SVG that follows the page's colours, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from recsys_spark.report.data import Curve, Metric

# drawn in these colours, which are then replaced by the page's own variables
_INK, _GRID = "#010203", "#040506"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04")
_VARIABLES = {_INK: "var(--ink)", _GRID: "var(--line)"} | {c: f"var(--series-{n})" for n, c in enumerate(_SERIES, 1)}
_MARKERS = ("o", "s", "D", "^")
_WIDTH, _HEIGHT = 4.3, 2.85  # inches; small, so that the text stays readable at phone width
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.axisbelow": True,
}


def _svg(draw: Callable[[Any], None], label: str, name: str, height: float = _HEIGHT) -> Markup:
    """Draw on one pair of axes. ``name`` keeps ids apart when several figures share a page."""
    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", text, count=5)
    text = re.sub(r"\bid=\"(figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend|LineCollection)_\w+\"", "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))  # noqa: S704 - drawn here, label is ours


def loss_plot(curve: Curve) -> Markup:
    """Training loss by step."""

    def draw(axes: Any) -> None:
        axes.plot([p[0] for p in curve], [p[1] for p in curve], color=_SERIES[0], linewidth=1.6)
        axes.set(xlabel="step", ylabel="training loss")

    return _svg(draw, "Training loss by step", "loss")


def recall_plot(curve: Curve, best_epoch: int | None) -> Markup:
    """Validation recall by epoch, the chosen epoch marked."""

    def draw(axes: Any) -> None:
        axes.plot([p[0] for p in curve], [p[1] for p in curve], color=_SERIES[1], linewidth=1.6, marker="o", markersize=4)
        best = next((p for p in curve if p[0] == best_epoch), None)
        if best is not None:
            axes.plot(
                [best[0]], [best[1]], "o", color=_SERIES[0], markersize=9, fillstyle="none", markeredgewidth=1.8, label="kept"
            )
            axes.legend(loc="lower right")
        axes.set(xlabel="epoch", ylabel="validation recall")
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _svg(draw, "Validation recall by epoch", "recall")


def segment_plot(metrics: Sequence[Metric], systems: Sequence[str], prefix: str, order: Sequence[str], label: str) -> Markup:
    """One metric of all systems over segments ``prefix_name``, points with error bars; segments without users are left out."""
    found = {(m.system, m.segment): m for m in metrics}
    names = [n for n in order if any((s, f"{prefix}_{n}") in found for s in systems)]
    shown = systems[: len(_SERIES)]

    def draw(axes: Any) -> None:
        for place, system in enumerate(shown):
            entries = [(i, found[system, f"{prefix}_{n}"]) for i, n in enumerate(names) if (system, f"{prefix}_{n}") in found]
            x = [i + (place - (len(shown) - 1) / 2) * 0.18 for i, _ in entries]
            y = [m.value for _, m in entries]
            below = [max(0.0, m.value - (m.value if m.low is None else m.low)) for _, m in entries]
            above = [max(0.0, (m.value if m.high is None else m.high) - m.value) for _, m in entries]
            style = {"color": _SERIES[place], "marker": _MARKERS[place], "linestyle": "none", "markersize": 5.5}
            axes.errorbar(x, y, yerr=[below, above], capsize=2.5, elinewidth=1.3, label=system, **style)
        sizes = {n: next(found[s, f"{prefix}_{n}"].num_users for s in systems if (s, f"{prefix}_{n}") in found) for n in names}
        axes.set_xticks(range(len(names)), [f"{n}\n{sizes[n]:,} users" for n in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(label)
        axes.figure.legend(loc="outside upper center", ncols=len(shown), handletextpad=0.2, columnspacing=1.2)

    return _svg(draw, f"{label} by {prefix} segment", f"segments-{prefix}")


def cumulative_plot(events: Sequence[float], places: Sequence[float]) -> Markup:
    """How much of all events, and of all recommended places, the most popular share of items holds."""

    def draw(axes: Any) -> None:
        x = [100 * i / len(events) for i in range(len(events) + 1)]
        for values, label, colour in ((events, "events", _SERIES[2]), (places, "recommendations", _SERIES[0])):
            total, run, y = sum(values) or 1.0, 0.0, [0.0]
            for value in values:
                run += value
                y.append(100 * run / total)
            axes.plot(x, y, color=colour, linewidth=1.8, label=label)
        axes.plot([0, 100], [0, 100], color=_INK, alpha=0.55, linewidth=1, linestyle="--", label="all items alike")
        axes.set(xlabel="items, most popular first (%)", ylabel="held by them (%)", xlim=(0, 100), ylim=(0, 102))
        axes.legend(loc="lower right")

    return _svg(draw, "Share of events and recommendations held by the most popular items", "cumulative")


def tail_plot(events: Sequence[float], places: Sequence[float]) -> Markup:
    """Share of events and of recommended places per group of equally many items, most popular group first."""

    def draw(axes: Any) -> None:
        centre = [100 * (i + 0.5) / len(events) for i in range(len(events))]
        for values, label, colour in ((events, "events", _SERIES[2]), (places, "recommendations", _SERIES[0])):
            total = sum(values) or 1.0
            axes.step(centre, [100 * v / total for v in values], where="mid", color=colour, linewidth=1.5, label=label)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="items, most popular first (%)", ylabel="share of the group (%)", xlim=(0, 100), ylim=(0, None))
        axes.legend(loc="upper right")

    return _svg(draw, "Events and recommendations from the most to the least popular items", "tail")


def weights_plot(weights: dict[str, float]) -> Markup:
    """Fusion weights as bars."""

    def draw(axes: Any) -> None:
        names = sorted(weights, key=lambda n: weights[n])
        axes.barh(names, [weights[n] for n in names], color=_SERIES[0], height=0.55)
        for place, name in enumerate(names):
            axes.annotate(f"{weights[name]:g}", (weights[name], place), (4, 0), textcoords="offset points", va="center")
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.15)
        axes.set_xlabel("weight of the partner's z-score")

    return _svg(draw, "Fusion weights", "weights", height=0.8 + 0.36 * len(weights))


def diversity_plot(tried: Sequence[tuple[float, float, float]], chosen: float | None) -> Markup:
    """What each diversity (first of a row) makes of NDCG@10 (second) and of the distance between a list's items (third)."""

    def draw(axes: Any) -> None:
        axes.plot([row[2] for row in tried], [row[1] for row in tried], color=_SERIES[0], linewidth=1.5, marker="o", markersize=4)
        for row in tried:
            if row[0] == chosen:
                axes.plot(row[2], row[1], color=_SERIES[1], marker="o", markersize=9, fillstyle="none", markeredgewidth=1.8)
            if row[0] in (tried[0][0], tried[-1][0], chosen):
                axes.annotate(f"{row[0]:g}", (row[2], row[1]), (0, 8), textcoords="offset points", ha="center")
        axes.margins(0.12, 0.2)
        axes.set(xlabel="mean distance of two items of a list", ylabel="NDCG@10 on validation")

    return _svg(draw, "What diversity costs", "diversity")
