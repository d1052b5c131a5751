"""What the Python tests share: the built command, and the data of the developers when it is there."""

import json
import os
import subprocess
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # TensorFlow is a witness here, on the CPU
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

pytest_plugins = ["spark_sessions"]

SOURCE = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("SAPWOOD_BUILD", SOURCE / "build/release"))
COMMAND = os.environ.get("SAPWOOD_COMMAND", str(SOURCE / "build/release/bin/sapwood"))
SAMPLE = SOURCE / "examples/topology/data"
CLASSES = ("qcd", "ttbar", "wjets")


# What two processes of pytest (-n 2) take in turn is a file, whose tests share fixtures; all of Spark's share a session. Long ones come first.
LONG = ["spark", "notebooks", "python/test_binding.py", "test_support_table.py", "root/test_judged.py"]


def place_in_order(item):
    path = str(item.path.relative_to(SOURCE / "tests"))
    long = next((place for place, start in enumerate(LONG) if path.startswith(start)), len(LONG))
    return long, "cluster" in getattr(item, "fixturenames", ())  # another session than most


def pytest_collection_modifyitems(items):
    items.sort(key=place_in_order)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "tests/spark" if nodeid.startswith("tests/spark/") else nodeid.split("::")[0]

    return Files(config, log)


def driver(name):
    """A program that the build makes for the tests to run."""
    return BUILD / "tests" / name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The developers' data; users of the project don't have it."""
    folder = Path(os.environ.get("SAPWOOD_DATA", SOURCE.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"the developers' data is not here ({folder}); set SAPWOOD_DATA")
    return folder


@pytest.fixture(scope="session")
def sapwood():
    """Runs the command; returns the finished process. check=False for failures that are expected."""

    def run(*arguments, check=True, **options):
        options.setdefault("timeout", 600)
        result = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, **options)
        if check:
            assert result.returncode == 0, f"sapwood {' '.join(map(str, arguments))}\n{result.stdout}\n{result.stderr}"
        return result

    return run


def sample_options(folder=SAMPLE, classes=CLASSES):
    """--sample options for the example's files."""
    return [word for name in classes for word in ("--sample", f"{name}={folder / (name + '.root')}")]


@pytest.fixture(scope="session")
def dataset(sapwood, tmp_path_factory) -> Path:
    """A dataset of the sample: made once, read by many."""
    folder = tmp_path_factory.mktemp("prepared") / "dataset"
    sapwood("prepare", *sample_options(), "--out", folder)
    return folder


@pytest.fixture(scope="session")
def trained(sapwood, dataset, tmp_path_factory) -> Path:
    """A network trained on it for a few epochs, evaluated."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    sapwood("train", "--data", dataset, "--model", SOURCE / "models/hlf.keras", "--epochs", 5, "--out", folder)
    sapwood("evaluate", "--run", folder, "--data", dataset)
    return folder


@pytest.fixture(scope="session")
def small_inclusive(tmp_path_factory) -> Path:
    """A small classifier on particles and features, whose sequences may have any length."""
    keras = pytest.importorskip("keras")
    path = tmp_path_factory.mktemp("models") / "small.keras"
    keras.utils.set_random_seed(1)
    particles, hlf = keras.Input((None, 19), name="particles"), keras.Input((14,), name="hlf")
    x = keras.layers.GRU(6)(keras.layers.Masking()(particles))
    x = keras.layers.Dense(8, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3))(keras.layers.Concatenate()([x, hlf]))
    model = keras.Model([particles, hlf], keras.layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.01, clipnorm=0.5), keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    model.save(path)
    return path


def load_json(path):
    return json.loads(Path(path).read_text())
