"""The config table: who owns which bucket, who is in which group, and where nodes are.

A table is an immutable value with a version; every change makes the next
version. `Diff` is the change between two versions. Both have a JSON form,
and what is read from JSON is checked completely: whatever `from_json`
returns keeps the rules that `check` states.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias, TypeVar

import orjson

from eraft import limits
from eraft.errors import InvariantViolation, ProtocolError
from eraft.metaserver import schema
from eraft.types import BUCKETS, METASERVER_GID, NodeAddress, ReplicaAddress

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


@dataclass(slots=True, frozen=True)
class ConfigTable:
    """One version of the config table.

    `buckets` holds the owned ranges only, sorted, neighbours of one group
    merged, so equal assignments are equal values. `next_replica_id` is what
    the next new replica of any group gets: an id is never issued twice in a
    cluster. Nor is the id of a node that was removed: `removed_nodes`, sorted.
    `groups` and `nodes` must not be changed.
    """

    version: int = 0
    opened: bool = False
    next_replica_id: int = 1
    buckets: tuple[BucketRange, ...] = ()
    groups: Mapping[int, Group] = field(default_factory=dict)
    nodes: Mapping[int, NodeAddress] = field(default_factory=dict)
    removed_nodes: tuple[int, ...] = ()

    def owner(self, bucket: int) -> int:
        """The gid of the group that is to own `bucket`, or UNOWNED."""
        place = bisect_right(self.buckets, (bucket, BUCKETS)) - 1
        if place < 0:
            return UNOWNED
        found = self.buckets[place]
        return found.gid if bucket <= found.end else UNOWNED

    def ranges(self, gid: int | None = None) -> tuple[BucketRange, ...]:
        """The owned ranges in the order of their buckets, of one group if `gid` is given."""
        if gid is None:
            return self.buckets
        return tuple(item for item in self.buckets if item.gid == gid)

    def bucket_count(self, gid: int) -> int:
        """How many buckets the group owns."""
        return sum(end - start + 1 for start, end, owner in self.buckets if owner == gid)

    def hosted(self, node_id: int, store_id: str) -> list[tuple[int, ReplicaAddress]]:
        """The (gid, replica) pairs that are wanted on this node's store, by gid."""
        return [
            (gid, replica)
            for gid, group in sorted(self.groups.items())
            for replica in group.replicas
            if replica.node_id == node_id and replica.store_id == store_id
        ]

    def removed(self, gid: int, replica_id: int) -> bool:
        """Whether this replica was issued and is gone for good, and so has to be destroyed.

        A replica that a newer table has issued is unknown here, not removed.
        """
        group = self.groups.get(gid)
        members = group.members if group is not None else ()
        named = any(member.replica_id == replica_id for member in members)
        return not named and replica_id < self.next_replica_id

    def with_owners(self, owners: Sequence[int]) -> "ConfigTable":
        """The same table with these owners, one gid (or UNOWNED) per bucket."""
        return replace(self, buckets=_merged(owners))

    def owners(self) -> list[int]:
        """The owner of every bucket, UNOWNED included."""
        found = [UNOWNED] * BUCKETS
        for start, end, gid in self.buckets:
            found[start : end + 1] = [gid] * (end - start + 1)
        return found

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
        """`to_dict` as bytes; equal tables give equal bytes."""
        return orjson.dumps(self.to_dict())

    @staticmethod
    def from_dict(value: object) -> "ConfigTable":
        """The table of a parsed JSON form; ProtocolError says what is wrong and where."""
        found = schema.record(value, "config table", _TABLE_FIELDS)
        table = ConfigTable(
            version=schema.integer(found["version"], "config table: version", 0, schema.U63),
            opened=schema.boolean(found["opened"], "config table: opened"),
            next_replica_id=_next_replica_id(found["next_replica_id"]),
            buckets=_read_ranges(found["buckets"]),
            groups=_read_map(found["groups"], "groups", limits.TABLE_GROUPS, 0, _read_group),
            nodes=_read_map(found["nodes"], "nodes", limits.TABLE_NODES, 1, _read_node),
            removed_nodes=_read_removed(found["removed_nodes"]),
        )
        check(table)
        return table

    @staticmethod
    def from_json(body: bytes | bytearray | memoryview) -> "ConfigTable":
        """`from_dict` of JSON text."""
        return ConfigTable.from_dict(schema.document(body, "config table"))


@dataclass(slots=True, frozen=True)
class Diff:
    """What makes `version` of the table out of the version before.

    Of nodes and groups only the changed ones are named, None for one that is
    gone; of buckets only the changed ranges, UNOWNED for those that lost
    their owner; of the removed nodes only the new ones.
    """

    version: int
    opened: bool
    next_replica_id: int
    buckets: tuple[BucketRange, ...] = ()
    groups: Mapping[int, Group | None] = field(default_factory=dict)
    nodes: Mapping[int, NodeAddress | None] = field(default_factory=dict)
    removed_nodes: tuple[int, ...] = ()

    @staticmethod
    def between(old: ConfigTable, new: ConfigTable) -> "Diff":
        """The difference such that `between(old, new).apply(old) == new`."""
        if new.version != old.version + 1:
            raise InvariantViolation(
                f"config table: each version follows the one before: {old.version}, {new.version}"
            )
        return Diff(
            version=new.version,
            opened=new.opened,
            next_replica_id=new.next_replica_id,
            buckets=_changed_ranges(old, new),
            groups=_changed(old.groups, new.groups),
            nodes=_changed(old.nodes, new.nodes),
            removed_nodes=tuple(sorted({*new.removed_nodes} - {*old.removed_nodes})),
        )

    def apply(self, table: ConfigTable) -> ConfigTable:
        """The table after this change; ProtocolError if it does not fit `table`."""
        if table.version != self.version - 1:
            raise ProtocolError(
                f"difference to version {self.version}: does not apply to version {table.version}"
            )
        changed = ConfigTable(
            version=self.version,
            opened=self.opened,
            next_replica_id=self.next_replica_id,
            buckets=_overlaid(table.buckets, self.buckets),
            groups=_patched(table.groups, self.groups),
            nodes=_patched(table.nodes, self.nodes),
            removed_nodes=tuple(sorted({*table.removed_nodes, *self.removed_nodes})),
        )
        check(changed)
        return changed

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "version": self.version,
            "opened": self.opened,
            "next_replica_id": self.next_replica_id,
            "nodes": {
                str(key): node and _node_json(node) for key, node in sorted(self.nodes.items())
            },
            "groups": {
                str(key): group and _group_json(group) for key, group in sorted(self.groups.items())
            },
            "buckets": [list(item) for item in self.buckets],
            "removed_nodes": list(self.removed_nodes),
        }

    def to_json(self) -> bytes:
        """`to_dict` as bytes."""
        return orjson.dumps(self.to_dict())

    @staticmethod
    def from_dict(value: object) -> "Diff":
        """The difference of a parsed JSON form; ProtocolError says what is wrong and where."""
        found = schema.record(value, "difference", _TABLE_FIELDS)
        return Diff(
            version=schema.integer(found["version"], "difference: version", 1, schema.U63),
            opened=schema.boolean(found["opened"], "difference: opened"),
            next_replica_id=_next_replica_id(found["next_replica_id"]),
            buckets=_read_ranges(found["buckets"]),
            groups=_read_map(
                found["groups"], "groups", limits.TABLE_GROUPS, 0, _or_gone(_read_group)
            ),
            nodes=_read_map(found["nodes"], "nodes", limits.TABLE_NODES, 1, _or_gone(_read_node)),
            removed_nodes=_read_removed(found["removed_nodes"]),
        )

    @staticmethod
    def from_json(body: bytes | bytearray | memoryview) -> "Diff":
        """`from_dict` of JSON text."""
        return Diff.from_dict(schema.document(body, "difference"))


def check(table: ConfigTable) -> None:
    """Raise ProtocolError unless the parts of `table` fit each other.

    Replica ids are unique in the cluster and below `next_replica_id`, a
    replica stands on a known node and a group wants at most one on each, only
    wanted replicas join, a bucket belongs to a known group other than the
    metaserver, nothing is owned before the cluster is opened, and a removed
    node is unknown.
    """
    if len(table.nodes) > limits.TABLE_NODES or len(table.groups) > limits.TABLE_GROUPS:
        raise ProtocolError("config table: too many nodes or groups")
    if len(table.removed_nodes) > limits.TABLE_REMOVED_NODES:
        raise ProtocolError("config table: too many removed nodes")
    for node_id in table.removed_nodes:
        if node_id in table.nodes:
            raise ProtocolError(f"config table: node {node_id} is removed and known")
    issued: set[int] = set()
    for gid, group in table.groups.items():
        where = f"config table: group {gid}"
        if len({it.node_id for it in group.replicas}) != len(group.replicas):
            raise ProtocolError(f"{where}: two replicas on one node")
        if not {*group.joining} <= {replica.replica_id for replica in group.replicas}:
            raise ProtocolError(f"{where}: a replica is joining that is not wanted")
        for replica in group.members:
            if replica.node_id not in table.nodes:
                raise ProtocolError(f"{where}: a replica on unknown node {replica.node_id}")
            if replica.replica_id in issued or replica.replica_id >= table.next_replica_id:
                raise ProtocolError(f"{where}: replica id {replica.replica_id} was never issued it")
            issued.add(replica.replica_id)
        if not group.founders or max(group.founders) >= table.next_replica_id:
            raise ProtocolError(f"{where}: its founders were never issued")
    for start, end, gid in table.buckets:
        if gid == METASERVER_GID or gid not in table.groups:
            raise ProtocolError(f"config table: buckets {start}-{end} of unknown group {gid}")
    if table.buckets and not table.opened:
        raise ProtocolError("config table: buckets are owned, but it is not opened")


_TABLE_FIELDS = (
    "version",
    "opened",
    "next_replica_id",
    "nodes",
    "groups",
    "buckets",
    "removed_nodes",
)


def _merged(owners: Iterable[int]) -> tuple[BucketRange, ...]:
    return tuple(item for item in _runs(owners) if item.gid != UNOWNED)


def _runs(owners: Iterable[int]) -> Iterable[BucketRange]:
    start = 0
    for gid, run in groupby(owners):
        end = start + sum(1 for _ in run)
        yield BucketRange(start, end - 1, gid)
        start = end


def _overlaid(
    old: tuple[BucketRange, ...], change: tuple[BucketRange, ...]
) -> tuple[BucketRange, ...]:
    """The old ranges where nothing changed, and the changed ones."""
    if not change:
        return old
    pieces = [item for item in change if item.gid != UNOWNED]
    place = 0
    for start, end, gid in old:
        while place < len(change) and change[place].end < start:
            place += 1
        hole = place
        while hole < len(change) and change[hole].start <= end:
            if start < change[hole].start:
                pieces.append(BucketRange(start, change[hole].start - 1, gid))
            start = change[hole].end + 1
            hole += 1
        if start <= end:
            pieces.append(BucketRange(start, end, gid))
    pieces.sort()
    found: list[BucketRange] = []
    for item in pieces:
        if found and found[-1].gid == item.gid and found[-1].end + 1 == item.start:
            found[-1] = BucketRange(found[-1].start, item.end, item.gid)
        else:
            found.append(item)
    return tuple(found)


def _changed_ranges(old: ConfigTable, new: ConfigTable) -> tuple[BucketRange, ...]:
    if old.buckets == new.buckets:
        return ()
    same = -1
    owners = [
        same if before == after else after
        for before, after in zip(old.owners(), new.owners(), strict=True)
    ]
    return tuple(item for item in _runs(owners) if item.gid != same)


def _changed(old: Mapping[int, _V], new: Mapping[int, _V]) -> dict[int, _V | None]:
    return {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _patched(old: Mapping[int, _V], change: Mapping[int, _V | None]) -> Mapping[int, _V]:
    if not change:
        return old
    merged = {**old, **change}
    return {key: value for key, value in sorted(merged.items()) if value is not None}


def _node_json(node: NodeAddress) -> dict[str, str]:
    return {
        "store_id": node.store_id,
        "client": node.client,
        "peer": node.peer,
        "admin": node.admin,
    }


def _group_json(group: Group) -> dict[str, Any]:
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


def _next_replica_id(value: object) -> int:
    return schema.integer(value, "next_replica_id", 1, schema.U63)


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
