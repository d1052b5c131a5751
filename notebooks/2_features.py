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
# # 2. Selection and features
#
# The topology recipe of [arXiv:1909.10389](https://arxiv.org/abs/1909.10389): events with an isolated lepton above 23 GeV become 14
# high-level features and a list of particles, 19 numbers each. It runs in C inside the tasks of Spark, on columns that never
# become rows.

# %%
import shutil

import matplotlib.pyplot as plt
import mplhep
import numpy as np
import sapwood.spark
from pyspark.sql import functions as F
from settings import MASTER, SAMPLES, WORK

mplhep.style.use(mplhep.style.ROOT)
spark = sapwood.spark.session(master=MASTER, app="features")

# %%
# %%time
features = sapwood.spark.prepare(SAMPLES, recipe="topology", convention="corrected").cache()
features.printSchema()
selected = {row["sample"]: row["count"] for row in features.groupBy("sample").count().collect()}
print("selected:", selected)

# %% [markdown]
# ## What separates the classes

# %%
names = {0: r"$H_\mathrm{T}$ [GeV]", 1: r"missing $E_\mathrm{T}$ [GeV]", 3: r"transverse mass [GeV]", 4: "jets"}
frame = features.select("sample", *[F.col("hlf")[i].alias(str(i)) for i in names]).toPandas()
fig, axes = plt.subplots(2, 2, figsize=(14, 11))
for ax, (i, label) in zip(axes.flat, names.items()):
    bins = np.linspace(0, np.quantile(frame[str(i)], 0.99), 31)
    for sample, group in frame.groupby("sample"):
        mplhep.histplot(np.histogram(group[str(i)], bins), ax=ax, density=True, label=sample)
    ax.set(xlabel=label, ylabel="events, normalised")
    ax.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# ## The training set
#
# Classes of one size, split into training and test, shuffled, with constants for scaling: the folder is the one that
# `sapwood prepare` writes, byte for byte.

# %%
# %%time
shutil.rmtree(WORK / "dataset", ignore_errors=True)
dataset = sapwood.spark.write(sapwood.spark.prepare(SAMPLES), WORK / "dataset", seed=1)["dataset"]
rows = {split: sum(part["rows"] for part in dataset["parts"] if part["split"] == split) for split in ("train", "test")}
print(rows)

# %%
spark.stop()
