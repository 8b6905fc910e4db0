"""What config tables and the differences between them are made of, and its JSON form.

A reader checks what it reads completely: ProtocolError says what is wrong and where.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import orjson

from eraft import limits
from eraft.errors import ProtocolError
from eraft.metaserver import schema
from eraft.types import BUCKETS, NodeAddress, ReplicaAddress

UNOWNED = 0
"""The gid of a bucket that no group owns: the metaserver's, which never owns any."""

_V = TypeVar("_V")


class BucketRange(NamedTuple):
    """The buckets from `start` to `end`, both included, belong to group `gid`."""

    start: int
    end: int
    gid: int


@dataclass(slots=True, frozen=True)
class Group:
    """A group's share of the buckets relative to the others, and the members that are wanted.

    What its members are is in the group's own configuration. Its leader
    brings that to what is wanted here and reports, so that `joining` and
    `leaving` tell how far it is; without either the group is as wanted.
    """

    weight: int
    replicas: tuple[ReplicaAddress, ...]
    """The wanted members, at most one on each node."""
    founders: tuple[int, ...]
    """The replica ids of the first configuration, for good: a replica of these starts with
    all of them as voters, any other one without members, to wait for its first snapshot."""
    joining: tuple[int, ...] = ()
    """Of `replicas` those that the leader has not reported as voters yet."""
    leaving: tuple[ReplicaAddress, ...] = ()
    """Not wanted any more, but perhaps still members: kept until the leader reports that
    they are out, and then forgotten. A replica that no table names is destroyed."""

    @staticmethod
    def founded(weight: int, replicas: tuple[ReplicaAddress, ...]) -> "Group":
        """A group that begins with these members."""
        return Group(weight, replicas, tuple(replica.replica_id for replica in replicas))

    @property
    def node_ids(self) -> tuple[int, ...]:
        """The nodes of its members, each once; first those that stay, last those that join."""
        joining, leaving = self.joining, self.leaving
        settled = [it for it in self.replicas if it.replica_id not in joining]
        fresh = [it for it in self.replicas if it.replica_id in joining]
        return tuple(dict.fromkeys(it.node_id for it in (*settled, *leaving, *fresh)))

    @property
    def members(self) -> tuple[ReplicaAddress, ...]:
        """Everybody who may be a member: the wanted replicas, then the leaving ones."""
        return self.replicas + self.leaving

    @property
    def changing(self) -> bool:
        """Whether its members are not known to be as wanted."""
        return bool(self.joining or self.leaving)


_GroupT = TypeVar("_GroupT", bound=Group | None)
_NodeT = TypeVar("_NodeT", bound=NodeAddress | None)


@dataclass(slots=True, frozen=True)
class Form(Generic[_GroupT, _NodeT]):
    """The fields of a config table, and of a difference between two, and their JSON form."""

    version: int = 0
    opened: bool = False
    next_replica_id: int = 1
    buckets: tuple[BucketRange, ...] = ()
    groups: Mapping[int, _GroupT] = field(default_factory=dict)
    nodes: Mapping[int, _NodeT] = field(default_factory=dict)
    removed_nodes: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as META QUERY shows it."""
        return {
            "version": self.version,
            "opened": self.opened,
            "next_replica_id": self.next_replica_id,
            "nodes": {str(key): _node_json(node) for key, node in sorted(self.nodes.items())},
            "groups": {str(key): _group_json(group) for key, group in sorted(self.groups.items())},
            "buckets": [list(item) for item in self.buckets],
            "removed_nodes": list(self.removed_nodes),
        }

    def to_json(self) -> bytes:
        """`to_dict` as bytes; equal values give equal bytes."""
        return orjson.dumps(self.to_dict())


def read_form(value: object, what: str, least_version: int, gone: bool) -> dict[str, Any]:
    """The fields of a `Form` from its JSON form. With `gone` a group or node may be null."""
    found = schema.record(value, what, [it.name for it in fields(Form)])
    read_group = _or_gone(_read_group) if gone else _read_group
    read_node = _or_gone(_read_node) if gone else _read_node
    return {
        "version": schema.integer(found["version"], f"{what}: version", least_version, schema.U63),
        "opened": schema.boolean(found["opened"], f"{what}: opened"),
        "next_replica_id": schema.integer(
            found["next_replica_id"], "next_replica_id", 1, schema.U63
        ),
        "buckets": _read_ranges(found["buckets"]),
        "groups": _read_map(found["groups"], "groups", limits.TABLE_GROUPS, 0, read_group),
        "nodes": _read_map(found["nodes"], "nodes", limits.TABLE_NODES, 1, read_node),
        "removed_nodes": _read_removed(found["removed_nodes"]),
    }


def runs(owners: Iterable[int]) -> Iterable[BucketRange]:
    """The ranges of buckets with one owner, given that of each bucket."""
    start = 0
    for gid, run in groupby(owners):
        end = start + sum(1 for _ in run)
        yield BucketRange(start, end - 1, gid)
        start = end


def _node_json(node: NodeAddress | None) -> dict[str, str] | None:
    if node is None:
        return None
    return {
        "store_id": node.store_id,
        "client": node.client,
        "peer": node.peer,
        "admin": node.admin,
    }


def _group_json(group: Group | None) -> dict[str, Any] | None:
    if group is None:
        return None
    return {
        "weight": group.weight,
        "replicas": [_replica_json(replica) for replica in group.replicas],
        "founders": list(group.founders),
        "joining": list(group.joining),
        "leaving": [_replica_json(replica) for replica in group.leaving],
    }


def _replica_json(replica: ReplicaAddress) -> dict[str, Any]:
    return {
        "replica_id": replica.replica_id,
        "node_id": replica.node_id,
        "store_id": replica.store_id,
    }


_Reader: TypeAlias = Callable[[int, object, str], _V]
"""Makes a value of its id, its JSON form and where that stands."""


def _read_map(value: object, name: str, most: int, least: int, read: _Reader[_V]) -> dict[int, _V]:
    """An object whose field names are ids of at least `least`."""
    entries = schema.mapping(value, name)
    if len(entries) > most:
        raise ProtocolError(f"{name}: {len(entries)} of them, at most {most}")
    found: dict[int, _V] = {}
    for text, item in entries.items():
        key = schema.number_key(text, f"{name}: id", least, schema.U32)
        found[key] = read(key, item, f"{name}: {key}")
    return found


def _or_gone(read: _Reader[_V]) -> _Reader[_V | None]:
    return lambda key, value, where: None if value is None else read(key, value, where)


def _read_node(node_id: int, value: object, where: str) -> NodeAddress:
    found = schema.record(value, where, ("store_id", "client", "peer", "admin"))
    return NodeAddress(
        node_id=node_id,
        store_id=schema.name(found["store_id"], f"{where}: store_id"),
        client=schema.address(found["client"], f"{where}: client", optional=True),
        peer=schema.address(found["peer"], f"{where}: peer"),
        admin=schema.address(found["admin"], f"{where}: admin", optional=True),
    )


def _read_group(_gid: int, value: object, where: str) -> Group:
    found = schema.record(value, where, ("weight", "replicas", "founders", "joining", "leaving"))
    replicas = _read_replicas(found["replicas"], f"{where}: replicas", limits.GROUP_REPLICAS)
    if not replicas:
        raise ProtocolError(f"{where}: no replicas")
    return Group(
        weight=schema.integer(found["weight"], f"{where}: weight", 1, limits.GROUP_WEIGHT),
        replicas=replicas,
        founders=_read_ids(found["founders"], f"{where}: founders"),
        joining=_read_ids(found["joining"], f"{where}: joining"),
        leaving=_read_replicas(found["leaving"], f"{where}: leaving", limits.GROUP_LEAVING),
    )


def _read_replicas(value: object, where: str, most: int) -> tuple[ReplicaAddress, ...]:
    return tuple(_read_replica(item, where) for item in schema.sequence(value, where, most))


def _read_ids(value: object, where: str) -> tuple[int, ...]:
    ids = schema.sequence(value, where, limits.GROUP_REPLICAS)
    return tuple(schema.integer(item, f"{where}: id", 1, schema.U63) for item in ids)


def _read_replica(value: object, where: str) -> ReplicaAddress:
    found = schema.record(value, where, ("replica_id", "node_id", "store_id"))
    return ReplicaAddress(
        replica_id=schema.integer(found["replica_id"], f"{where}: replica_id", 1, schema.U63),
        node_id=schema.integer(found["node_id"], f"{where}: node_id", 1, schema.U32),
        store_id=schema.name(found["store_id"], f"{where}: store_id"),
    )


def _read_removed(value: object) -> tuple[int, ...]:
    found: list[int] = []
    for item in schema.sequence(value, "removed_nodes", limits.TABLE_REMOVED_NODES):
        least = found[-1] + 1 if found else 1
        found.append(schema.integer(item, "removed_nodes: id", least, schema.U32))
    return tuple(found)


def _read_ranges(value: object) -> tuple[BucketRange, ...]:
    """Ranges in order, apart, and merged where two neighbours are of one group."""
    found: list[BucketRange] = []
    for item in schema.sequence(value, "buckets", BUCKETS):
        parts = schema.sequence(item, "buckets: range", 3)
        if len(parts) != 3:
            raise ProtocolError("buckets: a range must be [start, end, gid]")
        least = found[-1].end + 1 if found else 0
        start = schema.integer(parts[0], "buckets: start", least, BUCKETS - 1)
        end = schema.integer(parts[1], "buckets: end", start, BUCKETS - 1)
        gid = schema.integer(parts[2], "buckets: gid", 0, schema.U32)
        if found and least == start and found[-1].gid == gid:
            raise ProtocolError(f"buckets: two neighbouring ranges of group {gid} at {start}")
        found.append(BucketRange(start, end, gid))
    return tuple(found)
