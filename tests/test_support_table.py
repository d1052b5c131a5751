"""docs/support.md says of Sapwood what is so: our column is measured anew. Those of the others are measured by ./run soak support."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import support_table

pytest.importorskip("ROOT")


def test_our_column_is_what_is_measured(tmp_path):
    subprocess.run([sys.executable, support_table.__file__, "files", tmp_path], check=True, capture_output=True, timeout=600)
    measured = support_table.marks(support_table.run("sapwood", Path(tmp_path)))
    stated = {}
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", support_table.PAGE.read_text(), re.DOTALL | re.MULTILINE):
        for title, mark in re.findall(r"^\| (.+?) \| (yes|no|wrong) \|", body, re.MULTILINE):
            stated[heading, title] = mark
    expected = {(group, title): measured[case] for group, cases in support_table.CASES.items() for title, case, _, _ in cases}
    assert stated == expected, "docs/support.md is out of date: ./run soak support writes it anew"
