"""The conductor: claims trials, hands them to workers, writes down what they answer. Any number of conductors may share a folder; each
ends when all trials have, and the first of them writes what came out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .crews import LocalCrew, SparkCrew
from .journal import Journal
from .networks import Networks
from .outcome import conclude, read_outcome
from .samples import Samples, check_folds, describe_dataset, lay_out
from .search import Search, SearchError, read_search

POLL_SECONDS = 0.2  # between looks at what others do, when there is nothing to hand out
DEATHS_MOST = 2  # of workers with the same trial: it is the trial's fault then
FAILURES_MOST = 10  # trials that fail before any succeeds

Tell = Callable[[str], None]


def rank() -> tuple[int, int]:
    """This process' place among those of mpirun or srun, and how many they are; (0, 1) without."""
    for place, count in (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if place in os.environ and count in os.environ:
            return int(os.environ[place]), int(os.environ[count])
    return 0, 1


class Conductor:
    """One process' part in a search."""

    def __init__(self, search: Search, folder: Path, tell: Tell) -> None:
        self.search, self.folder, self.tell = search, folder, tell
        self.dataset = describe_dataset(search.data)
        (folder / "networks").mkdir(parents=True, exist_ok=True)
        self.journal = Journal(folder, search, self.dataset["hash"])
        self.networks = Networks(search.model, folder / "networks")
        self.busy: dict[Connection, Any] = {}  # trials by who trains them
        self.idle: list[Connection] = []
        self.begun_work: set[Connection] = set()
        self.deaths: dict[int, int] = {}
        self.begun = self.told = time.monotonic()
        self.ended = 0  # trials, here

    # ---- Before the first trial

    def samples(self) -> Samples:
        """The samples, laid out by the first who comes."""
        with self.journal.lock():
            core = self._first_network()
            samples = lay_out(self.search, core, self.folder / "samples")
        check_folds(samples, self.search)
        return samples

    def _first_network(self) -> Any:
        """A network of this search, to know its inputs by."""
        from .. import _core

        search = self.search
        values = {name: getattr(space, "values", None) and space.values[0] for name, space in search.parameters.items()}
        values = {name: getattr(search.parameters[name], "low", value) if value is None else value for name, value in values.items()}
        path = self.folder / f"first.{os.getpid()}.json"
        try:
            path.write_text(self._text(values), encoding="utf-8")
            return _core.model_open(path, 0)
        finally:
            path.unlink(missing_ok=True)

    # ---- Tasks

    def _train(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial's training."""
        own = {name: value for name, value in values.items() if not self.search.model.takes(name) and name != "fraction"}
        return {**self.search.train, **own}

    def _text(self, values: Mapping[str, Any]) -> str:
        return self.networks.text(dict(values), self._train(values), len(self.dataset["labels"]))

    def _task(self, trial: Any) -> dict[str, Any]:
        search, train = self.search, self._train(trial.params)
        return {
            "trial": trial.number, "network": self._text(trial.params), "train": {key: train[key] for key in ("batch", "epochs")},
            "folds": search.folds, "fraction": trial.params.get("fraction", search.fraction), "metric": search.metric,
            "seed": search.seed, "rungs": self.journal.rungs(train["epochs"]),
        }  # fmt: skip

    def _hand_out(self) -> bool:
        """Gives every idle worker a trial, as far as there are any; whether the search is done."""
        while self.idle:
            trial, done = self.journal.claim()
            if trial is None:
                return done and not self.busy
            try:
                task = self._task(trial)
            except SearchError:
                raise
            except Exception as error:  # the builder's own: whatever its author raises for settings that do not go together
                self._note(trial, {"failed": f"{type(error).__name__}: {error}"})
                continue
            connection = self.idle.pop()
            self.busy[connection] = trial
            _send(connection, task)
        return False

    # ---- Answers

    def _note(self, trial: Any, answer: dict[str, Any]) -> None:
        self.journal.finish(trial, answer)
        self.ended += 1
        trials = self.journal.trials()
        finished = [one for one in trials if one.state.is_finished()]
        failed = [one for one in finished if one.state.name == "FAIL"]
        if len(failed) == len(finished) and len(finished) >= min(FAILURES_MOST, self.search.trials):
            raise SearchError(f"{self.search.where}: the first {len(failed)} trials failed: {failed[-1].user_attrs['sapwood']['failed']}")
        now = time.monotonic()
        if now - self.told > 1 or len(finished) == self.search.trials:
            self.told = now
            best = self.journal.best()
            text = f"{len(finished)} of {self.search.trials} trials"
            if best:
                settings = ", ".join(f"{name} {_short(value)}" for name, value in best.params.items())
                text += f"; best {self.search.metric} {best.value:.5g} (trial {best.number}: {settings})"
            self.tell(f"{text}; {self.ended / (now - self.begun):.3g} trials/s here")

    def _hear(self, crew: Any, connection: Any) -> None:
        if crew.is_new(connection):
            return
        try:
            message = _receive(connection)
        except (EOFError, OSError):
            self._lose(crew, connection)
            return
        if "hello" in message:
            self.begun_work.add(connection)
            self.idle.append(connection)
        elif "epoch" in message:
            _send(connection, {"go": self.journal.goes_on(self.busy[connection], message["epoch"], message["value"])})
        else:
            self._note(self.busy.pop(connection), message)
            self.idle.append(connection)

    def _lose(self, crew: Any, connection: Connection) -> None:
        """A worker is no more: its trial is trained again, but not for ever."""
        why = crew.lost(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        trial = self.busy.pop(connection, None)
        if trial is None:
            if crew.begins and connection not in self.begun_work:
                raise SearchError(f"a worker could not begin ({why})")
            return
        self.deaths[trial.number] = self.deaths.get(trial.number, 0) + 1
        self.tell(f"a worker ended in trial {trial.number} ({why})")
        if self.deaths[trial.number] >= DEATHS_MOST:
            self._note(trial, {"failed": f"its worker ended ({why}), and again when it was tried anew"})
        else:
            self.journal.give_back(trial)

    def run(self, crew: Any) -> None:
        """Until all trials have ended, here and elsewhere."""
        try:
            while True:
                if self._hand_out():
                    return
                ready = wait(crew.waited_for(), POLL_SECONDS if self.idle or not self.busy else 60)
                for connection in ready:
                    self._hear(crew, connection)
        except BaseException:
            with contextlib.suppress(OSError):  # of a full disk, say: then whoever goes on takes them back
                for trial in self.busy.values():
                    self.journal.give_back(trial)
            raise
        finally:
            crew.end()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _send(connection: Connection, message: dict[str, Any]) -> None:
    try:
        connection.send_bytes(json.dumps(message).encode())
    except OSError:
        pass  # it is gone: reading from it says so


def _receive(connection: Connection) -> dict[str, Any]:
    return json.loads(connection.recv_bytes())


class _Terminated(KeyboardInterrupt):
    pass


def _on_signal(number: int, frame: Any) -> None:
    raise _Terminated


def tune(
    search: Any,
    *,
    out: str | os.PathLike | None = None,
    spark: Any = None,
    workers: int | None = None,
    progress: Tell | None = None,
    **options: Any,
) -> dict[str, Any]:
    """See sapwood.tune."""
    checked = read_search(search, options)
    place, size = rank()
    out = os.fspath(out) if out is not None else os.path.splitext(os.path.basename(checked.where))[0]
    out = out.rstrip("/") or "/"
    partial = Path(f"{out}.partial")
    if os.path.exists(out):
        if place > 0 and not partial.exists():  # another rank was done before this one began
            return read_outcome(out)
        raise SearchError(f"{out} exists already: choose another --out, or remove it")
    tell = progress if progress and place == 0 else lambda text: None
    partial.mkdir(parents=True, exist_ok=True)
    restore = None
    if threading.current_thread() is threading.main_thread():
        restore = signal.signal(signal.SIGTERM, _on_signal)
    conductor = Conductor(checked, partial, tell)
    try:
        samples = conductor.samples()
        share = f"{samples.rows:,} of {samples.about['of']:,} events, {checked.folds} fold{'s' * (checked.folds > 1)}"
        tell(f"{checked.trials} trials ({checked.sampler}) on {share}")
        if spark is not None:
            crew: Any = SparkCrew(getattr(spark, "sparkContext", spark), workers, partial / "samples")
        else:
            crew = LocalCrew(workers or (1 if size > 1 else len(os.sched_getaffinity(0))), partial / "samples")
        conductor.run(crew)
        with conductor.journal.lock():  # the first who comes here concludes, the others find it done
            if os.path.exists(out):
                return read_outcome(out)
            return conclude(conductor, out, tell)
    except FileNotFoundError:
        if os.path.exists(out) and not partial.exists():  # another concluded while this one looked for more to do
            return read_outcome(out)
        raise
    finally:
        conductor.journal.close()
        if restore is not None:
            signal.signal(signal.SIGTERM, restore)


def show(text: str) -> None:
    """The standard progress: lines on standard error."""
    print(f"tune: {text}", file=sys.stderr, flush=True)
