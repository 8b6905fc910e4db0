"""A node's state as data, for its local commands."""

from collections.abc import Callable
from typing import Any

from eraft._impl import resp
from eraft.metaserver.parts import BucketRange, Group
from eraft.metaserver.table import ConfigTable
from eraft.node import local
from eraft.node.session import Session
from eraft.shardkv import admission
from eraft.shardkv.router import Router
from eraft.shardkv.specs import Kind
from eraft.types import BUCKETS, NodeAddress, ReplicaAddress

WALL_MS = 1_700_000_000_123
LAST = BUCKETS - 1

Do = Callable[..., Any]
"""Executes a command, given as its arguments or as one string split at blanks."""


def two_nodes() -> ConfigTable:
    """One group, which owns everything, on nodes 1 and 2."""
    return ConfigTable(
        version=3,
        opened=True,
        next_replica_id=10,
        buckets=(BucketRange(0, LAST, 1),),
        groups={1: Group.founded(1, (ReplicaAddress(1, 1, "a"), ReplicaAddress(2, 2, "b")))},
        nodes={
            1: NodeAddress(1, "a", "127.0.0.1:7001", "127.0.0.1:17001", ""),
            2: NodeAddress(2, "b", "127.0.0.1:7002", "127.0.0.1:17002", ""),
        },
    )


class Context:
    """A node's state as data, behind `handler.LocalContext`."""

    def __init__(self, node_id: int = 1, table: ConfigTable | None = None) -> None:
        self.cluster_id = "demo"
        self.router = Router(node_id)
        self.now_s = 1000.5
        self.wall_ms = WALL_MS
        self.started_s = 900.0
        self.run_id = "c" * 40
        self.pid = 4242
        self.port = 7001
        self.settings = {b"save": b"", b"appendonly": b"yes", b"maxmemory": b"0"}
        self.counters = {"total_connections_received": 7}
        self.command_calls = {b"GET": 5, b"CLIENT|ID": 2}
        self.keyspace = (10, 3)
        self.sessions: dict[int, Session] = {}
        self.killed: list[int] = []
        self.router.set_table(table or two_nodes())
        self.router.note_lead(1, 1, 2, 1000.0)

    def connect(self, addr: str = "10.0.0.9:5000") -> Session:
        session = Session(id=len(self.sessions) + 1, addr=addr, laddr="l:1", created_s=990.0)
        self.sessions[session.id] = session
        return session

    def kill(self, session: Session) -> None:
        self.killed.append(session.id)

    def reset_stats(self) -> None:
        self.counters.clear()
        self.command_calls.clear()


def execute(context: Context, session: Session, line: str | list[bytes]) -> Any:
    args = line.encode().split() if isinstance(line, str) else line
    try:
        spec = admission.lookup(args)
    except admission.CommandError as refusal:
        return refusal.reply
    assert spec.kind is Kind.LOCAL
    reply = local.execute(context, session, args)
    if reply is not local.SILENT:  # whatever is answered can be sent
        assert resp.encode([reply], 0, 1, 2)
        assert resp.encode([reply], 0, 1, 3)
    return reply
