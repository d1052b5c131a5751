"""All notebooks, from top to bottom, one after another as a reader would run them; what they found is looked at afterwards."""

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))

jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("pyspark", reason="pyspark is not installed")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The folder of the notebooks' work; they find the library, the settings and the interpreter by the environment."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        path = [str(ROOT / "notebooks"), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(os.path.abspath(part) for p in path for part in p.split(os.pathsep)))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SAPWOOD_WORK", str(folder))
        patch.setenv("SAPWOOD_MASTER", "local[2]")
        patch.setenv("MPLBACKEND", "agg")
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(source, work):
    """Runs a notebook and returns what the last cell, added here, says of its variables."""
    notebook = jupytext.read(source)
    wanted = FOUND[source.stem][0]
    notebook.cells.append(__import__("nbformat").v4.new_code_cell(f"import json as _json; print('FOUND', _json.dumps({wanted}, default=float))"))
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}})
    client.execute()
    import json
    text = notebook.cells[-1].outputs[-1]["text"]
    return json.loads(text.partition("FOUND ")[2]), notebook


def check_ingestion(found):
    assert found["total"] == 2310
    assert found["jets"] > 5000 and 0 < found["dijet"] < 2310


def check_features(found):
    assert found["selected"] == {"qcd": 394, "ttbar": 490, "wjets": 590}
    assert found["rows"] == {"train": 950, "test": 218}


def check_hyperparameters(found):
    assert found["trials"] == 32
    assert found["best"]["value"] > 0.8


def check_training(found):
    assert found["hlf"][-1] < 0.45 and found["hlf"][-1] < found["hlf"][0] / 2
    assert found["inclusive"][-1] < found["inclusive"][0]


def check_evaluation(found):
    assert found["hlf"] > 0.93
    assert found["inclusive"] > 0.9


def check_trees(found):
    assert set(found) == {"random forest", "XGBoost", "LightGBM", "hlf network", "inclusive network"}
    assert all(accuracy > 0.75 and area > 0.9 for accuracy, area in found.values())


# By notebook: an expression of its variables, and what has to be true of it.
FOUND = {
    "1_ingestion": ("{'total': total, 'jets': len(pt), 'dijet': dijet}", check_ingestion),
    "2_features": ("{'selected': selected, 'rows': rows}", check_features),
    "3_hyperparameters": ("{'trials': len(trials), 'best': best}", check_hyperparameters),
    "4_training": ("{'hlf': hlf_model.history['loss'], 'inclusive': inclusive_model.history['loss']}", check_training),
    "5_evaluation": ("{name: sum(c['auc'] for c in e['classes']) / 3 for name, e in evaluations.items()}", check_evaluation),
    "6_trees": ("results", check_trees),
}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(source, work):
    found, _ = run(source, work)
    FOUND[source.stem][1](found)
