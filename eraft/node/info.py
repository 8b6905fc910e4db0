"""INFO: facts and figures of a node, in sections as Redis has them and one of eraft's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from eraft import IMPL, __version__
from eraft.node.handler import LocalContext
from eraft.shardkv.cluster import info_lines

REDIS_VERSION: Final = "7.0.15"
"""The version that clients are told: the one whose behaviour is followed."""

_SECONDS_PER_DAY: Final = 86400
_ON_REQUEST: Final = frozenset(("commandstats",))
"""Sections that are shown only when asked for, as in Redis."""

Fields: TypeAlias = Mapping[str, object]


def text(context: LocalContext, role: str, wanted: Iterable[str]) -> bytes:
    """The sections that are `wanted` by lower-case name, or the default ones if none is.

    `role` is this node's, `master` or `replica`.
    """
    names = set(wanted) or {"default"}
    if names & {"all", "everything"}:
        names |= set(_SECTIONS)
    if "default" in names:
        names |= set(_SECTIONS) - _ON_REQUEST
    return b"\r\n".join(
        b"# %b\r\n" % name.capitalize().encode() + info_lines(section(context, role))
        for name, section in _SECTIONS.items()
        if name in names
    )


def _server(context: LocalContext, _role: str) -> Fields:
    uptime_s = int(context.now_s - context.started_s)
    return {
        "redis_version": REDIS_VERSION,
        "redis_mode": "cluster",
        "process_id": context.pid,
        "run_id": context.run_id,
        "tcp_port": context.port,
        "server_time_usec": context.wall_ms * 1000,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // _SECONDS_PER_DAY,
    }


def _clients(context: LocalContext, _role: str) -> Fields:
    return {"connected_clients": len(context.sessions)}


def _persistence(_context: LocalContext, _role: str) -> Fields:
    return {"loading": 0}


def _stats(context: LocalContext, _role: str) -> Fields:
    return {
        "total_commands_processed": sum(context.command_calls.values())
        + context.counters.get("plain_writes", 0),
        **dict(sorted(context.counters.items())),
    }


def _replication(context: LocalContext, role: str) -> Fields:
    router = context.router
    followers = {
        node_id
        for gid, group in router.groups.items()
        if group.serving and gid in router.table.groups
        for node_id in router.table.groups[gid].node_ids
        if node_id != router.node_id and router.reachable(node_id)
    }
    return {
        "role": "master" if role == "master" else "slave",
        "connected_slaves": len(followers),
        "master_repl_offset": 0,
    }


def _commandstats(context: LocalContext, _role: str) -> Fields:
    return {
        f"cmdstat_{name.decode().lower()}": f"calls={calls}"
        for name, calls in sorted(context.command_calls.items())
    }


def _cluster(_context: LocalContext, _role: str) -> Fields:
    return {"cluster_enabled": 1}


def _keyspace(context: LocalContext, _role: str) -> Fields:
    keys, expires = context.keyspace
    return {"db0": f"keys={keys},expires={expires},avg_ttl=0"} if keys else {}


def _eraft(context: LocalContext, _role: str) -> Fields:
    router = context.router
    led = [gid for gid, group in sorted(router.groups.items()) if group.serving]
    return {
        "eraft_version": __version__,
        "impl": IMPL,
        "cluster_id": context.cluster_id,
        "node_id": router.node_id,
        "table_version": router.table.version,
        "groups": len(router.groups),
        "groups_led": len(led),
        "gids_led": ",".join(map(str, led)),
        "buckets_led": sum(router.table.bucket_count(gid) for gid in led),
    }


_SECTIONS: Final[Mapping[str, Callable[[LocalContext, str], Fields]]] = {
    "server": _server,
    "clients": _clients,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "commandstats": _commandstats,
    "cluster": _cluster,
    "keyspace": _keyspace,
    "eraft": _eraft,
}
