"""The META commands of the admin port: their arguments and their help.

The node parses what arrives, the command line shows `HELP`.
"""

from collections.abc import Sequence

from eraft import limits
from eraft.errors import NotApplied, ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.operations import (
    Forget,
    Join,
    Open,
    Operation,
    Query,
    Replicas,
    checked,
)

HELP = {
    "JOIN": (
        "META JOIN gid node_id [node_id ...] [WEIGHT weight]",
        f"make group gid (1 or more) with a replica on each of these 1 to "
        f"{limits.GROUP_REPLICAS} nodes; it gets buckets in proportion to its weight (1)",
    ),
    "REPLICAS": (
        "META REPLICAS gid [ADD node_id ...] [REMOVE node_id ...]",
        "give a group (0: the metaserver) new replicas and take others away; a node in both "
        "lists gets a new replica in place of its old one; the group's leader carries it out",
    ),
    "FORGET": (
        "META FORGET node_id",
        "remove a node without replicas from the table; its node id is never used again",
    ),
    "OPEN": ("META OPEN", "split all buckets between the groups that joined; once"),
    "QUERY": ("META QUERY [version]", "the config table, the newest or that version"),
    "LEAVE": ("META LEAVE gid", "not available yet: remove a group that owns no buckets"),
    "MOVE": ("META MOVE gid bucket [bucket ...]", "not available yet: give buckets to a group"),
}
"""Usage and meaning of each subcommand."""


def parse(args: Sequence[bytes]) -> Operation:
    """The operation that the arguments after META ask for.

    ProtocolError: they are not a META command, and why. NotApplied: the
    command is known, but not available yet.
    """
    if not args:
        raise ProtocolError(f"META needs a subcommand: {', '.join(HELP)}")
    name = args[0].decode("latin-1").upper()
    if name not in HELP:
        known = ", ".join(HELP)
        raise ProtocolError(f"unknown subcommand META {schema.short(name)}: must be of {known}")
    words = args[1:]
    if name in ("LEAVE", "MOVE"):
        raise NotApplied(f"META {name}: not available yet: buckets cannot be moved between groups")
    if name == "JOIN":
        return _join(words)
    if name == "REPLICAS":
        return _replicas(words)
    if name == "FORGET":
        if len(words) != 1:
            raise _usage(name, "needs a node id")
        return Forget(_number(name, "node id", words[0], 1, schema.U32))
    if len(words) > (1 if name == "QUERY" else 0):
        raise _usage(name, "too many arguments")
    if name == "OPEN":
        return Open()
    return Query(_number(name, "version", words[0], 0, schema.U63) if words else None)


def _join(words: Sequence[bytes]) -> Operation:
    weight = 1
    if len(words) >= 2 and words[-2].upper() == b"WEIGHT":
        weight = _number("JOIN", "weight", words[-1], 1, limits.GROUP_WEIGHT)
        words = words[:-2]
    if len(words) < 2:
        raise _usage("JOIN", "needs a gid and at least one node id")
    gid = _number("JOIN", "gid", words[0], 1, schema.U32)
    nodes = tuple(_number("JOIN", "node id", word, 1, schema.U32) for word in words[1:])
    try:
        return checked(Join(gid, nodes, weight))
    except ProtocolError as error:
        raise _usage("JOIN", str(error).removeprefix("join: ")) from error


def _replicas(words: Sequence[bytes]) -> Operation:
    if not words:
        raise _usage("REPLICAS", "needs a gid")
    gid = _number("REPLICAS", "gid", words[0], 0, schema.U32)
    nodes: dict[bytes, list[int]] = {b"ADD": [], b"REMOVE": []}
    current: list[int] | None = None
    for word in words[1:]:
        if word.upper() in nodes:
            current = nodes[word.upper()]
        elif current is None:
            raise _usage(
                "REPLICAS", f"ADD or REMOVE comes before {schema.short(word.decode('latin-1'))}"
            )
        else:
            current.append(_number("REPLICAS", "node id", word, 1, schema.U32))
    try:
        return checked(Replicas(gid, tuple(nodes[b"ADD"]), tuple(nodes[b"REMOVE"])))
    except ProtocolError as error:
        raise _usage("REPLICAS", str(error).removeprefix("replicas: ")) from error


def _number(command: str, name: str, word: bytes, least: int, most: int) -> int:
    text = word.decode("latin-1")
    try:
        return schema.number_key(text, name, least, most)
    except ProtocolError as error:
        raise _usage(command, str(error)) from error


def _usage(command: str, why: str) -> ProtocolError:
    return ProtocolError(f"META {command}: {why}; usage: {HELP[command][0]}")
