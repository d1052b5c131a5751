"""Training sets against an independent computation in NumPy of thinning, split, order, padding and scaling; and their files
against pyarrow, pandas and TensorFlow, which read them as users do.

dataset_driver (built beside the C tests) writes and feeds datasets from features in plain files, here made-up ones and the
reference's.
"""

import ctypes
import ctypes.util
import json
import os
import struct
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from conftest import SOURCE, driver

MASK = 2**64 - 1
WIDTH, PAD, ETA, PHI = 19, 801, 5, 6
SEED, FRACTION = 42, 0.2
CLASSES = ("qcd", "ttbar", "wjets")
DRIVER = driver("dataset_driver")


def run(*arguments):
    result = subprocess.run([DRIVER, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


# ---- Events ------------------------------------------------------------------------------------------------------------


def made_up(rng, events):
    """Events of all sizes: one particle, more than fit, particles in one place, phi on both sides of the cut."""
    entry = np.sort(rng.choice(3 * events, events, replace=False))
    hlf = rng.normal(50, 30, (events, 14))
    hlf[:, 6] = 7
    lists = []
    for i in range(events):
        n = (1, 2, 801, 800)[i] if i < 4 else rng.integers(1, 60)
        rows = rng.normal(0, 1, (n, WIDTH))
        rows[:, PHI] = rng.uniform(-np.pi, np.pi, n)
        rows[:, 18] = 0
        if n > 4:
            rows[3, ETA:PHI + 1] = rows[0, ETA:PHI + 1]  # in the lepton's very place
            rows[4, ETA:PHI + 1] = rows[2, ETA:PHI + 1]
        if i % 7 == 0 and n > 6:
            rows[5, ETA:PHI + 1] = 0  # where padding is
        lists.append(rows.astype("float32"))
    return {"entry": entry, "hlf": hlf.astype("float32"), "particles": lists, "read": 3 * events}


def write_features(path, events):
    particles = np.concatenate(events["particles"]).astype("float32")
    offsets = np.cumsum([0] + [rows.size for rows in events["particles"]])
    with open(path, "wb") as file:
        file.write(struct.pack("<3q", len(events["entry"]), events["read"], particles.size))
        file.write(np.asarray(events["entry"], "int64").tobytes())
        file.write(events["hlf"].astype("float32").tobytes())
        file.write(offsets.astype("int32").tobytes())
        file.write(particles.tobytes())


@pytest.fixture(scope="session", params=["made up", "reference"])
def samples(request, tmp_path_factory):
    """[(sample, name of its file, events, path of the features)]"""
    folder = tmp_path_factory.mktemp("features")
    out = []
    if request.param == "made up":
        rng = np.random.default_rng(1)
        for i, (sample, count) in enumerate([("qcd", 300), ("ttbar", 90), ("wjets", 130), ("qcd", 50), ("ttbar", 20)]):
            out.append((sample, f"run{i}.root", made_up(rng, count)))
    else:
        data = Path(os.environ.get("SAPWOOD_DATA", SOURCE.parent / "shared/data")) / "reference"
        if not data.is_dir():
            pytest.skip(f"no reference features in {data}; set SAPWOOD_DATA")
        for sample in CLASSES:
            with np.load(data / f"{sample}.npz") as z:
                rows = np.split(z["particles"].astype("float32"), z["offsets"][1:-1])
                out.append((sample, f"{sample}.root", {"entry": z["entry"], "hlf": z["hlf"].astype("float32"),
                                                        "particles": rows, "read": 150}))
    paths = []
    for i, (sample, name, events) in enumerate(out):
        paths.append(folder / f"{i}.features")
        write_features(paths[-1], events)
    return [(*item, path) for item, path in zip(out, paths)]


def prepare(out, samples, layout="sapwood", files="parquet", convention="corrected", balance=1, threads=2):
    # the folder of a file is no part of an event's identity
    inputs = [f"{sample}=/somewhere/{name}:{path}" for sample, name, _, path in samples]
    run("write", out, layout, files, convention, SEED, FRACTION, balance, threads, *inputs)
    return out


# ---- The same in NumPy --------------------------------------------------------------------------------------------------

xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def mix(key, counter):
    """splitmix64's finisher."""
    x = (key + counter * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def identity(sample, name, entry):
    text = sample.encode() + b"\0" + name.encode() + b"\0" + struct.pack("<q", entry)
    return xxhash.XXH3_64bits_withSeed(text, len(text), 0)


def delta_r(rows, eta, phi):
    deta, dphi = rows[:, ETA].astype(float) - float(eta), np.abs(rows[:, PHI].astype(float) - float(phi))
    dphi = np.where(dphi > np.pi, 2 * np.pi - dphi, dphi)
    return np.sqrt(deta**2 + dphi**2)


def in_order(rows):
    """By falling distance to row 0, stable."""
    return rows[np.argsort(-delta_r(rows, rows[0, ETA], rows[0, PHI]), kind="stable")]


def dense(rows, convention):
    """Ordered and padded, not scaled."""
    padded = np.concatenate([rows, np.zeros((PAD - len(rows), WIDTH), "float32")])
    if convention == "paper":
        return in_order(padded)
    padded[:len(rows)] = in_order(rows)
    return padded


def expected(samples, convention, balance=True):
    """{"train": events in stored order, "test": …} and constants; an event: (label, sample, name, entry, hlf, rows)."""
    labels = list(dict.fromkeys(sample for sample, *_ in samples))
    counts = [sum(len(s[2]["entry"]) for s in samples if s[0] == label) for label in labels]
    out, everything = {"train": [], "test": []}, []
    for sample, name, events, _ in samples:
        label = labels.index(sample)
        for entry, hlf, rows in zip(events["entry"], events["hlf"], events["particles"]):
            who = identity(sample, name, int(entry))
            everything.append(hlf)
            # kept when its hash is below n_min / n_class of all hashes
            limit = (1 << 64) * min(counts) // counts[label] if balance else 1 << 64
            if mix(mix(SEED, 1), who) >= limit:
                continue
            test = (mix(mix(SEED, 2), who) >> 11) * 2.0**-53 < FRACTION
            out["test" if test else "train"].append((mix(mix(SEED, 3), who), label, sample, name, int(entry), hlf, rows))
    for part in out:
        out[part] = [event[1:] for event in sorted(out[part], key=lambda event: event[0])]
    fitted = np.array(everything if convention == "paper" else [event[4] for event in out["train"]], float)
    particles = np.concatenate([event[5] for event in out["train"]]).astype(float)
    return out, fitted, particles


def scaled(event, convention, fitted, particles):
    """The two inputs of the inclusive classifier, from first principles."""
    low, high = fitted.min(0), fitted.max(0)
    hlf = np.where(high > low, (event[4] - low) / np.where(high > low, high - low, 1), 0.5)
    rows = dense(event[5], convention).astype(float)
    if convention == "paper":
        deviation = rows.std(0)
        rows = (rows - rows.mean(0)) / np.where(deviation == 0, 1, deviation)
    else:
        deviation = particles.std(0)
        n = len(event[5])
        rows[:n] = (rows[:n] - particles.mean(0)) / np.where(deviation == 0, 1, deviation)
    return hlf, rows


def feed(folder, split, tmp_path, epoch=-1, batch=37, threads=2, seed=5, inputs=("hlf", "particles")):
    path = tmp_path / "fed"
    run("feed", folder, split, seed, epoch, batch, threads, path, *inputs)
    values = {"hlf": 14, "particles": PAD * WIDTH}
    with open(path, "rb") as file:
        rows, = np.fromfile(file, "int64", 1)
        label, who = np.fromfile(file, "int32", rows), np.fromfile(file, "uint64", rows)
        return label, who, [np.fromfile(file, "float32", rows * values[name]).reshape(rows, -1) for name in inputs]


# ---- Tests --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["corrected", "paper"])
@pytest.mark.parametrize("files", ["parquet", "tfrecord"])
def test_feeds_equal_numpy(samples, convention, files, tmp_path):
    folder = prepare(tmp_path / "out", samples, files=files, convention=convention)
    parts, fitted, particles = expected(samples, convention)
    for split in ("train", "test"):
        label, who, (hlf, dense_rows) = feed(folder, split, tmp_path)
        assert [int(w) for w in who] == [identity(*event[1:4]) for event in parts[split]]
        assert list(label) == [event[0] for event in parts[split]]
        for i, event in enumerate(parts[split]):
            wanted_hlf, wanted_rows = scaled(event, convention, fitted, particles)
            np.testing.assert_allclose(hlf[i], wanted_hlf, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(dense_rows[i].reshape(PAD, WIDTH), wanted_rows, rtol=1e-5, atol=1e-5)


def test_stored_as_computed(samples, tmp_path):
    """Parquet as pyarrow and pandas read it: unscaled, ordered, real rows only, in shard order."""
    import pandas

    folder = prepare(tmp_path / "out", samples)
    parts, *_ = expected(samples, "corrected")
    for split in ("train", "test"):
        table = pq.read_table(folder / split)
        assert str(table.schema.field("hlf").type).startswith("fixed_size_list") and table.schema.field("hlf").type.list_size == 14
        assert str(table.schema.field("particles").type.value_type) == "float"
        assert [str(table.schema.field(name).type) for name in ("label", "sample", "file", "entry")] == [
            "int32", "string", "string", "int64"]
        rows = table.to_pylist()
        assert [(r["label"], r["sample"], r["file"], r["entry"]) for r in rows] == [event[:4] for event in parts[split]]
        for row, event in zip(rows, parts[split]):
            np.testing.assert_array_equal(np.float32(row["hlf"]), event[4])
            np.testing.assert_array_equal(np.float32(row["particles"]).reshape(-1, WIDTH), in_order(event[5]))
        frame = pandas.read_parquet(folder / split)
        assert len(frame) == len(rows) and frame["hlf"][0].dtype == np.float32 and len(frame["hlf"][0]) == 14


def test_description(samples, tmp_path):
    folder = prepare(tmp_path / "out", samples)
    parts, fitted, particles = expected(samples, "corrected")
    info = json.loads((folder / "dataset.json").read_text())
    assert info["labels"] == list(CLASSES)
    for sample, selection in zip(CLASSES, info["selection"]):
        counts = {step["step"]: step["events"] for step in selection["steps"]}
        of_sample = {split: sum(event[1] == sample for event in parts[split]) for split in parts}
        selected = sum(len(s[2]["entry"]) for s in samples if s[0] == sample)
        assert selection["sample"] == sample
        assert counts == {"read": sum(s[2]["read"] for s in samples if s[0] == sample), "selection": selected,
                          "selected": selected, "balanced": sum(of_sample.values()), **of_sample}
    hlf, rows = (feature["constants"] for feature in info["features"])
    spread = np.ptp(fitted, axis=0) > 0
    np.testing.assert_array_equal(np.array(hlf["shift"])[spread], fitted.min(0)[spread])
    np.testing.assert_allclose(np.array(hlf["factor"])[spread], 1 / np.ptp(fitted, axis=0)[spread], rtol=1e-14)
    np.testing.assert_allclose(rows["shift"], particles.mean(0), rtol=1e-9, atol=1e-12)
    deviation = particles.std(0)
    np.testing.assert_allclose(rows["factor"], 1 / np.where(deviation == 0, 1, deviation), rtol=1e-9)
    assert (hlf["rows"], rows["rows"]) == (len(fitted), len(particles))
    assert sum(part["rows"] for part in info["parts"]) == len(parts["train"]) + len(parts["test"])
    for part in info["parts"]:
        assert (folder / part["file"]).stat().st_size == part["bytes"]
        assert pq.read_metadata(folder / part["file"]).num_rows == part["rows"]


def test_without_balance(samples, tmp_path):
    folder = prepare(tmp_path / "out", samples, balance=0)
    parts, *_ = expected(samples, "corrected", balance=False)
    for split in parts:
        assert pq.read_table(folder / split, columns=["entry"])["entry"].to_pylist() == [e[3] for e in parts[split]]


@pytest.mark.parametrize("files", ["parquet", "tfrecord"])
def test_raw(samples, files, tmp_path):
    """Features as computed, in file order, a part file an input."""
    folder = prepare(tmp_path / "out", samples, layout="raw", files=files)
    paths = sorted(folder.glob("part-*"))
    assert len(paths) == len(samples)
    for (sample, name, events, _), path in zip(samples, paths):
        if files == "parquet":
            rows = pq.read_table(path).to_pylist()
        else:
            rows = [read_example(record) for record in tf_records([path])]
        assert [row["entry"] for row in rows] == list(events["entry"])
        for i, row in enumerate(rows):
            assert (row["label"], row["sample"], row["file"]) == (CLASSES.index(sample), sample, name)
            np.testing.assert_array_equal(np.float32(row["hlf"]), events["hlf"][i])
            np.testing.assert_array_equal(np.float32(row["particles"]), events["particles"][i].ravel())


def test_epochs(samples, tmp_path):
    """Shuffled epochs: the same rows in another order, the same for any number of threads and batch size."""
    folder = prepare(tmp_path / "out", samples)
    label, who, (hlf,) = feed(folder, "train", tmp_path, inputs=["hlf"])
    stored = {int(w): (l, tuple(x)) for w, l, x in zip(who, label, hlf)}
    orders = set()
    for epoch, seed in ((0, 5), (1, 5), (0, 6)):
        results = [feed(folder, "train", tmp_path, epoch=epoch, seed=seed, inputs=["hlf"], batch=batch, threads=threads)
                   for batch, threads in ((128, 1), (1, 2), (1000, 3))]
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][1], other[1])
            np.testing.assert_array_equal(results[0][2][0], other[2][0])
        label, order, (x,) = results[0]
        assert {int(w): (l, tuple(row)) for w, l, row in zip(order, label, x)} == stored
        orders.add(tuple(map(int, order)))
    assert len(orders) == 3 and tuple(map(int, who)) not in orders


# ---- TensorFlow -----------------------------------------------------------------------------------------------------------


def tf_records(paths):
    import tensorflow as tf

    return [record.numpy() for record in tf.data.TFRecordDataset([str(path) for path in paths])]


def read_example(record):
    import tensorflow as tf

    out = {}
    for name, feature in tf.train.Example.FromString(record).features.feature.items():
        values = list(getattr(feature, feature.WhichOneof("kind")).value)
        out[name] = values if feature.WhichOneof("kind") == "float_list" else values[0]
        if isinstance(out[name], bytes):
            out[name] = out[name].decode()
    return out


def test_tensorflow_reads_records(samples, tmp_path):
    folder = prepare(tmp_path / "out", samples, files="tfrecord")
    parts, *_ = expected(samples, "corrected")
    rows = [read_example(record) for record in tf_records(sorted((folder / "train").glob("*.tfrecord")))]
    assert [(r["label"], r["sample"], r["file"], r["entry"]) for r in rows] == [event[:4] for event in parts["train"]]
    for row, event in zip(rows, parts["train"]):
        np.testing.assert_array_equal(np.float32(row["hlf"]), event[4])
        np.testing.assert_array_equal(np.float32(row["particles"]).reshape(-1, WIDTH), in_order(event[5]))


@pytest.mark.parametrize("convention", ["corrected", "paper"])
def test_published_layout(samples, convention, tmp_path):
    """Read the way the published notebooks do, in both formats."""
    import tensorflow as tf

    parts, fitted, particles = expected(samples, convention)
    folders = {files: prepare(tmp_path / files, samples, layout="published", files=files, convention=convention)
               for files in ("parquet", "tfrecord")}
    description = {"HLF_input": tf.io.FixedLenFeature((14,), tf.float32),
                   "GRU_input": tf.io.FixedLenFeature((PAD, WIDTH), tf.float32),
                   "encoded_label": tf.io.FixedLenFeature((3,), tf.float32)}
    for split in ("train", "test"):
        wanted = [scaled(event, convention, fitted, particles) for event in parts[split]]
        hot = np.eye(3)[[event[0] for event in parts[split]]]
        for kind, columns in (("HLF_features", ["HLF_input", "encoded_label"]),
                              ("InclusiveClassifier", ["HLF_input", "encoded_label", "GRU_input"])):
            table = pq.read_table(folders["parquet"] / f"{split}Undersampled_{kind}.parquet")
            assert table.column_names == columns
            assert all(str(table.schema.field(name).type.value_type) == "double" for name in columns)
            frame = table.to_pandas()
            np.testing.assert_allclose(np.stack(frame["HLF_input"]), [w[0] for w in wanted], rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(np.stack(frame["encoded_label"]), hot)
            paths = sorted((folders["tfrecord"] / f"{split}Undersampled_{kind}.tfrecord").glob("part-r-*"))
            assert len(paths) > 20 and [p.name for p in paths] == sorted(f"part-r-{int(p.name[7:]):05d}" for p in paths)
            dataset = tf.data.TFRecordDataset([str(path) for path in paths]).map(
                lambda record: tf.io.parse_single_example(record, {name: description[name] for name in columns}))
            rows = list(dataset.as_numpy_iterator())
            np.testing.assert_allclose([r["HLF_input"] for r in rows], [w[0] for w in wanted], rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal([r["encoded_label"] for r in rows], hot)
            if "GRU_input" in columns:
                for i, (_, wanted_rows) in enumerate(wanted):
                    np.testing.assert_allclose(rows[i]["GRU_input"], wanted_rows, rtol=1e-5, atol=1e-5)
                    np.testing.assert_allclose(frame["GRU_input"][i], wanted_rows.ravel(), rtol=1e-5, atol=1e-5)


def test_other_tools_read_parquet(samples, tmp_path):
    """Tools with a reader of their own, without Arrow's."""
    folder = prepare(tmp_path / "out", samples)
    table = pq.read_table(folder / "train")
    rows = duckdb.sql(f"select hlf, particles, label, sample, file, entry from '{folder}/train/*.parquet'").fetchall()
    frame = polars.read_parquet(f"{folder}/train/*.parquet")
    for column, name in enumerate(table.column_names):
        wanted = table[name].to_pylist()
        read = [list(row[column]) if name in ("hlf", "particles") else row[column] for row in rows]
        assert read == wanted
        assert [list(v) if name in ("hlf", "particles") else v for v in frame[name].to_list()] == wanted
