"""The charts of the report as SVG text.

In: metrics and learning curves as the evaluate stage has them. Out: text that is the same for the same figures: no
dates, fixed ids, no display needed. Knows nothing about the page around them.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

ACCENT = "#1d4ed8"
OTHERS = ("#94a3b8", "#d97706", "#0f766e", "#a855f7", "#be123c", "#65a30d", "#0891b2", "#78716c")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "recops",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e2e8f0",
    "xtick.color": "#334155",
    "ytick.color": "#334155",
    "legend.frameon": False,
}


def colours(metrics: Mapping[str, Any]) -> dict[str, str]:
    """A colour a model, the chosen one standing out."""
    others = [name for name in metrics["models"] if name != metrics["chosen"]]
    return {metrics["chosen"]: ACCENT} | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}


def learning_curves(metrics: Mapping[str, Any], curves: Mapping[str, Any]) -> str | None:
    """Loss and validation metric by epoch; None when no model has epochs."""
    trained = {name: curve for name, curve in curves.items() if any("loss" in row for row in curve["epochs"])}
    if not trained:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        palette = colours(metrics)
        for name, curve in trained.items():
            epochs = [row["epoch"] for row in curve["epochs"]]
            style = {"color": palette.get(name, OTHERS[0]), "label": name, "marker": "o", "markersize": 3.5}
            left.plot(epochs, [row["loss"] for row in curve["epochs"]], **style)
            judged = [row for row in curve["epochs"] if row.get("metric") is not None]
            if judged:
                right.plot([row["epoch"] for row in judged], [row["metric"] for row in judged], **style)
            if curve.get("best_epoch") is not None and curve.get("best_metric") is not None:
                best = curve["best_epoch"], curve["best_metric"]
                right.plot(*best, "o", color=style["color"], markersize=9, alpha=0.35)
        left.set_title("Training loss")
        right.set_title(f"{metrics['metric']} on validation (kept epoch marked)")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if len(trained) > 1:
                axes.legend()
        return _svg(figure)


def metric_bars(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """One panel a metric name such as `ndcg`: a group of bars at each k, with 95 % intervals where there are any."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.3), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        palette = colours(metrics)
        models = [name for name in palette if name in metrics["models"]]
        for axes, name in zip(panels, names, strict=True):
            ks = lengths(metrics, name)
            width = 0.8 / len(models)
            for number, model in enumerate(models):
                entries = [metrics["models"][model]["metrics"].get(f"{name}@{k}", {}) for k in ks]
                bars = [(i, e) for i, e in enumerate(entries) if e.get("value") is not None]
                x = [i - 0.4 + (number + 0.5) * width for i, _ in bars]
                y = [e["value"] for _, e in bars]
                axes.bar(x, y, width * 0.92, color=palette[model], label=model)
                if bars and all("low" in e for _, e in bars):
                    below = [max(e["value"] - e["low"], 0.0) for _, e in bars]
                    above = [max(e["high"] - e["value"], 0.0) for _, e in bars]
                    axes.errorbar(x, y, [below, above], fmt="none", ecolor="#0f172a", elinewidth=1, capsize=2)
            axes.set_xticks(range(len(ks)), [f"@{k}" for k in ks])
            axes.set_title(title(name))
            axes.grid(False, axis="x")
            if axes.get_ylim()[0] < 0:
                axes.axhline(0, color="#94a3b8", linewidth=0.8)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(models), 5))
        return _svg(figure)


def lengths(metrics: Mapping[str, Any], name: str) -> list[int]:
    """The k at which a metric was computed for any model, rising."""
    keys = {key for figures in metrics["models"].values() for key in figures["metrics"]}
    return sorted(int(key.partition("@")[2]) for key in keys if key.partition("@")[0] == name)


def title(name: str) -> str:
    """A metric's name for people."""
    words = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "gini": "Gini index", "rmse": "RMSE", "mae": "MAE"}
    return words.get(name, name.replace("_", " ").capitalize())


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = text.getvalue()
    # Inside a page the XML declaration and document type do not belong.
    return svg[svg.index("<svg") :]
