"""What a search remembers: an Optuna study in a journal file, which any number of processes may have open.

Everything that must not happen twice (trials are chosen, claimed, given back) happens under a lock on the folder. A lock ends with
the process that has it, so kills leave nothing behind. Which parameters a trial gets, and whether it is pruned, depends on its number
and on trials that are a fixed number before it, never on who works how fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from .search import Search, SearchError

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAME = "sapwood"  # of the study, and of the attributes of trials


class _Lock:
    """A lock on a file, which ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self.path, self.descriptor = path, -1

    def acquire(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            os.close(descriptor)
            raise SearchError(f"{self.path}: this file system has no locks ({error.strerror}): choose another --out") from None
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1


class _File(JournalFileBackend):
    """Optuna's file of lines. Every line reaches the system before the lock is given back, which is all that a kill can ask for; the disk
    is waited for once a second, not at each line: a failing machine costs the trials of a second."""

    def __init__(self, path: Path, lock: _Lock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self.path, self.guard, self.synced = path, lock, 0.0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.guard.acquire()
        try:
            with open(self.path, "ab") as file:
                file.write(b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs))
                file.flush()
                if time.monotonic() - self.synced > 1:
                    os.fsync(file.fileno())
                    self.synced = time.monotonic()
        finally:
            self.guard.release()


class Journal:
    """A search's trials. folder: where the journal is, or will be."""

    def __init__(self, folder: Path, search: Search, dataset: str) -> None:
        self.folder, self.search = folder, search
        self._lock = _Lock(folder / "search.lock")
        (folder / "members").mkdir(parents=True, exist_ok=True)
        self.member = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._mine = _Lock(folder / "members" / self.member)
        self._mine.acquire()
        path = folder / "journal.log"
        with self.lock():
            _mend(path)
            self.storage = JournalStorage(_File(path, _Lock(folder / "journal.lock")))
            self._begin({**search.decisive(), "dataset": dataset, "model": search.model.digest})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.remove(self._mine.path)
        self._mine.release()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _begin(self, decisive: dict[str, Any]) -> None:
        decisive = json.loads(json.dumps(decisive))
        try:
            self.study = optuna.load_study(study_name=NAME, storage=self.storage)
            before = self.study.user_attrs.get("search", {})
        except KeyError:
            self.study = optuna.create_study(study_name=NAME, storage=self.storage, direction=self.search.direction)
            self.study.set_user_attr("search", decisive)
            before = decisive
        for key in decisive.keys() | before.keys():
            if decisive.get(key) != before.get(key):
                raise SearchError(f"{self.folder} holds an interrupted search with other settings ({key} differs): give the same ones "
                                  "to take it up again, or remove that folder to start over")  # fmt: skip
        self.id = self.study._study_id

    def trials(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(self.id, deepcopy=False)

    # ---- Claiming

    def claim(self) -> tuple[FrozenTrial | None, bool]:
        """A trial to train, if there is one now; and whether all are done."""
        with self.lock():
            trials = self.trials()
            waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
            waiting = waiting or self._take_back(trials) or self._plan(trials)
            if waiting is None:
                return None, len(trials) >= self.search.trials and all(trial.state.is_finished() for trial in trials)
            self.storage.set_trial_user_attr(waiting._trial_id, "member", self.member)
            self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
            return waiting, False

    def _take_back(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """A trial whose member is no more."""
        alive: dict[str, bool] = {}
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            member = trial.user_attrs.get("member", "")
            if member not in alive:
                alive[member] = member == self.member or self._is_alive(member)
            if not alive[member]:
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                return trial
        return None

    def _is_alive(self, member: str) -> bool:
        try:
            descriptor = os.open(self.folder / "members" / member, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def give_back(self, trial: FrozenTrial) -> None:
        """Somebody else may train it."""
        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    # ---- Choosing

    def _known(self, trials: list[FrozenTrial], number: int) -> list[FrozenTrial] | None:
        """The trials that number `number` may know of; None: they are not all finished yet."""
        before = trials[: max(number - self.search.parallel + 1, 0)]
        return before if all(trial.state.is_finished() for trial in before) else None

    def _plan(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        number, search = len(trials), self.search
        if number >= search.trials:
            return None
        known = self._known(trials, number) if search.adaptive else []
        if known is None:
            return None
        distributions = {name: space.distribution() for name, space in search.parameters.items()}
        values = search.grid(number) if search.sampler == "grid" else self._sample(known, number, distributions)
        self.study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, params=values, distributions=distributions))
        return self.trials()[number]

    def _sample(self, known: list[FrozenTrial], number: int, distributions: dict[str, Any]) -> dict[str, Any]:
        seed = (self.search.seed * 1000003 + number) % 2**32
        samplers = optuna.samplers
        sampler = samplers.TPESampler(seed=seed) if self.search.sampler == "tpe" else samplers.RandomSampler(seed=seed)
        study = optuna.create_study(direction=self.search.direction, sampler=sampler)
        for trial in known:
            if trial.state != TrialState.FAIL:
                study.add_trial(trial)
        return study.ask(distributions).params

    # ---- Pruning

    def rungs(self, epochs: int) -> list[int]:
        """After which epochs a trial is looked at."""
        if not self.search.pruning:
            return []
        rungs, at = [], self.search.pruning["min_epochs"]
        while at < epochs:
            rungs.append(at)
            at *= self.search.pruning["factor"]
        return rungs

    def goes_on(self, trial: FrozenTrial, epoch: int, value: float) -> bool:
        """Writes down what a trial has come to at a rung; False: it is pruned."""
        self.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        if math.isnan(value):
            return False
        trials = self.trials()
        rungs = self.rungs(epoch + 1)
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=self.search.pruning["factor"])
        study = optuna.create_study(direction=self.search.direction, pruner=pruner)
        for other in self._known(trials, trial.number) or []:
            if other.state != TrialState.FAIL:
                reached = {f"completed_rung_{i}": other.intermediate_values[rung] for i, rung in enumerate(rungs)
                           if rung in other.intermediate_values}  # fmt: skip
                study.add_trial(optuna.trial.create_trial(value=other.value, system_attrs=reached))
        own = study.ask()
        for rung, before in sorted({**trials[trial.number].intermediate_values, epoch: value}.items()):
            own.report(before, rung)
            stop = own.should_prune()
        return not stop

    # ---- Ending

    def _end(self, trial: FrozenTrial, state: TrialState, attributes: dict[str, Any], value: float | None) -> None:
        self.storage.set_trial_user_attr(trial._trial_id, NAME, attributes)
        self.storage.set_trial_state_values(trial._trial_id, state, None if value is None else [value])

    def finish(self, trial: FrozenTrial, answer: dict[str, Any]) -> None:
        """What a worker answered: trained, pruned or failed."""
        attributes = {key: value for key, value in answer.items() if key not in ("trial", "value", "pruned")}
        if "failed" in answer or not math.isfinite(answer["value"]):
            self._end(trial, TrialState.FAIL, {"failed": answer.get("failed", "its value is not finite")}, None)
        else:
            self._end(trial, TrialState.PRUNED if answer["pruned"] else TrialState.COMPLETE, attributes, answer["value"])

    def best(self) -> FrozenTrial | None:
        """Of equal values the first."""
        sign = 1 if self.search.direction == "minimize" else -1
        whole = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return min(whole, key=lambda trial: (sign * trial.value, trial.number), default=None)


def _mend(path: Path) -> None:
    """Cuts off a last line that a full disk or a crash of the machine left unfinished."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        back = min(size, 1 << 20)
        file.seek(size - back)
        tail = file.read(back)
        if tail and not tail.endswith(b"\n"):
            file.truncate(size - back + tail.rfind(b"\n") + 1)
