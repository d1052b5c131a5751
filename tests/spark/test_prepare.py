"""prepare and write on Spark against the command line: the same folder, byte for byte, however the work is cut."""

import filecmp
import json

import pytest
from conftest import CLASSES, SAMPLE, load_json, sample_options
from test_bad_files import folder, needs_server, served, server  # noqa: F401

SAMPLES = {name: str(SAMPLE / f"{name}.root") for name in CLASSES}

RECIPE = """#include <sapwood/recipe.h>
enum { MET, JETS, INPUTS };
static const sap_recipe_input inputs[INPUTS] = {{"MissingET.MET", SAP_FLOAT32, true}, {"Jet.PT", SAP_FLOAT32, true}};
static const char *const plain[] = {"met", "jets"}, *const jet[] = {"pt"};
static const sap_feature features[] = {
    {.name = "event", .value_names = plain, .width = 2, .scaling = SAP_SCALING_STANDARD},
    {.name = "jets", .value_names = jet, .width = 1, .sequence = true, .scaling = SAP_SCALING_MINMAX},
};
static const char *const cuts[] = {"a jet"};
static sap_status events(const sap_recipe_call *call, sap_error *err) {
    for (int64_t i = 0; i < call->count; i++) {
        int32_t one, count;
        const float *met = sap_recipe_floats(&call->columns[MET], i, &one), *pt = sap_recipe_floats(&call->columns[JETS], i, &count);
        if (count == 0) {
            call->drop(call->sink, i, 0);
            continue;
        }
        const float x[2] = {one ? met[0] : 0, (float)count};
        const sap_recipe_value values[] = {{x, 2}, {pt, count}};
        sap_status status = call->keep(call->sink, i, values, err);
        if (status != SAP_OK)
            return status;
    }
    return SAP_OK;
}
const sap_recipe *sap_recipe_define(void) {
    static const sap_recipe recipe = {
        .abi = SAP_RECIPE_ABI, .name = "jets", .version = "1", .tree = "Delphes", .inputs = inputs, .input_count = INPUTS,
        .features = features, .feature_count = 2, .cuts = cuts, .cut_count = 1, .events = events};
    return &recipe;
}
"""


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_same_files(a, b, *, but=()):
    assert files(a) == files(b)
    names = [name for name in files(a) if name not in but]
    assert names
    assert filecmp.cmpfiles(a, b, names, shallow=False) == (names, [], [])


def assert_same_events(a, b):
    """Part files are the same to the last bit, and so are constants; dataset.json names inputs in other words."""
    assert_same_files(a, b, but=["dataset.json"])
    descriptions = [load_json(folder / "dataset.json") for folder in (a, b)]
    assert descriptions[0]["features"] == descriptions[1]["features"]
    assert descriptions[0]["labels"] == descriptions[1]["labels"]
    assert descriptions[0]["parts"] == descriptions[1]["parts"]


@pytest.fixture(scope="module")
def events():
    """The inputs of the recipe, and who the events are, as a table of Arrow: as a source other than ours may give them."""
    import pyarrow as pa

    import sapwood
    from sapwood import _core

    names = [wanted["name"] for wanted in json.loads(_core.recipe("topology", None).json())["inputs"]]
    tables = []
    for sample, path in SAMPLES.items():
        table = sapwood.open(path)["Delphes"].arrow(names)
        table = table.append_column("sample", pa.array([sample] * len(table)))
        table = table.append_column("file", pa.array([f"file:{path}"] * len(table)))
        tables.append(table.append_column("entry", pa.array(range(len(table)))))
    return pa.concat_tables(tables)


def frame_of(spark, table):
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type) and pa.types.is_uint32(field.type.value_type):  # Spark has no unsigned numbers
            table = table.set_column(i, field.name, table[field.name].cast(pa.list_(pa.int64())))
    return spark.createDataFrame(table)


@pytest.mark.parametrize(
    ("options", "partition_bytes"),
    [
        ({"convention": "corrected", "format": "parquet"}, 2 << 20),
        ({"convention": "paper", "format": "tfrecord", "seed": 7, "test_fraction": 0.3, "balance": False}, 100 << 20),
        ({"convention": "paper", "format": "parquet", "layout": "published"}, 2 << 20),
    ],
    ids=["parquet", "tfrecord", "published"],
)
def test_files_give_the_command_lines_folder(spark, sapwood, tmp_path, options, partition_bytes):
    from sapwood.spark import prepare, write

    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", "no" if value is False else value)]
    sapwood("prepare", *sample_options(), *words, "--out", tmp_path / "command")
    convention = options.pop("convention")
    prepared = prepare(SAMPLES, convention=convention, partition_bytes=partition_bytes, spark=spark)
    answer = write(prepared, tmp_path / "spark", options.pop("format"), **options)
    assert answer["dataset"] == load_json(tmp_path / "command/dataset.json")
    assert_same_files(tmp_path / "spark", tmp_path / "command")
    assert not (tmp_path / "spark.partial").exists()


def test_prepared_is_a_frame_of_features(spark, sapwood, tmp_path):
    import pyarrow.parquet

    import sapwood as package
    from sapwood.spark import prepare

    package.prepare(sample=SAMPLES, raw=True, out=tmp_path / "raw", progress=None)
    by = [(name, "ascending") for name in ("sample", "file", "entry")]
    raw = pyarrow.concat_tables(map(pyarrow.parquet.read_table, sorted((tmp_path / "raw").glob("*.parquet")))).sort_by(by)
    prepared = prepare(SAMPLES, partition_bytes=2 << 20, spark=spark)
    assert prepared.columns == ["sample", "file", "entry", "label", "hlf", "particles"]
    table = prepared.toArrow().sort_by(by)
    for name in prepared.columns:
        a, b = (pyarrow.chunked_array([chunk.flatten() for chunk in t[name].chunks]) if name in ("hlf", "particles") else t[name] for t in (table, raw))
        assert a.to_numpy().tolist() == b.to_numpy().tolist() if name in ("sample", "file") else (a.to_numpy() == b.to_numpy()).all(), name


def test_events_of_a_frame_give_the_same_rows(spark, dataset, events, tmp_path):
    from sapwood.spark import prepare, write

    frame = frame_of(spark, events).repartition(3)
    write(prepare(frame), tmp_path / "one")
    assert_same_events(tmp_path / "one", dataset)
    steps = load_json(dataset / "dataset.json")["selection"]
    assert load_json(tmp_path / "one/dataset.json")["selection"] == steps


@pytest.mark.parametrize("source", ["root", "root_python"])
def test_frames_of_the_source_give_the_same_rows(spark, dataset, tmp_path, source):
    """Each event has the identity that it has on the command line: option("identity")."""
    from sapwood.spark import prepare, register, write

    register(spark, name="root_python")
    inputs = {wanted["name"] for wanted in prepare_inputs()}
    read = spark.read.format(source).option("identity", True).option("columns", json.dumps([*inputs])).option("targetSize", "300k")
    write(prepare({name: read.load(path) for name, path in SAMPLES.items()}), tmp_path / "set")
    assert_same_events(tmp_path / "set", dataset)


def prepare_inputs():
    from sapwood import _core

    return json.loads(_core.recipe("topology", None).json())["inputs"]


def test_one_sample_needs_no_name(spark):
    from sapwood.spark import prepare

    path = SAMPLES["ttbar"]
    named = prepare({"ttbar": path}, spark=spark)
    kept = named.count()
    assert kept > 0
    events = spark.read.format("root").option("identity", True).load(path)
    for prepared, name in [(prepare(path, spark=spark), "events"), (prepare([path], samples=["ttbar"], spark=spark), "ttbar"), (prepare(events, samples=["tt"]), "tt")]:
        assert [tuple(row) for row in prepared.groupBy("sample", "label").count().collect()] == [(name, 0, kept)]
    with pytest.raises(ValueError, match="are not one"):
        prepare(path, samples=["a", "b"], spark=spark)
    with pytest.raises(ValueError, match="identity"):
        prepare(events.drop("entry"))


@needs_server
def test_servers_files(spark, server):  # noqa: F811
    from sapwood.spark import prepare

    local, remote = (prepare(path, samples=["qcd"], spark=spark).drop("particles") for path in (SAMPLES["qcd"], server.url("qcd*.root")))
    assert sorted(remote.collect()) == sorted(local.collect())


def test_rows_made_from_prepared_ones_are_written_as_they_are(spark, dataset, tmp_path):
    from pyspark.sql import functions as F

    from sapwood.spark import prepare, write

    prepared = prepare(SAMPLES, spark=spark)
    changed = prepared.repartition(3).withColumn("entry", F.col("entry").cast("int"))
    write(changed, tmp_path / "all")
    assert_same_events(tmp_path / "all", dataset)
    half = write(prepared.where("entry % 2 = 0"), tmp_path / "half", balance=False, samples=["wjets", "qcd", "ttbar"])
    assert half["dataset"]["labels"] == ["wjets", "qcd", "ttbar"]
    counts = {row["sample"]: row["count"] for row in prepared.where("entry % 2 = 0").groupBy("sample").count().collect()}
    assert {item["sample"]: item["steps"][-3]["events"] for item in half["dataset"]["selection"]} == counts


def test_user_recipes_travel_with_the_job(spark, sapwood, events, tmp_path, monkeypatch):
    from sapwood.spark import prepare, write

    path = tmp_path / "jets.c"
    path.write_text(RECIPE)
    sapwood("prepare", "--recipe", path, *sample_options(), "--out", tmp_path / "command")
    prepared = prepare(SAMPLES, recipe=path, spark=spark)
    of_frames = prepare({name: frame_of(spark, events).where(f"sample = '{name}'").drop("sample") for name in CLASSES}, recipe=path)
    path.unlink()  # the tasks need neither the source nor a compiler
    write(prepared, tmp_path / "files")
    write(of_frames, tmp_path / "frames")
    assert_same_files(tmp_path / "files", tmp_path / "command")
    assert_same_events(tmp_path / "frames", tmp_path / "command")


def test_what_is_wrong_is_said(spark, events, tmp_path):
    import sapwood
    from sapwood.spark import prepare, write

    with pytest.raises(sapwood.NotFoundError, match="no such file"):
        prepare({"qcd": str(tmp_path / "none.root")}, spark=spark)
    with pytest.raises(ValueError, match=r"no column Jet\.BTag"):
        prepare(frame_of(spark, events.drop_columns(["Jet.BTag"])))
    with pytest.raises(ValueError, match="shared|machines"):
        write(prepare(SAMPLES, spark=spark), "root://host//data/set")
    (tmp_path / "bad.root").write_bytes((SAMPLE / "qcd.root").read_bytes()[:3_000_000])
    broken = prepare({**SAMPLES, "qcd": str(tmp_path / "bad.root")}, spark=spark)
    with pytest.raises(Exception, match="bad.root"):
        write(broken, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    with pytest.raises(sapwood.Error, match="interrupted run of another plan"):
        write(prepare(SAMPLES, spark=spark), tmp_path / "set")


def test_executors_of_a_cluster_write_the_same_folder(cluster, dataset, tmp_path):
    from sapwood.spark import prepare, write

    write(prepare(SAMPLES, partition_bytes=1 << 20, spark=cluster), tmp_path / "set")
    answers = [load_json(folder / "dataset.json") for folder in (tmp_path / "set", dataset)]
    assert answers[0] == answers[1]
    assert_same_files(tmp_path / "set", dataset)
