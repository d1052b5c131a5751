# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Hyperparameters
#
# A search over widths, batch and learning rate of the HLF network, with five folds. Trials are trained by Sapwood's engine, many a
# second, on local cores; `spark=spark` sends them to a cluster instead. A search that was interrupted goes on when it is started again.

# %%
import shutil

import keras
import pandas as pd
import sapwood
from settings import WORK

# %%
def build(units_1, units_2, units_3):
    return keras.Sequential([
        keras.Input((14,), name="hlf"),
        keras.layers.Dense(units_1, activation="relu"),
        keras.layers.Dense(units_2, activation="relu"),
        keras.layers.Dense(units_3, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ])


# %%
# %%time
shutil.rmtree(WORK / "search", ignore_errors=True)
search = {
    "data": str(WORK / "dataset"),
    "model": build,
    "parameters": {
        "units_1": [20, 50],
        "units_2": [10, 20],
        "units_3": [5, 10],
        "batch": [32, 128],
        "learning_rate": [0.001, 0.003],
    },
    "train": {"epochs": 10},
    "sampler": "grid",
    "folds": 5,
    "metric": "val_accuracy",
    "seed": 1,
}
result = sapwood.tune(search, out=WORK / "search")
best = result["best"]
print(best)

# %% [markdown]
# The best ten, with the spread over the folds:

# %%
trials = pd.read_csv(WORK / "search/trials.csv").sort_values("val_accuracy", ascending=False)
trials.head(10)
