"""A training as one barrier stage: what its tasks do, and how the driver runs it, follows it, and starts it again.

A task writes the shards of its rank as a dataset folder (sharding.py), becomes the parent of an MPI rank that runs `sapwood train` on it
(launcher.py), and, for rank 0, tells the driver how it goes (progress.py) and returns the trained model as rows.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .launcher import LostRankError, RankError, Ranks, gather
from .progress import Address, Listener, News, Post
from .sharding import Rows, describe, join

RESULT_SCHEMA = "name string, data binary"
_RESULT_BYTES = 64 << 20  # of a row
_RUN = "run"  # the run folder, in the working folder of rank 0 unless it has a place of its own
_SLOT_PATIENCE = 3.0  # seconds for more executors to turn up at first
_FIRST_EXECUTOR = 60.0  # seconds that an application may be old without having any
_RESTART_PATIENCE = 120.0  # and for new ones in place of those that were lost
_LAST_NEWS = 2.0  # seconds for news that are still on their way when the stage has ended
_LOOK = 0.2  # seconds between two looks at what rank 0 has written


@dataclass(frozen=True)
class Job:
    """What tasks must know. Travels with them."""

    count: int  # ranks
    arguments: list[str]  # of `sapwood train`, but for --data, --model, --out, --csv
    model: bytes
    suffix: str  # of its file: ".keras" or ".json"
    data: str | None = None  # a dataset folder that all executors see; None: rows come with the stage
    rows: Rows | None = None
    out: str | None = None  # run folder that all executors see
    epochs_wanted: bool = False  # the model after each epoch is wanted
    gpu: bool = False
    threads: int = 0  # of a rank; 0: as many as Spark gives the task
    environment: dict[str, str] = field(default_factory=dict)
    address: Address | None = None
    checkpoint: tuple[str, bytes] | None = None  # options.json and checkpoint to go on from


# ---- In a task ----------------------------------------------------------------------------------------------------------


def _local_folder() -> Path:
    """A folder on the executor's local disks, on the one with most room."""
    named = next((os.environ[name] for name in ("SPARK_EXECUTOR_DIRS", "LOCAL_DIRS", "SPARK_LOCAL_DIRS") if os.environ.get(name)),
                 tempfile.gettempdir())  # fmt: skip
    folders = [folder for folder in re.split("[:,]", named) if os.path.isdir(folder) and os.access(folder, os.W_OK)]
    roomy = max(folders, key=lambda folder: shutil.disk_usage(folder).free, default=tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix="sapwood-rank-", dir=roomy))


class _Folder:
    """A working folder that goes even when this process is killed: another one removes it as soon as a pipe from here is closed."""

    def __enter__(self) -> Path:
        self.path = _local_folder()
        code = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"
        self._remover = subprocess.Popen([sys.executable, "-I", "-S", "-c", code, str(self.path)], stdin=subprocess.PIPE,
                                         stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        return self.path

    def __exit__(self, *unused: object) -> None:
        self._remover.communicate()


class _Reporter:
    """Tells the driver what rank 0 has written since the last look."""

    def __init__(self, job: Job, folder: Path, run: Path, post: Post) -> None:
        self._post, self._folder, self._partial = post, folder, run.with_name(run.name + ".partial")
        self._epochs_wanted, self._keeps = job.epochs_wanted, job.out is not None
        self._printed = self._rows = 0
        self._header: list[str] = []
        self._stored, self._next_look, self._next_store = 0, 0.0, 0.0

    def look(self, last: bool = False) -> None:
        now = time.monotonic()
        if not self._post.alive or (now < self._next_look and not last):
            return
        self._next_look = now + _LOOK
        self._printed = self._lines("output", self._printed, self._line)
        self._rows = self._lines("history.csv", self._rows, self._epoch)
        if not self._keeps and not last and now >= self._next_store:
            self._store(now)

    def _lines(self, name: str, seen: int, tell: Callable[[str], None]) -> int:
        """Calls `tell` for each new whole line of a file; returns how many bytes have been seen."""
        path = self._folder / name
        if not path.exists() or path.stat().st_size == seen:
            return seen
        with path.open("rb") as file:
            file.seek(seen)
            text, newline, _ = file.read().rpartition(b"\n")
        for line in text.decode(errors="replace").splitlines():
            tell(line)
        return seen + len(text) + len(newline)

    def _line(self, line: str) -> None:
        self._post.send("line", {"line": line})

    def _epoch(self, line: str) -> None:
        if not self._header:
            self._header = line.split(",")
            return
        values = {name: float(value) for name, value in zip(self._header, line.split(","), strict=True) if value not in ("", "nan")}
        epoch = int(values.pop("epoch"))
        age = time.time() - (self._folder / "history.csv").stat().st_mtime
        model = self._folder / f"epoch-{epoch + 1}.keras"
        data = model.read_bytes() if self._epochs_wanted else b""
        model.unlink(missing_ok=True)
        self._post.send("epoch", {"epoch": epoch, "logs": values, "age": age}, data)

    def _store(self, now: float) -> None:
        checkpoint = self._partial / "checkpoint"
        try:
            written = checkpoint.stat().st_mtime_ns
            if written == self._stored:
                return
            data, options = checkpoint.read_bytes(), (self._partial / "options.json").read_text()
        except FileNotFoundError:
            return
        self._stored = written
        self._post.send("checkpoint", {"options": options}, data)
        self._next_store = now + max(1.0, 20 * (time.monotonic() - now))  # a large one may not hold up the training


def _arguments(job: Job, context: Any) -> list[str]:
    """Paths are relative to each rank's folder, so that they are the same wherever the next attempt runs."""
    paths = ["--data", job.data or "data", "--model", "model" + job.suffix, "--out", job.out or _RUN, "--csv", "history.csv"]
    threads = job.threads or context.cpus()
    epochs = ["--model-checkpoint", "epoch-{epoch}.keras"] if job.epochs_wanted else []
    return ["train", *paths, *epochs, "--threads", str(threads), *job.arguments]


def _environment(job: Job, context: Any, folder: Path) -> dict[str, str]:
    environment = {"SAPWOOD_COMM": "mpich", "SAPWOOD_SCRATCH": str(folder), **job.environment}
    if job.gpu:
        gpus = context.resources().get("gpu")
        if not gpus:
            raise RankError("device='cuda', and Spark has given the task no GPU: set spark.task.resource.gpu.amount")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus.addresses)
    elif "CUDA_VISIBLE_DEVICES" not in job.environment:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _set_up(job: Job, rank: int, folder: Path, batches: Iterator[Any]) -> dict[str, Any] | None:
    """Everything that the rank reads; returns what the other ranks must know of it."""
    (folder / ("model" + job.suffix)).write_bytes(job.model)
    if rank == 0 and job.checkpoint and not job.out:
        partial = folder / (_RUN + ".partial")
        partial.mkdir()
        (partial / "options.json").write_text(job.checkpoint[0])
        (partial / "checkpoint").write_bytes(job.checkpoint[1])
    if job.rows is not None:
        return join(batches, job.rows, folder / "data")
    for _ in batches:
        pass  # the stage has rows only so as to have tasks
    return None


def _describe(rows: Rows, said: Sequence[Mapping[str, Any]], folder: Path) -> None:
    try:
        text = describe(rows, [one["joined"] for one in said])
    except ValueError as error:  # all tasks say the same
        raise RankError(str(error)) from None
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(text)


def _results(run: Path) -> Iterator[Any]:
    import pyarrow as pa

    for path in sorted(run.iterdir()):
        data = path.read_bytes()
        for at in range(0, max(len(data), 1), _RESULT_BYTES):
            yield pa.RecordBatch.from_pydict({"name": pa.array([path.name]), "data": pa.array([data[at : at + _RESULT_BYTES]], pa.binary())})


def _run_rank(job: Job, context: Any, batches: Iterator[Any], folder: Path) -> Iterator[Any]:
    rank = context.partitionId()
    infos = context.getTaskInfos()
    ranks, environment = None, {}
    try:
        message: dict[str, Any] = {}
        try:
            if len(infos) != job.count:
                raise RankError(f"{len(infos)} tasks for {job.count} ranks")
            ranks = Ranks(rank, job.count, infos[0].address.rpartition(":")[0], folder)
            environment = _environment(job, context, folder)
            message["joined"] = _set_up(job, rank, folder, batches)
            message["lines"] = ranks.offer(_arguments(job, context))
        except (RankError, ValueError, OSError) as error:
            message = {"error": f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)}
        said = gather(context, message)
        if job.rows is not None:
            _describe(job.rows, said, folder / "data")
        lines = said[0]["lines"]
        run = Path(job.out) if job.out else folder / _RUN
        post = Post(job.address) if rank == 0 and job.address else None
        reporter = _Reporter(job, folder, run, post) if post else None
        if post:
            post.send("dataset", {}, (Path(job.data or folder / "data") / "dataset.json").read_bytes())
        error = ranks.run(lines[rank], environment, reporter.look if reporter else lambda: None)
        if reporter:
            reporter.look(last=True)
            post.close()
        if job.count > 1 or error:
            gather(context, {"error": error and str(error), "lost": bool(error and error.lost)})
        if rank == 0:
            yield from _results(run)
    finally:
        if ranks:
            ranks.close()


def run_task(job: Job, batches: Iterator[Any]) -> Iterator[Any]:
    """The function of the barrier stage, for mapInArrow."""
    from pyspark import BarrierTaskContext

    with _Folder() as folder:
        yield from _run_rank(job, BarrierTaskContext.get(), batches, folder)


# ---- At the driver ---------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """files: of the run folder, by name. startup: seconds from `fit` to the first step; restarts: how often the stage began again."""

    files: dict[str, bytes]
    startup: float | None
    seconds: float
    restarts: int


class _Enough(Exception):
    """on_epoch wants no more epochs. model: of the last one, a Keras file."""

    def __init__(self, model: bytes) -> None:
        super().__init__()
        self.model = model


def count_slots(spark: Any) -> int:
    """How many barrier tasks can run at once."""
    context = spark.sparkContext._jsc.sc()
    return context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile())


def wait_for_slots(spark: Any, count: int, patience: float = _SLOT_PATIENCE) -> None:
    """Executors that have just been asked for take a moment; a barrier stage that does not fit would wait for them for minutes."""
    if spark.conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true":
        raise RankError("Spark runs no barrier stages with spark.dynamicAllocation.enabled: the training needs its executors from beginning to end")
    if spark.sparkContext.master.partition("[")[0] == "local":
        patience = 0  # there are no executors to come
    born = spark.sparkContext.startTime / 1000
    slots, until = -1, 0.0
    while True:
        now, before, slots = time.monotonic(), slots, count_slots(spark)
        if slots >= count:
            return
        if slots != before:
            until = now + patience
        if now >= until and not (slots == 0 < patience and time.time() < born + _FIRST_EXECUTOR):
            raise RankError(f"num_workers={count}, and Spark's executors have room for {slots} tasks at once: ask for fewer workers, or for "
                            "more executors, cores or GPUs")  # fmt: skip
        time.sleep(0.1)


def _is_lost(error: BaseException) -> bool:
    """Whether a failed job is worth another attempt: not when Python code of a task, or the rank, says what is wrong."""
    from pyspark.errors import AnalysisException

    text = str(error)
    if "LostRankError" in text:
        return True
    told = "Traceback (most recent call last)" in text or "cancelled" in text
    return not (told or isinstance(error, (AnalysisException, RankError)))


class _Stage(threading.Thread):
    """The stage's job, in a thread of its own, so that the driver can follow it meanwhile."""

    def __init__(self, frame: Any, job: Job) -> None:
        super().__init__(daemon=True, name="sapwood-training")
        self.group = f"sapwood-{uuid.uuid4()}"
        self._spark, self._frame, self._job = frame.sparkSession, frame, job
        self.files: dict[str, bytes] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        context, job = self._spark.sparkContext, self._job
        try:
            context.setJobGroup(self.group, f"sapwood: training on {job.count} ranks", True)
            done = self._frame.mapInArrow(lambda batches: run_task(job, batches), RESULT_SCHEMA, barrier=True)
            for row in done.collect():
                self.files[row.name] = self.files.get(row.name, b"") + bytes(row.data)
        except BaseException as error:  # noqa: BLE001 - it is raised where the training was asked for
            self.error = error

    def cancel(self) -> None:
        self._spark.sparkContext.cancelJobGroup(self.group)
        self.join()


class Training:
    """Runs a job on the partitions of `frame`: pieces, or nothing, for each rank. begun: time.time() when it was asked for."""

    def __init__(self, frame: Any, job: Job, *, begun: float, restarts: int, on_line: Callable[[str], None],
                 on_epoch: Callable[[int, dict, bytes], bool]) -> None:  # fmt: skip
        self._frame, self._job, self._spark, self._begun = frame, job, frame.sparkSession, begun
        self._most, self._on_line, self._on_epoch = restarts, on_line, on_epoch
        self._checkpoint: tuple[str, bytes] | None = None
        self._first: float | None = None  # when the first epoch ended, by the driver's clock
        self._logs: list[dict[str, float]] = []  # of the epochs that on_epoch has seen
        self._dataset = b"{}"

    def run(self) -> Result:
        for restarts in range(self._most + 1):
            wait_for_slots(self._spark, self._job.count, _RESTART_PATIENCE if restarts else _SLOT_PATIENCE)
            try:
                stage = self._attempt()
            except _Enough as enough:
                return Result(self._files(enough.model), None, time.time() - self._begun, restarts)
            if stage.error is None:
                return Result(stage.files, self._startup(stage.files), time.time() - self._begun, restarts)
            if restarts == self._most or not _is_lost(stage.error):
                raise _readable(stage.error)
            where = "its last checkpoint" if self._checkpoint or self._job.out else "the beginning"
            self._on_line(f"a rank was lost; training goes on from {where} ({_reason(stage.error)})")
        raise AssertionError("unreachable")

    def _attempt(self) -> _Stage:
        conf = self._spark.sparkContext.getConf()
        host = conf.get("spark.driver.host", "localhost")
        with Listener(host, conf.get("spark.driver.bindAddress", host), int(conf.get("spark.sapwood.driver.port", "0"))) as listener:
            stage = _Stage(self._frame, replace(self._job, address=listener.address, checkpoint=self._checkpoint))
            stage.start()
            try:
                until = 0.0
                while stage.is_alive() or (listener.expects() and time.monotonic() < until):
                    if stage.is_alive():
                        until = time.monotonic() + _LAST_NEWS
                    try:
                        self._take(listener.news.get(timeout=0.1))
                    except queue.Empty:
                        pass
            except BaseException:  # Ctrl-C, or a callback's
                stage.cancel()
                raise
            stage.join()
        return stage

    def _take(self, news: News) -> None:
        if news.kind == "line":
            self._on_line(news.about["line"])
        elif news.kind == "checkpoint":
            self._checkpoint = (news.about["options"], news.data)
        elif news.kind == "epoch":
            epoch = news.about["epoch"]
            if self._first is None:
                self._first = news.arrived - news.about["age"]
            if epoch == len(self._logs):  # after a restart the same ones come again
                self._logs.append(news.about["logs"])
                if self._on_epoch(epoch, news.about["logs"], news.data):
                    raise _Enough(news.data)
        elif news.kind == "dataset":
            self._dataset = news.data

    def _files(self, model: bytes) -> dict[str, bytes]:
        """The run folder of a training that was ended between two epochs."""
        epochs = [{"epoch": number + 1, **{name.replace("val_", "validation_"): value for name, value in logs.items()}}
                  for number, logs in enumerate(self._logs)]  # fmt: skip
        return {"model.keras": model, "history.json": json.dumps(epochs).encode(), "dataset.json": self._dataset}

    def _startup(self, files: Mapping[str, bytes]) -> float | None:
        """The first epoch's end, less the seconds that it took."""
        history = json.loads(files["history.json"])
        if self._first is None or not history:
            return None
        return self._first - history[0]["seconds"] - self._begun


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "LostRankError" in line or "ExecutorLostFailure" in line]
    return (told or lines or [type(error).__name__])[0].strip()[:300]


def _readable(error: BaseException) -> BaseException:
    """What a rank said, without Spark's stack traces around it; they stay as the cause."""
    found = re.search(r"sapwood\.spark\.launcher\.(?:Lost)?RankError: (.*?)(?:\n\n|\n\tat |\Z)", str(error), re.DOTALL)
    if not found:
        return error
    made = RankError(found.group(1).strip())
    made.__cause__ = error
    return made
