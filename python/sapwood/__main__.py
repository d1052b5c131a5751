"""`sapwood`, or `python -m sapwood`: the command line, as installed inside this package."""

import os
import sys
from pathlib import Path


def main() -> None:
    command = Path(__file__).parent / "bin" / "sapwood"
    if not command.exists():
        sys.exit(f"sapwood: {command} is not there: this package was built without the command")
    os.environ.setdefault("SAPWOOD_PYTHON", sys.executable)
    os.execv(command, ["sapwood", *sys.argv[1:]])


if __name__ == "__main__":
    main()
