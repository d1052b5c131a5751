"""What a training tells the driver while it runs: lines, epochs, checkpoints.

The driver listens on a port, as PySpark's own TorchDistributor does for logs, and the task of rank 0 connects to it. Frames are those of
PySpark between Python and the JVM (a length, then bytes), the first is a secret that came with the task. What decides the result comes as the
rows of the job; where the port cannot be reached only the news are missing, and checkpoints unless they have a folder.
"""

from __future__ import annotations

import hmac
import io
import json
import queue
import secrets
import socket
import socketserver
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

_LONGEST = 1 << 31  # bytes of a frame
_PATIENCE = 10  # seconds to connect, and for the driver to take a frame


def _write_frame(stream: Any, data: bytes) -> None:
    from pyspark.serializers import write_int

    write_int(len(data), stream)
    stream.write(data)


def _read_frame(stream: Any, longest: int) -> bytes:
    from pyspark.serializers import read_int

    length = read_int(stream)
    if not 0 <= length <= longest:
        raise EOFError
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data


@dataclass
class News:
    """kind: "line", "epoch", "checkpoint", "dataset"; about: what JSON can say; data: bytes that belong to it."""

    kind: str
    about: dict[str, Any]
    data: bytes
    arrived: float  # time.time() at the driver


@dataclass(frozen=True)
class Address:
    """Where a task finds the driver; travels with the task."""

    host: str
    port: int
    secret: str


class Listener:
    """The driver's side: puts what comes into a queue. A context manager."""

    def __init__(self, host: str, bind: str, port: int = 0) -> None:
        self.news: queue.Queue[News] = queue.Queue()
        secret, news = secrets.token_hex(32), self.news
        self._talking = talking = set()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    if not hmac.compare_digest(_read_frame(self.rfile, 1024), secret.encode()):
                        return
                    talking.add(self)
                    while True:
                        about = json.loads(_read_frame(self.rfile, 1 << 20))
                        data = _read_frame(self.rfile, _LONGEST)
                        news.put(News(about.pop("kind"), about, data, time.time()))
                except (EOFError, OSError, ValueError):
                    pass  # the task has ended, or it is somebody else
                finally:
                    talking.discard(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server((bind, port), Handler)
        self.address = Address(host, self._server.server_address[1], secret)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    def expects(self) -> bool:
        """Whether there is news, or somebody who may have some."""
        return bool(self._talking) or not self.news.empty()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Post:
    """The task's side. Never fails: a driver that cannot be reached is named once in the executor's log."""

    def __init__(self, address: Address) -> None:
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.create_connection((address.host, address.port), _PATIENCE)
            self._send(address.secret.encode())
        except OSError as error:
            self._give_up(f"{address.host}:{address.port}: {error}")

    @property
    def alive(self) -> bool:
        return self._socket is not None

    def send(self, kind: str, about: dict[str, Any], data: bytes = b"") -> None:
        try:
            self._send(json.dumps({"kind": kind, **about}).encode(), data)
        except OSError as error:
            self._give_up(str(error))

    def _send(self, *frames: bytes) -> None:
        if self._socket is None:
            return
        packed = io.BytesIO()
        for frame in frames:
            _write_frame(packed, frame)
        self._socket.sendall(packed.getbuffer())

    def _give_up(self, why: str) -> None:
        print(f"sapwood: no progress at the driver: {why}", file=sys.stderr)
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
