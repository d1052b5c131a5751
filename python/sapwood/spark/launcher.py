"""MPI ranks as child processes of Spark's barrier tasks, one rank a task.

MPICH's launcher does it (hydra, `mpiexec -launcher manual`): it prints the command of one proxy for each "host", the barrier hands these
commands round, each task runs its own, and the proxy starts the rank. A "host" here is a task, so that several tasks on one machine are
kept apart. MPI itself never enters the executor's JVM or its Python worker.

Whatever happens to a task, its rank goes with it: each process between them is killed by the kernel when its parent dies.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHILD = Path(__file__).with_name("_child.py")
_PREFIX = "HYDRA_LAUNCH: "
_NEEDED = ("MPICH with its launcher hydra (Debian: mpich, Enterprise Linux: mpich, PyPI: mpich) on every executor; "
           "SAPWOOD_MPIEXEC may name its mpiexec")  # fmt: skip
_POLL = 0.05  # seconds


class RankError(RuntimeError):
    """A rank ended with an error of its own: the same would happen again."""


class LostRankError(RuntimeError):
    """Ranks ended without one: a process or a machine was lost, and another try from the last checkpoint is worth it."""


@dataclass(frozen=True)
class Failure:
    """How a rank ended. lost: it has no error of its own to tell."""

    text: str
    lost: bool

    def __str__(self) -> str:
        return self.text


def find_mpiexec() -> str:
    """MPICH's mpiexec on this machine."""
    given = os.environ.get("SAPWOOD_MPIEXEC")
    beside = str(Path(sys.executable).parent)  # where pip puts it
    path = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    for name in [given] if given else ["mpiexec.hydra", "mpiexec.mpich", "mpiexec"]:
        found = shutil.which(name, path=path)
        if found:
            about = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=False)
            if "HYDRA" in about.stdout:
                return found
    what = f"{given} is not MPICH's" if given else "there is no MPICH"
    raise RankError(f"{os.uname().nodename}: {what}: training needs {_NEEDED}")


def find_command() -> str:
    """The `sapwood` command on this machine: SAPWOOD_COMMAND, the one inside this package, or one on PATH."""
    inside = Path(__file__).resolve().parent.parent / "bin" / "sapwood"
    command = os.environ.get("SAPWOOD_COMMAND") or (str(inside) if inside.exists() else shutil.which("sapwood"))
    if not command or not os.access(command, os.X_OK):
        raise RankError(f"{os.uname().nodename}: the command sapwood is not there; SAPWOOD_COMMAND may name it")
    return command


def _start(command: Sequence[str], folder: Path, output: str, environment: Mapping[str, str] | None = None,
           **options: Any) -> subprocess.Popen:
    """A process in a session of its own that dies with this one. The thread that calls this must live as long."""
    shim = [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(folder), output]
    return subprocess.Popen([*shim, *command], stdin=subprocess.DEVNULL, start_new_session=True, env=environment, **options)


def _stop(process: subprocess.Popen | None) -> None:
    if process and process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


class Ranks:
    """One task's part in a run of `count` ranks. Every task makes one, exchanges `offer()` with the others over the barrier, and calls `run`.

    host: the address by which the other tasks find that of rank 0. folder: this task's own working folder, where its rank runs and leaves what it prints in the file "output".
    """

    def __init__(self, rank: int, count: int, host: str, folder: Path) -> None:
        self.rank, self.count, self.folder = rank, count, folder
        self.mpiexec: subprocess.Popen | None = None
        self.proxy: subprocess.Popen | None = None
        self.lines: list[str] = []
        self.program = find_mpiexec()
        self.command = find_command()
        self._host = host

    def offer(self, arguments: Sequence[str]) -> list[str]:
        """On rank 0 starts mpiexec and returns the proxies' commands, elsewhere none. arguments: of the command, the same for all ranks."""
        if self.rank != 0:
            return []
        # the rank's program, folder and settings are its own task's, which its proxy has in its environment
        inner = 'exec "$SAPWOOD_RANK_PYTHON" -I -S "$SAPWOOD_RANK_CHILD" 0 "$SAPWOOD_RANK_FOLDER" output "$SAPWOOD_RANK_COMMAND" "$@"'
        hosts = ",".join(f"task{i}" for i in range(self.count))
        self.mpiexec = _start(
            [self.program, "-launcher", "manual", "-localhost", self._host, "-hosts", hosts, "-ppn", "1", "-np", str(self.count),
             "-genvnone", "-wdir", "/", "/bin/sh", "-c", inner, "sapwood", *arguments],
            self.folder, "-", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        said = []
        for raw in self.mpiexec.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            if line.startswith("HYDRA_LAUNCH_END"):
                break
            if line.startswith(_PREFIX):
                self.lines.append(line.removeprefix(_PREFIX))
            else:
                said.append(line)
        if len(self.lines) != self.count:
            raise RankError(f"{self.program}: {len(self.lines)} proxies offered for {self.count} ranks: {' '.join(said)[-600:]}")
        return self.lines

    def run(self, line: str, environment: Mapping[str, str], poll: Callable[[], None]) -> Failure | None:
        """Runs this task's rank to its end. line: its proxy's command. Returns what went wrong, None: nothing."""
        proxy = shlex.split(line)
        if not os.access(proxy[0], os.X_OK):  # it is elsewhere on this machine
            proxy[0] = str(Path(self.program).resolve().parent / Path(proxy[0]).name)
        own = {
            "SAPWOOD_RANK_PYTHON": sys.executable,
            "SAPWOOD_RANK_CHILD": str(_CHILD),
            "SAPWOOD_RANK_FOLDER": str(self.folder),
            "SAPWOOD_RANK_COMMAND": self.command,
        }
        with open(self.folder / "proxy", "wb") as said:
            self.proxy = _start(proxy, self.folder, "-", {**os.environ, **environment, **own}, stdout=said, stderr=said)
        while self.proxy.poll() is None or (self.mpiexec and self.mpiexec.poll() is None):
            poll()
            time.sleep(_POLL)
        poll()
        if (self.mpiexec or self.proxy).returncode == 0:
            return None
        own = [line for line in self._said("output").splitlines() if line.startswith("sapwood: ")]
        if own:
            return Failure(own[-1].removeprefix("sapwood: "), " is lost: " in own[-1])
        said = self.mpiexec.stdout.read().decode(errors="replace") if self.mpiexec else ""
        about = self._said("output") or said.strip(" =|\n") or self._said("proxy") or "no message"
        return Failure(f"rank {self.rank} on {os.uname().nodename} ended: {about[-600:]}", True)

    def close(self) -> None:
        """Kills what still runs."""
        _stop(self.mpiexec)
        _stop(self.proxy)
        if self.mpiexec and self.mpiexec.stdout:
            self.mpiexec.stdout.close()

    def _said(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(errors="replace").strip()[-2000:]
        except FileNotFoundError:
            return ""


def gather(context: Any, message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What every task of the barrier stage has to say, by rank. An "error" of any becomes this one's too, so that none waits for ever."""
    said = [json.loads(text) for text in context.allGather(json.dumps(message))]
    errors = list(dict.fromkeys(part["error"] for part in said if part.get("error")))
    if errors:
        raise (LostRankError if all(part.get("lost") for part in said if part.get("error")) else RankError)("; ".join(errors))
    return said
