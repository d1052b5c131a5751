"""XRootD against real servers on this machine: the same values as from local files, few requests, and what happens when servers
die, come back, freeze, are far away, encrypt, or ask for tokens."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import servers
from conftest import BUILD, CLASSES, COMMAND, SAMPLE, SOURCE, driver

pytestmark = pytest.mark.skipif(
    bool(servers.missing("xrootd", "cmsd", "setpriv")) or not (BUILD / "lib/libsapwood-xrootd.so").exists(),
    reason="needs Debian's xrootd-server, and a build with libxrootd-client-dev",
)

# Short times, so that what takes minutes by default is seen in seconds.
HASTY = {"SAPWOOD_CONNECT_SECONDS": "3", "SAPWOOD_STALL_SECONDS": "1", "SAPWOOD_DEADLINE_SECONDS": "4", "SAPWOOD_REQUEST_BYTES": "1 MB"}
# Enough for a server to come back in, and a stall noticed early.
PATIENT = {**HASTY, "SAPWOOD_CONNECT_SECONDS": "20", "SAPWOOD_DEADLINE_SECONDS": "30"}
BIG = 48_000_000  # bytes


@pytest.fixture(scope="module")
def folder():
    folder = servers.Folder()
    yield folder
    folder.remove()


@pytest.fixture(scope="module")
def data(folder):
    """What is served: the sample, the same in sub-folders, and a big file of noise."""
    data = folder.make("data")
    for name in CLASSES:
        shutil.copy(SAMPLE / f"{name}.root", data)
    for number in (1, 2, 10):
        shutil.copy(SAMPLE / "qcd.root", folder.make(f"data/runs/2018-{number}") / f"run{number}.root")
    (data / "big.bin").write_bytes(os.urandom(BIG))
    return data


@pytest.fixture
def serve(folder, data):
    """Starts servers, of `data` unless told otherwise; they end with the test."""
    started = []

    def start(name, served=data, **options):
        server = servers.Xrootd(folder, f"{name}{len(started)}", served, **options).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def server(folder, data):
    """One that nothing happens to."""
    server = servers.Xrootd(folder, "quiet", data).start()
    yield server
    server.kill()


@pytest.fixture
def relay(folder, request):
    started = []

    def start(target, delay_ms=0):
        relay = servers.Relay(driver("relay"), target, delay_ms, folder.path / "relay.log").start()
        started.append(relay)
        return relay

    yield start
    for one in started:
        one.kill()


def read(*arguments, check=True, timeout=120, meanwhile=(), **settings):
    """Runs the driver, which reads all bytes. Returns (its report or message, seconds it took). meanwhile: what to do, one
    thing a second, from when it reads."""
    command = [driver("source_driver"), *map(str, arguments), "--hash"]
    # closing does not wait, so what the end of the program finds under way in XrdCl counts as leaked
    environment = {"ASAN_OPTIONS": "detect_leaks=0", **os.environ, **settings}
    begin = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    started = process.stdout.readline() if meanwhile else ""
    for action in meanwhile:
        time.sleep(1)
        action()
    try:
        out, error = process.communicate(timeout=timeout)
    finally:
        process.kill()
    seconds = time.monotonic() - begin
    if check:
        assert process.returncode == 0, error
        return json.loads((started + out).splitlines()[-1]), seconds
    assert process.returncode == 1, started + out
    return error, seconds


@pytest.fixture(scope="module")
def expected(data):
    """The sum of the big file, read locally."""
    return read(data / "big.bin")[0]["sum"]


def digests(sapwood, *names, **options):
    """{base name: lines of the digest without the name}."""
    out = {}
    for line in sapwood("digest", *names, check=False, **options).stdout.splitlines():
        row = json.loads(line)
        out.setdefault(Path(row.pop("file")).name, []).append(row)
    assert out
    return out


# ---- The same as local files --------------------------------------------------------------------------------------------


def test_same_digests_of_the_sample(sapwood, server):
    local = digests(sapwood, *(SAMPLE / f"{name}.root" for name in CLASSES))
    remote = digests(sapwood, *(server.url(f"{name}.root") for name in CLASSES))
    assert remote == local
    assert all(branch["digest"] for rows in local.values() for row in rows for branch in row["branches"])


def test_same_digests_of_delphes_and_corpus(shared_data, sapwood, folder, serve):
    """Errors are told in the same words too, but for the name."""
    served = folder.make("shared")
    corpus = sorted((shared_data / "corpus").rglob("*.root"), key=lambda path: (path.stat().st_size, path.name))
    files = [*sorted((shared_data / "delphes").glob("*.root")), *corpus[: len(corpus) * 9 // 10 : 10]]
    names = []
    for i, file in enumerate(files):
        names.append(f"{i}-{file.name}")
        shutil.copyfile(file, served / names[-1])
    remote_server = serve("shared", served)
    local = digests(sapwood, *(served / name for name in names))
    remote = digests(sapwood, *(remote_server.url(name) for name in names))
    text = json.dumps(remote).replace(remote_server.url(), f"{served}/")
    assert json.loads(text) == local
    assert len(local) == len(names) > 30


@pytest.mark.parametrize("how", [(), ("--scatter", 5000), ("--scatter", 100000), ("--batch", 1), ("--threads", 8, "--batch", 5)])
def test_bytes(server, data, how):
    remote, local = read(server.url("big.bin"), *how)[0], read(data / "big.bin", *how)[0]
    assert (remote["bytes"], remote["sum"]) == (local["bytes"], local["sum"])
    assert remote["retries"] == 0


@pytest.mark.parametrize("scheme", ["xroot", "root"])
def test_schemes_and_queries(server, expected, scheme):
    assert read(server.url("big.bin", scheme) + "?some=thing&other=1")[0]["sum"] == expected


def test_many_small_ranges_are_few_requests(server):
    """Far apart, so that they are not merged: one request holds up to 1,024 of them."""
    report, _ = read(server.url("big.bin"), "--scatter", 1000, SAPWOOD_GAP_BYTES="0")
    assert report["ranges"] == BIG // 2000
    assert report["requests"] <= report["ranges"] / 1000 + 3
    assert report["received"] == report["bytes"]


def test_requests_of_a_file_are_printed_and_few(sapwood, server):
    run = sapwood("digest", "--verbose", server.url("ttbar.root"))
    found = re.search(r"ttbar\.root: (\d+) requests \((\d+) of them again\) for (\d+) ranges, \S+ \S+ received", run.stderr)
    assert found, run.stderr
    columns = sum(len(json.loads(line)["branches"]) for line in run.stdout.splitlines())
    assert 0 < int(found[1]) <= columns + 5, "digest reads column after column, each in one request"
    assert int(found[2]) == 0


@pytest.mark.parametrize("more", [(), ("xrd.buffers maxbsz 8m",)])
def test_limits_of_the_server_are_kept(serve, data, more):
    """2 MB a range of a vector read, or 8 MB: a server refuses more than it says."""
    limited = serve("limits", more=more)
    how = ("--scatter", 5_000_000)
    settings = {"SAPWOOD_GAP_BYTES": "0", "SAPWOOD_REQUEST_BYTES": "32 MB"}
    report = read(limited.url("big.bin"), *how, **settings)[0]
    assert report["sum"] == read(data / "big.bin", *how)[0]["sum"]
    assert report["retries"] == 0


# ---- Names --------------------------------------------------------------------------------------------------------------


def listed(sapwood, pattern, check=True):
    run = sapwood("ls", pattern, check=check)
    return [line.split(": ")[0].split("//", 2)[2] for line in run.stdout.splitlines() if line.startswith("root://")]


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("*.root", ["qcd.root", "ttbar.root", "wjets.root"]),
        ("{tt,wj}*.root", ["ttbar.root", "wjets.root"]),
        ("{qcd,ttbar}.root", ["qcd.root", "ttbar.root"]),
        ("[q-t]???.root", []),
        ("[q-t]????.root", ["ttbar.root"]),
        ("runs/2018-*/run*.root", ["runs/2018-1/run1.root", "runs/2018-2/run2.root", "runs/2018-10/run10.root"]),
        ("runs/*/run1?.root", ["runs/2018-10/run10.root"]),
        ("*/2018-{1,2}/run2.root?some=thing", ["runs/2018-2/run2.root?some=thing"]),
        ("runs/*", []),
        ("nothing*.root", []),
        ("nowhere/*.root", []),
    ],
)
def test_patterns(sapwood, server, pattern, names):
    assert listed(sapwood, server.url(pattern), check=bool(names)) == [*names]
    if not names and pattern != "runs/*":
        assert "no such file" in sapwood("ls", server.url(pattern), check=False).stderr


@pytest.mark.parametrize("name, message", [("none.root", "no such file"), ("runs", "directory")])
def test_what_cannot_be_opened(server, name, message):
    error, seconds = read(server.url(name), check=False)
    assert message in error and server.url(name) in error
    assert seconds < 5, "a clear answer is not asked for again"


# ---- Servers that die and freeze -------------------------------------------------------------------------------------------


@pytest.fixture
def slow(folder):
    """How the driver reads for three seconds at least: 48 batches, 60 ms each."""
    return ("--batch", 1, "--pause", 60, "--ahead", 1)


def test_killed_and_back_is_not_noticed(serve, expected, slow):
    server = serve("phoenix")
    report, seconds = read(server.url("big.bin"), *slow, meanwhile=(server.kill, server.start), **PATIENT)
    assert report["sum"] == expected and report["retries"] > 0
    assert seconds < 15


def test_killed_for_good_is_an_error_within_the_deadline(serve, slow):
    server = serve("mortal")
    error, seconds = read(server.url("big.bin"), *slow, check=False, meanwhile=(server.kill,), **HASTY)
    assert re.search(r"//big\.bin @0x[0-9a-f]+: .*tried \d+ times, given up after", error), error
    assert seconds < 1 + 4 + 3


def test_frozen_is_an_error_within_the_deadline(serve, slow):
    """Also at the end: neither closing the file nor leaving the program waits for the server."""
    server = serve("frozen")
    error, seconds = read(server.url("big.bin"), *slow, check=False, meanwhile=(server.freeze,), **HASTY)
    assert re.search(r"//big\.bin @0x[0-9a-f]+: .*given up after", error), error
    assert seconds < 1 + 4 + 3


def test_frozen_for_a_while_is_not_noticed(serve, expected, slow):
    server = serve("frosty")
    actions = (server.freeze, lambda: None, lambda: None, server.thaw)
    report, _ = read(server.url("big.bin"), *slow, meanwhile=actions, **PATIENT)
    assert report["sum"] == expected


def test_connection_that_is_dead_without_a_word_is_replaced(server, relay, expected, slow):
    """As when a router forgets it: only a new connection helps, and XrdCl would wait for the old one."""
    far = relay(server.port)
    report, seconds = read(far.url("big.bin"), *slow, meanwhile=(far.cut,), **PATIENT)
    assert report["sum"] == expected and report["retries"] > 0
    assert seconds < 15


@pytest.mark.parametrize("how", ["dead", "frozen", "unknown"])
def test_opening_ends_in_time(serve, how):
    if how == "unknown":
        url = "root://host.invalid//x.root"
    else:
        server = serve("gone")
        url = server.url("big.bin")
        server.kill() if how == "dead" else server.freeze()
    error, seconds = read(url, check=False, **HASTY)
    assert url in error
    assert seconds < 3 + 3


@pytest.mark.parametrize("name", ["big.bin", "*.root"])
def test_interrupted_while_the_server_is_frozen(serve, name):
    """Ctrl-C ends opening and listing at once, not after SAPWOOD_CONNECT_SECONDS."""
    server = serve("stuck")
    server.freeze()
    process = subprocess.Popen([COMMAND, "ls", server.url(name)], stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=5)
    assert process.returncode == 130, error


def test_closed_while_the_server_is_frozen(serve):
    """A file that was read without trouble: leaving it behind takes no time."""
    server = serve("late")
    pause = ("--pause", 2500, "--batch", 100)  # one batch, then a pause, in which the server freezes
    _, seconds = read(server.url("qcd.root"), *pause, meanwhile=(server.freeze,), **HASTY)
    assert seconds < 2.5 + 3


def test_file_that_changed_meanwhile_is_refused(folder, serve, slow):
    """Same name, same size, other bytes: half of each would be worse than an error."""
    changing = folder.make("changing")
    (changing / "x.bin").write_bytes(os.urandom(BIG))
    server = serve("changing", changing)

    def change():
        server.kill()
        (changing / "x.bin").write_bytes(os.urandom(BIG))
        os.utime(changing / "x.bin", (1e9, 1e9))
        server.start()

    error, _ = read(server.url("x.bin"), *slow, check=False, meanwhile=(change,), **PATIENT)
    assert "changed on the server" in error


# ---- Redirection, distance, encryption, tokens ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(folder, data):
    one, two = folder.make("one/set"), folder.make("two/set")
    shutil.copy(SAMPLE / "qcd.root", one)
    shutil.copy(SAMPLE / "ttbar.root", two)
    shutil.copy(data / "big.bin", two)
    cluster = servers.Cluster(folder, [one.parent, two.parent]).start()
    for _ in range(100):  # the data servers report to the manager, a moment after they have started
        if read_or_none(cluster.url("set/qcd.root")) and read_or_none(cluster.url("set/ttbar.root")):
            break
        time.sleep(0.2)
    yield cluster
    cluster.kill()


def read_or_none(url):
    try:
        return read(url, SAPWOOD_CONNECT_SECONDS="1")[0]
    except AssertionError:
        return None


def test_redirector(sapwood, cluster):
    local = digests(sapwood, SAMPLE / "qcd.root", SAMPLE / "ttbar.root")
    assert digests(sapwood, cluster.url("set/qcd.root"), cluster.url("set/ttbar.root")) == local
    assert listed(sapwood, cluster.url("set/*.root")) == ["set/qcd.root", "set/ttbar.root"]


def test_data_server_behind_a_redirector_is_killed_and_back(cluster, expected, slow):
    actions = (cluster.servers[1].kill, cluster.servers[1].start)
    report, _ = read(cluster.url("set/big.bin"), *slow, meanwhile=actions, **PATIENT)
    assert report["sum"] == expected and report["retries"] > 0


def test_far_away(server, relay, expected):
    """50 ms there and back: requests overlap, so a file of 48 MB takes a few round trips and not one for each request."""
    far = relay(server.port, 25)
    report, _ = read(far.url("big.bin"), SAPWOOD_REQUEST_BYTES="1 MB", SAPWOOD_IN_FLIGHT="16")
    assert report["sum"] == expected and report["requests"] >= 48
    assert report["seconds"] < 0.05 * report["requests"] * 0.7


@pytest.fixture(scope="module")
def authority(folder):
    if servers.missing("openssl"):
        pytest.skip("openssl is not installed")
    return servers.Authority(folder)


def test_encrypted(serve, authority, expected):
    server = serve("tls", more=[*authority.lines(), "xrootd.tls all"])
    trusted = {"X509_CERT_DIR": str(authority.certificates)}
    assert read(server.url("big.bin", "roots"), **trusted)[0]["sum"] == expected
    error, seconds = read(server.url("big.bin", "roots"), check=False, X509_CERT_DIR="/nowhere", **HASTY)
    assert "TLS" in error and seconds < 3 + 3


def test_tokens(serve, authority, expected):
    check = BUILD / "tests/libtoken_check.so"
    tokens = ["xrootd.tls all", "xrootd.seclib libXrdSec.so", f"sec.protocol ztn -tokenlib {check}"]
    server = serve("ztn", more=[*authority.lines(), *tokens])
    trusted = {"X509_CERT_DIR": str(authority.certificates)}
    good, bad = (f"eyJhbGciOiJub25lIn0.{word}.x" for word in ("valid", "stolen"))
    assert read(server.url("big.bin", "roots"), BEARER_TOKEN=good, **trusted)[0]["sum"] == expected
    error, seconds = read(server.url("big.bin", "roots"), BEARER_TOKEN=bad, check=False, **trusted)
    assert "Auth" in error and seconds < 5, "a refusal is final"


def test_documentation_tells_the_times():
    code = dict(re.findall(r'\{"(\w+)", (\d+)\},', (SOURCE / "src/access/xrootd_client.cpp").read_text()))
    told = dict(re.findall(r"^\| `XRD_(\w+)` \| (\d+)", (SOURCE / "docs/access.md").read_text(), re.MULTILINE))
    assert code and told == {name.upper(): value for name, value in code.items()}


# ---- Threads and processes ------------------------------------------------------------------------------------------------------


def test_a_child_reads_on(server):
    """XrdCl's threads do not survive fork(); the child makes connections of its own, the parent keeps its."""
    code = f"""
import os, sapwood
file = sapwood.open({server.url("ttbar.root")!r})
tree = file[file.trees()[0]]
before = tree.arrow()
child = os.fork()
if child == 0:
    os._exit(0 if tree.arrow().equals(before) else 7)
assert tree.arrow().equals(before)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    environment = {**os.environ, "PYTHONPATH": str(BUILD / "python")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
