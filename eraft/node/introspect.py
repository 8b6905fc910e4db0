"""COMMAND and its subcommands: what clients learn of the commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from eraft import limits
from eraft._impl import resp
from eraft.node.handler import Args, Handler, LocalContext
from eraft.node.session import Session
from eraft.shardkv.admission import keys_of
from eraft.shardkv.patterns import compile_pattern
from eraft.shardkv.specs import COMMANDS, CommandSpec, Kind
from eraft.shardkv.syntax import SYNTAX_ERROR

# How a command uses its keys, in the words of Redis's key specifications:
# RO reads, RW changes, OW overwrites whatever there was, RM removes.
_KEY_USES: Final = {
    "RO": "EXISTS STRLEN TOUCH TYPE",
    "RW access update variable_flags": "SET",
    "RW access update": "DECR DECRBY GETEX GETSET INCR INCRBY INCRBYFLOAT",
    "RW access delete": "GETDEL",
    "RW insert": "APPEND",
    "OW insert": "MSETNX SETNX",
    "OW update": "MSET PSETEX SETEX",
    "RM delete": "DEL UNLINK",
}
_KEY_USE: Final = {name.encode(): use for use, names in _KEY_USES.items() for name in names.split()}
_READ_USE: Final = "RO access"
_WRITE_USE: Final = "RW update"

_BY_FULL_NAME: Final = {
    spec.name: spec for command in COMMANDS.values() for spec in (command, *command.subcommands)
}


def _simple(words: Iterable[str]) -> list[resp.Simple]:
    return [resp.Simple(word.encode()) for word in words]


def _key_use(spec: CommandSpec) -> list[resp.Simple]:
    default = _READ_USE if spec.kind is Kind.READ else _WRITE_USE
    return _simple(_KEY_USE.get(spec.name, default).split())


def entry(spec: CommandSpec) -> list[Any]:
    """The ten fields by which COMMAND describes a command or a subcommand."""
    return [
        spec.name.lower(),
        spec.arity,
        _simple(spec.flags),
        spec.first_key,
        spec.last_key,
        spec.key_step,
        _simple(f"@{category}" for category in spec.categories),
        [tip.encode() for tip in spec.tips],
        [_key_spec(spec)] if spec.first_key else [],
        [entry(subcommand) for subcommand in spec.subcommands],
    ]


def _key_spec(spec: CommandSpec) -> dict[bytes, Any]:
    last = spec.last_key if spec.last_key < 0 else spec.last_key - spec.first_key
    return {
        b"flags": _key_use(spec),
        b"begin_search": {b"type": b"index", b"spec": {b"index": spec.first_key}},
        b"find_keys": {
            b"type": b"range",
            b"spec": {b"lastkey": last, b"keystep": spec.key_step, b"limit": 0},
        },
    }


def _docs(spec: CommandSpec) -> dict[bytes, Any]:
    docs: dict[bytes, Any] = {
        b"summary": spec.summary.encode(),
        b"since": spec.since.encode(),
        b"group": spec.group.encode(),
    }
    if spec.subcommands:
        docs[b"subcommands"] = {
            subcommand.name.lower(): _docs(subcommand) for subcommand in spec.subcommands
        }
    return docs


_ENTRIES: Final = {name: entry(spec) for name, spec in _BY_FULL_NAME.items()}
_ALL: Final = [_ENTRIES[name] for name in COMMANDS]


def _command(_context: LocalContext, _session: Session, _args: Args) -> Any:
    return _ALL


def _count(_context: LocalContext, _session: Session, _args: Args) -> Any:
    return len(COMMANDS)


def _info(_context: LocalContext, _session: Session, args: Args) -> Any:
    if len(args) == 2:
        return _ALL
    return [_ENTRIES.get(name.upper()) for name in args[2:]]


def _describe(_context: LocalContext, _session: Session, args: Args) -> Any:
    specs = [_BY_FULL_NAME.get(name.upper()) for name in args[2:]]
    chosen: Iterable[CommandSpec | None] = specs if specs else COMMANDS.values()
    return {spec.name.lower(): _docs(spec) for spec in chosen if spec is not None}


def _list(_context: LocalContext, _session: Session, args: Args) -> Any:
    if len(args) == 2:
        return [name.lower() for name in COMMANDS]
    if len(args) != 5 or args[2].upper() != b"FILTERBY":
        return SYNTAX_ERROR
    kind, value = args[3].upper(), args[4].lower()
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        category = value.decode("ascii", "replace")
        chosen = [spec for spec in _BY_FULL_NAME.values() if category in spec.categories]
    elif kind == b"PATTERN":
        if len(value) > limits.PATTERN_SIZE_BYTES:
            return SYNTAX_ERROR
        matches = compile_pattern(value)
        chosen = [spec for spec in _BY_FULL_NAME.values() if matches(spec.name.lower())]
    else:
        return SYNTAX_ERROR
    return [spec.name.lower() for spec in chosen]


def _keys(args: Args) -> tuple[CommandSpec, list[bytes]] | resp.ReplyError:
    """The command that `args` are, and its keys."""
    spec = COMMANDS.get(args[0].upper())
    if spec is not None and spec.subcommands and len(args) > 1:
        spec = _BY_FULL_NAME.get(spec.name + b"|" + args[1].upper())
    if spec is None:
        return resp.ReplyError(b"ERR Invalid command specified")
    if not spec.first_key:
        return resp.ReplyError(b"ERR The command has no key arguments")
    if not spec.accepts(len(args)):
        return resp.ReplyError(b"ERR Invalid number of arguments specified for command")
    return spec, keys_of(spec, args)


def _getkeys(_context: LocalContext, _session: Session, args: Args) -> Any:
    found = _keys(args[2:])
    return found if isinstance(found, resp.ReplyError) else found[1]


def _getkeysandflags(_context: LocalContext, _session: Session, args: Args) -> Any:
    found = _keys(args[2:])
    if isinstance(found, resp.ReplyError):
        return found
    spec, keys = found
    return [[key, _key_use(spec)] for key in keys]


HANDLERS: Final[Mapping[bytes, Handler]] = {
    b"COMMAND": _command,
    b"COMMAND|COUNT": _count,
    b"COMMAND|DOCS": _describe,
    b"COMMAND|GETKEYS": _getkeys,
    b"COMMAND|GETKEYSANDFLAGS": _getkeysandflags,
    b"COMMAND|INFO": _info,
    b"COMMAND|LIST": _list,
}
