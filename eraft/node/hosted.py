"""A data group with somebody else's state machine: the replica, and who waits for its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft._impl import resp
from eraft.errors import InvariantViolation, NotApplied, NotLeader, Overloaded, StorageError
from eraft.node.proposals import Proposal, request_error
from eraft.node.replica import Replica
from eraft.storage.state import ReplicaRows

if TYPE_CHECKING:
    from eraft.node.node import Node

OnReply = Callable[[Any], None]
OnError = Callable[[Exception], None]


def hosted(node: Node, gid: int) -> HostedReplica:
    """This node's replica of a data group; NotLeader if it has none that takes part."""
    replica = node.replicas.get(gid)
    if not isinstance(replica, HostedReplica):
        raise not_leader(node, gid)
    return replica


def not_leader(node: Node, gid: int) -> NotLeader:
    """The error that names the leader as far as it is known and another node."""
    node_id = node.identity.node_id
    address = node.table.nodes.get(node.leader_of(gid))
    leader = "" if address is None or address.node_id == node_id else address.client
    return NotLeader(
        f"node {node_id} does not lead group {gid}; {leader or 'nobody that it knows'} does", leader
    )


class HostedReplica(Replica):
    """Proposes each payload as an entry of its own, which has one reply."""

    def request(self, payload: bytes, on_reply: OnReply, on_error: OnError) -> None:
        """Propose a payload as leader.

        Raises:
            NotApplied: it was not proposed; a subclass or the text says why.
        """
        if not self.serving:
            raise not_leader(self.node, self.gid)
        if self.saturated:
            raise Overloaded(f"group {self.gid}: too much is not applied yet")
        refusal = self.node.room.refuse_writes(self)
        if refusal is not None:
            raise NotApplied(refusal.decode())
        self.propose(payload, [_Request(on_reply, on_error, self.node.now_s)])
        self.node.touch(self)

    def settle(self, proposal: Proposal, replies: list[Any]) -> None:
        if len(replies) != 1:
            raise InvariantViolation(
                f"group {self.gid}: every entry has one reply, apply made {len(replies)} to that"
                f" of index {proposal.index}"
            )
        proposal.settle(replies)

    def reload(self) -> None:
        """The rows are others than before: their machine is another one."""
        assert self.node.machine is not None
        self.machine = self.node.machine(self.gid, self.rows)


class _Request:
    """Waits for the reply to one payload."""

    __slots__ = ("_on_error", "_on_reply", "count", "deadline_s")

    def __init__(self, on_reply: OnReply, on_error: OnError, now_s: float) -> None:
        self.count = 1
        self.deadline_s = now_s + limits.ANSWER_DEADLINE_S
        self._on_reply = on_reply
        self._on_error = on_error

    def settle(self, replies: list[Any], start: int) -> None:
        self._on_reply(replies[start])

    def refuse(self, error: resp.ReplyError) -> None:
        self._on_error(request_error(error))


class HostedRead:
    """Calls a function once the rows are as of a position that was confirmed after the request."""

    __slots__ = (
        "_function",
        "_gid",
        "_on_error",
        "_on_reply",
        "after_writes",
        "barrier",
        "deadline_s",
    )

    def __init__(
        self,
        gid: int,
        function: Callable[[Any, ReplicaRows], Any],
        on_reply: OnReply,
        on_error: OnError,
        now_s: float,
    ) -> None:
        self._gid = gid
        self._function = function
        self._on_reply = on_reply
        self._on_error = on_error
        self.after_writes = False
        self.barrier = 0
        self.deadline_s = now_s + limits.ANSWER_DEADLINE_S

    def serve(self, replica: HostedReplica) -> bool:
        try:
            found = self._function(replica.machine, replica.rows)
        except (InvariantViolation, StorageError):
            raise
        except Exception as error:
            self._on_error(error)
        else:
            self._on_reply(found)
        return True

    def reroute(self, node: Node) -> None:
        self._on_error(not_leader(node, self._gid))

    def expire(self) -> None:
        self._on_error(NotApplied(f"group {self._gid}: no position was confirmed in time"))
