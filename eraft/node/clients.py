"""The subcommands of CLIENT: connections, seen and closed by each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from eraft._impl import resp
from eraft.node.handler import Args, Handler, LocalContext
from eraft.node.session import ReplyMode, Session
from eraft.node.words import SILENT, error
from eraft.shardkv.syntax import SYNTAX_ERROR, parse_int

DEFAULT_USER: Final = b"default"
"""The only user; there are no passwords."""

_TYPES: Final = frozenset((b"normal", b"slave", b"replica", b"pubsub", b"master"))
_NORMAL: Final = b"normal"
"""All connections are of this type; clients may ask for the others."""


def set_name(session: Session, name: bytes) -> resp.ReplyError | None:
    """Name a connection (b"" takes its name away), or say why not."""
    if not _is_word(name):
        return resp.ReplyError(
            b"ERR Client names cannot contain spaces, newlines or special characters."
        )
    session.name = name
    return None


def _is_word(text: bytes) -> bool:
    return all(ord("!") <= char <= ord("~") for char in text)


def _id(_context: LocalContext, session: Session, _args: Args) -> Any:
    return session.id


def _setname(_context: LocalContext, session: Session, args: Args) -> Any:
    return set_name(session, args[2]) or resp.OK


def _getname(_context: LocalContext, session: Session, _args: Args) -> Any:
    return session.name or None


def _setinfo(_context: LocalContext, session: Session, args: Args) -> Any:
    option, value = args[2].lower(), args[3]
    if option not in (b"lib-name", b"lib-ver"):
        return error(b"Unrecognized option '%b'", args[2])
    if not _is_word(value):
        return error(b"%b cannot contain spaces, newlines or special characters.", option)
    if option == b"lib-name":
        session.lib_name = value
    else:
        session.lib_ver = value
    return resp.OK


def _reply(_context: LocalContext, session: Session, args: Args) -> Any:
    mode = args[2].lower()
    if mode == b"on":
        session.reply_mode = ReplyMode.ON
        return resp.OK
    if mode == b"off":
        session.reply_mode = ReplyMode.OFF
    elif mode == b"skip":
        if session.reply_mode is not ReplyMode.OFF:
            session.reply_mode = ReplyMode.SKIP
    else:
        return SYNTAX_ERROR
    return SILENT


def _info(context: LocalContext, session: Session, _args: Args) -> Any:
    return resp.Verbatim(_line(session, context.now_s))


def _list(context: LocalContext, _session: Session, args: Args) -> Any:
    found: Iterable[Session] = context.sessions.values()
    if len(args) == 4 and args[2].upper() == b"TYPE":
        if args[3].lower() not in _TYPES:
            return error(b"Unknown client type '%b'", args[3])
        if args[3].lower() != _NORMAL:
            found = ()
    elif len(args) > 3 and args[2].upper() == b"ID":
        known = context.sessions
        chosen = []
        for arg in args[3:]:
            number = parse_int(arg)
            if number is None:
                return resp.ReplyError(b"ERR Invalid client ID")
            if number in known:
                chosen.append(known[number])
        found = chosen
    elif len(args) > 2:
        return SYNTAX_ERROR
    return resp.Verbatim(b"".join(_line(session, context.now_s) for session in found))


_NOT_KNOWN = tuple(
    (name, b"0")
    for name in b"qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll omem tot-mem".split()
)
"""Sizes of buffers, which only the shell knows. redis-py 5 fails on a line without them."""


def _line(session: Session, now_s: float) -> bytes:
    flags = b"r" if session.readonly else b"N"
    fields = (
        (b"id", b"%d" % session.id),
        (b"addr", session.addr.encode()),
        (b"laddr", session.laddr.encode()),
        (b"fd", b"-1"),
        (b"name", session.name),
        (b"age", b"%d" % (now_s - session.created_s)),
        (b"idle", b"%d" % (now_s - session.active_s)),
        (b"flags", flags),
        (b"db", b"0"),
        (b"sub", b"0"),
        (b"psub", b"0"),
        (b"ssub", b"0"),
        (b"multi", b"-1"),
        *_NOT_KNOWN,
        (b"events", b"r"),
        (b"cmd", session.last_command.lower() or b"NULL"),
        (b"user", DEFAULT_USER),
        (b"redir", b"-1"),
        (b"resp", b"%d" % session.protocol),
        (b"lib-name", session.lib_name),
        (b"lib-ver", session.lib_ver),
    )
    return b" ".join(b"%b=%b" % field for field in fields) + b"\n"


# CLIENT KILL


_Test: TypeAlias = Callable[[Session], bool]


def _kill(context: LocalContext, session: Session, args: Args) -> Any:
    if len(args) == 3:
        address = _text(args[2])
        killed = _kill_all(context, session, [lambda other: other.addr == address])
        return resp.OK if killed else resp.ReplyError(b"ERR No such client")
    tests: list[_Test] = []
    skip_me = True
    for place in range(2, len(args), 2):
        if place + 1 == len(args):
            return SYNTAX_ERROR
        option, value = args[place].upper(), args[place + 1]
        if option == b"SKIPME" and value.lower() in (b"yes", b"no"):
            skip_me = value.lower() == b"yes"
            continue
        test = _kill_test(option, value)
        if isinstance(test, resp.ReplyError):
            return test
        tests.append(test)
    if skip_me:
        tests.append(lambda other: other is not session)
    return _kill_all(context, session, tests)


def _kill_test(option: bytes, value: bytes) -> _Test | resp.ReplyError:
    """Whom an option of CLIENT KILL selects."""
    text = _text(value)
    if option == b"ID":
        number = parse_int(value)
        if number is None or number < 1:
            return resp.ReplyError(b"ERR client-id should be greater than 0")
        return lambda other: other.id == number
    if option == b"TYPE":
        if value.lower() not in _TYPES:
            return error(b"Unknown client type '%b'", value)
        return lambda other: value.lower() == _NORMAL
    if option == b"USER":
        if value != DEFAULT_USER:
            return error(b"No such user '%b'", value)
        return lambda other: True
    if option == b"ADDR":
        return lambda other: other.addr == text
    if option == b"LADDR":
        return lambda other: other.laddr == text
    return SYNTAX_ERROR


def _kill_all(context: LocalContext, session: Session, tests: list[_Test]) -> int:
    """Close all connections that pass every test; this one once it has its reply."""
    chosen = [other for other in context.sessions.values() if all(test(other) for test in tests)]
    for other in chosen:
        if other is session:
            session.closing = True
        else:
            context.kill(other)
    return len(chosen)


def _text(arg: bytes) -> str:
    return arg.decode("utf-8", "replace")


HANDLERS: Final[Mapping[bytes, Handler]] = {
    b"CLIENT|GETNAME": _getname,
    b"CLIENT|ID": _id,
    b"CLIENT|INFO": _info,
    b"CLIENT|KILL": _kill,
    b"CLIENT|LIST": _list,
    b"CLIENT|REPLY": _reply,
    b"CLIENT|SETINFO": _setinfo,
    b"CLIENT|SETNAME": _setname,
}
