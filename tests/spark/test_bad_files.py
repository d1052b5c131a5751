"""What goes wrong with files that Spark reads: schemas that differ, damage, files that vanish, executors and servers that die."""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import BUILD, SAMPLE

sys.path.append(str(Path(__file__).resolve().parents[1] / "access"))
import servers  # noqa: E402

import sapwood  # noqa: E402

NAMES = ("qcd", "ttbar", "wjets")


def entries(path):
    file = sapwood.open(str(path))
    return file[file.trees()[0]].entries


@pytest.fixture
def sample(tmp_path):
    for name in NAMES:
        shutil.copy(SAMPLE / f"{name}.root", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    """a.root: n int, x float, only_a, list; b.root: n long, x double, only_b, list. Written by ROOT."""
    ROOT = pytest.importorskip("ROOT")
    import array

    folder = tmp_path_factory.mktemp("differing")
    for name, n_type, x_type in (("a", "I", "F"), ("b", "L", "D")):
        file = ROOT.TFile(str(folder / f"{name}.root"), "RECREATE")
        tree = ROOT.TTree("t", "")
        n, x = array.array({"I": "i", "L": "q"}[n_type], [0]), array.array({"F": "f", "D": "d"}[x_type], [0])
        only, items = array.array("i", [0]), ROOT.std.vector("float")()
        tree.Branch("n", n, f"n/{n_type}"), tree.Branch("x", x, f"x/{x_type}"), tree.Branch(f"only_{name}", only, f"only_{name}/I")
        tree.Branch("items", items)
        for i in range(3):
            n[0], x[0], only[0] = i + (10**12 if name == "b" else 0), i + 0.5, i
            items.resize(i)
            tree.Fill()
        tree.Write()
        file.Close()
    return folder


# ---- Schemas ------------------------------------------------------------------------------------------------------------------


def test_merged_schema(spark, differing):
    frame = spark.read.format("root").option("mergeSchema", True).load(str(differing))
    assert {field.name: field.dataType.simpleString() for field in frame.schema} == {
        "n": "bigint", "x": "double", "only_a": "int", "only_b": "int", "items": "array<float>"
    }  # fmt: skip
    rows = {row.n: row for row in frame.collect()}
    assert set(rows) == {0, 1, 2, 10**12, 10**12 + 1, 10**12 + 2}
    assert (rows[1].only_a, rows[1].only_b, rows[1].x) == (1, None, 1.5)
    assert (rows[10**12 + 2].only_a, rows[10**12 + 2].only_b, len(rows[10**12 + 2]["items"])) == (None, 2, 2)
    assert frame.where("only_b = 1").select("n").collect() == [(10**12 + 1,)]
    assert frame.where("only_b IS NULL").count() == 3


def test_column_that_a_file_lacks_or_has_otherwise_is_an_error_when_it_is_read(spark, differing):
    frame = spark.read.format("root").load(str(differing))
    assert frame.columns == ["n", "x", "only_a", "items"]
    assert frame.count() == 6
    assert frame.select("items").count() == 6
    for column in ("only_a", "n", "x"):
        with pytest.raises(Exception, match=rf'b\.root: the column "{column}" of .*a\.root'):
            frame.select(column).collect()


def test_given_schema(spark, differing):
    frame = spark.read.format("root").schema("n BIGINT, only_b INT, nowhere STRING").load(str(differing))
    rows = frame.orderBy("n").collect()
    assert [tuple(row) for row in rows] == [(i, None, None) for i in range(3)] + [(10**12 + i, i, None) for i in range(3)]
    with pytest.raises(Exception, match='"x" is float32, wanted is int64'):
        spark.read.format("root").schema("x BIGINT").load(str(differing / "a.root")).collect()


def test_options_are_checked(spark):
    path = str(SAMPLE / "qcd.root")
    for name, value in (("badFiles", "ignore"), ("targetSize", "many"), ("mergeSchema", "perhaps")):
        with pytest.raises(Exception, match=f"(?i){name}|{value}"):
            spark.read.format("root").option(name, value).load(path).count()
    with pytest.raises(Exception, match='no object "Delfes"; nearest: Delphes'):
        spark.read.format("root").option("tree", "Delfes").load(path)
    with pytest.raises(Exception, match="nothing.root"):
        spark.read.format("root").load("nothing.root")
    with pytest.raises(Exception, match="(?i)path"):
        spark.read.format("root").load()


def test_empty_tree(spark, tmp_path):
    ROOT = pytest.importorskip("ROOT")
    file = ROOT.TFile(str(tmp_path / "empty.root"), "RECREATE")
    import array

    tree, n = ROOT.TTree("t", ""), array.array("i", [0])
    tree.Branch("n", n, "n/I")
    tree.Write()
    file.Close()
    frame = spark.read.format("root").load(str(tmp_path / "empty.root"))
    assert (frame.count(), frame.collect(), frame.columns) == (0, [], ["n"])


# ---- Damage -------------------------------------------------------------------------------------------------------------------


def cut(path):
    """Half of a file: it cannot be opened."""
    data = path.read_bytes()
    path.write_bytes(data[:200])


def damage(path, column):
    """Bytes of the first basket of a column: it opens, and fails when it is read."""
    data = bytearray(path.read_bytes())
    record = data.find(b"\x07TBasket" + bytes([len(column)]) + column.encode())
    for i in range(record + 100, record + 160):
        data[i] ^= 0xFF
    path.write_bytes(data)


def test_file_that_does_not_open(spark, sample):
    cut(sample / "ttbar.root")
    with pytest.raises(Exception, match="ttbar.root"):
        spark.read.format("root").load(str(sample)).count()
    frame = spark.read.format("root").option("badFiles", "skip").load(str(sample))
    assert frame.count() == entries(sample / "qcd.root") + entries(sample / "wjets.root")
    from test_root_source import metrics

    counted = frame.groupBy().count()
    counted.collect()
    assert metrics(counted)["skippedFiles"] == 1


def test_basket_that_is_damaged(spark, sample):
    damage(sample / "ttbar.root", "Jet.PT")
    frame = spark.read.format("root").load(str(sample))
    with pytest.raises(Exception, match=r"ttbar\.root:Delphes/Jet\.PT @0x"):
        frame.selectExpr("sum(get(Jet.PT, 0))").collect()
    whole = spark.read.format("root").load([str(SAMPLE / f"{name}.root") for name in NAMES])
    assert frame.selectExpr("sum(Jet_size)").collect() == whole.selectExpr("sum(Jet_size)").collect(), "other columns are well"
    from test_root_source import metrics

    skipping = spark.read.format("root").option("badFiles", "skip").load(str(sample)).select("Jet.PT")
    assert skipping.toArrow().num_rows < frame.count()
    assert metrics(skipping)["skippedFiles"] == 1


def test_file_that_vanishes(spark, sample):
    frame = spark.read.format("root").load(str(sample))
    skipping = spark.read.format("root").option("badFiles", "skip").load(str(sample))
    total = frame.count()
    assert skipping.count() == total
    left = [str(sample / "qcd.root"), str(sample / "ttbar.root")]
    (sample / "wjets.root").unlink()
    with pytest.raises(Exception, match="wjets.root"):
        frame.selectExpr("sum(Jet_size)").collect()
    assert skipping.selectExpr("sum(Jet_size)").collect() == spark.read.format("root").load(left).selectExpr("sum(Jet_size)").collect()


# ---- Servers --------------------------------------------------------------------------------------------------------------------

needs_server = pytest.mark.skipif(
    bool(servers.missing("xrootd", "setpriv")) or not (BUILD / "lib/libsapwood-xrootd.so").exists(),
    reason="needs Debian's xrootd-server, and a build with libxrootd-client-dev",
)


@pytest.fixture(scope="module")
def folder():
    folder = servers.Folder()
    yield folder
    folder.remove()


@pytest.fixture(scope="module")
def served(folder):
    data = folder.make("spark")
    for name in NAMES:
        shutil.copy(SAMPLE / f"{name}.root", data)
    return data


@pytest.fixture
def server(folder, served):
    server = servers.Xrootd(folder, f"spark{time.monotonic_ns()}", served, http=True).start()
    yield server
    server.kill()


SUMS = ("sum(Jet_size)", "count(*)", "sum(aggregate(transform(Jet.PT, x -> double(x)), 0D, (a, b) -> a + b))")


@needs_server
def test_xrootd_and_http(spark, server):
    local = spark.read.format("root").load([str(SAMPLE / f"{name}.root") for name in NAMES]).selectExpr(*SUMS).collect()
    assert spark.read.format("root").load(server.url("*.root")).selectExpr(*SUMS).collect() == local
    assert spark.read.format("root").load([server.http_url(f"{name}.root") for name in NAMES]).selectExpr(*SUMS).collect() == local


@needs_server
def test_server_that_dies_and_comes_back(spark, folder, served):
    first = servers.Xrootd(folder, f"dies{time.monotonic_ns()}", served).start()
    frame = spark.read.format("root").load(first.url("*.root"))
    expected = frame.selectExpr(*SUMS).collect()
    first.kill()
    back = []
    again = servers.Xrootd(folder, f"back{time.monotonic_ns()}", served, port=first.port)
    timer = threading.Timer(2, lambda: back.append(again.start()))
    timer.start()
    try:
        assert frame.selectExpr(*SUMS).collect() == expected
    finally:
        timer.join()
        again.kill()
    assert back, "the server was needed"


class Stuck:
    """A query on a thread of its own whose server stopped answering once the query was planned; and the task that waits for the server."""

    def __init__(self, frame, server):
        self.spark = frame.sparkSession.sparkContext
        self.context = self.spark._jsc.sc()
        self.rows = self.failure = None
        frame._jdf.queryExecution().toRdd().getNumPartitions()  # plans; what is planned stays with the frame
        server.freeze()
        self.thread = threading.Thread(target=self._collect, args=(frame,))
        self.thread.start()
        self.stage = until(lambda: next(iter(self.spark.statusTracker().getActiveStageIds()), None), "a stage")
        self.task = until(lambda: next(iter(self.tasks("RUNNING")), None), "a task")
        time.sleep(0.5)  # it is in the C library by then

    def _collect(self, frame):
        try:
            self.rows = frame.collect()
        except Exception as failure:  # noqa: BLE001 - the test looks at it
            self.failure = failure

    def tasks(self, status):
        tasks = self.context.statusStore().taskList(self.stage, 0, 100)
        return [tasks.apply(i).taskId() for i in range(tasks.size()) if tasks.apply(i).status() == status]


def until(condition, what, seconds=60):
    """What the condition gives once it holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} in {seconds} s"
        time.sleep(0.1)
    return found


@needs_server
@pytest.mark.parametrize("source", ["root", "root_python"])
def test_task_that_is_killed_alone(spark, server, source):
    """While its server does not answer: the read ends, Spark runs the task again; and a job that is cancelled ends. Memory is given back."""
    from sapwood.spark import register

    register(spark, name="root_python")

    def query():  # anew: Spark keeps what it has planned
        return spark.read.format(source).option("columns", "Jet.PT,Jet_size").option("targetSize", "1g").load(server.url("*.root"))

    memory = spark._jvm.org.apache.spark.sql.util.ArrowUtils.rootAllocator()
    expected, held = query().collect(), memory.getAllocatedMemory()
    stuck = Stuck(query(), server)
    try:
        assert stuck.context.killTaskAttempt(stuck.task, True, "by the test")
        until(lambda: stuck.task in stuck.tasks("KILLED"), "end of the task", 30)  # the deadline of access is 120 seconds
        until(lambda: set(stuck.tasks("RUNNING")) - {stuck.task}, "second attempt")
        server.thaw()
        stuck.thread.join()
        assert stuck.failure is None and stuck.rows == expected
        stuck = Stuck(query(), server)
        spark.sparkContext.cancelAllJobs()
        stuck.thread.join(30)
        assert "cancelled" in str(stuck.failure)
        until(lambda: stuck.task not in stuck.tasks("RUNNING"), "end of the cancelled task", 30)
    finally:
        server.thaw()
    until(lambda: memory.getAllocatedMemory() == held, "memory back", 30)


# ---- A cluster -------------------------------------------------------------------------------------------------------------------


def executors(spark):
    """Process ids of this driver's executors."""
    app = spark.sparkContext.applicationId.encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if b"org.apache.spark.executor.CoarseGrainedExecutorBackend" in words and app in words:
            found.append(int(process.name))
    return found


def test_executor_killed_in_mid_stage(cluster, tmp_path):
    for copy in range(4):
        for name in NAMES:
            shutil.copy(SAMPLE / f"{name}.root", tmp_path / f"{name}{copy}.root")
    frame = cluster.read.format("root").option("targetSize", "500k").load(str(tmp_path))
    expected = frame.selectExpr(*SUMS[:2]).collect()
    assert expected[0][1] == 4 * sum(entries(SAMPLE / f"{name}.root") for name in NAMES)
    killed = []

    def kill():
        killed.append(executors(cluster)[0])
        os.kill(killed[0], signal.SIGKILL)

    def wait(batches):
        """Takes its time, so that the executor dies with tasks under way."""
        for batch in batches:
            time.sleep(0.2)
            yield batch

    timer = threading.Timer(0.5, kill)
    timer.start()
    rows = frame.select("Jet_size").mapInArrow(wait, "Jet_size int").selectExpr("sum(Jet_size)", "count(*)").collect()
    timer.join()
    assert killed and killed[0] not in executors(cluster)
    assert [tuple(rows[0])] == [tuple(expected[0])]
