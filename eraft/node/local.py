"""The commands that a node answers by itself: about the connection, the server and the cluster.

`admission.lookup` has found each command and checked its number of arguments
before it comes here. Texts and formats are those of Redis 7.0.15.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eraft import limits
from eraft._impl import hashing, resp
from eraft.node import clients, info, introspect
from eraft.node.handler import Args, Handler, LocalContext
from eraft.node.session import Session
from eraft.node.words import SILENT, error, help_lines, wrong_arity
from eraft.shardkv.cluster import ClusterView
from eraft.shardkv.patterns import compile_pattern
from eraft.shardkv.specs import COMMANDS
from eraft.shardkv.syntax import NOT_AN_INTEGER, SYNTAX_ERROR, parse_int

__all__ = ["HANDLERS", "SILENT", "execute"]


def execute(context: LocalContext, session: Session, args: Args) -> Any:
    """The reply to a local command, or SILENT."""
    name = args[0].upper()
    if len(args) > 1 and COMMANDS[name].subcommands:
        name += b"|" + args[1].upper()
    session.last_command = name
    session.active_s = context.now_s
    return HANDLERS[name](context, session, args)


# The connection


def _ping(_context: LocalContext, _session: Session, args: Args) -> Any:
    if len(args) > 2:
        return wrong_arity(b"PING")
    return args[1] if len(args) == 2 else resp.Simple(b"PONG")


def _echo(_context: LocalContext, _session: Session, args: Args) -> Any:
    return args[1]


def _ok(_context: LocalContext, _session: Session, _args: Args) -> Any:
    return resp.OK


def _quit(_context: LocalContext, session: Session, _args: Args) -> Any:
    session.closing = True
    return resp.OK


def _reset(_context: LocalContext, session: Session, _args: Args) -> Any:
    session.reset()
    return resp.Simple(b"RESET")


def _select(_context: LocalContext, _session: Session, args: Args) -> Any:
    database = parse_int(args[1])
    if database is None:
        return NOT_AN_INTEGER
    if database:
        return resp.ReplyError(b"ERR SELECT is not allowed in cluster mode")
    return resp.OK


def _hello(context: LocalContext, session: Session, args: Args) -> Any:
    version = session.protocol
    if len(args) > 1:
        wanted = parse_int(args[1])
        if wanted is None:
            return resp.ReplyError(b"ERR Protocol version is not an integer or out of range")
        if wanted not in (2, 3):
            return resp.ReplyError(b"NOPROTO unsupported protocol version")
        version = wanted
    refusal = _hello_options(session, args)
    if refusal is not None:
        return refusal
    session.protocol = version
    return {
        b"server": b"redis",
        b"version": info.REDIS_VERSION.encode(),
        b"proto": version,
        b"id": session.id,
        b"mode": b"cluster",
        b"role": _view(context).role.encode(),
        b"modules": [],
    }


def _hello_options(session: Session, args: Args) -> resp.ReplyError | None:
    place = 2
    while place < len(args):
        option, left = args[place].upper(), len(args) - place - 1
        if option == b"AUTH" and left >= 2:
            if args[place + 1] != clients.DEFAULT_USER:  # who needs no password, so any will do
                return resp.ReplyError(
                    b"WRONGPASS invalid username-password pair or user is disabled."
                )
            place += 3
        elif option == b"SETNAME" and left:
            refusal = clients.set_name(session, args[place + 1])
            if refusal is not None:
                return refusal
            place += 2
        else:
            return error(b"Syntax error in HELLO option '%b'", args[place])
    return None


def _readonly(_context: LocalContext, session: Session, _args: Args) -> Any:
    session.readonly = True
    return resp.OK


def _readwrite(_context: LocalContext, session: Session, _args: Args) -> Any:
    session.readonly = False
    return resp.OK


# The server


def _time(context: LocalContext, _session: Session, _args: Args) -> Any:
    seconds, milliseconds = divmod(context.wall_ms, 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]


def _info(context: LocalContext, _session: Session, args: Args) -> Any:
    wanted = [arg.lower().decode("utf-8", "replace") for arg in args[1:]]
    return resp.Verbatim(info.text(context, _view(context).role, wanted))


def _config_get(context: LocalContext, _session: Session, args: Args) -> Any:
    patterns = [arg.lower() for arg in args[2:]]
    if len(patterns) > limits.CONFIG_PATTERNS or any(
        len(pattern) > limits.PATTERN_SIZE_BYTES for pattern in patterns
    ):
        return resp.ReplyError(b"ERR too many patterns, or too long ones")
    settings = context.settings
    found: dict[bytes, bytes] = {}
    for arg, pattern in zip(args[2:], patterns, strict=True):
        if pattern in settings:
            found.setdefault(pattern, arg)  # shown as it was asked for
        else:
            matches = compile_pattern(pattern)
            for name in sorted(settings):
                if matches(name):
                    found.setdefault(name, name)
    return {shown: settings[name] for name, shown in found.items()}


def _config_set(context: LocalContext, _session: Session, args: Args) -> Any:
    """No setting can be changed while the node runs; to set one to what it is does no harm."""
    if len(args) % 2:
        return SYNTAX_ERROR
    seen = set()
    for name, value in zip(args[2::2], args[3::2], strict=True):
        known = context.settings.get(name.lower())
        if known is None:
            return error(b"Unknown option or number of arguments for CONFIG SET - '%b'", name)
        why = b"duplicate parameter" if name.lower() in seen else b"can't set immutable config"
        if name.lower() in seen or value != known:
            text = b"CONFIG SET failed (possibly related to argument '%b') - " + why
            return error(text, name)
        seen.add(name.lower())
    return resp.OK


def _config_resetstat(context: LocalContext, _session: Session, _args: Args) -> Any:
    context.reset_stats()
    return resp.OK


# The cluster


def _view(context: LocalContext) -> ClusterView:
    return ClusterView(context.router, context.cluster_id, context.now_s, context.wall_ms)


def _cluster_slots(context: LocalContext, _session: Session, _args: Args) -> Any:
    return _view(context).slots()


def _cluster_shards(context: LocalContext, _session: Session, _args: Args) -> Any:
    return _view(context).shards()


def _cluster_nodes(context: LocalContext, _session: Session, _args: Args) -> Any:
    return resp.Verbatim(_view(context).nodes())


def _cluster_info(context: LocalContext, _session: Session, _args: Args) -> Any:
    return resp.Verbatim(_view(context).info())


def _cluster_links(context: LocalContext, _session: Session, _args: Args) -> Any:
    return _view(context).links()


def _cluster_myid(context: LocalContext, _session: Session, _args: Args) -> Any:
    return _view(context).name(context.router.node_id).encode()


def _cluster_keyslot(_context: LocalContext, _session: Session, args: Args) -> Any:
    return hashing.bucket_of(args[2])


def _cluster_replicas(context: LocalContext, _session: Session, args: Args) -> Any:
    found = _view(context).replicas(args[2].decode("ascii", "replace").lower())
    return error(b"Unknown node %b", args[2]) if found is None else found


def _help(_context: LocalContext, _session: Session, args: Args) -> Any:
    return help_lines(COMMANDS[args[0].upper()])


HANDLERS: Final[Mapping[bytes, Handler]] = {
    b"ASKING": _ok,
    b"CLIENT|HELP": _help,
    b"CLUSTER|HELP": _help,
    b"CLUSTER|INFO": _cluster_info,
    b"CLUSTER|KEYSLOT": _cluster_keyslot,
    b"CLUSTER|LINKS": _cluster_links,
    b"CLUSTER|MYID": _cluster_myid,
    b"CLUSTER|NODES": _cluster_nodes,
    b"CLUSTER|REPLICAS": _cluster_replicas,
    b"CLUSTER|SHARDS": _cluster_shards,
    b"CLUSTER|SLAVES": _cluster_replicas,
    b"CLUSTER|SLOTS": _cluster_slots,
    b"COMMAND|HELP": _help,
    b"CONFIG|GET": _config_get,
    b"CONFIG|HELP": _help,
    b"CONFIG|RESETSTAT": _config_resetstat,
    b"CONFIG|SET": _config_set,
    b"ECHO": _echo,
    b"HELLO": _hello,
    b"INFO": _info,
    b"PING": _ping,
    b"QUIT": _quit,
    b"READONLY": _readonly,
    b"READWRITE": _readwrite,
    b"RESET": _reset,
    b"SELECT": _select,
    b"TIME": _time,
    **clients.HANDLERS,
    **introspect.HANDLERS,
}
"""By full upper-case name, a subcommand's as `CONTAINER|SUBCOMMAND`."""
