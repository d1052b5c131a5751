"""A search from Python: widths and training of the classifier on high-level features, by TPE with pruning.

    python examples/tuning/search_hlf.py DATASET OUT [TRIALS]
"""

import sys
from pathlib import Path

import sapwood

data, out = sys.argv[1:3]
search = {
    "data": data,
    "model": Path(__file__).parents[2] / "models" / "hlf.keras",
    "parameters": {
        "dense.units": {"low": 10, "high": 100, "log": True},
        "dense_1.units": {"low": 5, "high": 50, "log": True},
        "dense.activation": ["relu", "tanh", "silu"],
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "batch": [32, 64, 128, 256],
    },
    "train": {"epochs": 27},
    "pruning": {"min_epochs": 3, "factor": 3},
    "trials": int(sys.argv[3]) if len(sys.argv) > 3 else 100,
    "metric": "val_auc",
}
best = sapwood.tune(search, out=out)["best"]
print(f"AUC {best['value']:.4f} ± {best['spread']:.4f} with {best['parameters']}")
