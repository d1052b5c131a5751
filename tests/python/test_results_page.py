"""docs/results.md is what bench/results.py makes of the numbers that were measured, with all its figures."""

import importlib.util
import json
import re
import sys

from conftest import SOURCE


def test_page_is_made_not_written(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SOURCE / "bench"), *sys.path])
    spec = importlib.util.spec_from_file_location("results", SOURCE / "bench/results.py")
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    record = json.loads((SOURCE / "bench/results/results.json").read_text())
    text = (SOURCE / "docs/results.md").read_text()
    assert results.page(record) == text
    figures = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(figures) == 4 and all((SOURCE / "docs" / name).is_file() for name in figures)
    assert {one["classifier"] for one in record["results"]["classifiers"]} == set(results.CLASSIFIERS)
    assert {(s["engine"], s["classifier"]) for s in record["results"]["speed"]} == {(e, c) for e in results.ENGINES for c in results.SPEED}
