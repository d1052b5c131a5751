"""Real servers on this machine, for tests and benchmarks of remote files: XRootD (which speaks HTTP too), a cluster of it
behind a redirector, and a relay that makes any server distant, frozen or dead. All run as an ordinary user, all take only
connections from this machine."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def missing(*programs):
    """Names of programs that are not installed."""
    return [name for name in programs if shutil.which(name) is None]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Folder:
    """A folder that servers can read: they run as another user when we are root, and pytest's own folders are private."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="sapwood-served-"))
        self.path.chmod(0o755)

    def own(self, path):
        """Gives a path to the servers' user."""
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(path, user.pw_uid, user.pw_gid)
        return path

    def make(self, name):
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return self.own(path)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def ordinary_user():
    """What goes before a server's command: xrootd refuses to run as root."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


class Server:
    """A process that listens on `port`."""

    def __init__(self, command, port, log, as_user=True):
        self.command, self.port, self.log, self.as_user = command, port, Path(log), as_user
        self.process = None

    def start(self, listens=True):
        with self.log.open("ab") as log:
            command = [*(ordinary_user() if self.as_user else []), *map(str, self.command)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.log.parent)
        for _ in range(200):
            if self.process.poll() is not None:
                break
            if not listens:
                return self
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"{self.command[0]} does not start: {self.log.read_text(errors='replace')[-2000:]}")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """As a crash: connections are reset, nothing is said."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)


class Xrootd(Server):
    """xrootd, serving `data` read-only unless it is writable. http: also by HTTP, on http_port. more: further lines of
    configuration."""

    def __init__(self, folder, name, data, http=False, writable=False, more=(), program="xrootd", port=None):
        port = port or free_port()
        work = folder.make(f"{name}-{program}")
        config = work / "server.cfg"
        lines = [
            f"xrd.port {port}",
            "xrd.allow host localhost",
            f"oss.localroot {data}",
            f"all.export / {'r/w' if writable else 'r/o'}",
            f"all.adminpath {folder.make(name + '-admin')}",
            f"all.pidpath {folder.make(name + '-admin')}",
            *more,
        ]
        if not any(line.startswith("all.role") for line in more):
            lines.append("all.role server")
        if http:
            self.http_port = free_port()
            lines.append(f"xrd.protocol http:{self.http_port} libXrdHttp.so")
        config.write_text("\n".join(lines) + "\n")
        command = [program, "-c", config, "-n", name]
        super().__init__(command, port, folder.own(self._log(work)))

    @staticmethod
    def _log(work):
        log = work / "server.log"
        log.touch()
        return log

    def url(self, path="", scheme="root"):
        return f"{scheme}://localhost:{self.port}//{path}"

    def http_url(self, path=""):
        return f"http://localhost:{self.http_port}/{path}"


class Cluster:
    """A redirector and data servers, each with its own folder."""

    def __init__(self, folder, folders, writable=False):
        control = free_port()
        delays = "cms.delay startup 1 servers 1 lookup 1 hold 1 qdl 1"
        manager = ["all.role manager", f"all.manager localhost:{control}", delays]
        server = ["all.role server", f"all.manager localhost:{control}", "cms.space min 1k 2k"]
        empty = folder.make("nothing")
        self.managers = [
            Xrootd(folder, "manager", empty, writable=writable, more=manager, program="cmsd", port=control),
            Xrootd(folder, "manager", empty, writable=writable, more=manager),
        ]
        self.servers = []
        self.controls = []
        for i, data in enumerate(folders):
            self.servers.append(Xrootd(folder, f"data{i}", data, writable=writable, more=server))
            self.controls.append(Xrootd(folder, f"data{i}", data, writable=writable, more=server, program="cmsd"))

    def start(self):
        try:
            for one in (*self.managers, *self.servers):
                one.start()
            for one in self.controls:  # they call the manager, and nobody calls them
                one.start(listens=False)
        except Exception:
            self.kill()
            raise
        return self

    def kill(self):
        for one in (*self.controls, *self.servers, *self.managers):
            one.kill()

    def url(self, path=""):
        return self.managers[1].url(path)


class Relay(Server):
    """A server's port, as it looks from afar: delay_ms each way. program: the built tests/access/relay.c."""

    def __init__(self, program, target, delay_ms, log):
        port = free_port()
        super().__init__([program, port, target, delay_ms], port, log, as_user=False)

    def freeze(self):
        self.signal(signal.SIGUSR1)

    def thaw(self):
        self.signal(signal.SIGUSR2)

    def cut(self):
        """The connections of this moment are dead, and nobody is told."""
        self.signal(signal.SIGHUP)

    def url(self, path="", scheme="root"):
        return f"{scheme}://localhost:{self.port}//{path}"


class Authority:
    """A home-made certificate authority with a certificate for localhost; as XRootD wants it: a folder with hashed names."""

    def __init__(self, folder):
        self.certificates = folder.make("certificates")
        self.certificate, self.key = folder.path / "host.pem", folder.path / "host.key"
        ca, ca_key = self.certificates / "ca.pem", folder.path / "ca.key"
        new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj"]
        self._run(*new, "/CN=Sapwood tests", "-x509", "-days", "2", "-keyout", ca_key, "-out", ca)
        request, names = folder.path / "host.csr", folder.path / "host.ext"
        names.write_text("subjectAltName=DNS:localhost\n")
        self._run(*new, "/CN=localhost", "-keyout", self.key, "-out", request)
        self._run("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
                  "-extfile", names, "-out", self.certificate)
        self._run("openssl", "rehash", self.certificates)
        folder.own(self.certificate)
        folder.own(self.key)
        self.key.chmod(0o400)

    @staticmethod
    def _run(*command):
        subprocess.run(list(map(str, command)), check=True, capture_output=True)

    def lines(self):
        """Configuration of a server."""
        return [f"xrd.tls {self.certificate} {self.key}", f"xrd.tlsca certdir {self.certificates}"]
