"""What benchmarks on Delphes data share: where the data are, the command, and a dataset of several folders."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("qcd", "ttbar", "wjets")


def default_folders():
    """The developers' Delphes folders, else the example's."""
    data = Path(os.environ.get("SAPWOOD_DATA", ROOT.parent / "shared" / "data"))
    found = [p for p in map(data.joinpath, ("delphes-sample", "delphes-train", "delphes")) if p.is_dir()]
    return found or [ROOT / "examples" / "topology" / "data"]


def run(options, *arguments, before=()):
    """What the command prints. before: such as mpiexec."""
    command = [*before, str(ROOT / options.build / "bin" / "sapwood"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def link_samples(folders, work):
    """--sample options for the files of all folders, through links in `work`: base names name events, and must differ."""
    samples = []
    for name in CLASSES:
        for n, folder in enumerate(folders):
            link = Path(work) / f"{name}-{n}.root"
            link.symlink_to(Path(folder).resolve() / f"{name}.root")
            samples += ["--sample", f"{name}={link}"]
    return samples


def prepare(options, folders, work, *more):
    """A dataset of all folders."""
    run(options, "prepare", *link_samples(folders, work), "--out", f"{work}/data", "--quiet", *more)
    return f"{work}/data"
