"""Makes docs/results.md: the figures of arXiv:1909.10389 for our data and engine, each with its machine and command.

    python bench/results.py [DELPHES_FOLDER…] [--epochs 30] [--rounds 3] [--workers 1,2] [--build build/release]
    python bench/results.py --draw        (the page and its figures again, from bench/results/results.json)

Every folder holds qcd.root, ttbar.root and wjets.root; without folders, the developers' Delphes data (SAPWOOD_DATA), else the example's
sample. Also `./run results`.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import machine as bench_machine
from delphes import ROOT, default_folders, prepare, run

FIGURES = ROOT / "docs" / "figures"
CLASSIFIERS = {"HLF": "hlf", "particle sequence": "particle_sequence", "inclusive": "inclusive_gru"}
BATCH = 32  # of the classifiers: the sample is small, and with the 128 of the paper an epoch would have few steps
SPEED_BATCH = 128
SPEED = {"HLF": (400, 30), "inclusive": (8, 4)}  # steps an epoch, at most, and epochs where the time of training is measured
ENGINES = {"Sapwood, MPI": "sapwood", "TensorFlow": "tensorflow"}


# ---- Measuring ---------------------------------------------------------------------------------------------------------


def counts(data):
    about = json.loads(Path(data, "dataset.json").read_text())
    rows = {split: sum(p["rows"] for p in about["parts"] if p["split"] == split) for split in ("train", "test")}
    return {"labels": about["labels"], "read": sum(i["read"] for i in about["inputs"]),
            "bytes": sum(i["size"] for i in about["inputs"]), **rows}


def preparation(options, folders):
    """Seconds of `sapwood prepare` by threads, the median over the rounds."""
    cores = len(os.sched_getaffinity(0))
    for threads in sorted({1, *(t for t in (2, 4, 8, 16) if t < cores), cores}):
        times = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as work:
                begin = time.perf_counter()
                prepare(options, folders, work, "--threads", threads)
                times.append(time.perf_counter() - begin)
        yield {"threads": threads, "seconds": statistics.median(times)}


def classifiers(options, data, work):
    """Each network trained and evaluated: history, ROC curves, AUC."""
    for name, network in CLASSIFIERS.items():
        out = f"{work}/{network}"
        begin = time.perf_counter()
        run(options, "train", "--data", data, "--model", ROOT / "models" / f"{network}.keras", "--epochs", options.epochs, "--batch", BATCH,
            "--out", out, "--quiet")
        seconds = time.perf_counter() - begin
        evaluation = json.loads(run(options, "evaluate", "--run", out, "--data", data, "--json", "--quiet"))
        yield {"classifier": name, "seconds": seconds, "accuracy": evaluation["accuracy"],
               "history": json.loads(Path(out, "history.json").read_text()),
               "classes": [{"label": c["label"], "auc": c["auc"], "roc": thinned(c["roc"])} for c in evaluation["classes"]]}


def thinned(roc):
    """The points of a curve that a figure can show."""
    step = max(1, len(roc) // 200)
    return [[round(p[1], 5), round(p[2], 5)] for p in [*roc[:-1:step], roc[-1]]]


def speed(options, data, work):
    """Events a second by number of processes of one thread each, of both engines; the first epoch, which has the start-up in it, left out."""
    launcher = next((name for name in ("mpiexec.mpich", "mpiexec.openmpi", "mpiexec", "mpirun") if shutil.which(name)), None)
    rows = counts(data)["train"]
    for name, (steps, epochs) in SPEED.items():
        for title, engine in ENGINES.items():
            for workers in map(int, options.workers.split(",")):
                out = f"{work}/{CLASSIFIERS[name]}-{engine}-{workers}"
                train = ["train", "--data", data, "--model", ROOT / "models" / f"{CLASSIFIERS[name]}.keras", "--batch", SPEED_BATCH, "--epochs", epochs,
                         "--steps-per-epoch", steps, "--validation", "no", "--out", out, "--quiet"]
                if engine == "tensorflow":
                    run(options, *train, "--engine", engine, "--workers", workers, "--threads", workers)
                elif workers == 1 or launcher:
                    run(options, *train, "--threads", 1, before=[launcher, "-n", str(workers)] if workers > 1 else [])
                else:
                    continue
                history = json.loads(Path(out, "history.json").read_text())[1:]
                events = min(rows, steps * SPEED_BATCH)
                yield {"classifier": name, "engine": title, "workers": workers, "loss": history[-1]["loss"],
                       "samples_per_second": round(events / statistics.median(e["seconds"] for e in history))}


# ---- The page ----------------------------------------------------------------------------------------------------------


def figure(name, draw, width=9.0, height=3.2, columns=2):
    """docs/figures/NAME.svg."""
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from sapwood._report import STYLE
    with plt.rc_context(STYLE):
        drawing, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False)
        draw(axes[0])
        FIGURES.mkdir(exist_ok=True)
        drawing.savefig(FIGURES / f"{name}.svg", metadata={"Date": None, "Creator": None})
        plt.close(drawing)


def draw_losses(results, axes):
    from sapwood._report import COLOURS
    for axis, what in zip(axes, ("loss", "accuracy")):
        for k, one in enumerate(results["classifiers"]):
            epochs = [e["epoch"] for e in one["history"]]
            axis.plot(epochs, [e[what] for e in one["history"]], color=COLOURS[k], label=one["classifier"])
            axis.plot(epochs, [e[f"validation_{what}"] for e in one["history"]], color=COLOURS[k], linestyle=":")
        axis.set(xlabel="epoch", ylabel=f"{what} (dotted: test part)")
    axes[0].legend()


def draw_roc(results, axes):
    from sapwood._report import COLOURS
    for c, axis in enumerate(axes):
        for k, one in enumerate(results["classifiers"]):
            curve = one["classes"][c]
            axis.plot([p[0] for p in curve["roc"]], [p[1] for p in curve["roc"]], color=COLOURS[k],
                      label=f"{one['classifier']}: {curve['auc']:.4f}")
        axis.set(title=f"{curve['label']} against the rest", xlabel="false positive rate", xlim=(0, 1), ylim=(0, 1.01))
        axis.legend(title="AUC", loc="lower right")
    axes[0].set_ylabel("true positive rate")


def draw_speed(results, axes):
    from sapwood._report import COLOURS
    for axis, name in zip(axes, SPEED):
        for k, engine in enumerate(ENGINES):
            own = [s for s in results["speed"] if s["classifier"] == name and s["engine"] == engine]
            axis.plot([s["workers"] for s in own], [1e6 / s["samples_per_second"] for s in own], "o-", color=COLOURS[k], label=engine)
        axis.set(title=name, xlabel="processes of one thread", ylabel="seconds for a million events", yscale="log",
                 xticks=sorted({s["workers"] for s in results["speed"]}))
        axis.legend()


def draw_preparation(results, axes):
    from sapwood._report import COLOURS
    axes[0].plot([p["threads"] for p in results["preparation"]], [p["seconds"] for p in results["preparation"]], "o-", color=COLOURS[0])
    axes[0].set(xlabel="cores", ylabel="seconds", ylim=(0, None), xticks=[p["threads"] for p in results["preparation"]])


def draw(results):
    labels = results["data"]["labels"]
    figure("loss", lambda axes: draw_losses(results, axes))
    figure("roc", lambda axes: draw_roc(results, axes), width=11, height=3.6, columns=len(labels))
    figure("training-time", lambda axes: draw_speed(results, axes), columns=len(SPEED))
    figure("preparation-time", lambda axes: draw_preparation(results, axes), width=4.5, columns=1)


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def page(record):
    """docs/results.md, as text."""
    machine, results = record["machine"], record["results"]
    data, labels = results["data"], results["data"]["labels"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = ["# Results", "", "The figures of arXiv:1909.10389, with our data and our engine. Made by one command, not written by hand:", "",
             f"    python {record['command']}", "",
             f"on {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['vector'])}), {machine['memory_gb']} GB, {machine['system']}; "
             f"{machine['compiler']}; {packages}. Load of the machine when it began: {results['load']:.1f}.", "",
             f"Data: {results['source']}, {data['read']:,} simulated collisions in {data['bytes'] / 1e6:,.0f} MB of ROOT files; selected and balanced, "
             f"{data['train']:,} for training and {data['test']:,} for tests. The raw numbers are in "
             "[bench/results/results.json](../bench/results/results.json).", "",
             "## Training", "", f"`sapwood train --epochs {results['epochs']} --batch {BATCH}` with the published networks and their Adam.", "",
             "![Loss and accuracy by epoch](figures/loss.svg)", "", "## ROC curves", "", "![ROC curves of the three classifiers](figures/roc.svg)", ""]
    lines += table(["classifier", *(f"AUC, {label}" for label in labels), "accuracy", "seconds of training"],
                   [[one["classifier"], *(f"{c['auc']:.4f}" for c in one["classes"]), f"{one['accuracy']:.4f}", f"{one['seconds']:.1f}"]
                    for one in results["classifiers"]])
    lines += ["## Time of training by number of workers", "",
              f"Processes of one thread, batches of {SPEED_BATCH} events in all: `mpirun -n N sapwood train --threads 1`, and "
              "`sapwood train --engine tensorflow --workers N`. Start-up and first epoch left out.", "",
              "![Time of training by number of processes](figures/training-time.svg)", ""]
    lines += table(["classifier", "engine", "processes", "samples/s", "loss at the end"],
                   [[s["classifier"], s["engine"], s["workers"], f"{s['samples_per_second']:,}", f"{s['loss']:.4f}"] for s in results["speed"]])
    lines += ["## Time of preparation by cores", "", "`sapwood prepare --threads N`: from ROOT files to the training set.", "",
              "![Time of preparation by cores](figures/preparation-time.svg)", ""]
    lines += table(["cores", "seconds", "collisions/s"],
                   [[p["threads"], f"{p['seconds']:.2f}", f"{data['read'] / p['seconds']:,.0f}"] for p in results["preparation"]])
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--draw", action="store_true", help="only the page and its figures, from what was measured last")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / options.build / "python"))
    path = bench_machine.RESULTS / "results.json"
    if not options.draw:
        folders = options.folders or default_folders()
        machine = bench_machine.describe_machine("tensorflow-cpu", "keras")
        results = {"load": os.getloadavg()[0], "epochs": options.epochs,
                   "source": "Delphes samples" if options.folders or folders[0].parent.name == "data" else "the sample in the repository"}
        with tempfile.TemporaryDirectory() as work:
            data = prepare(options, folders, work)
            results["data"] = counts(data)
            results["preparation"] = list(preparation(options, folders))
            results["classifiers"] = list(classifiers(options, data, work))
            results["speed"] = list(speed(options, data, work))
        command = " ".join(["bench/results.py", *(word for word in sys.argv[1:] if not word.startswith("/"))])
        bench_machine.write_results("results", machine, command, results)
    record = json.loads(path.read_text())
    draw(record["results"])
    (ROOT / "docs" / "results.md").write_text(page(record))
    print(f"docs/results.md, {FIGURES.relative_to(ROOT)}/*.svg, bench/results/results.json")


if __name__ == "__main__":
    main()
