"""Parquet and other files that Spark writes to and reads from root://, on real XRootD servers: equal to local ones; committers, names,
servers that refuse, vanish, freeze, die and come back."""

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "access"))
import servers  # noqa: E402
from conftest import BUILD  # noqa: E402

pytestmark = pytest.mark.skipif(
    bool(servers.missing("xrootd", "setpriv")) or not (BUILD / "lib/libsapwood-xrootd.so").exists(),
    reason="needs Debian's xrootd-server, and a build with libxrootd-client-dev",
)


@pytest.fixture(scope="module")
def folder():
    folder = servers.Folder()
    yield folder
    folder.remove()


@pytest.fixture(scope="module")
def server(folder):
    """A writable one that nothing happens to; `served` is the folder that it serves."""
    server = servers.Xrootd(folder, "quiet", folder.make("quiet"), writable=True)
    server.served = folder.path / "quiet"
    yield server.start()
    server.kill()


@pytest.fixture
def mortal(folder, server):
    """Another server of the same folder, read-only, of the test's own."""
    mortal = servers.Xrootd(folder, f"mortal{time.monotonic_ns()}", server.served).start()
    yield mortal
    mortal.kill()


@pytest.fixture
def events(spark):
    """A DataFrame with nested columns, in two partitions."""
    columns = ("id", "id % 3 AS k", "cast(id AS double) / 7 AS x", "array(id, id + 1) AS a", "named_struct('s', cast(id AS string)) AS n")
    return spark.range(0, 5000, 1, 2).selectExpr(*columns)


def rows(df):
    return sorted(df.select(sorted(df.columns)).collect(), key=lambda row: row["id"])


def file_system(spark, url):
    """Hadoop's FileSystem of a URL, and a maker of its paths."""
    jvm = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path
    return path(url).getFileSystem(spark._jsc.hadoopConfiguration()), path


# ---- The same as local files ----------------------------------------------------------------------------------------------


def test_parquet_equals_the_local_one(spark, server, events, tmp_path):
    there, here = server.url("parquet/events"), str(tmp_path / "events")
    for mode in ("errorifexists", "overwrite", "append"):
        for place in (there, here):
            events.write.mode(mode).parquet(place)
        assert spark.read.parquet(there).schema == spark.read.parquet(here).schema
        assert rows(spark.read.parquet(there)) == rows(spark.read.parquet(here))
    written = sorted(path.name for path in (server.served / "parquet/events").iterdir())
    assert "_SUCCESS" in written and len(written) == 1 + 4, "nothing of the committer and of writing aside is left"
    assert rows(spark.read.parquet(there).where("id < 10")) == rows(events.union(events).where("id < 10"))


@pytest.mark.parametrize("version", [1, 2])
def test_partitioned_by_both_committers(spark, server, events, version):
    place = server.url(f"partitioned{version}")
    committer = {"mapreduce.fileoutputcommitter.algorithm.version": str(version)}
    events.write.partitionBy("k").options(**committer).parquet(place)
    events.where("id < 300").write.mode("append").partitionBy("k").options(**committer).parquet(place)
    assert spark.read.parquet(place).count() == 5300
    assert spark.read.parquet(f"{place}/k=[01]").count() == spark.read.parquet(place).where("k < 2").count() > 0
    assert spark.read.option("basePath", place).parquet(f"{place}/k={{0,2}}").select("k").distinct().count() == 2
    with pytest.raises(Exception, match="already exists"):
        events.write.parquet(place)


def test_other_formats(spark, server, folder, events):
    events.select("id", "k").write.csv(server.url("csv"), header=True)
    assert spark.read.csv(server.url("csv"), header=True, inferSchema=True).agg({"id": "sum"}).first()[0] == 5000 * 4999 // 2
    noise = os.urandom(24_000_000)
    (server.served / "noise").write_bytes(noise)
    read = spark.read.format("binaryFile").load(server.url("noise")).selectExpr("length", "sha2(content, 256)").first()
    assert tuple(read) == (len(noise), hashlib.sha256(noise).hexdigest())


def test_streaming_with_its_checkpoint(spark, server, events):
    """Which goes through Hadoop's FileContext, and renames over what is there."""
    events.write.parquet(server.url("stream/in"))
    stream = spark.readStream.schema(events.schema).parquet(server.url("stream/in")).writeStream
    for _ in range(2):  # the second goes on from the checkpoint: there is nothing more to do
        started = stream.option("checkpointLocation", server.url("stream/checkpoint")).trigger(availableNow=True).start(server.url("stream/out"))
        assert started.awaitTermination(60)
    assert rows(spark.read.parquet(server.url("stream/out"))) == rows(events)


def test_parquet_is_read_by_few_requests(spark, server):
    """Vector reads: the footers, and of each file the columns that are wanted."""
    columns = [f"rand({i}) AS c{i}" for i in range(40)]
    spark.range(0, 40000, 1, 2).selectExpr(*columns).write.parquet(server.url("wide"))
    jvm = spark._jvm
    statistics = jvm.org.apache.hadoop.fs.FileSystem.getStatistics("root", jvm.java.lang.Class.forName(
        "sapwood.hadoop.XRootDFileSystem", True, jvm.java.lang.Thread.currentThread().getContextClassLoader()))
    frame = spark.read.parquet(server.url("wide"))
    before = statistics.getReadOps(), statistics.getBytesRead()
    frame.selectExpr(*(f"sum(c{i})" for i in range(0, 40, 2))).collect()
    requests, read = statistics.getReadOps() - before[0], statistics.getBytesRead() - before[1]
    assert 20 * 40000 * 8 < read < 25 * 40000 * 8, "every second column"
    assert requests <= 2 * 6, "for each of the two files: looks, openings, its footer, its columns"


# ---- Names ------------------------------------------------------------------------------------------------------------------


def test_files_by_name(spark, server):
    fs, path = file_system(spark, server.url())

    def put(name, text=b"text", overwrite=False):
        out = fs.create(path(name), overwrite)
        out.write(text)
        out.close()

    base = server.url("names")
    put(f"{base}//deep///er/file.txt")
    assert (server.served / "names/deep/er/file.txt").read_bytes() == b"text"
    for name in ("a:b", "with space", "percent%20", "ünï", "k=1"):
        out = fs.create(path(path(base), path(None, None, name)), True)
        out.close()
    listed = {status.getPath().getName(): status for status in fs.listStatus(path(base))}
    assert set(listed) == {"deep", "a:b", "with space", "percent%20", "ünï", "k=1"}
    assert listed["deep"].isDirectory() and listed["a:b"].isFile() and fs.exists(listed["percent%20"].getPath())
    assert abs(listed["ünï"].getModificationTime() / 1000 - time.time()) < 100
    status = fs.getFileStatus(path(f"{base}/deep/er/file.txt"))
    assert status.getLen() == 4 and [s.getLen() for s in fs.listStatus(status.getPath())] == [4]
    assert list(fs.getFileBlockLocations(status, 0, 4)[0].getHosts()) == ["localhost"]
    with pytest.raises(Exception, match="FileAlreadyExists.*is there already"):
        put(f"{base}/deep/er/file.txt")
    with pytest.raises(Exception, match="FileAlreadyExists.*is a folder"):
        put(f"{base}/deep", overwrite=True)
    with pytest.raises(Exception, match="FileAlreadyExists.*is a file"):
        fs.mkdirs(path(f"{base}/deep/er/file.txt"))
    with pytest.raises(Exception, match="nothing is appended"):
        fs.append(path(f"{base}/deep/er/file.txt"))
    with pytest.raises(Exception, match="question mark"):
        fs.open(path(f"{base}/file?authz=secret"))
    with pytest.raises(Exception, match="FileNotFound.*no such file"):
        fs.listStatus(path(f"{base}/none"))
    assert fs.mkdirs(path(f"{base}/folder")) and fs.mkdirs(path(f"{base}/folder"))
    for old, new, done in (
        ("none", "other", False),
        ("deep", "deep/er/below", False),
        ("deep/er/file.txt", "deep/er/file.txt", True),
        ("k=1", "deep/er/file.txt", False),
        ("deep/er/file.txt", "folder", True),  # into it
        ("deep", "other", True),
    ):
        assert fs.rename(path(f"{base}/{old}"), path(f"{base}/{new}")) is done, (old, new)
    assert fs.exists(path(f"{base}/folder/file.txt")) and fs.exists(path(f"{base}/other/er"))
    with pytest.raises(Exception, match="not empty"):
        fs.delete(path(f"{base}/folder"), False)
    assert fs.delete(path(base), True) and not fs.delete(path(base), True)
    assert not (server.served / "names").exists()


def test_what_the_server_wants_in_the_url_is_not_told(spark, server):
    conf = spark._jvm.org.apache.hadoop.conf.Configuration(spark._jsc.hadoopConfiguration())
    conf.set("fs.root.secret.query", "authz=xyzzy")
    path = spark._jvm.org.apache.hadoop.fs.Path
    fs = spark._jvm.org.apache.hadoop.fs.FileSystem.newInstance(path(server.url()).toUri(), conf)
    out = fs.create(path(server.url("with/query")))
    out.write(b"text")
    out.close()
    assert [status.getPath().getName() for status in fs.listStatus(path(server.url("with")))] == ["query"]
    with pytest.raises(Exception, match="(?s)none.*no such file") as caught:
        fs.open(path(server.url("with/none")))
    assert "xyzzy" not in str(caught.value.java_exception.getMessage())


def test_seeking_and_positions(spark, server):
    """The same bytes in whatever order they are asked for."""
    data = os.urandom(9_000_000)
    (server.served / "bytes").write_bytes(data)
    fs, path = file_system(spark, server.url())
    stream = fs.open(path(server.url("bytes")))
    for at, count in ((0, 10), (5_000_000, 3_000_000), (8_999_990, 10), (100, 300_000), (300_100, 4_500_000), (8_000_000, 1), (7, 70)):
        stream.seek(at)
        assert bytes(stream.readNBytes(count)) == data[at : at + count]
        assert stream.getPos() == at + count
    stream.seek(len(data))
    assert stream.read() == -1
    with pytest.raises(Exception, match="EOFException.*not inside"):
        stream.seek(len(data) + 1)
    stream.close()
    stream.close()
    with pytest.raises(Exception, match="is closed"):
        stream.read()


# ---- What goes wrong --------------------------------------------------------------------------------------------------------


def test_missing_and_vanished(spark, server, events):
    with pytest.raises(Exception, match="PATH_NOT_FOUND"):
        spark.read.parquet(server.url("nothing"))
    events.write.parquet(server.url("vanishing"))
    frame = spark.read.parquet(server.url("vanishing"))
    for file in (server.served / "vanishing").glob("*.parquet"):
        file.unlink()
    with pytest.raises(Exception, match="(?s)FILE_NOT_EXIST|no such file"):
        frame.agg({"x": "sum"}).collect()


def test_read_only_server(spark, mortal, events):
    with pytest.raises(Exception, match="(?s)localhost.*read/only"):
        events.write.parquet(mortal.url("refused"))


def test_server_killed_and_back(spark, server, mortal, events):
    events.write.mode("overwrite").parquet(server.url("phoenix"))
    frame = spark.read.parquet(mortal.url("phoenix"))
    mortal.kill()
    back = threading.Timer(2, mortal.start)
    back.start()
    begin = time.monotonic()
    assert rows(frame) == rows(events)
    assert time.monotonic() - begin > 1.9, "it was read after the server was back"
    back.join()


def test_server_killed_and_back_within_a_file(spark, server, mortal):
    data = os.urandom(40_000_000)
    (server.served / "large").write_bytes(data)
    fs, path = file_system(spark, mortal.url())
    stream = fs.open(path(mortal.url("large")))
    stream.readNBytes(1_000_000)
    mortal.kill()
    back = threading.Timer(1, mortal.start)
    back.start()
    assert spark._jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream) == hashlib.sha256(data[1_000_000:]).hexdigest()
    stream.close()
    back.join()


def test_frozen_server_holds_neither_closing_nor_a_killed_task(spark, server, mortal, events):
    data = os.urandom(30_000_000)
    (server.served / "frozen").write_bytes(data)
    events.write.mode("overwrite").parquet(server.url("frosty"))
    fs, path = file_system(spark, mortal.url())
    frame = spark.read.parquet(mortal.url("frosty"))
    stream = fs.open(path(mortal.url("frozen")))
    stream.readNBytes(1_000_000)  # more is on its way
    mortal.freeze()
    try:
        begin = time.monotonic()
        stream.close()
        assert time.monotonic() - begin < 1
        failures = []

        def work():
            spark.sparkContext.setJobGroup("frozen", "reads from a server that does not answer", True)
            try:
                frame.agg({"x": "sum"}).collect()
            except Exception as failure:  # noqa: BLE001
                failures.append(failure)

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(1.5)
        spark.sparkContext.cancelJobGroup("frozen")
        thread.join(10)
        assert not thread.is_alive() and failures
        for _ in range(50):  # the threads of the tasks are free again, long before a deadline
            if not spark.sparkContext.statusTracker().getActiveStageIds():
                break
            time.sleep(0.1)
        begin = time.monotonic()
        assert spark.range(100).count() == 100
        assert time.monotonic() - begin < 10
    finally:
        mortal.thaw()
