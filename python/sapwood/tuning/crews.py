"""Who trains the trials: worker processes on this machine, or tasks of a Spark application. To the conductor both are connections."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from pathlib import Path
from queue import SimpleQueue
from socket import SHUT_RDWR, create_server, socketpair
from typing import Any

from .._files import python_path
from .samples import Samples
from .search import SearchError

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class LocalCrew:
    """Processes of this machine, one thread each. They map the samples from files, and end with the conductor."""

    begins = True  # a worker that does not begin is a fault of ours, and another would not either

    def __init__(self, count: int, folder: Path) -> None:
        self.count, self.folder = count, folder
        self.processes: dict[Connection, subprocess.Popen] = {}

    def fill(self) -> None:
        """Starts workers in the place of those that are no more."""
        while len(self.processes) < self.count:
            ours, theirs = socketpair()
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-m", "sapwood.tuning.worker", str(theirs.fileno()), str(self.folder)],
                    pass_fds=[theirs.fileno()], env={**os.environ, **ONE_THREAD, "PYTHONPATH": python_path()}, stdin=subprocess.DEVNULL,
                )  # fmt: skip
            self.processes[Connection(ours.detach())] = process

    def waited_for(self) -> list[Any]:
        self.fill()
        return list(self.processes)

    def is_new(self, ready: Any) -> bool:
        return False

    def lost(self, connection: Connection) -> str:
        """A worker went away: why."""
        status = self.processes.pop(connection).wait()
        connection.close()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def end(self) -> None:
        for connection, process in self.processes.items():
            connection.close()
            process.kill()
            process.wait()
        self.processes.clear()


class SparkCrew:
    """Tasks of a Spark job. Each calls back to the driver, on a port of its own and with a key that only the tasks have, and trains what
    it is sent; samples come to it as a broadcast. Nothing is shared but what goes over these: no file system has to be."""

    begins = False  # an executor may be lost at any time; Spark tries its tasks anew

    def __init__(self, context: Any, count: int | None, folder: Path) -> None:
        self.context, self.count = context, count or context.defaultParallelism
        self.group = f"sapwood-tune-{secrets.token_hex(4)}"
        key = secrets.token_bytes(32)
        host = context.getConf().get("spark.driver.host", "localhost")
        address = context.getConf().get("spark.driver.bindAddress", "0.0.0.0")
        self.listening = create_server((address, 0), backlog=self.count + 8)
        self.arrived: SimpleQueue[Connection] = SimpleQueue()
        self.bell, self.button = socketpair()  # says that somebody has arrived
        self.connections: list[Connection] = []
        self.failure: str | None = None
        samples = context.broadcast(Samples.open(folder).pack())
        task = _task(host, self.listening.getsockname()[1], key, samples)
        self.job = threading.Thread(target=self._run, args=(task,), daemon=True)
        self.job.start()
        threading.Thread(target=self._listen, args=(key,), daemon=True).start()

    def _run(self, task: Any) -> None:
        try:
            self.context.setJobGroup(self.group, "sapwood tune", interruptOnCancel=True)
            self.context.parallelize(range(self.count), self.count).foreachPartition(task)
            self.failure = "the Spark job ended"
        except Exception as error:  # whatever Py4J raises
            self.failure = str(error)

    def _listen(self, key: bytes) -> None:
        while True:
            try:
                raw = self.listening.accept()[0]
            except OSError:  # closed: the search is over
                return
            threading.Thread(target=self._greet, args=(Connection(raw.detach()), key), daemon=True).start()

    def _greet(self, connection: Connection, key: bytes) -> None:
        """Lets in who has the key. Each on a thread of its own: a stranger who says nothing keeps nobody waiting."""
        try:
            deliver_challenge(connection, key)
            answer_challenge(connection, key)
        except (AuthenticationError, EOFError, OSError):
            connection.close()
            return
        self.arrived.put(connection)
        self.button.send(b"!")

    def waited_for(self) -> list[Any]:
        if self.failure and not self.connections:
            raise SearchError(f"the search's Spark job failed: {self.failure}")
        return [self.bell, *self.connections]

    def is_new(self, ready: Any) -> bool:
        """Takes in a new worker, if that is what rang."""
        if ready is not self.bell:
            return False
        self.bell.recv(1)
        self.connections.append(self.arrived.get())
        return True

    def lost(self, connection: Connection) -> str:
        self.connections.remove(connection)
        connection.close()
        return "its connection ended"

    def end(self) -> None:
        self.listening.shutdown(SHUT_RDWR)  # wakes the thread that listens
        self.listening.close()
        for connection in self.connections:
            try:
                connection.send_bytes(b'{"end": true}')
            except OSError:
                pass
            connection.close()
        self.connections.clear()
        self.job.join(timeout=5)
        if self.job.is_alive():  # tasks that never got a slot
            self.context.cancelJobGroup(self.group)


def _task(host: str, port: int, key: bytes, samples: Any) -> Any:
    """What a task does; a function without ties to the driver's objects."""

    def work(_: Any) -> None:
        from sapwood.tuning.samples import Samples
        from sapwood.tuning.worker import serve

        try:
            connection = Client((host, port), authkey=key)
        except ConnectionRefusedError:  # a task that got its slot when all was done
            return
        serve(connection, Samples.unpack(samples.value))

    return work
