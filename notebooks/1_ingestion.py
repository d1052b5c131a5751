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
# # 1. From ROOT files to a DataFrame
#
# Delphes simulations of proton collisions at 13 TeV, read as a Spark DataFrame: from local disks, `root://` or `https://`
# alike. The same cells run on a cluster with another master and other paths in `settings.py`.

# %%
import matplotlib.pyplot as plt
import mplhep
import numpy as np
import sapwood.spark
from pyspark.sql import functions as F
from settings import MASTER, SAMPLES

mplhep.style.use(mplhep.style.ROOT)
spark = sapwood.spark.session(master=MASTER, app="ingestion")

# %%
# %%time
events = spark.read.format("root").option("tree", "Delphes").load(list(SAMPLES.values()))
print(len(events.columns), "columns")

# %% [markdown]
# Objects of a class are arrays of structs. Only what a query uses is read: of a column of structs, only the fields.

# %%
events.select("MissingET", "Jet").printSchema()

# %% [markdown]
# Counting reads no column.

# %%
# %%time
total = events.count()
print(f"{total:,} events")

# %% [markdown]
# ## Jets
#
# Transverse momenta of all jets, and how many events have at least two above 30 GeV.

# %%
# %%time
pt = events.select(F.explode("Jet.PT").alias("pt")).toPandas()["pt"].to_numpy()
dijet = events.where(F.size(F.filter("Jet.PT", lambda p: p > 30)) >= 2).count()
print(f"{len(pt):,} jets; {dijet:,} events with two jets above 30 GeV")

# %%
fig, ax = plt.subplots(figsize=(9, 7))
mplhep.histplot(np.histogram(pt, bins=np.linspace(0, 300, 61)), ax=ax, histtype="fill", alpha=0.6)
ax.set(xlabel=r"jet $p_\mathrm{T}$ [GeV]", ylabel="jets / 5 GeV", yscale="log")
plt.show()

# %% [markdown]
# ## In SQL
#
# A condition on a column with one value an event is handed to the reader, which skips what cannot pass.

# %%
spark.sql(f"""
    CREATE OR REPLACE TEMPORARY VIEW ttbar USING root
    OPTIONS (path '{SAMPLES["ttbar"]}', tree 'Delphes')
""")
spark.sql("""
    SELECT Jet_size AS jets, count(*) AS events, round(avg(MissingET[0].MET), 1) AS met_gev
    FROM ttbar WHERE Jet_size >= 2 GROUP BY jets ORDER BY jets
""").show(20)

# %%
spark.stop()
