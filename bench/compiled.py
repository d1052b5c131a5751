"""Measures how long a compiled network takes for one event, on one core: `sapwood compile`, then a C compiler, then this.

    python bench/compiled.py [--build build/release] [--core 0] [--rounds 200]

For each of the published networks, for gcc and clang with -O3 -march=native and without, the median over the rounds of the CPU time
of an event stands in bench/results/compiled.json, beside what was asked for.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import machine as bench_machine

ROOT = Path(__file__).resolve().parents[1]
PARTICLES = 430
NETWORKS = {  # asked for, in seconds
    "hlf": 1e-6,
    "inclusive_gru": 1e-3,
    "inclusive_lstm": None,
    "particle_sequence": None,
    "inclusive_transformer": None,
}
FLAGS = {"-O3 -march=native": ["-O3", "-march=native"], "-O2": ["-O2"]}
DRIVER = """
#include "network.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    static float %(arrays)s, output[64];
    int rounds = argc > 1 ? atoi(argv[1]) : 1, events = 1;
    float *all[] = {%(names)s};
    size_t counts[] = {%(counts)s};
    for (size_t a = 0; a < sizeof all / sizeof *all; a++)
        for (size_t i = 0; i < counts[a]; i++)
            all[a][i] = (float)rand() / (float)RAND_MAX - 0.5F;
    for (double spent = 0; spent < 2e-3; events *= 2) { /* events a round: enough for the clock */
        double begin = now();
        for (int i = 0; i < events; i++)
            network_predict(%(call)s);
        spent = now() - begin;
    }
    for (int r = 0; r < rounds; r++) {
        double begin = now();
        for (int i = 0; i < events; i++)
            network_predict(%(call)s);
        printf("%%.9g\\n", (now() - begin) / events);
    }
    return output[0] > 2;
}
"""


def driver_of(header):
    """A program around the function that the header declares."""
    signature = header.read_text().split("network_predict(")[1].split(")")[0]
    words = [word.strip().split() for word in signature.split(",")]
    arrays = [word[-1].lstrip("*") for word in words if word[0] == "const"]
    call = [str(PARTICLES) if word[0] == "int32_t" else word[-1].lstrip("*") for word in words]
    size = 801 * 19
    return DRIVER % {"arrays": ", ".join(f"{a}[{size}]" for a in arrays), "names": ", ".join(arrays),
                     "counts": ", ".join(str(size) for _ in arrays), "call": ", ".join(call)}


def measure(command, network, compiler, flags, folder, rounds, core):
    source, header, program = folder / "network.c", folder / "network.h", folder / "driver"
    subprocess.run([command, "compile", ROOT / f"models/{network}.keras", "-o", source, "--header", header, "--name",
                    "network"], check=True)
    (folder / "driver.c").write_text(driver_of(header))
    subprocess.run([compiler, "-std=c11", "-Wall", "-Werror", *flags, "-c", source, "-o", folder / "network.o"], check=True)
    subprocess.run([compiler, "-std=gnu11", "-O2", f"-I{folder}", folder / "driver.c", folder / "network.o", "-o", program],
                   check=True)
    lines = subprocess.run([program, str(rounds)], check=True, capture_output=True, text=True,
                           preexec_fn=lambda: os.sched_setaffinity(0, {core})).stdout.split()
    return statistics.median(map(float, lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    results = []
    for network, asked in NETWORKS.items():
        for compiler in filter(shutil.which, ("gcc", "clang")):
            for name, flags in FLAGS.items():
                with tempfile.TemporaryDirectory() as folder:
                    rounds = options.rounds if network == "hlf" or "gru" in network else max(options.rounds // 10, 3)
                    seconds = measure(options.build / "bin/sapwood", network, compiler, flags, Path(folder), rounds,
                                      options.core)
                results.append({"network": network, "particles": PARTICLES, "compiler": f"{compiler} {name}",
                                "seconds": seconds, "asked": asked})
                print(f"{network:24} {compiler} {name:20} {seconds * 1e6:10.2f} us" +
                      (f"  ({asked * 1e6:g} asked for)" if asked else ""), flush=True)
    print(bench_machine.write_results("compiled", bench_machine.describe_machine(), "python bench/compiled.py", results))


if __name__ == "__main__":
    main()
