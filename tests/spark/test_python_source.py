"""The data source for sessions without the jar: its values by itself, as Spark calls it, and the same frames as the jar's source in Spark."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import SAMPLE
from test_bad_files import NAMES, SUMS, cut, damage, differing, entries, folder, needs_server, sample, served, server  # noqa: F401
from test_root_source import check_group, group, leaves, only_tree, readable, tree_columns

import sapwood

FILES = [str(SAMPLE / f"{name}.root") for name in NAMES]


# ---- By itself --------------------------------------------------------------------------------------------------------------------


def read(path, *, schema=None, filters=(), **options):
    """(table, partitions): what Spark's workers do, with no JVM: driver and executors hand over what is pickled."""
    pytest.importorskip("pyspark")
    from sapwood.spark.source import _FilteringReader, _RootDataSource

    class Source(_RootDataSource):
        reader_class, part_size, slots = _FilteringReader, 128 << 20, 2

    source = Source({**options, "path": str(path)})
    reader = source.reader(schema or source.schema())
    assert list(reader.pushFilters(list(filters))) == list(filters), "Spark looks at all of them again"
    reader, parts = pickle.loads(pickle.dumps((reader, reader.partitions())))
    batches = [batch for part in parts for batch in reader.read(part)]
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches, reader._arrow()), len(parts)


def check_file(path):
    """Whether it was one for this test: then every value is as our reader gives it."""
    try:
        tree = only_tree(path)
    except (sapwood.Error, IndexError):
        return False
    groups = group(tree_columns(tree))
    if not groups or not 0 < tree.entries <= 100_000 or len(tree.keys()) > 300 or not readable(tree):
        return False
    table = read(path, tree=tree.path)[0]
    whole = lambda column: column.combine_chunks() if column.num_chunks else pa.array([], column.type)  # noqa: E731
    columns = {name: (whole(tree.arrow([name])[name]), items) for name, items in leaves(groups)}
    check_group({name: whole(table[name]) for name in table.column_names}, groups, columns, f"{Path(path).name}:{tree.path}")
    return True


def test_delphes(shared_data):
    assert all([check_file(path) for path in (shared_data / "delphes").rglob("*.root")])


def test_corpus(shared_data):
    files = sorted((shared_data / "corpus").rglob("*.root"), key=lambda path: (path.stat().st_size, path.name))
    assert sum(check_file(path) for path in files[10::5]) >= 30


def test_identity():
    sizes = only_tree(FILES[1]).numpy(["Jet_size"])["Jet_size"]
    whole = read(FILES[1], identity="true", columns="Jet_size", batchSize="4k")[0]
    assert whole.column_names == ["Jet_size", "file", "entry"]
    assert whole["entry"].to_pylist() == list(range(len(sizes)))
    few = read(FILES[1], identity="true", where="Jet_size > 6")[0]
    assert few["entry"].to_pylist() == np.flatnonzero(sizes > 6).tolist()
    assert set(few["file"].to_pylist()) == {"ttbar.root"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"badFiles": "ignore"}, "option badFiles"),
        ({"targetSize": "many"}, "option targetSize"),
        ({"mergeSchema": "perhaps"}, "option mergeSchema"),
        ({"columns": "[1]"}, "option columns"),
        ({"paths": "["}, "option paths"),
        ({"tree": "Delfes"}, 'no object "Delfes"; nearest: Delphes'),
        ({"columns": "Jet.Pt"}, 'no column "Jet.Pt"; nearest: PT'),
        ({"path": "nothing.root"}, "nothing.root"),
        ({"path": ""}, "no path is given"),
        ({"columns": "Jet.PT", "memoryLimit": "1k"}, "memoryLimit is 1024"),
        ({"schema": "Jet_size STRING"}, '"Jet_size" is int32, wanted is string'),
    ],
)
def test_what_is_wrong_is_said(options, message):
    from pyspark.sql import types as T

    given = {"schema": T.StructType([T.StructField("Jet_size", T.StringType())])} if "schema" in options else {}
    with pytest.raises(Exception, match=message.replace(".", r"\.")):
        read(**{"path": FILES[0], **options, **given})


def test_bad_files(sample):  # noqa: F811
    damage(sample / "ttbar.root", "Jet.PT")
    with pytest.raises(sapwood.Error, match=r"ttbar\.root:Delphes/Jet\.PT @0x"):
        read(sample, columns="Jet.PT")
    well = entries(sample / "qcd.root") + entries(sample / "wjets.root")
    assert well <= read(sample, columns="Jet.PT", badFiles="skip")[0].num_rows < well + entries(sample / "ttbar.root")
    cut(sample / "wjets.root")
    with pytest.raises(sapwood.Error, match=r"wjets\.root"):
        read(sample, columns="Jet_size")
    assert read(sample, columns="Jet_size", badFiles="skip")[0].num_rows == entries(sample / "qcd.root") + entries(sample / "ttbar.root")


def test_filters_leave_out_entries():
    from pyspark.sql.datasource import GreaterThanOrEqual, In, Not

    sizes = only_tree(FILES[0]).numpy(["Jet_size"])["Jet_size"]
    rows = lambda *filters: read(FILES[0], columns="Jet_size", filters=filters)[0].num_rows  # noqa: E731
    assert rows() == len(sizes)
    assert rows(GreaterThanOrEqual(("Jet_size",), 7)) == (sizes >= 7).sum() > 0
    assert rows(Not(In(("Jet_size",), (1, 2)))) == ((sizes != 1) & (sizes != 2)).sum()


def test_filters_in_words():
    from decimal import Decimal

    from pyspark.sql import datasource as D
    from pyspark.sql import types as T

    from sapwood.spark.filters import translate

    schema = T.StructType([T.StructField(name, kind) for name, kind in [
        ("n", T.IntegerType()), ("x", T.FloatType()), ("s", T.StringType()), ("b", T.BooleanType()), ("u", T.DecimalType(20, 0)),
        ("e", T.StructType([T.StructField("run", T.LongType())])), ("l", T.ArrayType(T.IntegerType())),
    ]])  # fmt: skip
    for filter, words in [
        (D.EqualTo(("n",), 3), "(`n` == 3)"),
        (D.EqualNullSafe(("e", "run"), 5), "(`e.run` == 5)"),
        (D.GreaterThan(("x",), 0.5), "!(`x` <= 0.5)"),
        (D.LessThan(("x",), float("nan")), None),
        (D.Not(D.EqualTo(("s",), "it's")), '!(`s` == "it\'s")'),
        (D.EqualTo(("b",), True), "(`b` == true)"),
        (D.EqualTo(("n",), True), None),
        (D.LessThanOrEqual(("u",), Decimal(10)), "(`u` <= 10)"),
        (D.GreaterThan(("u",), Decimal(2**63)), None),
        (D.In(("n",), (1, 2)), "((`n` == 1) || (`n` == 2))"),
        (D.In(("n",), (1, None)), None),
        (D.IsNull(("n",)), None),
        (D.EqualTo(("l",), [1]), None),
        (D.EqualTo(("nowhere",), 1), None),
    ]:
        assert translate(schema, filter) == words


# ---- In Spark, beside the jar's source ------------------------------------------------------------------------------------------------


@pytest.fixture
def readers(spark):
    """(jar's, Python's): each makes readers with options."""
    from sapwood.spark import register

    register(spark, name="root_python")
    return tuple(lambda name=name, **options: spark.read.format(name).options(**options) for name in ("root", "root_python"))


def assert_same_frames(a, b, place=""):
    """The same schema, partitions, and rows in any order, by their hashes."""
    assert a.schema == b.schema, place
    assert a.rdd.getNumPartitions() == b.rdd.getNumPartitions(), place
    rows = [frame.selectExpr("count(*)", "sum(cast(xxhash64(*) AS decimal(20, 0)))").collect() for frame in (a, b)]
    assert rows[0] == rows[1] and rows[0][0][0] > 0, place


def test_options_mean_the_same(readers, tmp_path):
    for name in NAMES:
        shutil.copy(SAMPLE / f"{name}.root", tmp_path)
    for options, path in [
        ({}, FILES),
        ({"where": "count(Jet.PT) >= 7", "tree": "Delphes", "identity": True, "columns": "Jet"}, str(tmp_path)),
        ({"columns": "MissingET.MET, Jet.PT", "BATCHSIZE": "100k", "targetSize": "100k"}, f"file://{tmp_path}/*.root"),
        ({"columns": '["Jet_size"]', "where": "Jet_size > 3"}, f"{tmp_path}/{{qcd,ttbar}}.root"),
    ]:
        assert_same_frames(*(make(**options).load(path) for make in readers), str(options))


def test_merged_and_given_schemas(readers, differing):  # noqa: F811
    path = str(differing)
    assert_same_frames(*(make(mergeSchema=True).load(path) for make in readers))
    assert_same_frames(*(make().schema("n BIGINT, only_b INT, nowhere STRING").load(path) for make in readers))
    with pytest.raises(Exception, match=r'b\.root: the column ".*" of .*a\.root'):
        readers[1]().load(path).collect()


def test_conditions_mean_the_same(readers):
    condition = "NOT (Jet_size > 2 AND Jet_size < 7) AND Jet_size IN (1, 3, 8)"
    jar, python = (make(columns="Jet_size").load(FILES).where(condition).selectExpr("sum(Jet_size)", "count(*)").collect() for make in readers)
    assert jar == python and jar[0][1] > 0


def test_what_fails_names_file_and_place(readers, sample):  # noqa: F811
    damage(sample / "ttbar.root", "Jet.PT")
    with pytest.raises(Exception, match=r"ttbar\.root:Delphes/Jet\.PT @0x"):
        readers[1](columns="Jet.PT").load(str(sample)).collect()
    for make in readers:
        with pytest.raises(Exception, match=r'no column "Jet\.Pt"; nearest: PT'):
            make(columns="Jet.Pt").load(FILES)


@needs_server
def test_xrootd(readers, server):  # noqa: F811
    jar, python = (make(columns="Jet.PT,Jet_size").load(server.url("*.root")).selectExpr(*SUMS).collect() for make in readers)
    assert jar == python


# ---- With the jar, and without ------------------------------------------------------------------------------------------------------


def test_the_jars_source_keeps_the_name(spark):
    from sapwood.spark import register

    register(spark)
    plan = spark.read.format("root").load(FILES[0])._jdf.queryExecution().executedPlan().toString()
    assert "(Python)" not in plan


WITHOUT = """
import sys
from pyspark.sql import SparkSession
from sapwood.spark import register
settings = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.memory": "512m"}
spark = SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
for allowed in "true", "false":
    register(spark)
    assert spark.conf.get("spark.sql.python.filterPushdown.enabled") == allowed
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW events USING root OPTIONS (path '{sys.argv[1]}', columns 'Jet_size')")
    print("answer", *spark.sql("SELECT count(*), sum(Jet_size) FROM events WHERE Jet_size >= 7").collect()[0])
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "false")
"""


def test_session_without_the_jar(tmp_path):
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SAPWOOD_SPARK_JAR": str(tmp_path / "none.jar")}
    package = str(Path(sapwood.__file__).absolute().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run([sys.executable, "-c", WITHOUT, FILES[0]], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    sizes = only_tree(FILES[0]).numpy(["Jet_size"])["Jet_size"]
    few = sizes[sizes >= 7]
    assert result.stdout.count(f"answer {len(few)} {few.sum()}") == 2, result.stderr[-3000:]
