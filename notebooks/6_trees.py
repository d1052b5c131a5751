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
# # 6. Trees, for comparison
#
# The high-level features are a table of 14 numbers, so that forests and boosted trees do well on them: a random forest of Spark's
# own, XGBoost on Spark, LightGBM, beside the HLF network of notebook 4.

# %%
import json

import lightgbm
import matplotlib.pyplot as plt
import mplhep
import numpy as np
import sapwood.spark
from pyspark.ml.classification import RandomForestClassifier
from pyspark.ml.functions import array_to_vector, vector_to_array
from settings import MASTER, WORK
from sklearn.metrics import accuracy_score, roc_auc_score
from xgboost.spark import SparkXGBClassifier

mplhep.style.use(mplhep.style.ROOT)
spark = sapwood.spark.session(master=MASTER, app="trees")
classes = json.loads((WORK / "dataset/dataset.json").read_text())["labels"]

# %%
def part(name):
    rows = spark.read.parquet(str(WORK / "dataset" / name))
    return rows.select(array_to_vector("hlf").alias("features"), rows.label.cast("double").alias("label")).cache()


train, test = part("train"), part("test")
truth = np.array(test.select("label").toPandas().label)
results = {}


def record(name, probability):
    results[name] = (accuracy_score(truth, probability.argmax(1)), roc_auc_score(truth, probability, multi_class="ovr"))
    print(f"{name}: accuracy {results[name][0]:.3f}, AUC {results[name][1]:.3f}")


def score(model):
    return np.stack(model.transform(test).select(vector_to_array("probability").alias("p")).toPandas().p)


# %%
# %%time
record("random forest", score(RandomForestClassifier(numTrees=100, maxDepth=6, seed=1).fit(train)))

# %%
# %%time
boosted = SparkXGBClassifier(n_estimators=100, max_depth=4, learning_rate=0.1, random_state=1, num_workers=1, verbose=False)
record("XGBoost", score(boosted.fit(train)))

# %%
# %%time
def arrays(rows):
    frame = rows.select(vector_to_array("features").alias("x"), "label").toPandas()
    return np.stack(frame.x), frame.label


x, y = arrays(train)
gbm = lightgbm.LGBMClassifier(n_estimators=100, num_leaves=15, learning_rate=0.1, n_jobs=2, seed=1, verbose=-1).fit(x, y)
record("LightGBM", gbm.predict_proba(arrays(test)[0]))

# %%
# %% [markdown]
# ## Side by side

# %%
for name in ("hlf", "inclusive"):
    evaluation = json.loads((WORK / name / "evaluation.json").read_text())
    results[f"{name} network"] = (evaluation["accuracy"], np.mean([c["auc"] for c in evaluation["classes"]]))

order = sorted(results, key=lambda name: results[name][1])
fig, ax = plt.subplots(figsize=(10, 6))
ax.barh(order, [results[name][1] for name in order])
for i, name in enumerate(order):
    ax.text(results[name][1] - 0.002, i, f"{results[name][1]:.3f}", ha="right", va="center", color="white")
ax.set(xlabel="mean AUC", xlim=(0.85, 1))
plt.tight_layout()
plt.show()

# %%
spark.stop()
