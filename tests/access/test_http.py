"""Files on web servers: the same values as from the disk, few requests, and errors instead of hanging, whatever the server does."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import servers
from conftest import COMMAND, SAMPLE
from web_server import web_server

FILE = "qcd.root"
QUICK = {"SAPWOOD_CONNECT_SECONDS": "3", "SAPWOOD_STALL_SECONDS": "0.5", "SAPWOOD_DEADLINE_SECONDS": "4"}


def environment(**changes):
    """The caller's, without what says who we are, whom we trust and through whom we go."""
    others = ("AWS_", "BEARER_", "X509_", "SSL_CERT", "CURL_")
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith(others)}
    return {**kept, **QUICK, **changes}


def digest(sapwood, *names, **changes):
    """What `sapwood digest` says of each object, without the name of the file."""
    result = sapwood("digest", *names, env=environment(**changes))
    return [{k: v for k, v in json.loads(line).items() if k != "file"} for line in result.stdout.splitlines()]


def failure(sapwood, name, **changes):
    """The message of a reading that must fail, and how long it took."""
    begin = time.monotonic()
    result = sapwood("digest", name, check=False, env=environment(**changes), timeout=60)
    assert result.returncode == 1, result.stdout
    return result.stdout + result.stderr, time.monotonic() - begin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file to serve, under names with and without signs."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(SAMPLE / FILE, folder / FILE)
    (folder / "bucket").mkdir()
    shutil.copy(SAMPLE / FILE, folder / "bucket" / "a key+(1).root")
    (folder / "empty.root").touch()
    return folder


@pytest.fixture(scope="module")
def expected(sapwood, folder):
    values = digest(sapwood, folder / FILE)
    assert values and all(branch["digest"] for branch in values[0]["branches"][1:3])
    return values


@pytest.fixture
def nginx(folder, tmp_path):
    """nginx for the folder; (URL, lines of its access log)."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    paths = "".join(f"{name}_temp_path {tmp_path};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}"
        f"http {{ access_log {tmp_path}/access.log; {paths} server {{ listen 127.0.0.1:{port}; root {folder}; }} }}"
    )
    command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", f"{tmp_path}/error.log"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}", lambda: (tmp_path / "access.log").read_text().splitlines()
    process.terminate()
    process.wait()


def test_nginx(sapwood, nginx, folder, expected):
    url, log = nginx
    assert digest(sapwood, f"{url}/{FILE}") == expected
    asked = len(log())
    print(f"nginx: {asked} requests for {sum(len(o['branches']) for o in expected)} branches one by one")
    assert digest(sapwood, f"{url.replace('http', 'dav')}/{FILE}") == expected
    message, _ = failure(sapwood, f"{url}/nothing.root")
    assert "404" in message and "nothing.root" in message


def test_opening_takes_few_requests(sapwood, nginx):
    url, log = nginx
    sapwood("ls", f"{url}/{FILE}", env=environment())
    print(f"ls: {len(log())} requests")
    assert len(log()) <= 6


@pytest.mark.parametrize("ranges", ["many", "one", "single-200", "none"])
@pytest.mark.parametrize("length", [True, False])
def test_every_kind_of_ranges(sapwood, folder, expected, ranges, length):
    if length or ranges == "none":
        with web_server(folder, ranges=ranges, length=length) as (url, does):
            assert digest(sapwood, f"{url}/{FILE}") == expected
            if ranges == "none":
                assert len(does.requests) == 1  # copied once
            else:
                assert any("," in (asked or "") for _, asked, _ in does.requests) or ranges != "many"


def test_parts_that_the_server_merges(sapwood, folder, expected):
    with web_server(folder, merged=True) as (url, _):
        assert digest(sapwood, f"{url}/{FILE}") == expected


def test_cut_connections(sapwood, folder, expected):
    with web_server(folder, cut=0.3) as (url, does):
        assert digest(sapwood, f"{url}/{FILE}", SAPWOOD_DEADLINE_SECONDS="30") == expected
    with web_server(folder, cut=0.3, ranges="one") as (url, does):
        assert digest(sapwood, f"{url}/{FILE}", SAPWOOD_DEADLINE_SECONDS="30") == expected


def test_a_server_with_hiccups(sapwood, folder, expected):
    with web_server(folder, errors=3) as (url, does):
        assert digest(sapwood, f"{url}/{FILE}") == expected


def test_a_server_that_is_always_out_of_order(sapwood, folder):
    with web_server(folder, errors=10**9) as (url, _):
        message, seconds = failure(sapwood, f"{url}/{FILE}")
        assert "503" in message and FILE in message and "tried" in message
        assert seconds < 15


def test_frozen_before_opening(sapwood, folder):
    with web_server(folder) as (url, does):
        does.frozen.set()
        message, seconds = failure(sapwood, f"{url}/{FILE}")
        assert "no answer for" in message
        assert seconds < 15


class Freezer(threading.Thread):
    """Freezes a server after some requests, and thaws it after some seconds."""

    def __init__(self, does, after, seconds):
        super().__init__(daemon=True)
        self.does, self.after, self.seconds = does, after, seconds
        self.start()

    def run(self):
        while len(self.does.requests) < self.after:
            time.sleep(0.001)
        self.does.frozen.set()
        time.sleep(self.seconds)
        self.does.frozen.clear()


def test_frozen_for_a_while(sapwood, folder, expected):
    with web_server(folder, delay=0.01) as (url, does):
        Freezer(does, 5, 1.5)
        assert digest(sapwood, f"{url}/{FILE}", SAPWOOD_DEADLINE_SECONDS="30") == expected


def test_frozen_for_good(sapwood, folder, tmp_path):
    with web_server(folder, delay=0.01) as (url, does):
        Freezer(does, 8, 30)
        begin = time.monotonic()
        arguments = ("export", f"{url}/{FILE}", "-o", tmp_path / "x.npz", "--columns", "Jet*")
        changes = environment(SAPWOOD_DEADLINE_SECONDS="2", SAPWOOD_GAP_BYTES="0", SAPWOOD_REQUEST_BYTES="4096")
        result = sapwood(*arguments, check=False, env=changes)
        assert result.returncode == 1
        assert "no answer for" in result.stderr and FILE in result.stderr and "@0x" in result.stderr
        assert does.frozen.is_set() and time.monotonic() - begin < 20


def test_killed_and_back(sapwood, folder, expected):
    """The server dies in the middle, its port is closed for a second, and another takes its place."""
    with web_server(folder, delay=0.02) as (url, does):
        port = int(url.rsplit(":", 1)[1])
        command = [COMMAND, "digest", f"{url}/{FILE}"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment(SAPWOOD_DEADLINE_SECONDS="30")
        )
        while len(does.requests) < 10:
            time.sleep(0.001)
        assert process.poll() is None
        does.cut = 1
    time.sleep(1)
    with web_server(folder, port=port):
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    got = [{k: v for k, v in json.loads(line).items() if k != "file"} for line in output.splitlines()]
    assert got == expected


def test_nobody_there(sapwood):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # and does not listen
        message, seconds = failure(sapwood, f"http://127.0.0.1:{s.getsockname()[1]}/{FILE}", SAPWOOD_CONNECT_SECONDS="1")
    assert "tried" in message and seconds < 15
    message, _ = failure(sapwood, f"http://no-such-host.invalid/{FILE}")
    assert "no-such-host.invalid" in message


def test_redirects(sapwood, folder, expected):
    with web_server(folder) as (there, there_does), web_server(folder) as (here, here_does):
        here_does.redirect = there
        assert digest(sapwood, f"{here}/{FILE}", SAPWOOD_HTTP_BEARER="secret") == expected
        assert len(here_does.requests) == 1  # the way is remembered
        assert all("Authorization" in headers for _, _, headers in here_does.requests)
        assert not any("Authorization" in headers for _, _, headers in there_does.requests)
        here_does.redirect = here
        message, _ = failure(sapwood, f"{here}/{FILE}")
        assert "redirect" in message.lower()


def test_wrong_content_range(sapwood, folder):
    with web_server(folder, shift=1) as (url, _):
        message, seconds = failure(sapwood, f"{url}/{FILE}")
        assert "other bytes" in message and seconds < 20


def test_longer_bodies_are_cut_off(sapwood, folder, expected):
    with web_server(folder, longer=100000, ranges="one") as (url, _):
        assert digest(sapwood, f"{url}/{FILE}") == expected


def test_far_away(sapwood, folder, expected):
    with web_server(folder, delay=0.05) as (url, does):
        begin = time.monotonic()
        sapwood("ls", f"{url}/{FILE}", env=environment())
        print(f"ls, 50 ms away: {time.monotonic() - begin:.2f} s, {len(does.requests)} requests")
        assert len(does.requests) <= 6


def test_a_file_that_changes(sapwood, folder, tmp_path):
    shutil.copy(folder / FILE, tmp_path / FILE)
    for change in ({"etag": '"2"'}, {"etag": None, "modified": "Sun, 22 Nov 2026 22:00:00 GMT"}):
        first = {"etag": None, "modified": "Sun, 22 Nov 2026 21:00:00 GMT"} if change["etag"] is None else {}
        with web_server(tmp_path, delay=0.01, **first) as (url, does):

            def alter(does=does, change=change):
                while len(does.requests) < 5:
                    time.sleep(0.001)
                for name, value in change.items():
                    setattr(does, name, value)

            threading.Thread(target=alter, daemon=True).start()
            result = sapwood("digest", f"{url}/{FILE}", check=False, env=environment())
            assert "has changed" in result.stdout + result.stderr


def test_compressed_answers_are_refused(sapwood, folder):
    with web_server(folder, gzip=True) as (url, _):
        message, _ = failure(sapwood, f"{url}/{FILE}")
        assert "compressed" in message and "tried" not in message


def test_an_empty_file(sapwood, folder):
    for ranges in ("many", "none"):
        with web_server(folder, ranges=ranges) as (url, _):
            message, _ = failure(sapwood, f"{url}/empty.root")
            assert "empty.root" in message and "tried" not in message


def test_tokens(sapwood, folder, expected, tmp_path):
    with web_server(folder, token="sesame") as (url, does):
        assert digest(sapwood, f"{url}/{FILE}", SAPWOOD_HTTP_BEARER="sesame") == expected
        message, _ = failure(sapwood, f"{url}/{FILE}", SAPWOOD_HTTP_BEARER="simsim")
        assert "401" in message and "denied" in message and "simsim" not in message
        before = len(does.requests)
        failure(sapwood, f"{url}/{FILE}", BEARER_TOKEN="sesame")
        assert not any("Authorization" in headers for _, _, headers in does.requests[before:])  # not over plain http


@pytest.fixture
def certificate(tmp_path):
    """A certificate that signs itself, for this machine as server and as client."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=sapwood -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    (tmp_path / "both.pem").write_text((tmp_path / "cert.pem").read_text() + (tmp_path / "key.pem").read_text())
    return tmp_path


def test_encryption_and_identity(sapwood, folder, expected, certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "both.pem")
    trusted = {"SSL_CERT_FILE": str(certificate / "cert.pem")}
    (certificate / "token").write_text("sesame\n")
    with web_server(folder, tls=tls, token="sesame") as (url, _):
        message, _ = failure(sapwood, f"{url}/{FILE}", BEARER_TOKEN="sesame")
        assert "certificate" in message and "tried" not in message  # nobody trusts it
        assert digest(sapwood, f"{url}/{FILE}", BEARER_TOKEN="sesame", **trusted) == expected
        renewed = {"BEARER_TOKEN_FILE": str(certificate / "token")}
        assert digest(sapwood, f"{url}/{FILE}".replace("https", "davs"), **renewed, **trusted) == expected
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate / "cert.pem")
    with web_server(folder, tls=tls) as (url, _):
        proxy = {"X509_USER_PROXY": str(certificate / "both.pem")}
        assert digest(sapwood, f"{url}/{FILE}", **proxy, **trusted) == expected
        message, _ = failure(sapwood, f"{url}/{FILE}", SAPWOOD_CONNECT_SECONDS="1", **trusted)
        assert "open_error" in message  # in words that depend on when the server hangs up


def test_netrc(sapwood, folder, expected, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    with web_server(folder) as (url, does):
        assert digest(sapwood, f"{url}/{FILE}", HOME=str(tmp_path)) == expected
        assert does.requests[0][2]["Authorization"] == "Basic bWU6c2VjcmV0"


def test_s3(sapwood, folder, expected):
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalr/EXAMPLE", "AWS_REGION": "eu-north-1"}
    name = "s3://bucket/a key+(1).root"
    with web_server(folder, s3=("AKIDEXAMPLE", "wJalr/EXAMPLE", "eu-north-1"), ranges="single-200") as (url, does):
        assert digest(sapwood, name, AWS_ENDPOINT_URL=url, **keys) == expected
        assert digest(sapwood, name, AWS_ENDPOINT_URL=url + "/", AWS_SESSION_TOKEN="T0ken", **keys) == expected
        assert does.requests[-1][2]["x-amz-security-token"] == "T0ken"
        keys["AWS_SECRET_ACCESS_KEY"] = "another"
        message, _ = failure(sapwood, name, AWS_ENDPOINT_URL=url, **keys)
        assert "403" in message
    with web_server(folder) as (url, does):  # a public bucket
        assert digest(sapwood, name, AWS_ENDPOINT_URL=url) == expected
        assert "Authorization" not in does.requests[0][2]
    message, _ = failure(sapwood, "s3://bucket")
    assert "s3://bucket/key" in message


def test_cache(sapwood, folder, expected, tmp_path):
    with web_server(folder) as (url, does):
        assert digest(sapwood, f"{url}/{FILE}", SAPWOOD_CACHE=str(tmp_path / "cache")) == expected
        before = len(does.requests)
        assert digest(sapwood, f"{url}/{FILE}", SAPWOOD_CACHE=str(tmp_path / "cache")) == expected
        assert len(does.requests) - before == 1  # whether it is still the same file


FORKING = """
import os, sys, sapwood
tree = sapwood.open(sys.argv[1])["Delphes"]
column = tree.arrow(["Jet.PT"]).column(0).to_pylist()
child = os.fork()
if child == 0:  # its own connection; the parent's stays the parent's
    os._exit(0 if tree.arrow(["Jet.PT"]).column(0).to_pylist() == column and column else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert tree.arrow(["Jet.PT"]).column(0).to_pylist() == column
"""


def test_fork(folder):
    with web_server(folder) as (url, _):
        command = [sys.executable, "-c", FORKING, f"{url}/{FILE}"]
        result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr


def test_interrupting(folder):
    with web_server(folder) as (url, does):
        does.frozen.set()
        process = subprocess.Popen(
            [COMMAND, "digest", f"{url}/{FILE}"], env=environment(SAPWOOD_CONNECT_SECONDS="60"), stderr=subprocess.PIPE
        )
        while not does.requests:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        process.communicate(timeout=30)
        assert process.returncode == 130
        assert time.monotonic() - begin < 10


@pytest.fixture
def xrdhttp(folder):
    """The HTTP side of an XRootD server for the folder."""
    absent = servers.missing("xrootd", "setpriv")
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)} (Debian: xrootd-server)")
    served = servers.Folder()
    shutil.copy(folder / FILE, served.own(served.make("data")) / FILE)
    served.own(served.path / "data" / FILE)
    server = servers.Xrootd(served, "web", served.path / "data", http=True).start()
    yield server
    server.kill()
    served.remove()


def test_xrdhttp(sapwood, xrdhttp, expected):
    assert digest(sapwood, xrdhttp.http_url(FILE)) == expected
    message, _ = failure(sapwood, xrdhttp.http_url("nothing.root"))
    assert "404" in message
