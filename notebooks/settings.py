"""Where the notebooks run and what they read: change it here, and all of them go to your cluster."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("SAPWOOD_ROOT", Path(__file__).resolve().parents[1]))

# local[2], spark://host:7077, yarn, k8s://https://host:6443: see docs/cluster.md
MASTER = os.environ.get("SAPWOOD_MASTER", "local[2]")

# Files of each class; patterns and root:// and https:// URLs as well: root://server//store/qcd/*.root
SAMPLES = {name: f"{ROOT}/examples/topology/data/{name}.root" for name in ("qcd", "ttbar", "wjets")}

# Where the notebooks leave what they make for the next one. On a cluster, a folder that all its machines see.
WORK = Path(os.environ.get("SAPWOOD_WORK", ROOT / "build/notebooks/work"))
WORK.mkdir(parents=True, exist_ok=True)
