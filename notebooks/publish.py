"""Runs the notebooks from top to bottom and writes them, with what they gave, as pages: docs/notebooks/*.md and their figures.

Run by `./run notebooks publish`, which sets the environment.
"""

import os
import re
import tempfile
from pathlib import Path

import jupytext
import nbclient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "notebooks"


def publish(source, work):
    notebook = jupytext.read(source)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(work)}}).execute()
    for cell in notebook.cells:  # log lines and progress bars are not what a reader looks for
        cell.outputs = [output for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
    name = f"{source.stem}_page"
    text, made = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name, "output_files_dir": "."})
    text = re.sub(r"<style.*?</style>\n?", "", text, flags=re.DOTALL).replace(str(work), "build/notebooks/work")
    head = f"<!-- Made from notebooks/{source.name} by ./run notebooks publish. -->\n\n"
    (PAGES / f"{name}.md").write_text(head + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n")
    for file, content in made.get("outputs", {}).items():
        (PAGES / Path(file).name).write_bytes(content)


def main():
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as work:
        os.environ["SAPWOOD_WORK"] = work
        for source in sorted((ROOT / "notebooks").glob("[0-9]*.py")):
            print(source.name, flush=True)
            publish(source, work)


if __name__ == "__main__":
    main()
