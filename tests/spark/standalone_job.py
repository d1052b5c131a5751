"""What test_standalone.py submits to a cluster: ROOT files as a DataFrame, and prepared; Parquet on the server that they come from.

spark-submit … standalone_job.py FOLDER_URL   prints one line of JSON
"""

import json
import os
import sys

import sapwood.spark


def main(folder):
    spark = sapwood.spark.session()
    names = ("qcd", "ttbar", "wjets")
    urls = {name: f"{folder}/{name}.root" for name in names}
    events = spark.read.format("root").option("tree", "Delphes").load([*urls.values()])
    count, jets = events.selectExpr("count(*)", "sum(Jet_size)").first()
    prepared = sapwood.spark.prepare(urls)
    prepared.write.parquet(f"{folder}/prepared")
    written = spark.read.parquet(f"{folder}/prepared").groupBy("sample").count().collect()
    executors = spark.sparkContext.parallelize(range(4), 4).map(lambda _: os.environ["SPARK_EXECUTOR_DIRS"]).distinct().count()
    print(json.dumps({"events": count, "jets": jets, "selected": {row["sample"]: row["count"] for row in written}, "executors": executors}))


main(sys.argv[1])
