"""`sapwood train --engine tensorflow`: one process, several on this machine, or one of several that something else has started.

    python -m sapwood._tensorflow --data DIR --model FILE --out RUN [--workers 2] [OPTIONS of sapwood train]

With TF_CONFIG in the environment, or in a pod of a Kubernetes Indexed Job, this process is one of the workers; else --workers of them
are started here. See docs/tensorflow.md.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import _core
from ._files import python_path
from ._run_folder import Interrupted, RunFolder
from ._train_options import Settings

_COMMON = ("threads", "json", "quiet", "worker")  # besides the options of the stage; the last two and "json" are switches


class WorkerError(RuntimeError):
    """A worker ended before its work was done; the message names it."""


# ---- Who works together ------------------------------------------------------------------------------------------------


def tf_config(addresses: Sequence[str], index: int) -> str:
    """TF_CONFIG for worker `index` of those at these addresses ("host:port")."""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def kubernetes_config(environment: Mapping[str, str], host: str, workers: int) -> str | None:
    """TF_CONFIG in a pod of an Indexed Job; None: this is none.

    Pods of such a Job are called JOB-INDEX and find each other as JOB-INDEX.SERVICE, where SERVICE is the headless service that is
    their subdomain (SAPWOOD_SERVICE; the Job's name if it is not set). They listen at SAPWOOD_PORT (2222).
    """
    index = environment.get("JOB_COMPLETION_INDEX")
    if index is None or workers < 2:
        return None
    job = host.split(".")[0].removesuffix(f"-{index}")
    service, port = environment.get("SAPWOOD_SERVICE", job), environment.get("SAPWOOD_PORT", "2222")
    return tf_config([f"{job}-{i}.{service}:{port}" for i in range(workers)], int(index))


def free_port() -> int:
    """A port that nobody listens at, now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


# ---- Processes on this machine -------------------------------------------------------------------------------------------


class Worker:
    """A process that trains; it ends when this one does. Its lines go to `tell` (rank, line)."""

    def __init__(self, arguments: Iterable[str], rank: int, environment: Mapping[str, str], tell: Callable[[int, str], None]) -> None:
        command = [sys.executable, "-m", "sapwood._tensorflow", *arguments, "--worker", "--json"]
        self.rank, self.lines = rank, []
        self.process = subprocess.Popen(command, env={**os.environ, **environment, "PYTHONPATH": python_path()}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.result = ""
        self.readers = [threading.Thread(target=self._read_errors, args=(tell,), daemon=True),
                        threading.Thread(target=self._read_result, daemon=True)]
        for reader in self.readers:
            reader.start()

    def _read_errors(self, tell: Callable[[int, str], None]) -> None:
        for line in self.process.stderr:
            self.lines = [*self.lines[-50:], line.rstrip()]
            tell(self.rank, line.rstrip())

    def _read_result(self) -> None:
        self.result = self.process.stdout.read()

    def wait(self) -> int:
        code = self.process.wait()
        for reader in self.readers:
            reader.join()
        return code

    def interrupt(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()

    def why(self, code: int) -> str:
        """What it said last, or what ended it."""
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        said = [line for line in self.lines if line.startswith("sapwood train: ")]
        return said[-1].removeprefix("sapwood train: ") if said else "\n".join([f"ended with exit status {code}", *self.lines[-5:]])


def _wait_all(workers: list[Worker]) -> None:
    """Until all are done; when one fails the others are ended, and the error names it."""
    ended: queue.Queue[tuple[int, int]] = queue.Queue()
    for worker in workers:
        threading.Thread(target=lambda w=worker: ended.put((w.rank, w.wait())), daemon=True).start()
    failed: list[tuple[int, int]] = []
    for _ in workers:
        rank, code = ended.get()
        if code == 130:  # interrupted, as all of them are: the others are at their last step
            failed.append((rank, code))
        elif code and not failed:
            time.sleep(0.5 if len(workers) > 1 else 0)  # what was killed counts before those who lost it
            failed.append((rank, code))
            failed += [(w.rank, w.process.returncode) for w in workers if w.process.poll() not in (None, 0) and w.rank != rank]
            for worker in workers:
                worker.kill()
    if any(code == 130 for _, code in failed):
        raise KeyboardInterrupt
    if failed:
        rank, code = min(failed, key=lambda f: (f[1] >= 0, f[0]))
        name = f"worker {rank} of {len(workers)}: " if len(workers) > 1 else ""
        raise WorkerError(name + workers[rank].why(code))


def launch(arguments: Sequence[str], workers: int, threads: int, tell: Callable[[int, str], None],
           catch: bool = False) -> dict[str, Any]:
    """Trains with so many processes here; what `sapwood.train` returns. A failure names the worker.

    catch: SIGINT and SIGTERM are handed on to the workers, who write a checkpoint between two steps and end.
    """
    addresses = [f"localhost:{free_port()}" for _ in range(workers)]
    cores = max(1, (threads or len(os.sched_getaffinity(0))) // workers)
    gpus = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
    started: list[Worker] = []
    try:
        for rank in range(workers):
            environment = {"TF_CONFIG": tf_config(addresses, rank) if workers > 1 else "", "SAPWOOD_LOCAL_RANK": str(rank)}
            if len(gpus) > 1:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[rank % len(gpus)]
            started.append(Worker([*arguments, "--threads", str(cores)], rank, environment, tell))
        def interrupt(*_: object) -> None:
            for worker in started:
                worker.interrupt()

        for number in (signal.SIGINT, signal.SIGTERM) if catch else ():
            signal.signal(number, interrupt)
        try:
            _wait_all(started)
        except KeyboardInterrupt:
            interrupt()
            for worker in started:
                worker.wait()
            raise
    finally:
        for worker in started:
            worker.kill()
    return json.loads(started[0].result)


def end_with_parent() -> None:
    """This process ends when the one that started it, and holds the other end of its standard input, is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ---- One worker --------------------------------------------------------------------------------------------------------


def _is_chief() -> bool:
    return json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {}).get("index", 0) == 0


def _train_here(given: list[tuple[str, str]], threads: int, show: Callable[[str], None]) -> dict[str, Any]:
    settings = Settings(given)
    with RunFolder(settings, _is_chief()) as folder:
        folder.open()  # what is wrong is said before TensorFlow is loaded, which takes seconds
        return _train(settings, folder, threads, show)


def _train(settings: Settings, folder: RunFolder, threads: int, show: Callable[[str], None]) -> dict[str, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    asked: list[int] = []

    def catch() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda which, _: asked.append(which))

    catch()
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ModuleNotFoundError(f"--engine tensorflow needs TensorFlow and Keras in {sys.executable}: {error}") from None
    import keras

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
    keras.utils.disable_interactive_logging()
    tf.get_logger().setLevel("ERROR")
    from ._tensorflow_training import Training

    training = Training(settings, threads, show, lambda: bool(asked))
    catch()  # the strategy of several workers takes SIGTERM for itself
    return training.run(folder)


# ---- The command -------------------------------------------------------------------------------------------------------


def _parse(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Options of the stage, and the common ones."""
    switches = {"json", "quiet", "worker"} | {name for name, _, _, standard in _core.stage_options("train") if standard == "false"}
    given: list[tuple[str, str]] = []
    common: dict[str, str] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise ValueError(f"{word!r} is not an option; options begin with --")
        if not equals and name in switches:
            value = words.pop(0) if words and words[0] in ("true", "false") else "true"
        elif not equals:
            if not words:
                raise ValueError(f"--{name} needs a value")
            value = words.pop(0)
        if name in _COMMON:
            common[name] = value
        else:
            given.append((name, value))
    return given, common


def _words(given: Iterable[tuple[str, str]]) -> list[str]:
    return [f"--{name}={value}" for name, value in given]


def _summary(result: Mapping[str, Any]) -> str:
    last = result["history"][-1]
    text = f"{result['parameters']} parameters, {result['events']} training events, {len(result['history'])} epochs: "
    text += f"loss {last['loss']:.4f}" + (f", accuracy {last['accuracy']:.4f}" if "accuracy" in last else "")
    if last.get("validation_loss") is not None:
        text += f"; validation loss {last['validation_loss']:.4f}"
        text += f", accuracy {last['validation_accuracy']:.4f}" if "validation_accuracy" in last else ""
    return f"{text}\nmodel: {result['out']}/model.keras"


def train(options: Sequence[tuple[str, str]], threads: int = 0, tell: Callable[[int, str], None] = lambda rank, line: None) -> dict[str, Any]:
    """`sapwood.train(engine="tensorflow")`: in processes of its own, whose lines go to `tell` (rank, line)."""
    _core.check_stage("train", list(options))
    workers = int(dict(options).get("workers", 1))
    return launch(_words(options), max(1, workers), threads, tell)


def _run(given: list[tuple[str, str]], common: Mapping[str, str], say: Callable[[str], None]) -> dict[str, Any]:
    _core.check_stage("train", given)
    workers, threads = int(dict(given).get("workers", 1)), int(common.get("threads", 0))
    if "worker" not in common and not os.environ.get("TF_CONFIG"):
        config = kubernetes_config(os.environ, socket.gethostname(), workers)
        if config:
            os.environ["TF_CONFIG"] = config
        elif workers > 1:
            return launch(_words(given), workers, threads, lambda rank, line: say(line) if rank == 0 else None, catch=True)
    return _train_here(given, threads, say)


def main(arguments: Sequence[str] | None = None) -> int:
    def fail(message: str, status: int = 1) -> int:
        print(f"sapwood train: {message}", file=sys.stderr, flush=True)
        return status

    try:
        given, common = _parse(sys.argv[1:] if arguments is None else arguments)
        if "worker" in common:
            end_with_parent()
        result = _run(given, common, lambda line: None if "quiet" in common else print(line, file=sys.stderr, flush=True))
    except (KeyboardInterrupt, Interrupted):
        return fail("interrupted; the same command goes on", 130)
    except Exception as error:
        if os.environ.get("SAPWOOD_DEBUG"):
            raise
        return fail(str(error) or type(error).__name__)
    if _is_chief():
        print(json.dumps(result) if "json" in common else _summary(result))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # TensorFlow's threads can hold up an orderly end for ever
