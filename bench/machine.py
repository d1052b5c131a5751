"""What every benchmark records: the machine, the versions; and where results go (bench/results)."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def _cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def describe_machine(*packages):
    """Cores, CPU, its vector units, memory, system, compiler, and versions of Python packages."""
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "vector": [unit for unit in ("avx2", "avx512f", "amx_tile") if f" {unit} " in flags + " "],
        "memory_gb": round(pages / 1e9),
        "system": platform.platform(),
        "compiler": compiler[0] if compiler else None,
        "python": platform.python_version(),
        "packages": versions,
    }


def write_results(name, machine, command, results):
    """bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "command": command, "results": results}, indent=2) + "\n")
    return path
