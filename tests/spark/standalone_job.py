"""What test_standalone.py submits to a cluster: ROOT files as a DataFrame, and prepared; Parquet on the server that they come from; both
networks trained on two ranks.

spark-submit … standalone_job.py FOLDER_URL MODELS TRAININGS   prints one line of JSON
TRAININGS: {model: parameters of SapwoodEstimator} as JSON
"""

import json
import os
import sys

import sapwood.spark


def main(folder, models, trainings):
    spark = sapwood.spark.session()
    names = ("qcd", "ttbar", "wjets")
    urls = {name: f"{folder}/{name}.root" for name in names}
    events = spark.read.format("root").option("tree", "Delphes").load([*urls.values()])
    count, jets = events.selectExpr("count(*)", "sum(Jet_size)").first()
    prepared = sapwood.spark.prepare(urls).cache()
    prepared.write.parquet(f"{folder}/prepared")
    written = spark.read.parquet(f"{folder}/prepared").groupBy("sample").count().collect()
    executors = spark.sparkContext.parallelize(range(4), 4).map(lambda _: os.environ["SPARK_EXECUTOR_DIRS"]).distinct().count()
    trained = {}
    for model, params in trainings.items():
        estimator = sapwood.spark.SapwoodEstimator(model=f"{models}/{model}.keras", num_workers=2, verbose=0, **params)
        trained[model] = estimator.fit(prepared).history
    print(json.dumps({"events": count, "jets": jets, "selected": {row["sample"]: row["count"] for row in written}, "executors": executors,
                      "trained": trained}))  # fmt: skip


main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
