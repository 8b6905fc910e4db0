"""The cluster as stock clients want to see it: CLUSTER SLOTS, SHARDS, NODES, INFO and the like.

Redis gives each node one role for all its slots, and clients rely on it (some
keep the first role that they see). Here a node may lead one group and follow
in another; it is shown as a master if it is the head of at least one group
that owns buckets, else as a replica, and a master is never listed as a
replica of others.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from eraft.metaserver.parts import BucketRange
from eraft.metaserver.table import ConfigTable
from eraft.shardkv.router import Router
from eraft.types import BUCKETS, split_address

_NO_MASTER = "-"


def node_name(cluster_id: str, node_id: int) -> str:
    """The 40 hexadecimal digits by which clients know a node, always the same for it."""
    return hashlib.sha1(f"{cluster_id}/{node_id}".encode(), usedforsecurity=False).hexdigest()


class ClusterView:
    """What one node knows of the cluster at one moment; made for each request.

    `now_s` is monotonic seconds, `wall_ms` Unix time in milliseconds.
    """

    def __init__(self, router: Router, cluster_id: str, now_s: float, wall_ms: int) -> None:
        self._router = router
        self._table: ConfigTable = router.table
        self._cluster_id = cluster_id
        self._now_s = now_s
        self._wall_ms = wall_ms
        self._owned: dict[int, list[BucketRange]] = {}
        for item in self._table.buckets:
            self._owned.setdefault(item.gid, []).append(item)
        self._addresses = {
            node_id: split_address(node.client)
            for node_id, node in sorted(self._table.nodes.items())
            if node.client
        }
        self._heads = {gid: self._head(gid) for gid in sorted(self._owned)}
        self._masters = set(self._heads.values())

    @property
    def role(self) -> str:
        """`master` or `replica`, of this node."""
        return "master" if self._router.node_id in self._masters else "replica"

    def slots(self) -> list[Any]:
        """CLUSTER SLOTS: each range with its nodes, the head of its group first."""
        found = []
        for start, end, gid in self._table.buckets:
            nodes = self._nodes(gid)
            if nodes:
                found.append([start, end, *(self._endpoint(node_id) for node_id in nodes)])
        return found

    def shards(self) -> list[dict[bytes, Any]]:
        """CLUSTER SHARDS: each group that owns buckets, with its slots and nodes."""
        return [
            {
                b"slots": [bucket for start, end, _ in owned for bucket in (start, end)],
                b"nodes": [self._member(node_id) for node_id in self._nodes(gid)],
            }
            for gid, owned in sorted(self._owned.items())
        ]

    def nodes(self) -> bytes:
        """CLUSTER NODES: one line for each node, with a line for this one in any case."""
        known = sorted({self._router.node_id, *self._addresses})
        return b"".join(self._line(node_id) for node_id in known)

    def replicas(self, name: str) -> list[bytes] | None:
        """CLUSTER REPLICAS: the lines of the replicas of a node; None if no node has this name."""
        for master in sorted({self._router.node_id, *self._addresses}):
            if self.name(master) == name:
                return [
                    self._line(node_id).removesuffix(b"\n")
                    for node_id in self._addresses
                    if node_id not in self._masters and self._master_of(node_id) == master
                ]
        return None

    def links(self) -> list[dict[bytes, Any]]:
        """CLUSTER LINKS: the connections to the nodes that can be reached."""
        return [
            {b"direction": b"to", b"node": self.name(node_id).encode()}
            for node_id in self._addresses
            if node_id != self._router.node_id and self._router.reachable(node_id)
        ]

    def info(self) -> bytes:
        """CLUSTER INFO: `ok` only if every bucket has an owner whose leader is known here."""
        assigned = sum(end - start + 1 for start, end, _ in self._table.buckets)
        led = sum(
            end - start + 1
            for start, end, gid in self._table.buckets
            if self._router.leader(gid, self._now_s)
        )
        fields = {
            "cluster_state": "ok" if led == BUCKETS else "fail",
            "cluster_slots_assigned": assigned,
            "cluster_slots_ok": led,
            "cluster_slots_pfail": assigned - led,
            "cluster_slots_fail": 0,
            "cluster_known_nodes": len({self._router.node_id, *self._addresses}),
            "cluster_size": len(self._masters),
            "cluster_current_epoch": self._table.version,
            "cluster_my_epoch": self._table.version,
        }
        return info_lines(fields)

    def name(self, node_id: int) -> str:
        """The `node_name` of a node of this cluster."""
        return node_name(self._cluster_id, node_id)

    def _head(self, gid: int) -> int:
        """The node that is shown as the master of a group: one that clients can connect to."""
        head = self._router.head(gid)
        if head in self._addresses:
            return head
        node_ids = self._table.groups[gid].node_ids
        return next((node_id for node_id in node_ids if node_id in self._addresses), head)

    def _nodes(self, gid: int) -> list[int]:
        """The nodes to list for a group: its head, then those of its members that are replicas."""
        head = self._heads[gid]
        others = [
            node_id
            for node_id in self._table.groups[gid].node_ids
            if node_id != head and node_id not in self._masters
        ]
        return [node_id for node_id in (head, *others) if node_id in self._addresses]

    def _endpoint(self, node_id: int) -> list[Any]:
        host, port = self._addresses[node_id]
        return [host.encode(), port, self.name(node_id).encode(), {}]

    def _member(self, node_id: int) -> dict[bytes, Any]:
        host, port = self._addresses[node_id]
        return {
            b"id": self.name(node_id).encode(),
            b"port": port,
            b"ip": host.encode(),
            b"endpoint": host.encode(),
            b"role": b"master" if node_id in self._masters else b"replica",
            b"replication-offset": 0,
            b"health": b"online" if self._connected(node_id) else b"failed",
        }

    def _connected(self, node_id: int) -> bool:
        return node_id == self._router.node_id or self._router.reachable(node_id)

    def _line(self, node_id: int) -> bytes:
        host, port = self._addresses.get(node_id, ("", 0))
        node = self._table.nodes.get(node_id)
        peer_port = split_address(node.peer)[1] if node is not None else 0
        connected = self._connected(node_id)
        flags = ["myself"] if node_id == self._router.node_id else []
        master = _NO_MASTER
        if node_id in self._masters:
            flags.append("master")
        else:
            flags.append("slave")
            master_id = self._master_of(node_id)
            master = self.name(master_id) if master_id else _NO_MASTER
        if not connected:
            flags.append("fail?")
        parts = [
            self.name(node_id),
            f"{host}:{port}@{peer_port}",
            ",".join(flags),
            master,
            "0",
            str(self._wall_ms if connected else 0),
            str(self._table.version),
            "connected" if connected else "disconnected",
            *(
                f"{start}-{end}" if end > start else f"{start}"
                for start, end, gid in self._table.buckets
                if self._heads[gid] == node_id
            ),
        ]
        return " ".join(parts).encode() + b"\n"

    def _master_of(self, node_id: int) -> int:
        """The head of the first group with buckets that a replica is in, 0 if there is no master.

        A node in no such group is shown with the first master, because tools
        warn of a replica that has none.
        """
        heads = self._heads
        groups = self._table.groups
        followed = (gid for gid in heads if node_id in groups[gid].node_ids)
        return heads.get(next(followed, next(iter(heads), 0)), 0)


def info_lines(fields: Mapping[str, object]) -> bytes:
    """Fields in the form of INFO: `name:value` and CRLF."""
    return "".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode()
