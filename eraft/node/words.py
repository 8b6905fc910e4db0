"""Errors and help texts of local commands, in the words of Redis."""

from typing import Any, Final

from eraft._impl import resp
from eraft.shardkv.specs import CommandSpec
from eraft.shardkv.syntax import printable

SILENT: Final[Any] = object()
"""What a command returns that gets no reply at all."""


def error(text: bytes, arg: bytes) -> resp.ReplyError:
    """An ERR whose text has `%b` where a client's argument goes, made printable."""
    return resp.ReplyError(b"ERR " + text % printable(arg))


def wrong_arity(name: bytes) -> resp.ReplyError:
    """The error for a command (`CONTAINER|SUBCOMMAND`) with the wrong number of arguments."""
    return error(b"wrong number of arguments for '%b' command", name.lower())


def help_lines(container: CommandSpec) -> list[resp.Simple]:
    """The reply to the HELP subcommand of a container."""
    lines = [b"%b <subcommand> [<arg> [value] [opt] ...]. Subcommands are:" % container.name]
    for spec in sorted(container.subcommands, key=lambda spec: spec.name.endswith(b"|HELP")):
        lines += [spec.name.partition(b"|")[2], b"    " + spec.summary.encode() + b"."]
    return [resp.Simple(line) for line in lines]
