"""The page about a search: its course, what mattered, slices and coordinates of all trials, and the best network. Self-contained HTML."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen first)

from .._report import PAGE, STYLE, _colour, _svg, _table, confusion_table, roc_figure  # noqa: E402
from .._files import write_whole  # noqa: E402
from .search import Choice, Search  # noqa: E402

SHOWN = 20  # rows of the table of the best
CURVES = 8
LINES_MOST = 2000  # of parallel coordinates and of slices


def _better(search: Search, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials that were trained to their end, the best first."""
    sign = 1 if search.direction == "minimize" else -1
    whole = [row for row in rows if row["state"] == "complete"]
    return sorted(whole, key=lambda row: (sign * row[search.metric], row["trial"]))


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _places(space: Any, values: list[Any]) -> tuple[list[float], list[str] | None, bool]:
    """Where the values stand on an axis, the names along it where it has some, and whether it is logarithmic."""
    if isinstance(space, Choice):
        names = [_label(value) for value in space.values]
        return [names.index(_label(value)) for value in values], names, False
    return [float(value) for value in values], None, space.log


# ---- Figures --------------------------------------------------------------------------------------------------------


def course_figure(search: Search, rows: list[dict[str, Any]]) -> str:
    figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    whole = [row for row in rows if row["state"] == "complete"]
    pruned = [row for row in rows if row["state"] == "pruned" and row[search.metric] is not None]
    axis.scatter([r["trial"] for r in whole], [r[search.metric] for r in whole], s=9, color=_colour(0), label="trial", linewidths=0)
    if pruned:
        axis.scatter([r["trial"] for r in pruned], [r[search.metric] for r in pruned], s=10, color="#999", marker="x", label="pruned",
                     linewidths=0.8)  # fmt: skip
    best, steps = math.inf, []
    sign = 1 if search.direction == "minimize" else -1
    for row in whole:
        best = min(best, sign * row[search.metric])
        steps.append(sign * best)
    axis.step([r["trial"] for r in whole], steps, where="post", color=_colour(1), linewidth=1.2, label="best so far")
    axis.set(xlabel="trial", ylabel=search.metric)
    axis.legend()
    return _svg(figure)


def importance(search: Search, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The share of the trials' variance that each parameter explains by itself: omega squared of a one-way analysis of variance, the
    values of a range in eight groups of equal size. Of a grid these are the main effects."""
    shown = [row for row in rows if row["state"] == "complete"]
    values = np.array([row[search.metric] for row in shown])
    shares = {}
    for name, space in search.parameters.items():
        places = np.array(_places(space, [row[name] for row in shown])[0])
        groups = places.astype(int) if isinstance(space, Choice) else np.searchsorted(np.quantile(places, np.arange(1, 8) / 8), places)
        kinds, members = np.unique(groups, return_inverse=True)
        counts = np.bincount(members)
        free = len(values) - len(kinds)
        if len(kinds) < 2 or free < 1:
            continue
        means = np.bincount(members, values) / counts
        total, between = ((values - values.mean()) ** 2).sum(), (counts * (means - values.mean()) ** 2).sum()
        within = (total - between) / free
        shares[name] = max((between - (len(kinds) - 1) * within) / (total + within), 0.0) if total > 0 else 0.0
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def importance_figure(shares: dict[str, float]) -> str:
    figure, axis = plt.subplots(figsize=(6, 0.5 + 0.32 * len(shares)), layout="constrained")
    names = list(shares)[::-1]
    bars = axis.barh(names, [shares[name] for name in names], color=_colour(0), height=0.6)
    axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axis.set(xlabel="importance", xlim=(0, max(shares.values()) * 1.15 or 1))
    return _svg(figure)


def slice_figure(search: Search, rows: list[dict[str, Any]]) -> str:
    names, columns = list(search.parameters), 4
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(11, 2.4 * lines), layout="constrained", squeeze=False, sharey=True)
    shown = [row for row in rows if row["state"] == "complete"][:LINES_MOST]
    for k, axis in enumerate(axes.flat):
        if k >= len(names):
            axis.set_visible(False)
            continue
        places, labels, log = _places(search.parameters[names[k]], [row[names[k]] for row in shown])
        spread = [place + (0.5 * ((row["trial"] * 0.618) % 1) - 0.25 if labels else 0) for place, row in zip(places, shown, strict=True)]
        axis.scatter(spread, [row[search.metric] for row in shown], s=8, color=_colour(0), alpha=0.6, linewidths=0)
        if labels:
            axis.set_xticks(range(len(labels)), labels)
        if log:
            axis.set_xscale("log")
        axis.set(title=names[k], ylabel=search.metric if k % columns == 0 else "")
    return _svg(figure)


def coordinate_figure(search: Search, rows: list[dict[str, Any]]) -> str:
    """Each trial as a line through its settings, the better ones in front and in colour."""
    names, shown = list(search.parameters), _better(search, rows)[:LINES_MOST]
    figure, axis = plt.subplots(figsize=(11, 3.6), layout="constrained")
    columns = []
    for k, name in enumerate(names):
        places, labels, log = _places(search.parameters[name], [row[name] for row in shown])
        places = [math.log10(place) for place in places] if log else places
        low, high = (0, max(len(labels) - 1, 1)) if labels else (min(places), max(places))
        columns.append([(place - low) / (high - low) if high > low else 0.5 for place in places])
        ends = labels or [f"{10**low if log else low:.3g}", f"{10**high if log else high:.3g}"]
        for i, label in enumerate(ends):
            axis.text(k - 0.03, i / max(len(ends) - 1, 1), label, fontsize=7.5, ha="right", va="center", color="#444")
        axis.axvline(k, color="#bbb", linewidth=0.8, zorder=0)
    values = [row[search.metric] for row in shown]
    low, high = min(values), max(values)
    heights = [(value - low) / (high - low) if high > low else 0.5 for value in values]
    tenth = max(len(shown) // 10, 1)
    for i in range(len(shown) - 1, -1, -1):
        colour, alpha, width = (_colour(1), 0.9, 1.1) if i < tenth else ("#888", 0.25, 0.6)
        axis.plot(range(len(names) + 1), [*(column[i] for column in columns), heights[i]], color=colour, alpha=alpha, linewidth=width)
    for height, value in ((0, low), (1, high)):
        axis.text(len(names) + 0.03, height, f"{value:.4g}", fontsize=7.5, va="center")
    axis.axvline(len(names), color="#bbb", linewidth=0.8, zorder=0)
    axis.set_xticks(range(len(names) + 1), [*names, search.metric])
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_xlim(-0.4, len(names) + 0.4)
    return _svg(figure)


def curve_figure(search: Search, trials: list[Any], rows: list[dict[str, Any]]) -> str:
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for k, row in enumerate(_better(search, rows)[:CURVES]):
        about = trials[row["trial"]].user_attrs["sapwood"]
        step = -(-about["epochs"] // 100)
        epochs = range(1, about["epochs"] + 1, step)
        axis.plot(epochs, about["curve"], color=_colour(k), linewidth=1.1, label=f"trial {row['trial']}")
    axis.set(xlabel="epoch", ylabel=search.metric)
    axis.legend(ncols=2)
    return _svg(figure)


# ---- The page -------------------------------------------------------------------------------------------------------


def best_table(search: Search, rows: list[dict[str, Any]]) -> str:
    head = ["trial", search.metric, "± folds", *search.parameters, "weights", "seconds"]
    lines = [
        [str(row["trial"]), f"{row[search.metric]:.5f}", f"{row['spread']:.5f}",
         *(html.escape(_label(row[name])) for name in search.parameters), f"{row['weights']:,}", f"{row['seconds']:.2f}"]
        for row in _better(search, rows)[:SHOWN]
    ]  # fmt: skip
    return _table([html.escape(word) for word in head], lines)


def write_page(conductor: Any, result: dict[str, Any], rows: list[dict[str, Any]], evaluation: dict[str, Any] | None) -> None:
    """report.html in the search's folder."""
    search, best = conductor.search, result["best"]
    about = (f"{result['trials']:,} trials ({result['pruned']:,} pruned, {result['failed']:,} failed), {search.sampler} of "
             f"{len(search.parameters)} parameters; {result['events']['share']:,} events ({search.fraction:g} of the training part), "
             f"{search.folds} fold{'s' * (search.folds > 1)}; {result['seconds']:,.1f} s of training on one core each")  # fmt: skip
    figures = [(f"{best['value']:.5g}", f"{search.metric}, mean over the folds, trial {best['trial']}"),
               *((html.escape(_label(value)), html.escape(name)) for name, value in best["parameters"].items())]  # fmt: skip
    with plt.rc_context(STYLE):
        parts = [
            f"<h1>Search of {html.escape(result['model'])}</h1><div class=note>{about}</div>",
            "<div class=figures>" + "".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in figures) + "</div>",
            "<h2>The best trials</h2>" + best_table(search, rows),
            "<h2>Course</h2>" + course_figure(search, rows),
        ]
        shares = importance(search, rows)
        if shares:
            note = "<p class=note>The share of the variance between trials that a parameter explains by itself (ω²).</p>"
            parts.append("<h2>Importance</h2>" + note + importance_figure(shares))
        parts.append("<h2>Slices</h2>" + slice_figure(search, rows))
        parts.append("<h2>All settings together</h2><p class=note>The best tenth is in colour.</p>" + coordinate_figure(search, rows))
        parts.append("<h2>Learning curves of the best</h2>" + curve_figure(search, conductor.journal.trials(), rows))
        if evaluation:
            parts.append(f"<h2>The best network, trained on all training events</h2><p class=note>Accuracy {evaluation['accuracy']:.4f} on "
                         f"{evaluation['events']:,} test events, which the search has not seen.</p><div class=pair>"
                         + roc_figure(evaluation) + "<div>" + confusion_table(evaluation) + "</div></div>")  # fmt: skip
    parts.append(f"<footer>Sapwood {html.escape(conductor.dataset.get('sapwood_version', ''))}</footer>")
    page = PAGE.format(title=f"Sapwood: search of {html.escape(result['model'])}", body="\n".join(parts))
    write_whole(Path(conductor.folder, "report.html"), page)
