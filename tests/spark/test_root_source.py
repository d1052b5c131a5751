"""The Spark source `root` against our Python reader: the same values of every column, however they are grouped, pruned and filtered."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import SAMPLE

import sapwood

DELPHES = ["qcd", "qcd_inclusive", "ttbar", "wjets"]


# ---- What is expected: written from the documentation, not from the code -------------------------------------------------------


def sql_type(kind):
    """docs/spark.md, the table of types."""
    simple = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0), pa.float16(): pa.float32()}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(sql_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, sql_type(field.type)) for field in kind])
    return simple.get(kind, kind)


def short_name(own, above):
    if above and own.startswith(above.removesuffix(".") + "."):
        own = own[len(above.removesuffix(".")) + 1 :]
    stripped = re.sub(r"(\[[^\]]*\])+$", "", own)
    return (stripped or own).rstrip(".") or own


def group(columns, above=None, items=False, above_own=None):
    """{name: {name: …} or a branch's name, with whether its lists are those of a collection}, from the list of branches."""
    out = {}
    i = 0
    while i < len(columns):
        branch = columns[i]
        end = i + 1
        while end < len(columns) and columns[end]["depth"] > branch["depth"]:
            end += 1
        inside = columns[i + 1 : end]
        readable = [b["type"] for b in inside if b.get("type")]
        own = branch["path"][len(above["path"]) + 1 :] if above else branch["path"]
        name = short_name(own, above_own)
        while name in out:
            name = re.sub(r"(#(\d+))?$", lambda m: f"#{int(m[2] or 1) + 1}", name, count=1)
        collection = not items and branch.get("type") == "int32"
        lists = all(kind.startswith("list") for kind in readable)
        if readable and (not branch.get("type") or collection or items) and (lists or not (collection or items)):
            out[name] = group(inside, branch, items or collection, own)
            out[name, "collection"] = collection
        else:
            if branch.get("type"):
                out[name] = branch["name"]
            out.update(group(inside, above, items, above_own))
        i = end
    return out


def same(actual, expected, place, items=False):
    """Fails where two arrays differ; NaN equals NaN."""
    if items:
        expected = expected.flatten()
    assert len(actual) == len(expected), place
    kind = sql_type(expected.type)
    assert actual.null_count == expected.null_count or pa.types.is_null(kind), place
    if pa.types.is_list(kind):
        assert pa.types.is_list(actual.type), place
        lengths = lambda array: array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) if pa.types.is_list(array.type) else array.type.list_size  # noqa: E731
        assert np.array_equal(lengths(actual), np.broadcast_to(lengths(expected), len(actual))), place
        same(actual.flatten(), expected.flatten(), place + "[]")
    elif pa.types.is_struct(kind):
        assert [field.name for field in actual.type] == [field.name for field in kind], place
        for i, (one, other) in enumerate(zip(actual.flatten(), expected.flatten(), strict=True)):
            same(one, other, f"{place}.{kind.field(i).name}")
    elif pa.types.is_string(kind):
        assert actual.equals(expected), place
    elif not pa.types.is_null(kind):
        assert actual.type == kind, place
        one, other = actual.to_numpy(zero_copy_only=False), expected.cast(kind).to_numpy(zero_copy_only=False)
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), place


def check_group(actual, expected, columns, place):
    """actual: {name: array} of Spark; expected: what group() gives; columns: the arrays of the branches."""
    names = [name for name in expected if isinstance(name, str)]
    assert list(actual) == names, place
    for name in names:
        below, array = expected[name], actual[name]
        if isinstance(below, str):
            same(array, columns[below][0], f"{place}.{name}", columns[below][1])
            continue
        if expected[name, "collection"]:
            assert pa.types.is_list(array.type), f"{place}.{name}"
            array = array.flatten()
        fields = dict(zip([field.name for field in array.type], array.flatten(), strict=True))
        check_group(fields, below, columns, f"{place}.{name}")


def leaves(groups, items=False):
    for name, below in groups.items():
        if isinstance(name, tuple):
            continue
        if isinstance(below, str):
            yield below, items
        else:
            yield from leaves(below, items or groups[name, "collection"])


def check_tree(spark, path, tree):
    opened = sapwood.open(f"{path}:{tree.path}")
    groups = group(tree_columns(opened))
    if not groups:
        return False
    table = spark.read.format("root").option("tree", tree.path).load(str(path)).toArrow()
    assert table.num_rows == tree.entries
    chunk = lambda column: column.combine_chunks() if column.num_chunks else pa.array([], column.type)  # noqa: E731
    whole = lambda array: array.chunk(0) if isinstance(array, pa.ChunkedArray) else array  # noqa: E731
    columns = {name: (whole(chunk(opened.arrow([name])[name])), items) for name, items in leaves(groups)}
    check_group({name: whole(chunk(table[name])) for name in table.column_names}, groups, columns, f"{Path(path).name}:{tree.path}")
    return True


def tree_columns(tree):
    return tree._tree.branches()


@pytest.fixture
def spark_exact(spark):
    """Columns whose names differ by case alone are different columns."""
    spark.conf.set("spark.sql.caseSensitive", "true")
    yield spark
    spark.conf.unset("spark.sql.caseSensitive")


# ---- Values -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qcd", "ttbar", "wjets"])
def test_sample(spark, name):
    path = SAMPLE / f"{name}.root"
    assert check_tree(spark, path, only_tree(path))


def only_tree(path):
    file = sapwood.open(str(path))
    return file[file.trees()[0]]


def test_delphes(spark, shared_data):
    for path in sorted((shared_data / "delphes").rglob("*.root")):
        assert check_tree(spark, path, only_tree(path)), path


def test_corpus(spark_exact, shared_data):
    """60 files of all kinds and sizes."""
    files = sorted((shared_data / "corpus").rglob("*.root"), key=lambda path: (path.stat().st_size, path.name))
    done = []

    def check(path):
        try:
            names = sapwood.open(str(path)).trees()[:1]
            trees = [sapwood.open(f"{path}:{name}") for name in names]
        except sapwood.Error:
            return
        for tree in trees:
            small = tree.entries <= 1_000_000  # of constants, files of 2 KB can have more
            if small and 0 < len(tree.keys()) <= 300 and readable(tree) and check_tree(spark_exact, path, tree):
                done.append(path)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(check, files[16:352:4]))
    assert len(done) >= 60


def readable(tree):
    """Whether our reader can read all columns: files that are damaged on purpose are other tests' matter. Of unions, PySpark's toArrow
    cannot take the records, in which values may be null only with the whole."""
    try:
        table = tree.arrow(tree.keys(), 0, min(tree.entries, 10) or None) if tree.entries else None
        return table is None or "union" not in str(table.schema)
    except (sapwood.Error, ValueError):
        return False


# ---- Pruning and conditions ---------------------------------------------------------------------------------------------------


def metrics(frame):
    """What the scan of a query that has run has cost: {name: value}."""
    plan = frame._jdf.queryExecution().executedPlan()
    while plan.getClass().getSimpleName() == "AdaptiveSparkPlanExec":
        plan = plan.executedPlan()
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        if node.getClass().getSimpleName() == "BatchScanExec":
            found = node.metrics()
            keys = found.keys().mkString("\n").split("\n")
            return {key: found.apply(key).value() for key in keys}
        children = node.children()
        nodes += [children.apply(i) for i in range(children.size())]
        if node.getClass().getSimpleName().endswith("QueryStageExec"):
            nodes.append(node.plan())
    raise AssertionError("no scan in the plan")


@pytest.fixture
def events(spark):
    return spark.read.format("root").load(str(SAMPLE / "ttbar.root"))


def test_nested_pruning_reaches_the_basket(events):
    tree = only_tree(SAMPLE / "ttbar.root")
    baskets = {branch["name"]: branch["baskets"] for branch in tree_columns(tree)}
    one = events.selectExpr("Jet.PT")
    assert one.toArrow()["PT"].combine_chunks().flatten().equals(tree.arrow(["Jet.PT"])["Jet.PT"].combine_chunks().flatten())
    assert metrics(one)["baskets"] == baskets["Jet.PT"]
    two = events.selectExpr("Jet.PT[0]", "Jet_size")
    two.collect()
    assert metrics(two)["baskets"] == baskets["Jet.PT"] + baskets["Jet_size"]


def test_count_reads_no_column(events):
    assert events.count() == only_tree(SAMPLE / "ttbar.root").entries
    counted = events.groupBy().count()
    counted.collect()
    assert metrics(counted)["baskets"] == 0


def test_conditions_leave_out_entries(events):
    few = events.where("Jet_size >= 7 AND Jet_size < 20").selectExpr("Jet_size", "Jet.PT")
    rows = few.collect()
    tree = only_tree(SAMPLE / "ttbar.root")
    expected = tree.arrow(["Jet_size", "Jet.PT"], where="Jet_size >= 7")
    assert [row.PT for row in rows] == expected["Jet.PT"].to_pylist() and rows
    assert metrics(few)["entriesLeftOut"] == tree.entries - len(rows)


def test_baskets_without_a_kept_entry_are_not_read(events):
    none = events.where("Jet_size < 0").selectExpr("Jet.PT", "Jet.Eta")
    assert none.collect() == []
    whole = events.selectExpr("Jet.PT", "Jet.Eta", "Jet_size")
    whole.collect()
    assert metrics(none)["baskets"] < metrics(whole)["baskets"]


@pytest.mark.parametrize(
    "condition",
    ["x > 0.5", "x >= 0.5", "x < 0.5", "x <= 0.5", "x = 0.5", "x <> 0.5", "NOT (x > 0.5)", "NOT (x < 0.5 OR n = 3)", "x IN (0.5, 2.5)", "x > 'NaN'", "n <=> 3",
     "n IN (1, 3, 9)", "NOT n IN (1, 3)", "s = 'it''s'", "s > 'b' AND s < 'e'", "b", "NOT b", "u > 9223372036854775807", "u < 10", "n > 2 AND NOT (x = 0.5 AND s = 'a')"],
)  # fmt: skip
def test_conditions_mean_what_spark_means(spark, odd, condition):
    """Nulls, NaN, unsigned numbers: Spark alone, on cached rows, says what is right."""
    frame = spark.read.format("root").load(str(odd))
    frame_cached = frame.cache()
    try:
        expected = frame_cached.where(condition).select("n").collect()
    finally:
        frame_cached.unpersist()
    assert frame.where(condition).select("n").collect() == expected


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A tree with what comparisons stumble over. Written by ROOT, where it is installed."""
    ROOT = pytest.importorskip("ROOT")
    path = tmp_path_factory.mktemp("odd") / "odd.root"
    file = ROOT.TFile(str(path), "RECREATE")
    tree = ROOT.TTree("t", "")
    import array

    n, x, u, b = array.array("i", [0]), array.array("d", [0]), array.array("L", [0]), array.array("B", [0])
    s = ROOT.std.string()
    tree.Branch("n", n, "n/I"), tree.Branch("x", x, "x/D"), tree.Branch("u", u, "u/l"), tree.Branch("b", b, "b/O"), tree.Branch("s", s)
    for i, value in enumerate([0.5, -1.0, float("nan"), float("inf"), 2.5, -0.0, 0.25, float("-inf"), 1e300]):
        n[0], x[0], u[0], b[0] = i, value, [0, 5, 2**63 - 1, 2**63, 2**64 - 1, 9, 10, 11, 12][i], i % 2
        s.assign(["a", "b", "c", "it's", "", "d", "e", "B", "ü"][i])
        tree.Fill()
    tree.Write()
    file.Close()
    return path


def test_where_option(events, spark):
    frame = spark.read.format("root").option("where", "count(Jet.PT) >= 7").load(str(SAMPLE / "ttbar.root"))
    assert frame.count() == events.where("Jet_size >= 7").count() > 0


# ---- Ways to read ----------------------------------------------------------------------------------------------------------------


def test_sql_table(spark, tmp_path):
    spark.sql("DROP TABLE IF EXISTS events_of_root")
    spark.sql(f"CREATE TABLE events_of_root USING root OPTIONS (path '{SAMPLE / 'qcd.root'}')")
    try:
        expected = only_tree(SAMPLE / "qcd.root").entries
        assert spark.sql("SELECT count(*) FROM events_of_root").collect()[0][0] == expected
        assert spark.table("events_of_root").selectExpr("size(Jet.PT)").count() == expected
    finally:
        spark.sql("DROP TABLE events_of_root")


def test_view_and_scala(spark):
    """What the session of the JVM, which Scala has, reads is the same table."""
    frame = spark._jsparkSession.read().format("root").option("tree", "Delphes").load(str(SAMPLE / "qcd.root"))
    assert frame.count() == only_tree(SAMPLE / "qcd.root").entries
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW v USING root OPTIONS (path '{SAMPLE / 'qcd.root'}')")
    assert spark.sql("SELECT max(Jet_size) FROM v").collect() == spark.sql("SELECT max(size(Jet.PT)) FROM v").collect()


def test_lists_globs_and_folders_are_one_table(spark, tmp_path):
    for name in ("qcd", "ttbar", "wjets"):
        shutil.copy(SAMPLE / f"{name}.root", tmp_path)
    expected = sum(only_tree(SAMPLE / f"{name}.root").entries for name in ("qcd", "ttbar", "wjets"))
    read = spark.read.format("root")
    assert read.load([str(SAMPLE / f"{name}.root") for name in ("qcd", "ttbar", "wjets")]).count() == expected
    for pattern in (f"{tmp_path}/*.root", f"{tmp_path}", f"{tmp_path}/{{qcd,ttbar,wjets}}.root", f"file://{tmp_path}/"):
        frame = read.load(pattern)
        assert frame.count() == expected, pattern
    assert frame.selectExpr("sum(Jet_size)").collect()[0][0] == sum(
        int(np.sum(only_tree(SAMPLE / f"{name}.root").numpy(["Jet_size"])["Jet_size"])) for name in ("qcd", "ttbar", "wjets")
    )


def test_partitions_follow_target_size(spark):
    files = [str(SAMPLE / f"{name}.root") for name in ("qcd", "ttbar", "wjets")]
    read = lambda size: spark.read.format("root").option("targetSize", size).load(files)  # noqa: E731
    assert read("1g").rdd.getNumPartitions() == 1
    assert read("100k").rdd.getNumPartitions() >= 3
    sums = {size: read(size).selectExpr("sum(Jet_size)", "count(Jet.PT)").collect() for size in ("1g", "100k")}
    assert sums["1g"] == sums["100k"]
