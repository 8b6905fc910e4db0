"""A node with your own state machine in your own asyncio program.

The node is the one that `eraft serve` runs: peer and admin port, log,
metaserver, config table, snapshots, comparison of the replicas, membership.
Only its data groups have your machine in place of shardkv, and what it would
listen to for Redis clients is yours. `docs/library.md` has complete programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from eraft import limits
from eraft.errors import NotApplied, OutcomeUnknown, RequestError
from eraft.net.server import Server
from eraft.node import hosted
from eraft.node.hosted import HostedReplica
from eraft.node.options import NodeOptions
from eraft.storage.directory import open_directory
from eraft.storage.machine import StateMachine
from eraft.storage.state import ReplicaRows
from eraft.types import METASERVER_GID, NodeAddress

__all__ = ["Host", "NodeOptions", "ReplicaRows", "StateMachine"]

STOPPED = "the node has stopped"

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")


class Host(Generic[M]):
    """One node of a cluster whose nodes all have the same state machine.

    Use it as an asynchronous context manager in a running event loop, one in
    a process: entering starts the node, leaving stops it cleanly. The loop
    should be uvloop's. SIGTERM, SIGINT and the loop's exception handler are
    the node's; wait for `stopped` to learn of a signal or a fatal error.

    Args:
        options: Where the node lives and listens. `data_dir` was formatted by
            `eraft init`. eraft does not bind `client`: it is the address at
            which your program listens to its own clients, and what other nodes
            name to theirs.
        machine: Makes the state machine of a group, given its gid, from the
            rows of a replica: at the start, for each new replica, and whenever a
            snapshot has taken the place of the rows. See `StateMachine`.

    Raises:
        ConfigError, StorageError: on entering, when the node cannot start with
            its settings, directory, ports or disk.
    """

    def __init__(self, options: NodeOptions, machine: Callable[[int, ReplicaRows], M]) -> None:
        self._options = options
        self._machine = machine
        self._waiting: dict[asyncio.Future[Any], RequestError] = {}
        self._server: Server
        self._running: asyncio.Task[int]

    async def __aenter__(self) -> Self:
        self._directory = open_directory(self._options.data_dir)
        try:
            self._server = Server(self._options, self._directory, self._machine)
            await self._server.start()
        except BaseException:
            self._directory.close()
            raise
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._running.done():
            self._server.stop("the program ends")
            await self._running

    async def _run(self) -> int:
        try:
            return await self._server.run()
        finally:
            for future, error in self._waiting.items():
                if not future.done():
                    future.set_exception(error)
            self._directory.close()

    async def stopped(self) -> int:
        """Wait until the node has stopped: 0 after a signal, 1 when it could not go on.

        It does not start again in this process.
        """
        return await asyncio.shield(self._running)

    @property
    def address(self) -> NodeAddress:
        """This node: its id, its store and where it listens."""
        return self._server.node.address

    def leader(self, gid: int) -> NodeAddress | None:
        """The node that leads a group, as far as this one knows now; None if it knows of none."""
        self._server.enter()
        node = self._server.node
        return node.table.nodes.get(node.leader_of(gid))

    async def propose(self, gid: int, payload: bytes) -> Any:
        """Let the machines of a group apply `payload`; return the reply of this node's.

        Only the group's leader takes proposals. With the reply the entry is
        durable on a majority and applied here. The answer comes within
        `limits.ANSWER_DEADLINE_S`. Who stops waiting earlier does not know
        the outcome.

        Raises:
            NotLeader: another node leads; `leader` says where its clients go.
            NotApplied: also its other subclasses: the payload was not applied
                and never will be. Retrying is safe.
            OutcomeUnknown: it may have been applied, be applied later, or never.
            ValueError: `payload` is larger than `limits.HOSTED_PAYLOAD_BYTES`,
                or `gid` is the metaserver's.
        """
        if len(payload) > limits.HOSTED_PAYLOAD_BYTES:
            raise ValueError(
                f"a payload of {len(payload)} bytes: the limit is {limits.HOSTED_PAYLOAD_BYTES}"
            )
        replica, future = self._begin(gid)
        replica.request(bytes(payload), _setter(future), _failer(future))
        return await self._answer(future, OutcomeUnknown(STOPPED))

    async def read(self, gid: int, function: Callable[[M, ReplicaRows], T]) -> T:
        """Return what `function` finds in the state of a group, linearizably.

        It is called with this node's machine and rows once they hold
        everything that was acknowledged before this call: the leader makes
        sure by a round to a quorum that it still leads (ReadIndex, Raft
        dissertation 6.4), a follower asks it. It must not write, block or
        keep the rows; what it raises comes out here.

        Raises:
            NotLeader: no leader answers, or this node has no replica of the group.
            NotApplied: no position was confirmed in time. Retrying is safe.
            ValueError: `gid` is the metaserver's.
        """
        replica, future = self._begin(gid)
        now_s = self._server.node.now_s
        replica.read(hosted.HostedRead(gid, function, _setter(future), _failer(future), now_s))
        found: T = await self._answer(future, NotApplied(STOPPED))
        return found

    def _begin(self, gid: int) -> tuple[HostedReplica, asyncio.Future[Any]]:
        """The replica to ask and the future of its answer, after telling the node the time."""
        if gid == METASERVER_GID:
            raise ValueError("group 0 is the metaserver's")
        if self._running.done():
            raise NotApplied(STOPPED)
        self._server.enter()
        replica = hosted.hosted(self._server.node, gid)
        return replica, asyncio.get_running_loop().create_future()

    async def _answer(self, future: asyncio.Future[Any], when_stopped: RequestError) -> Any:
        self._waiting[future] = when_stopped
        self._server.schedule()
        try:
            return await future
        finally:
            del self._waiting[future]


def _setter(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    def settle(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    return settle


def _failer(future: asyncio.Future[Any]) -> Callable[[Exception], None]:
    def fail(error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

    return fail
