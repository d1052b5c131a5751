"""Columns of Delphes files for the tests: reading them with uproot, and writing them for topology_driver."""

import numpy as np

MEMBERS = {
    "EFlowTrack": "PT Eta Phi X Y Z PID Charge",
    "EFlowPhoton": "ET Eta Phi",
    "EFlowNeutralHadron": "ET Eta Phi",
    "Electron": "PT Eta Phi Charge",
    "MuonTight": "PT Eta Phi Charge",
    "Jet": "PT Eta BTag",
    "MissingET": "MET Phi",
}
NAMES = [f"{collection}.{member}" for collection, members in MEMBERS.items() for member in members.split()]
INTEGERS = {"EFlowTrack.PID": "int32", "EFlowTrack.Charge": "int32", "Electron.Charge": "int32",
            "MuonTight.Charge": "int32", "Jet.BTag": "uint32"}


def read_delphes(path, stop=None):
    """{column name: one array an event} of a Delphes file."""
    import uproot

    with uproot.open(path) as file:
        tree = file["Delphes"]
        return {name: tree[name].array(library="np", entry_stop=stop) for name in NAMES}


def write_dump(path, columns):
    """columns: {name: one array an event}, as read_delphes gives them."""
    events = len(next(iter(columns.values())))
    with open(path, "wb") as file:
        file.write(f"{events} {len(columns)}\n".encode())
        for name, lists in columns.items():
            dtype = INTEGERS.get(name, "float32")
            offsets = np.zeros(events + 1, "int32")
            np.cumsum([len(values) for values in lists], out=offsets[1:])
            file.write(f"{name} {dtype} {offsets[-1]}\n".encode())
            file.write(offsets.tobytes())
            file.write(np.concatenate([np.asarray(values, dtype) for values in lists] or [[]]).astype(dtype).tobytes())


def read_features(path):
    """{entry, hlf, offsets, particles, dropped} as topology_driver wrote them; offsets count rows."""
    with open(path, "rb") as file:
        kept, values, cuts = np.fromfile(file, "int64", 3)
        return {
            "entry": np.fromfile(file, "int64", kept),
            "hlf": np.fromfile(file, "float32", kept * 14).reshape(kept, 14),
            "offsets": np.fromfile(file, "int32", kept + 1) // 19,
            "particles": np.fromfile(file, "float32", values).reshape(-1, 19),
            "dropped": np.fromfile(file, "int64", cuts),
        }
