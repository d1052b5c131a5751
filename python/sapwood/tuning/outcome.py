"""What a search leaves: the table of its trials, the best network, trained on all of the training part, and the page about it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import _core
from .._files import write_whole
from .pages import write_page
from .search import SearchError


def table(conductor: Any) -> list[dict[str, Any]]:
    """A row a trial: number, state, parameters, what was measured."""
    rows, search = [], conductor.search
    for trial in conductor.journal.trials():
        about = trial.user_attrs.get("sapwood", {})
        row: dict[str, Any] = {"trial": trial.number, "state": trial.state.name.lower(), search.metric: trial.value, "spread": about.get("spread")}
        row.update({f"fold_{i}": about["folds"][i] if about.get("folds") else None for i in range(search.folds)})
        row.update({name: trial.params[name] for name in search.parameters})
        means = about.get("means", {})
        row.update({name: means.get(name) for name in ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc")
                    if name != search.metric and (name != "val_auc" or name in means)})  # fmt: skip
        row.update({"epochs_done": about.get("epochs"), "weights": about.get("weights"), "seconds": about.get("seconds"),
                    "failed": about.get("failed"), "begun": trial.datetime_start, "ended": trial.datetime_complete})  # fmt: skip
        rows.append(row)
    return rows


def _write_table(rows: list[dict[str, Any]], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [None if value is None else str(value) for value in values]
        columns[name] = pa.array([float(v) if kinds == {int, float} and v is not None else v for v in values])
    pq.write_table(pa.table(columns), folder / "trials.parquet")
    with open(folder / "trials.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def _alone() -> Iterator[None]:
    """Ranks of a search share its journal; a training here is one rank's own, not all of theirs."""
    before = os.environ.get("SAPWOOD_COMM")
    os.environ["SAPWOOD_COMM"] = "none"
    try:
        yield
    finally:
        del os.environ["SAPWOOD_COMM"]
        if before is not None:
            os.environ["SAPWOOD_COMM"] = before


def _train_best(conductor: Any, train: dict[str, Any], folder: Path, tell: Any) -> dict[str, Any] | None:
    """The best network on the whole training part; what it reaches on the test part, if there is one."""
    search = conductor.search
    settings = [("data", search.data), ("model", str(folder / "best.json")), ("batch", str(train["batch"])),
                ("epochs", str(train["epochs"])), ("seed", str(search.seed)), ("out", str(folder / "best"))]  # fmt: skip
    if not (folder / "best").exists():
        tell(f"training the best network on the whole training part, {train['epochs']} epochs")
        with _alone():
            _core.run_stage("train", settings, 0, None)
    shutil.copyfile(folder / "best" / "model.keras", folder / "best.keras")
    try:
        return json.loads(_core.run_stage("evaluate", [("run", str(folder / "best")), ("data", search.data)], 0, None))
    except _core.Error as error:
        if getattr(error, "status", "") == "SAP_EDATA":
            return None  # the dataset has no test part
        raise


def conclude(conductor: Any, out: str, tell: Any) -> dict[str, Any]:
    """Writes everything into the folder, and gives that its name."""
    search, folder = conductor.search, conductor.folder
    best, rows = conductor.journal.best(), table(conductor)
    if best is None:
        failed = next((row["failed"] for row in rows if row["failed"]), "all were pruned")
        raise SearchError(f"{search.where}: no trial was trained to its end: {failed}")
    train = {key: conductor._train(best.params)[key] for key in ("batch", "epochs")}
    about = best.user_attrs["sapwood"]
    states = [row["state"] for row in rows]
    result = {
        "out": out, "trials": len(rows), "pruned": states.count("pruned"), "failed": states.count("fail"), "metric": search.metric,
        "sampler": search.sampler, "folds": search.folds, "fraction": search.fraction, "data": search.data,
        "model": search.model.described, "events": {"share": json.loads((folder / "samples/about.json").read_text())["rows"]},
        "best": {"trial": best.number, "value": best.value, "spread": about["spread"], "folds": about["folds"],
                 "parameters": best.params, "train": train},
        "seconds": sum(row["seconds"] or 0 for row in rows),
    }  # fmt: skip
    write_whole(folder / "best.json", conductor._text(best.params))
    _write_table(rows, folder)
    evaluation = None
    if search.final is not None:
        evaluation = _train_best(conductor, {**train, **search.final}, folder, tell)
        result["test"] = {key: evaluation[key] for key in ("events", "accuracy", "loss")} if evaluation else None
    write_whole(folder / "search.json", json.dumps(result, indent=1))
    write_page(conductor, result, rows, evaluation)
    for left in ("samples", "members", "networks"):
        shutil.rmtree(folder / left, ignore_errors=True)
    for left in ("journal.lock", "search.lock"):
        (folder / left).unlink(missing_ok=True)
    os.rename(folder, out)
    return result


def read_outcome(out: str) -> dict[str, Any]:
    """What a finished search came to."""
    return json.loads(Path(out, "search.json").read_text())
