"""Writing, listing, renaming and removing on real XRootD servers: what is there afterwards, and what happens when servers refuse,
die, come back or freeze meanwhile."""

import json
import os
import re
import subprocess
import time

import pytest
import servers
from conftest import BUILD, driver

pytestmark = pytest.mark.skipif(
    bool(servers.missing("xrootd", "cmsd", "setpriv")) or not (BUILD / "lib/libsapwood-xrootd.so").exists(),
    reason="needs Debian's xrootd-server, and a build with libxrootd-client-dev",
)

HASTY = {"SAPWOOD_CONNECT_SECONDS": "3", "SAPWOOD_STALL_SECONDS": "1", "SAPWOOD_DEADLINE_SECONDS": "4"}
PATIENT = {**HASTY, "SAPWOOD_CONNECT_SECONDS": "20", "SAPWOOD_DEADLINE_SECONDS": "30"}
SLOW = ("--piece", 1_000_000, "--pause", 100)  # what is written for two seconds at least
BIG = 24_000_000  # bytes


@pytest.fixture(scope="module")
def folder():
    folder = servers.Folder()
    (folder.path / "big").write_bytes(os.urandom(BIG))
    yield folder
    folder.remove()


@pytest.fixture(scope="module")
def big(folder):
    return folder.path / "big"


@pytest.fixture(scope="module")
def quiet(folder):
    """A server that nothing happens to; `served` is the folder that it serves."""
    server = servers.Xrootd(folder, "quiet", folder.make("quiet"), writable=True)
    server.served = folder.path / "quiet"
    yield server.start()
    server.kill()


@pytest.fixture
def mortal(folder, request):
    """A server of the test's own."""
    served = folder.make(f"data-{request.node.name}")
    server = servers.Xrootd(folder, f"x{abs(hash(request.node.name)) % 10000}", served, writable=True)
    server.served = served
    yield server.start()
    server.kill()


def store(*arguments, check=True, meanwhile=(), **settings):
    """Runs the driver. Returns what it printed, as objects, or its message; and the seconds it took. meanwhile: what to do, one thing
    a second, from when it writes."""
    environment = {"ASAN_OPTIONS": "detect_leaks=0", **os.environ, **settings}
    command = [str(driver("store_driver")), *map(str, arguments)]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    started = process.stdout.readline() if meanwhile else ""
    for action in meanwhile:
        time.sleep(1)
        action()
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    seconds = time.monotonic() - begin
    if check:
        assert process.returncode == 0, error
        return [json.loads(line) for line in (started + out).splitlines() if line != "writing"], seconds
    assert process.returncode == 1, started + out
    return error, seconds


def names(server, path, **settings):
    return [file["name"] for file in store("list", server.url(path), **settings)[0]]


def test_written_listed_renamed_removed(quiet, big):
    url, served = quiet.url, quiet.served
    store("put", big, url("one/two/file"), "--piece", 777_777)
    assert (served / "one/two/file").read_bytes() == big.read_bytes()
    store("put", "/etc/hostname", url("one/two/file"))  # in the place of the old one
    assert (served / "one/two/file").read_bytes() == open("/etc/hostname", "rb").read()
    store("put", "/dev/null", url("one/empty"))
    store("make", url("one/folder/below"))
    store("make", url("one/folder"))
    found, _ = store("list", url("one"))
    assert [(file["name"], file["size"], file["folder"]) for file in found if not file["folder"]] == [("empty", 0, False)]
    assert [file["name"] for file in found if file["folder"]] == ["folder", "two"]
    (info,) = store("stat", url("one/two/file"))[0]
    assert info["size"] == os.path.getsize("/etc/hostname") and abs(info["modified"] - time.time()) < 100
    store("rename", url("one/two"), url("one/three"))
    assert names(quiet, "one/three") == ["file"]
    store("rename", url("one/three/file"), url("one/empty"), "--replace")
    assert (served / "one/empty").stat().st_size == info["size"]
    store("remove", url("one/empty"))
    store("remove", url("one/three"))
    store("remove", url("one"), "--recursive")
    assert not (served / "one").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("list", "none"), "not found: .*no such file"),
        (("list", "file"), "bad argument: .*not a directory"),
        (("stat", "none"), "not found: .*no such file"),
        (("remove", "none"), "not found: .*no such file"),
        (("remove", "full"), "bad argument: .*not empty"),
        (("make", "file"), "bad argument: .*exists"),
        (("rename", "none", "other"), "not found: .*no such file"),
        (("rename", "file", "full"), "bad argument: .*there already"),
        (("rename", "file", "full/file"), "bad argument: .*there already"),
        (("put", "/etc/hostname", "full"), "bad argument: .*directory"),
        (("put", "/etc/hostname", "file/below"), "bad argument: .*directory"),
    ],
)
def test_what_is_refused_is_said_at_once(quiet, arguments, message):
    for name in ("file", "full/file"):
        if not (quiet.served / name).exists():
            store("put", "/etc/hostname", quiet.url(name))
    urls = [word if word.startswith("/") else quiet.url(word) for word in arguments[1:]]
    error, seconds = store(arguments[0], *urls, check=False)
    assert re.search(message, error) and seconds < 3, error
    assert names(quiet, "full") == ["file"]


def test_read_only_server(folder, quiet):
    server = servers.Xrootd(folder, "fixed", quiet.served).start()
    try:
        store("put", "/etc/hostname", quiet.url("fixed"))
        for arguments in (("put", "/etc/hostname", "new"), ("make", "new"), ("remove", "fixed"), ("rename", "fixed", "new")):
            urls = [word if word.startswith("/") else server.url(word) for word in arguments[1:]]
            error, seconds = store(arguments[0], *urls, check=False)
            assert "bad argument" in error and "read/only" in error and server.url() in error and seconds < 3
    finally:
        server.kill()


def test_abandoned_leaves_nothing(quiet, big):
    store("make", quiet.url("abandoned"))
    store("put", big, quiet.url("abandoned/file"), "--abandon")
    assert names(quiet, "abandoned") == []


def test_without_writing_aside(quiet, big):
    store("put", big, quiet.url("direct/file"), SAPWOOD_WRITE_ASIDE="no")
    assert (quiet.served / "direct/file").read_bytes() == big.read_bytes()


def test_only_whole_files_have_their_name(mortal, big):
    seen = []

    def look():
        seen.append(sorted(path.name for path in mortal.served.iterdir()))

    store("put", big, mortal.url("file?some=thing"), *SLOW, meanwhile=(look,))
    assert len(seen[0]) == 1 and seen[0][0].startswith(".file.")
    assert (mortal.served / "file").read_bytes() == big.read_bytes()
    assert names(mortal, "") == ["file"]


def test_killed_and_back_is_not_noticed(mortal, big):
    _, seconds = store("put", big, mortal.url("file"), *SLOW, meanwhile=(mortal.kill, mortal.start), **PATIENT)
    assert (mortal.served / "file").read_bytes() == big.read_bytes()
    assert names(mortal, "") == ["file"]
    assert seconds < 15


def test_killed_for_good_is_an_error_within_the_deadline(mortal, big):
    error, seconds = store("put", big, mortal.url("file"), *SLOW, check=False, meanwhile=(mortal.kill,), **HASTY)
    assert mortal.url("file") in error and "given up after" in error
    assert seconds < 1 + 4 + 3


def test_frozen_is_an_error_within_the_deadline(mortal, big):
    """Also at the end: closing does not wait for the server."""
    error, seconds = store("put", big, mortal.url("file"), *SLOW, check=False, meanwhile=(mortal.freeze,), **HASTY)
    assert mortal.url("file") in error and "given up after" in error
    assert seconds < 1 + 4 + 3


def test_frozen_for_a_while_is_not_noticed(mortal, big):
    actions = (mortal.freeze, lambda: None, lambda: None, mortal.thaw)
    store("put", big, mortal.url("file"), *SLOW, meanwhile=actions, **PATIENT)
    assert (mortal.served / "file").read_bytes() == big.read_bytes()


@pytest.mark.parametrize("state", ["kill", "freeze"])
def test_names_end_in_time(mortal, state):
    getattr(mortal, state)()
    for command in ("list", "make", "remove"):
        error, seconds = store(command, mortal.url("x"), check=False, **{**HASTY, "SAPWOOD_CONNECT_SECONDS": "1"})
        assert mortal.url("x") in error and seconds < 4


def test_behind_a_redirector(folder, big):
    one, two = folder.make("one"), folder.make("two")
    cluster = servers.Cluster(folder, [one, two], writable=True).start()
    try:
        store("put", big, cluster.url("set/file"))  # waits until the data servers have reported to the manager
        assert names(cluster, "set") == ["file"]
        store("rename", cluster.url("set/file"), cluster.url("set/other"))
        (written,) = (*one.rglob("other"), *two.rglob("other"))
        assert written.read_bytes() == big.read_bytes()
        store("remove", cluster.url("set/other"))
        assert names(cluster, "set") == []
    finally:
        cluster.kill()
