"""TensorFlow inside Spark: the tasks of a barrier stage are the workers of a MultiWorkerMirroredStrategy.

Every task starts one training process, which ends with it; TF_CONFIG is made from the tasks' addresses.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DONE = b"1"


def tensorflow_fit(spark: SparkSession, *, num_workers: int = 1, **options: Any) -> dict[str, Any]:
    """`sapwood train --engine tensorflow` by as many workers, each a task of a barrier stage; returns what `sapwood.train` returns.

    options: those of `sapwood.train` (data, model, out, epochs, …). All paths must mean the same on every executor, and the run folder
    appears where the first task writes it. `sapwood`, TensorFlow and Keras must be installed on the executors. With device="cuda"
    each worker has the GPUs that Spark gave to its task (`spark.task.resource.gpu.amount`). A lost executor makes Spark run the stage
    again, which goes on from the last checkpoint; an error of the training is raised as WorkerError and not tried again.
    """
    from .. import _settings
    from .._tensorflow import WorkerError, _words
    from .._train_options import Settings
    from .training import wait_for_slots

    given = _settings(options | {"engine": "tensorflow", "workers": num_workers})
    Settings(given)  # what cannot be trained is refused here, before a stage is started
    wait_for_slots(spark, num_workers)
    words = _words(given)
    stage = spark.sparkContext.parallelize(range(num_workers), num_workers).barrier()
    ends = stage.mapPartitions(lambda _: _work(words)).collect()
    failed = [end for end in ends if end["failed"]]
    if failed:
        first = min(failed, key=lambda end: (end["lost"], end["rank"]))  # those who lost a peer did not fail themselves
        raise WorkerError(f"worker {first['rank']} of {num_workers} on {first['address']}: {first['failed']}")
    return json.loads(ends[0]["result"])


def _work(words: list[str]) -> Iterator[dict[str, Any]]:
    """What a task does: starts its worker, and waits for its end."""
    from pyspark import BarrierTaskContext

    from .._tensorflow import Worker, free_port, tf_config

    context = BarrierTaskContext.get()
    rank, infos = context.partitionId(), context.getTaskInfos()
    host = infos[rank].address.rsplit(":", 1)[0]
    line = _Line(rank, len(infos))
    places = [json.loads(text) for text in context.allGather(json.dumps([host, free_port(), line.port]))]
    environment = {"TF_CONFIG": tf_config([f"{name}:{port}" for name, port, _ in places], rank)}
    gpus = context.resources().get("gpu")
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus.addresses)
    worker = Worker([*words, "--threads", str(context.cpus())], rank, environment, lambda _, text: print(text, flush=True))
    try:
        line.connect(places[0][0], places[0][2], worker.kill)
        code = worker.wait()
    finally:
        worker.kill()
    line.close(code == 0)
    if code < 0 and not line.broken:  # ended from outside: Spark runs the stage again
        raise RuntimeError(f"worker {rank} {worker.why(code)}")
    yield {"rank": rank, "address": host, "result": worker.result, "failed": worker.why(code) if code else "", "lost": line.broken}


class _Line:
    """Connections of all tasks to the first one: when one task ends before its work is done, all of them know at once.

    TensorFlow's own workers would wait for each other for minutes.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.ends: list[socket.socket] = []
        self.broken = False
        self.server = socket.create_server(("", 0), backlog=size) if rank == 0 else None
        self.port = self.server.getsockname()[1] if self.server else 0

    def connect(self, host: str, port: int, when_broken: Any) -> None:
        """Calls when_broken, on a thread, when a connection ends without a word."""
        if self.server:
            self.server.settimeout(60)
            self.ends = [self.server.accept()[0] for _ in range(self.size - 1)]
        else:
            self.ends = [socket.create_connection((host, port), timeout=60)]
        for end in self.ends:
            end.settimeout(None)
            threading.Thread(target=self._watch, args=(end, when_broken), daemon=True).start()

    def _watch(self, end: socket.socket, when_broken: Any) -> None:
        try:
            said = end.recv(1)
        except OSError:
            said = b""
        if said != _DONE:
            self.broken = True
            when_broken()

    def close(self, well: bool) -> None:
        for end in self.ends:
            try:
                if well:
                    end.sendall(_DONE)
                end.shutdown(socket.SHUT_RDWR if not well else socket.SHUT_WR)
            except OSError:
                pass  # it is gone already
        if self.server:
            self.server.close()
