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
# # 5. Evaluation
#
# ROC curves and confusion matrices of the classifiers of notebook 4, on events that they never saw.

# %%
import matplotlib.pyplot as plt
import mplhep
import numpy as np
import json

import sapwood
from settings import WORK

mplhep.style.use(mplhep.style.ROOT)

# %%
# %%time
evaluations = {}
for name in ("hlf", "inclusive"):
    sapwood.evaluate(run=WORK / name, data=WORK / "dataset")
    evaluations[name] = json.loads((WORK / name / "evaluation.json").read_text())
    areas = {c["label"]: round(c["auc"], 4) for c in evaluations[name]["classes"]}
    print(f"{name}: accuracy {evaluations[name]['accuracy']:.3f}, AUC {areas}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(17, 8))
for ax, (name, evaluation) in zip(axes, evaluations.items()):
    for c in evaluation["classes"]:
        _, background, signal = np.array(c["roc"], dtype=float).T
        ax.plot(background, signal, label=f"{c['label']}: AUC {c['auc']:.3f}")
    ax.plot([0, 1], [0, 1], "k:", lw=1)
    ax.set(title=name, xlabel="background efficiency", ylabel="signal efficiency")
    ax.legend(loc="lower right")
plt.tight_layout()
plt.show()

# %%
fig, axes = plt.subplots(1, 2, figsize=(17, 8))
for ax, (name, evaluation) in zip(axes, evaluations.items()):
    matrix = np.array(evaluation["confusion"], dtype=float)
    matrix /= matrix.sum(axis=1, keepdims=True)
    labels = [c["label"] for c in evaluation["classes"]]
    ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for (i, j), share in np.ndenumerate(matrix):
        ax.text(j, i, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black")
    ax.set(title=name, xticks=range(len(labels)), xticklabels=labels, yticks=range(len(labels)), yticklabels=labels,
           xlabel="predicted", ylabel="true")
plt.tight_layout()
plt.show()

# %% [markdown]
# The same as a page to show round:

# %%
print(sapwood.report(WORK / "inclusive", WORK / "dataset", WORK / "report.html"))
