"""A node's settings from a TOML file and from flags; flags win."""

import argparse
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, get_type_hints

from eraft.cli import address
from eraft.errors import ConfigError
from eraft.node.options import NodeOptions

HELP: Final = {
    "data_dir": "the node's data directory, made by `eraft init`",
    "client": "address for Redis clients",
    "peer": "address for the other nodes",
    "admin": "address for `eraft status` and `eraft meta`",
    "advertise_client": "what clients are told, if it is not the bound address",
    "advertise_peer": "what other nodes are told, if it is not the bound address",
    "advertise_admin": "what `eraft status` is told, if it is not the bound address",
    "tick_s": "length of a Raft tick in seconds",
    "election_ticks": "ticks without a leader until an election; drawn from n to 2n",
    "heartbeat_ticks": "ticks between two heartbeats",
    "check_ticks": "ticks between two comparisons of the replicas of a group",
    "balance_interval_s": "how often a node looks whether to hand a group to one that leads fewer",
    "segment_size_bytes": "size of a segment of the write-ahead log",
    "log_tail_bytes": "log entries kept in memory for slow followers",
    "log_retention_bytes": "log kept on disk for followers that were away",
    "free_disk_bytes": "writes are refused while less than this is free",
    "connections": "most client connections at a time",
    "value_size_bytes": "most bytes in a value",
}
KINDS: Final[dict[str, type]] = get_type_hints(NodeOptions)
ADDRESSES: Final = tuple(
    name for name in KINDS if name.split("_")[-1] in ("client", "peer", "admin")
)
BOUND: Final = ("client", "peer", "admin")
MIN_SEGMENT_BYTES: Final = 64 * 1024
EXPECTED: Final = {str: "a string", int: "a whole number", float: "a number"}


def add_flags(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """One flag per setting; a flag that is not given is not in the namespace."""
    for field in fields(NodeOptions):
        if field.name in without:
            continue
        kind = KINDS[field.name]
        default = f" (default {field.default})" if field.default not in ("",) else ""
        if field.name == "data_dir":
            default = ""
        parser.add_argument(
            flag(field.name),
            dest=field.name,
            type=kind,
            default=argparse.SUPPRESS,
            metavar="H:P" if field.name in ADDRESSES else "DIR" if kind is str else "N",
            help=HELP[field.name] + default,
        )


def flag(name: str) -> str:
    """The command line's spelling of a setting."""
    return "--" + name.replace("_", "-")


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    return {name: value for name, value in vars(args).items() if name in KINDS}


def load(path: str | None, flags: Mapping[str, Any]) -> NodeOptions:
    """The node's settings.

    Raises:
        ConfigError: the file cannot be read or is no TOML, has a key that is
            not known or of the wrong type, or a value is out of range; the
            message names the file or the flag.
    """
    values = read_file(path) if path else {}
    named = {name: f"{path}: {name}" for name in values}
    values.update(flags)
    named.update({name: flag(name) for name in flags})
    if not values.get("data_dir"):
        where = f"{path}: data_dir is missing" if path else "--data-dir is missing"
        raise ConfigError(f"{where}: the directory that `eraft init` has formatted")
    options = NodeOptions(**values)
    check(options, named)
    return options


def read_file(path: str) -> dict[str, Any]:
    """The settings in a TOML file, each of a known name and of the right type."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not TOML: {error}") from error
    for name, value in values.items():
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"{path}: unknown key {name!r}{hint}; known keys: {', '.join(KINDS)}")
        values[name] = _typed(path, name, value)
    return values


def _typed(path: str, name: str, value: Any) -> Any:
    kind = KINDS[name]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"{path}: {name} = {value!r} is not {EXPECTED[kind]}; known keys: {', '.join(KINDS)}"
        )
    return value


def check(options: NodeOptions, named: Mapping[str, str]) -> None:
    """Refuse values that a node cannot run with; `named` says where each came from."""
    for name in ADDRESSES:
        text = getattr(options, name)
        if text or name in BOUND:
            address.parse(text, named.get(name, name), port_zero=name in BOUND)
    bound = [getattr(options, name) for name in BOUND]
    for n, text in enumerate(bound):
        if text in bound[:n] and not text.endswith(":0"):
            other = BOUND[bound.index(text)]
            raise ConfigError(f"{named.get(BOUND[n], BOUND[n])}: {text} is the {other} address too")
    for name, kind in KINDS.items():
        value = getattr(options, name)
        if kind is not str and not 0 < value < 2**62:
            raise ConfigError(f"{named.get(name, name)}: {value} is not a positive number")
    if options.election_ticks <= options.heartbeat_ticks:
        raise ConfigError(
            f"{named.get('election_ticks', 'election_ticks')}: {options.election_ticks} is not "
            f"above heartbeat_ticks, {options.heartbeat_ticks}: every heartbeat would be too late"
        )
    if options.segment_size_bytes < MIN_SEGMENT_BYTES:
        raise ConfigError(
            f"{named.get('segment_size_bytes', 'segment_size_bytes')}: "
            f"{options.segment_size_bytes} is below {MIN_SEGMENT_BYTES}"
        )
