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
# # 4. Training
#
# Networks defined with Keras, trained by Sapwood's engine on Spark: each barrier task holds an MPI rank, which keeps its share of the
# events and trains with the others. First the HLF classifier, then the inclusive one, which reads the particles besides.

# %%
import sys

import keras
import matplotlib.pyplot as plt
import mplhep
import sapwood.spark
from sapwood.spark import SapwoodEstimator
from settings import MASTER, ROOT, WORK

mplhep.style.use(mplhep.style.ROOT)
spark = sapwood.spark.session(master=MASTER, app="training")
dataset = str(WORK / "dataset")

# %%
hlf = keras.Sequential([
    keras.Input((14,), name="hlf"),
    keras.layers.Dense(50, activation="relu"),
    keras.layers.Dense(20, activation="relu"),
    keras.layers.Dense(10, activation="relu"),
    keras.layers.Dense(3, activation="softmax"),
], name="hlf_classifier")

# %%
# %%time
estimator = SapwoodEstimator(model=hlf, num_workers=2, epochs=50, batch_size=32, seed=1, verbose=0)
hlf_model = estimator.fit(dataset)
hlf_model.save_run(WORK / "hlf")

# %% [markdown]
# ## The inclusive classifier
#
# A GRU over the particles, beside the high-level features. Only real particles are computed, whatever their number.

# %%
particles, features = keras.Input((801, 19), name="particles"), keras.Input((14,), name="hlf")
x = keras.layers.GRU(50)(keras.layers.Masking()(particles))
x = keras.layers.Concatenate()([keras.layers.Dropout(0.2)(x), keras.layers.Dropout(0.2)(features)])
x = keras.layers.Dense(25, activation="relu")(x)
inclusive = keras.Model([particles, features], keras.layers.Dense(3, activation="softmax")(x), name="inclusive_classifier")

# %%
# %%time
estimator = SapwoodEstimator(model=inclusive, num_workers=2, epochs=20, batch_size=32, seed=1, verbose=0)
inclusive_model = estimator.fit(dataset)
inclusive_model.save_run(WORK / "inclusive")

# %%
fig, axes = plt.subplots(1, 2, figsize=(16, 7), sharey=True)
for ax, (name, model) in zip(axes, {"HLF": hlf_model, "inclusive": inclusive_model}.items()):
    for key, label in {"loss": "training", "val_loss": "test"}.items():
        ax.plot(range(1, len(model.history[key]) + 1), model.history[key], label=label)
    ax.set(title=name, xlabel="epoch", ylabel="cross-entropy")
    ax.legend()
plt.tight_layout()
plt.show()

# %%
spark.stop()
