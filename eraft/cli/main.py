"""The console script `eraft`."""

import argparse
import sys
from collections.abc import Sequence

import eraft
from eraft.cli import arguments
from eraft.errors import ConfigError, EraftError

TEXT = """
A sharded, replicated, linearizable key-value store for stock Redis Cluster clients.

On one machine, to try it:   eraft cluster start --dir DIR
                             redis-cli -c -p PORT
Node by node:                eraft init, eraft serve, then eraft meta join, eraft meta open
What is going on:            eraft status

`eraft COMMAND --help` explains each, with examples. Exit status: 0 done, 1 failed,
2 wrong usage or configuration.
"""


def build_parser() -> argparse.ArgumentParser:
    # Each command imports what it needs; together they are quick to load.
    from eraft.cli import bench, cluster, demo, init, meta, serve, status

    parser = argparse.ArgumentParser(
        prog="eraft",
        description=TEXT.strip("\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"eraft {eraft.__version__} ({eraft.IMPL})"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (init, serve, cluster, status, meta, bench, demo):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = build_parser().parse_args(argv)
    run: arguments.Run = args.run
    try:
        return run(args)
    except ConfigError as error:
        print(f"eraft: {error}", file=sys.stderr)
        return 2
    except (EraftError, OSError) as error:
        print(f"eraft: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eraft: interrupted", file=sys.stderr)
        return 1
