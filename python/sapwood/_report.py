"""The report: one self-contained HTML page about a trained and evaluated network.

    python -m sapwood._report --run RUN --data DIR [--out FILE]

It draws what `evaluate` and `train` wrote (RUN/evaluation.json, RUN/history.json) and the selection table of the dataset
(DIR/dataset.json), by matplotlib. It needs no other part of Sapwood.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen first)
from matplotlib.figure import Figure  # noqa: E402

# Okabe and Ito's colours: told apart by colour-blind readers too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sapwood",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1.5em; color: #1b1b1b; background: #fff }}
h1 {{ font-size: 1.6em; margin-bottom: .2em }} h2 {{ font-size: 1.15em; margin-top: 2.2em; border-bottom: 1px solid #ddd }}
table {{ border-collapse: collapse; margin: 1em 0 }} th, td {{ padding: .25em .9em; text-align: right; border-bottom: 1px solid #eee }}
th:first-child, td:first-child {{ text-align: left }} td.hit {{ font-weight: 600 }}
.figures {{ display: flex; gap: 2.5em; flex-wrap: wrap; margin: 1em 0 }} .figures b {{ display: block; font-size: 1.7em; font-weight: 600 }}
.figures span, .note, footer {{ color: #666; font-size: .88em }} figure {{ margin: 1em 0 }} svg {{ max-width: 100%; height: auto }}
.pair {{ display: flex; flex-wrap: wrap; gap: 1em 3em }}
</style></head><body>
{body}
</body></html>
"""


class ReportError(Exception):
    """The report cannot be made; the message says why."""


def _load(folder: str, name: str, made_by: str) -> Any:
    path = Path(folder) / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; `sapwood {made_by}` makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: {error}") from None


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()
    return "<figure>" + text[text.index("<svg") :] + "</figure>"


def _number(value: Any, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


# ---- Tables -----------------------------------------------------------------------------------------------------------


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def selection_table(dataset: dict[str, Any]) -> str:
    selection = dataset["selection"]
    rows = []
    for i, step in enumerate(selection[0]["steps"]):
        row = [html.escape(step["step"])]
        for sample in selection:
            count, read = sample["steps"][i]["events"], sample["steps"][0]["events"]
            share = f" <span class=note>({100 * count / read:.1f} %)</span>" if read and i > 0 else ""
            row.append(f"{count:,}{share}")
        rows.append(row)
    return _table(["events", *(html.escape(sample["sample"]) for sample in selection)], rows)


def confusion_table(evaluation: dict[str, Any]) -> str:
    labels = [html.escape(one["label"]) for one in evaluation["classes"]]
    rows = []
    for k, counts in enumerate(evaluation["confusion"]):
        total = sum(counts)
        row = [labels[k]]
        for j, count in enumerate(counts):
            share = 100 * count / total if total else 0
            row.append(
                f'<td{" class=hit" if j == k else ""} style="background: rgba(0, 114, 178, {share / 100 * 0.5:.2f})">'
                f"{count:,} <span class=note>{share:.1f} %</span></td>"
            )
        rows.append(row)
    return _table(["true class, scored as →", *labels], rows)


# ---- Figures ------------------------------------------------------------------------------------------------------------


def loss_figure(history: list[dict[str, Any]]) -> str:
    epochs = [epoch["epoch"] for epoch in history]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [epoch[what] for epoch in history], color=_colour(0), label="training")
        validation = [epoch[f"validation_{what}"] for epoch in history]
        if any(value is not None for value in validation):
            axis.plot(epochs, validation, color=_colour(1), label="validation")
        axis.set(xlabel="epoch", ylabel=what)
        axis.legend()
    return _svg(figure)


def roc_figure(evaluation: dict[str, Any]) -> str:
    figure, axis = plt.subplots(figsize=(5, 4.4), layout="constrained")
    for k, one in enumerate(evaluation["classes"]):
        if one["auc"] is None:
            continue
        axis.plot([p[1] for p in one["roc"]], [p[2] for p in one["roc"]], color=_colour(k), label=f"{one['label']}: AUC {one['auc']:.4f}")
    axis.plot([0, 1], [0, 1], color="#bbb", linewidth=0.8, linestyle=":")
    axis.set(xlabel="false positive rate (other classes taken)", ylabel="true positive rate (efficiency)", xlim=(0, 1), ylim=(0, 1.01))
    axis.legend(loc="lower right")
    return _svg(figure)


def score_figure(evaluation: dict[str, Any]) -> str:
    classes = evaluation["classes"]
    figure, axes = plt.subplots(1, len(classes), figsize=(3.2 * len(classes), 2.8), layout="constrained", squeeze=False)
    for k, axis in enumerate(axes[0]):
        for truth, counts in enumerate(evaluation["scores"][k]):
            _steps(axis, _merged(counts, evaluation["events"]), 0, 1, truth, classes[truth]["label"])
        axis.set(title=f"score for {classes[k]['label']}", yscale="log", xlabel="score", xlim=(0, 1))
        axis.set_ylabel("share of the class" if k == 0 else "")
    axes[0][0].legend(title="true class", title_fontsize=8)
    return _svg(figure)


def _merged(counts: list[int], events: int) -> list[int]:
    """The 50 bins of a score joined by fives when there are few events."""
    return [sum(counts[i : i + 5]) for i in range(0, len(counts), 5)] if events < 5000 else counts


def _steps(axis: Any, counts: list[int], low: float, high: float, colour: int, label: str) -> None:
    total, bins = sum(counts), len(counts)
    if total:
        edges = [low + (high - low) * i / bins for i in range(bins + 1)]
        axis.stairs([count / total for count in counts], edges, color=_colour(colour), label=label, linewidth=1.2)


def feature_figure(evaluation: dict[str, Any]) -> str:
    features, columns = evaluation["features"], 4
    labels = [one["label"] for one in evaluation["classes"]]
    rows = -(-len(features) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 2.2 * rows), layout="constrained", squeeze=False)
    for axis, feature in zip(axes.flat, features):
        for k, counts in enumerate(feature["counts"]):
            _steps(axis, counts, feature["low"], feature["high"], k, labels[k])
        axis.set_title(feature["name"])
        axis.set_yticks([])
    for axis in axes.flat[len(features) :]:
        axis.set_visible(False)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(labels))
    return _svg(figure)


# ---- The page -----------------------------------------------------------------------------------------------------------


def page(dataset: dict[str, Any], history: list[dict[str, Any]], evaluation: dict[str, Any], options: dict[str, Any]) -> str:
    recipe = html.escape(dataset["recipe"] + (f", {dataset['convention']} convention" if dataset.get("convention") else ""))
    figures = [(_number(evaluation["accuracy"]), f"accuracy on {evaluation['events']:,} events of “{evaluation['split']}”")]
    figures += [(_number(one["auc"]), f"AUC, {html.escape(one['label'])} against the rest") for one in evaluation["classes"]]
    labels = ", ".join(html.escape(label) for label in dataset["labels"])
    parts = [
        f"<h1>{labels}</h1><div class=note>recipe {recipe}; network {html.escape(os.path.basename(options.get('model', 'model.keras')))}, "
        f"{len(history)} epochs, batch {html.escape(str(options.get('batch', '–')))}, seed {html.escape(str(options.get('seed', '–')))}</div>",
        "<div class=figures>" + "".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in figures) + "</div>",
        "<h2>Selection</h2>" + selection_table(dataset),
        "<h2>Training</h2>" + loss_figure(history),
        "<h2>ROC curves and confusion</h2><div class=pair>" + roc_figure(evaluation) + "<div>" + confusion_table(evaluation) + "</div></div>",
        "<h2>Scores</h2>" + score_figure(evaluation),
    ]
    if evaluation["features"]:
        parts.append("<h2>Features by class</h2>" + feature_figure(evaluation))
    parts.append(f"<footer>Sapwood {html.escape(dataset.get('sapwood_version', ''))}</footer>")
    return PAGE.format(title=f"Sapwood: {labels}", body="\n".join(parts))


def write_report(run: str, data: str, out: str | None = None) -> str:
    """Writes the page (aside, then renamed) and returns its path."""
    target = Path(out) if out else Path(run) / "report.html"
    try:
        with plt.rc_context(STYLE):
            text = page(
                _load(data, "dataset.json", "prepare"),
                _load(run, "history.json", "train"),
                _load(run, "evaluation.json", "evaluate"),
                _load(run, "options.json", "train"),
            )
    except (KeyError, TypeError, IndexError) as error:
        raise ReportError(f"{run}, {data}: something is missing or of another kind: {error!r}") from error
    aside = target.with_name(target.name + ".partial")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ReportError(f"{target}: {error.strerror}") from error
    except KeyboardInterrupt:
        aside.unlink(missing_ok=True)
        raise
    return str(target)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sapwood report", description="One HTML page about a trained network.")
    parser.add_argument("--run", required=True, help="folder made by train, evaluated")
    parser.add_argument("--data", required=True, help="dataset made by prepare")
    parser.add_argument("--out", help="the page, else RUN/report.html")
    parser.add_argument("--threads", type=int, help="of no effect here")
    parser.add_argument("--quiet", action="store_true", help="of no effect here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        out = write_report(given.run, given.data, given.out)
        print(json.dumps({"out": out}) if given.json else f"report: {out}")
    except ReportError as error:
        print(f"sapwood report: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sapwood report: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
