"""`sapwood tune`: a search for hyperparameters from the command line.

    python -m sapwood._tune search.yaml [OPTIONS]
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import _core


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sapwood tune", description="Searches for the best hyperparameters.")
    parser.add_argument("file", nargs="?", help="the search, as YAML")
    for name, text, _, _ in _core.stage_options("tune"):
        if name not in ("spark", "final"):
            parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--final", choices=["yes", "no"])
    parser.add_argument("--spark", nargs="?", const="true", default="false", choices=["true", "false"])
    parser.add_argument("--threads", help="of no effect here")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


def _number(name: str, text: str | None, kind: Any) -> Any:
    from .tuning.search import SearchError

    try:
        return None if text is None else kind(text)
    except ValueError:
        raise SearchError(f"tune: --{name} should be a {'whole ' * (kind is int)}number, but is {text!r}") from None


def _print(result: dict[str, Any]) -> None:
    best = result["best"]
    print(f"{result['trials']} trials ({result['pruned']} pruned, {result['failed']} failed), {result['folds']} folds: "
          f"best {result['metric']} {best['value']:.5g} ± {best['spread']:.2g} in trial {best['trial']}")  # fmt: skip
    for name, value in best["parameters"].items():
        print(f"  {name:24} {value:g}" if isinstance(value, float) else f"  {name:24} {value}")
    if result.get("test"):
        print(f"trained on all training events: accuracy {result['test']['accuracy']:.4f} on {result['test']['events']:,} test events")
    print(f"search: {result['out']}/report.html")


def run(arguments: list[str], quiet: bool = False) -> dict[str, Any]:
    """What the arguments ask for; also for the stage of a pipeline."""
    from .tuning.conduct import show, tune
    from .tuning.search import SearchError

    given = _parser().parse_args(arguments)
    file = given.search or given.file
    if file is None or (given.search and given.file):
        raise SearchError("tune needs the search, as one YAML file")
    kinds = {"trials": int, "epochs": int, "folds": int, "seed": int, "fraction": float}
    options = {name: _number(name, getattr(given, name), kind) for name, kind in kinds.items()}
    spark = None
    if given.spark == "true":
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.appName("sapwood tune").getOrCreate()
    final = None if given.final is None else given.final == "yes"
    result = tune(file, out=given.out, spark=spark, workers=_number("workers", given.workers, int), data=given.data, final=final,
                  progress=None if given.quiet or quiet else show, **options)  # fmt: skip
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        from .tuning.conduct import rank

        if rank()[0] == 0:
            _print(result)
    return result


def main() -> int:
    try:
        from .tuning.search import SearchError

        run(sys.argv[1:])
    except ModuleNotFoundError as error:
        print(f"sapwood tune: the Python package {error.name} is not installed: pip install 'sapwood[tune]'", file=sys.stderr)
        return 1
    except (SearchError, _core.Error) as error:
        print(f"sapwood: {error}", file=sys.stderr)
        return 2 if isinstance(error, SearchError) else 1
    except OSError as error:
        print(f"sapwood: {error.filename or 'tune'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sapwood tune: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
