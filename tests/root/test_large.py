"""Files of more than 2 GB, whose places need 64 bits: written by ROOT, read at both ends. Only with SAPWOOD_SOAK=1 (./run soak)."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.environ.get("SAPWOOD_SOAK") != "1", reason="takes minutes and 2.3 GB: ./run soak")

WRITER = """
import ROOT, sys
ROOT.gInterpreter.Declare('''
#include "TFile.h"
#include "TTree.h"
void write_large(const char *path, Long64_t entries) {
    TFile file(path, "RECREATE", "", 0);
    TTree tree("t", "t");
    tree.SetMaxTreeSize(100000000000LL);
    Long64_t entry; Double_t numbers[64];
    tree.Branch("entry", &entry); tree.Branch("numbers", numbers, "numbers[64]/D");
    for (entry = 0; entry < entries; entry++) {
        for (int k = 0; k < 64; k++) numbers[k] = entry * 64. + k;
        tree.Fill();
    }
    tree.Write();
}''')
ROOT.write_large(sys.argv[1], int(sys.argv[2]))
"""

ENTRIES = 4_300_000


def test_both_ends_of_a_large_file(tmp_path, sapwood):
    path = tmp_path / "large.root"
    subprocess.run([sys.executable, "-c", WRITER, path, str(ENTRIES)], check=True, capture_output=True, timeout=1800)
    assert path.stat().st_size > 2**31
    import sapwood as library

    with library.open(path) as file:
        tree = file["t"]
        for begin, end in ((0, 1000), (ENTRIES - 1000, ENTRIES)):
            table = tree.arrow(["entry", "numbers"], begin=begin, end=end)
            assert table["entry"].to_pylist() == list(range(begin, end))
            assert table["numbers"][-1].as_py() == [(end - 1) * 64.0 + k for k in range(64)]
    line = json.loads(sapwood("digest", path, timeout=1800).stdout)
    assert line["entries"] == ENTRIES and line["status"] == "ok"
