"""Turns ReportData into one self-contained HTML page: no script, no load from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recsys_spark.evaluate.figures import ALL, AUC_K
from recsys_spark.evaluate.segments import USER_SEGMENTS
from recsys_spark.report import plots
from recsys_spark.report.data import Metric, ReportData
from recsys_spark.segments import ITEM_SEGMENTS

DIFFERENCE = " - "
_ORDER = ("ndcg", "recall", "hit_rate", "map", "mrr", "precision", "f1", "auc", "coverage", "gini", "novelty", "diversity")
_NAMES = {
    "ndcg": "NDCG",
    "map": "MAP",
    "mrr": "MRR",
    "f1": "F1",
    "auc": "AUC",
    "recall": "Recall",
    "precision": "Precision",
    "hit_rate": "Hit rate",
    "coverage": "Coverage",
    "gini": "Gini",
    "novelty": "Novelty",
    "diversity": "Diversity",
}
_FIGURES = ("loss", "recall", "by_item", "by_user", "cumulative", "tail", "weights", "diversity")
_SYSTEM_ORDER = ("fused", "champion", "cooccurrence", "popularity")


def render(data: ReportData) -> str:
    """The whole page. Every text of the data is escaped; only the figures drawn here are taken as they are."""
    template = _environment().get_template("report.html.j2")
    systems = systems_of(data.metrics)
    return template.render(
        d=data,
        systems=systems,
        tables=[(title, metric_table(rows, systems)) for title, rows in _main_and_other(data)],
        differences=difference_rows(data),
        figures=_figures(data, systems),
        headline=[m for s in systems for m in data.metrics if _is(m, s, data.gate_metric, data.gate_k)],
        label=f"{metric_name(data.gate_metric)}@{data.gate_k}",
    )


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"count": count, "figure": figure, "signed": signed, "duration": duration, "percent": percent}
    found.filters["metric_name"] = metric_name
    return found


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{int(value):,}".replace(",", "\u202f")


def figure(value: float | None) -> str:
    """Four decimals; fewer for large values."""
    if value is None:
        return "\u2013"
    return f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"


def signed(value: float | None) -> str:
    """Four decimals with their sign."""
    return "\u2013" if value is None else f"{value:+.4f}".replace("-", "\u2212")


def percent(share: float) -> str:
    """A share as whole per cent."""
    return f"{100 * share:.0f}%"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def metric_name(name: str) -> str:
    """How the page writes a metric's name."""
    return _NAMES.get(name, name)


def systems_of(metrics: Sequence[Metric]) -> list[str]:
    """Measured systems, the challenger first."""
    names = {m.system for m in metrics if DIFFERENCE not in m.system}
    return sorted(names, key=lambda n: (_SYSTEM_ORDER.index(n) if n in _SYSTEM_ORDER else len(_SYSTEM_ORDER), n))


def _is(metric: Metric, system: str, name: str, k: int) -> bool:
    return (metric.system, metric.name, metric.k, metric.segment) == (system, name, k, ALL)


def _main_and_other(data: ReportData) -> list[tuple[str, list[Metric]]]:
    """Rows at the gate's k (and those of the whole ranking), then those at each other k."""
    overall = [m for m in data.metrics if m.segment == ALL and DIFFERENCE not in m.system]
    others = sorted({m.k for m in overall} - {data.gate_k, AUC_K})
    main = [m for m in overall if m.k in (data.gate_k, AUC_K)]
    return [("", main)] + [(f"at k = {k}", [m for m in overall if m.k == k]) for k in others]


def metric_table(rows: Sequence[Metric], systems: Sequence[str]) -> list[tuple[str, list[Metric | None]]]:
    """``(label, one metric or None per system)`` for each metric and k, in a fixed order."""
    found = {(m.name, m.k, m.system): m for m in rows}
    keys = sorted({(m.name, m.k) for m in rows}, key=lambda key: (_place(key[0]), key))
    return [(_label(name, k), [found.get((name, k, system)) for system in systems]) for name, k in keys]


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _label(name: str, k: int) -> str:
    return metric_name(name) if k == AUC_K else f"{metric_name(name)}@{k}"


def difference_rows(data: ReportData) -> list[dict[str, Any]]:
    """Paired differences at the gate's k; ``verdict`` says whether the interval leaves 0 out."""
    rows = [m for m in data.metrics if DIFFERENCE in m.system and m.segment == ALL and m.k in (data.gate_k, AUC_K)]
    rows.sort(key=lambda m: (m.system, _place(m.name)))
    return [
        {
            "system": m.system.replace(DIFFERENCE, " \u2212 "),
            "label": _label(m.name, m.k),
            "metric": m,
            "verdict": "better" if (m.low or 0) > 0 else "worse" if (m.high or 0) < 0 else "no clear difference",
        }
        for m in rows
    ]


def _figures(data: ReportData, systems: Sequence[str]) -> dict[str, Markup | None]:
    """Every figure by name; None where there is nothing to draw."""
    label = f"{metric_name(data.gate_metric)}@{data.gate_k}"
    chosen = [m for m in data.metrics if (m.name, m.k) == (data.gate_metric, data.gate_k) and DIFFERENCE not in m.system]
    found: dict[str, Markup | None] = dict.fromkeys(_FIGURES)
    if data.loss_curve:
        found["loss"] = plots.loss_plot(data.loss_curve)
    if data.recall_curve:
        found["recall"] = plots.recall_plot(data.recall_curve, data.training.get("best_epoch"))
    if any(m.segment.startswith("item_") for m in chosen):
        found["by_item"] = plots.segment_plot(chosen, systems, "item", ITEM_SEGMENTS, label)
    if any(m.segment.startswith("user_") for m in chosen):
        found["by_user"] = plots.segment_plot(chosen, systems, "user", USER_SEGMENTS, label)
    if data.item_events:
        found["cumulative"] = plots.cumulative_plot(data.item_events, data.item_places)
        found["tail"] = plots.tail_plot(data.item_events, data.item_places)
    if data.weights:
        found["weights"] = plots.weights_plot(data.weights)
    if data.diversities:
        found["diversity"] = plots.diversity_plot(data.diversities, data.rerank.get("diversity"))
    return found
