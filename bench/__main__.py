"""`make bench`: the hot paths, compiled against pure Python, in one table.

The benches themselves are `bench/test_hot_*.py`, run by pytest-benchmark on
both implementations in one process. Each belongs to a group, the hot path,
and says in `extra_info["impl"]` which implementation it ran.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from eraft.cli.status import columns
from eraft.errors import ConfigError

ROOT = Path(__file__).parent.parent
MODULES = ("batch", "commit", "frames", "hashing", "log", "resp", "wal")
PURE, COMPILED = "python", "cython"
TITLES = ("hot path", "pure us/batch", "compiled us/batch", "ratio")


def check_builds() -> None:
    """ConfigError unless both implementations are what they claim to be."""
    for name in MODULES:
        try:
            compiled = importlib.import_module(f"eraft._core.{name}")
            pure = importlib.import_module(f"eraft._pure.{name}")
        except ImportError as error:
            raise ConfigError(f"{error}: there is nothing to compare; run `make build`") from error
        if not str(compiled.__file__).endswith(".so"):
            raise ConfigError(f"eraft._core.{name} is not compiled: {compiled.__file__}")
        if not str(pure.__file__).endswith(".py"):
            raise ConfigError(f"eraft._pure.{name} is not Python: {pure.__file__}")
    if importlib.import_module("eraft._core.log").TRACED:
        raise ConfigError(
            "the compiled modules are built with line tracing, which must not be measured: "
            "build again without ERAFT_TRACE"
        )


def measure(args: Sequence[str]) -> list[dict[str, Any]]:
    """Run the benches; `args` go to pytest."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "figures.json"
        command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), "--benchmark-only", "-q"]
        command += ["--benchmark-quiet", f"--benchmark-json={path}", "--no-header", *args]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{done.stdout}{done.stderr}\nthe benches failed")
        figures: list[dict[str, Any]] = orjson.loads(path.read_bytes())["benchmarks"]
        return figures


def medians_us(figures: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By hot path and implementation: the median time of a batch.

    ConfigError if a bench does not tell its implementation, tells one twice,
    or ran on one only.
    """
    found: dict[str, dict[str, float]] = {}
    for figure in figures:
        path, impl = figure["group"] or figure["name"], figure["extra_info"].get("impl")
        by_impl = found.setdefault(path, {})
        if impl not in (PURE, COMPILED) or impl in by_impl:
            raise ConfigError(f"bench {figure['fullname']}: implementation {impl!r} of {path!r}")
        by_impl[impl] = figure["stats"]["median"] * 1e6
    for path, by_impl in found.items():
        if len(by_impl) != 2:
            raise ConfigError(f"hot path {path!r}: measured on {', '.join(by_impl)} only")
    return found


def table(figures: dict[str, dict[str, float]]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        (
            path,
            f"{by_impl[PURE]:,.1f}",
            f"{by_impl[COMPILED]:,.1f}",
            f"{by_impl[PURE] / by_impl[COMPILED]:.1f}",
        )
        for path, by_impl in sorted(figures.items())
    ]
    return columns(TITLES, rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Arguments that are not known here go to pytest, such as -k log.",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    args, rest = parser.parse_known_args()
    try:
        check_builds()
        figures = medians_us(measure(rest))
    except ConfigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(figures)))
    if args.json:
        Path(args.json).write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
