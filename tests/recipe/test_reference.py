"""The topology recipe in C against the plain Python one (reference.py), and against what the authors' functions gave."""

import subprocess

import dump
import numpy as np
import pytest
import reference
from conftest import SAMPLE, driver

DRIVER = driver("topology_driver")


def run_driver(folder, columns, convention, threads=2):
    dump.write_dump(folder / "columns.bin", columns)
    out = folder / f"{convention}.bin"
    subprocess.run([DRIVER, folder / "columns.bin", convention, str(threads), out], check=True)
    return dump.read_features(out)


def reference_features(columns, convention):
    found = {"entry": [], "hlf": [], "offsets": [0], "particles": []}
    for entry in range(len(columns["Jet.PT"])):
        features = reference.event_features({name: lists[entry] for name, lists in columns.items()}, convention)
        if features is None:
            continue
        found["entry"].append(entry)
        found["hlf"].append(features[0])
        found["particles"].append(features[1])
        found["offsets"].append(found["offsets"][-1] + len(features[1]))
    found["hlf"] = np.array(found["hlf"]).reshape(-1, 14)
    found["particles"] = np.concatenate(found["particles"] or [np.zeros((0, 19))])
    return found


def assert_same(given, expected, tolerance=1e-5):
    assert list(given["entry"]) == list(expected["entry"])
    assert list(given["offsets"]) == list(expected["offsets"])
    for name in ("hlf", "particles"):
        np.testing.assert_allclose(given[name], np.asarray(expected[name], "float32"), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name, entries", [("qcd", 80), ("ttbar", 110), ("wjets", 90), ("qcd_inclusive", 150)])
def test_paper_equals_the_authors_functions(name, entries, tmp_path, shared_data):
    archive = shared_data / "reference" / f"{name}.npz"
    columns = dump.read_delphes(shared_data / "delphes" / f"{name}.root", entries)
    with np.load(archive) as expected:
        assert_same(run_driver(tmp_path, columns, "paper"), expected)
        assert len(expected["entry"]) > 0


@pytest.mark.parametrize("convention", reference.CONVENTIONS)
@pytest.mark.parametrize("name", ["qcd", "ttbar", "wjets"])
def test_equals_the_plain_implementation_on_the_sample(name, convention, tmp_path):
    path = SAMPLE / f"{name}.root"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    columns = dump.read_delphes(path, 40)
    given = run_driver(tmp_path, columns, convention)
    assert len(given["entry"]) > 5
    assert_same(given, reference_features(columns, convention))
    assert given["dropped"].sum() + len(given["entry"]) == 40


SPECIAL_PHI = np.array([np.pi, -np.pi, 3.1415925, -3.1415925, 0, 3.2, -4, 2 * np.pi, 7], "float32")


def made_up_events(seed, events):
    """Random events with much of what real ones hardly have: phi at and beyond pi, copies, empty collections, crowds."""
    random = np.random.default_rng(seed)
    most = {"EFlowTrack": 250, "EFlowPhoton": 90, "EFlowNeutralHadron": 90, "Electron": 3, "MuonTight": 3, "Jet": 7}
    columns = {name: [] for name in dump.NAMES}
    for _ in range(events):
        for collection, members in dump.MEMBERS.items():
            count = 1 if collection == "MissingET" else int(random.integers(0, most[collection]))
            if random.random() < 0.05 and collection.startswith("EFlow"):
                count = int(random.integers(0, 2)) * 600
            eta = random.uniform(-2, 2, count).astype("float32")
            phi = random.uniform(-np.pi, np.pi, count).astype("float32")
            if collection != "Electron" and random.random() < 0.5:
                special = random.random(count) < 0.05
                phi[special] = random.choice(SPECIAL_PHI, special.sum())
            if count > 4 and random.random() < 0.5:  # copies, and copies a cone's radius away
                eta[1], phi[1] = eta[0], phi[0]
                eta[3], phi[3] = eta[2] + np.float32(0.3), phi[2]
            hard = collection in ("Electron", "MuonTight", "Jet", "MissingET")
            pt = random.uniform(10, 60, count) if hard else random.exponential(0.4, count) + 0.3
            values = {"PT": pt, "ET": pt, "MET": pt, "Eta": eta, "Phi": phi}
            for member in members.split():
                name = f"{collection}.{member}"
                if name in dump.INTEGERS:
                    value = random.integers(0, 2, count) if member == "BTag" else random.integers(-13, 14, count)
                else:
                    value = values.get(member, random.normal(size=count))
                columns[name].append(np.asarray(value, dump.INTEGERS.get(name, "float32")))
        for name in ("Eta", "Phi"):  # leptons have their tracks, mostly
            for lepton in ("Electron", "MuonTight"):
                tracks, leptons = columns[f"EFlowTrack.{name}"][-1], columns[f"{lepton}.{name}"][-1]
                if len(tracks) > 10 and len(leptons) > 0:
                    tracks[5] = leptons[0]
    return columns


@pytest.mark.parametrize("convention", reference.CONVENTIONS)
@pytest.mark.parametrize("seed", [1, 2])
def test_equals_the_plain_implementation_on_made_up_events(seed, convention, tmp_path):
    columns = made_up_events(seed, 80)
    given = run_driver(tmp_path, columns, convention, threads=3)
    assert len(given["entry"]) > 10
    assert_same(given, reference_features(columns, convention))


def test_the_conventions_differ(tmp_path):
    """So that comparing both with one and the same implementation would be noticed."""
    columns = made_up_events(3, 40)
    corrected, paper = (run_driver(tmp_path, columns, convention) for convention in reference.CONVENTIONS)
    both = np.intersect1d(corrected["entry"], paper["entry"])
    assert len(both) > 5
    mt = [features["hlf"][np.isin(features["entry"], both), 3] for features in (corrected, paper)]
    assert not np.allclose(mt[0], mt[1])


def test_missing_energy_is_an_error(tmp_path):
    columns = made_up_events(4, 3)
    for member in ("MET", "Phi"):
        columns[f"MissingET.{member}"][2] = np.zeros(0, "float32")
    with pytest.raises(reference.MissingData):
        reference_features(columns, "corrected")
    dump.write_dump(tmp_path / "columns.bin", columns)
    result = subprocess.run(
        [DRIVER, tmp_path / "columns.bin", "corrected", "1", tmp_path / "out.bin"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "entry 2: MissingET is empty" in result.stderr
    assert not (tmp_path / "out.bin").exists()
