"""What the parts of the package share about files: whole or not at all, and where children find this package."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Written aside and renamed, so that nobody reads half of it, whoever else writes the same."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def python_path() -> str:
    """PYTHONPATH for children: this very package comes first. Not resolved, as in a build folder its files are links into the sources."""
    folders = [str(Path(__file__).absolute().parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if folder))
