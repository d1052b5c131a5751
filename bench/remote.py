"""Reading from an XRootD server, beside xrdcp of the same bytes: on this machine, and through a relay that makes the server
50 ms distant (25 each way, at any rate).

    bench/remote.py [--data FOLDER] [--rounds N]

FOLDER keeps the tables that ROOT writes (bench/read_table.py), about 0.4 GB. Three programs take turns, each from its start to its
end, on both cores: `xrdcp FILE /dev/null`; source_driver, which reads all bytes of the file through the library; and
read_driver, which reads all columns. Rates are bytes of the file a second; medians and their spread are reported.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SOURCE / "bench"), str(SOURCE / "tests/access")]
import servers  # noqa: E402
from machine import describe_machine, write_results  # noqa: E402

BUILD = SOURCE / "build/release"
FILES = ("table-none", "table-lz4", "table-zstd", "ntuple-none")
FAR_MS = 25  # each way


def timed(*command):
    """(seconds, what it printed)"""
    begin = time.perf_counter()
    result = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return time.perf_counter() - begin, result.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SOURCE / "out/bench")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    for codec in sorted({name.split("-")[1] for name in FILES}):
        subprocess.run([sys.executable, SOURCE / "bench/read_table.py", given.data, "table", codec], check=True)

    folder = servers.Folder()
    served = folder.make("data")
    for name in FILES:
        shutil.copyfile(given.data / f"{name}.root", served / f"{name}.root")
    server = servers.Xrootd(folder, "bench", served).start()
    relay = servers.Relay(BUILD / "tests/relay", server.port, FAR_MS, folder.path / "relay.log").start()
    rates, requests = {}, {}
    try:
        for round_ in range(given.rounds):
            for name in FILES:
                size = (served / f"{name}.root").stat().st_size
                for where, place in (("near", server), ("50 ms", relay)):
                    url = place.url(f"{name}.root")
                    programs = {
                        "xrdcp": ("xrdcp", "-f", "-s", url, "/dev/null"),
                        "bytes": (BUILD / "tests/source_driver", url),
                        "columns": (BUILD / "bin/read_driver", url, "events", 2, 1),
                    }
                    for program, command in programs.items():
                        seconds, out = timed(*command)
                        rates.setdefault((name, where, program), []).append(size / seconds / 1e6)
                        if program != "xrdcp":
                            requests[name, where, program] = json.loads(out.splitlines()[-1])["requests"]
            print(f"round {round_ + 1} of {given.rounds}", file=sys.stderr)
    finally:
        relay.kill()
        server.kill()
        sizes = {name: (served / f"{name}.root").stat().st_size for name in FILES}
        folder.remove()

    table = []
    for (name, where, program), values in rates.items():
        row = {"file": name, "megabytes": round(sizes[name] / 1e6, 1), "server": where, "program": program}
        row |= {"median_mb_s": statistics.median(values), "lowest": min(values), "highest": max(values)}
        if program != "xrdcp":
            row["of_xrdcp"] = row["median_mb_s"] / statistics.median(rates[name, where, "xrdcp"])
            row["requests"] = requests[name, where, program]
        table.append(row)
    write_results("remote", describe_machine(), f"bench/remote.py --rounds {given.rounds}", table)
    for row in table:
        share = f"{row['of_xrdcp']:6.2f} of xrdcp, {row['requests']:4} requests" if "of_xrdcp" in row else ""
        spread = f"({row['lowest']:.0f} to {row['highest']:.0f})"
        print(f"{row['file']:12} {row['megabytes']:6.1f} MB  {row['server']:6} {row['program']:8} {row['median_mb_s']:7.0f} MB/s {spread:14} {share}")


if __name__ == "__main__":
    main()
