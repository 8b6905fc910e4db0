"""What the local commands and STATUS see of a node, and its counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from eraft.node.keycount import KeyCount
from eraft.node.session import Session
from eraft.shardkv.router import Router
from eraft.types import split_address

if TYPE_CHECKING:
    from eraft.node.node import Node


class Context:
    """The node's side of `handler.LocalContext`."""

    def __init__(self, node: Node, pid: int) -> None:
        self._node = node
        self.cluster_id = node.identity.cluster_id
        self.started_s = node.now_s
        self.run_id = f"{node.random.getrandbits(160):040x}"
        self.pid = pid
        self.plain_writes = 0
        """Writes that the parser admitted by itself; which commands they were is not counted."""
        self.plain_gets = 0
        self._key_count = KeyCount(node)
        self._counters: dict[str, int] = {}
        self._calls: dict[bytes, int] = {}

    @property
    def router(self) -> Router:
        """Config table, leaders and local groups."""
        return self._node.router

    @property
    def now_s(self) -> float:
        """Monotonic time in seconds."""
        return self._node.now_s

    @property
    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return self._node.wall_ms

    @property
    def port(self) -> int:
        """The port for clients."""
        return split_address(self._node.address.client)[1]

    @property
    def settings(self) -> Mapping[bytes, bytes]:
        """What CONFIG GET shows: Redis's names for what is so in eraft."""
        host, port = split_address(self._node.address.client)
        options = self._node.options
        return {
            b"appendfsync": b"always",
            b"appendonly": b"yes",
            b"bind": host.encode(),
            b"cluster-enabled": b"yes",
            b"databases": b"1",
            b"dir": options.data_dir.encode(),
            b"io-threads": b"1",
            b"maxclients": b"%d" % options.connections,
            b"maxmemory": b"0",
            b"maxmemory-policy": b"noeviction",
            b"port": b"%d" % port,
            b"proto-max-bulk-len": b"%d" % options.value_size_bytes,
            b"save": b"",
            b"timeout": b"0",
        }

    @property
    def counters(self) -> Mapping[str, int]:
        """How often this and that happened."""
        return {"plain_writes": self.plain_writes, **self._counters}

    @property
    def command_calls(self) -> Mapping[bytes, int]:
        """How often each command was called; writes that went the short way are not in it."""
        gets = self._calls.get(b"GET", 0) + self.plain_gets
        return {**self._calls, b"GET": gets} if gets else self._calls

    @property
    def keyspace(self) -> tuple[int, int]:
        """About how many keys the groups have that this node leads; who expires is not counted."""
        return self._key_count.keys(), 0

    @property
    def sessions(self) -> Mapping[int, Session]:
        """The client connections by id, in the order in which they came."""
        return {key: client.session for key, client in self._node.clients.items()}

    def kill(self, session: Session) -> None:
        """Close a connection other than the one whose command is executed."""
        self._node.clients[session.id].close("CLIENT KILL", at_once=True)

    def reset_stats(self) -> None:
        """Set the counters to zero."""
        self.plain_writes = self.plain_gets = 0
        self._counters.clear()
        self._calls.clear()

    def count(self, name: str) -> None:
        """Count one of something that happened."""
        self._counters[name] = self._counters.get(name, 0) + 1

    def count_call(self, name: bytes) -> None:
        """Count a call of a command that did not go the short way."""
        self._calls[name] = self._calls.get(name, 0) + 1
