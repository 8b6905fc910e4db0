"""The config table: who owns which bucket, who is in which group, and where nodes are.

A table is an immutable value with a version; every change makes the next
version (see `diff`). It has a JSON form, and what is read from that is checked
completely: whatever `from_json` returns keeps the rules that `check` states.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from eraft import limits
from eraft.errors import ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.parts import UNOWNED, BucketRange, Form, Group, read_form, runs
from eraft.types import BUCKETS, METASERVER_GID, NodeAddress, ReplicaAddress


@dataclass(slots=True, frozen=True)
class ConfigTable(Form[Group, NodeAddress]):
    """One version of the config table.

    `buckets` holds the owned ranges only, sorted, neighbours of one group
    merged, so equal assignments are equal values. `next_replica_id` is what
    the next new replica of any group gets: an id is never issued twice in a
    cluster. Nor is the id of a node that was removed: `removed_nodes`, sorted.
    `groups` and `nodes` must not be changed.
    """

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

    @staticmethod
    def from_dict(value: object) -> "ConfigTable":
        """The table of a parsed JSON form; ProtocolError says what is wrong and where."""
        table = ConfigTable(**read_form(value, "config table", least_version=0, gone=False))
        check(table)
        return table

    @staticmethod
    def from_json(body: bytes | bytearray | memoryview) -> "ConfigTable":
        """`from_dict` of JSON text."""
        return ConfigTable.from_dict(schema.document(body, "config table"))


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


def _merged(owners: Iterable[int]) -> tuple[BucketRange, ...]:
    return tuple(item for item in runs(owners) if item.gid != UNOWNED)
