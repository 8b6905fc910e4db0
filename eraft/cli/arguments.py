"""How the commands are put together: one parser, help with examples, errors as exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from eraft.errors import EraftError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

Run = Callable[[argparse.Namespace], int]


class CommandFailed(EraftError):
    """The command was understood, but what it was to do did not work: exit status 1."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the texts, and shows commands without their inner grouping."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def add_command(
    commands: Commands, name: str, run: Run | None, summary: str, text: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """A subcommand; `run` gets its arguments and returns the exit status."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=(text or summary).strip("\n"),
        epilog="examples:\n" + examples.strip("\n") if examples else None,
        formatter_class=_Formatter,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds between 0 and 86400")
    return number
