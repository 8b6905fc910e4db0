"""Reads: what a position is worth, who has confirmed it, and that it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eraft.node.readqueue import Read
from eraft.node.replica import Replica
from eraft.raft import Ready
from eraft.raft.kinds import APPEND, APPEND_REPLY, HEARTBEAT, HEARTBEAT_REPLY
from eraft.types import Message
from tests.sim.known import Violation, is_quorum

if TYPE_CHECKING:
    from tests.sim.checks import Checks


class ReadChecks:
    """A read sees everything that was committed when it was asked for.

    That is known here from whoever knew first. How a leader can know it is
    checked too: a majority has answered it, in its term and after the read was
    asked for, so no other leader was elected before. Else luck would be
    needed to see a stale read: another leader and a write just then.
    """

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._moment = 0
        self._contexts: dict[tuple[int, int, int], int] = {}
        """The newest context of the leader (by group, term and replica id)."""
        self._answers: dict[tuple[int, int, int], dict[int, int]] = {}
        """When each replica has answered that leader last."""
        self._due: dict[int, tuple[Read, int]] = {}
        """By identity: reads that wait, and what was committed when they came."""

    def sent(self, message: Message) -> None:
        """A message leaves that has a context."""
        if message.kind in (APPEND, HEARTBEAT):
            self._contexts[message.gid, message.term, message.sender] = message.context
        elif message.kind in (APPEND_REPLY, HEARTBEAT_REPLY):
            leader = (message.gid, message.term, message.to)
            if message.context > self._contexts.get(leader, 0):
                raise Violation(
                    f"read contexts: {message} answers a question that was not asked in its term"
                )
            self._moment += 1
            self._answers.setdefault(leader, {})[message.sender] = self._moment

    def watch(self, node_id: int, replica: Replica) -> None:
        """Note when reads are asked for, confirmed and served."""
        raft, checks = replica.raft, self._checks
        group = checks.group(replica.gid)
        read_index, take = raft.read_index, raft.ready
        read, serve = replica.read, replica.serve_reads
        asked: dict[int, tuple[int, int, bool]] = {}

        def watched_read_index() -> int:
            ticket = read_index()
            self._moment += 1
            asked[ticket] = (self._moment, group.top, replica.leading)
            return ticket

        def watched_ready() -> Ready:
            ready = take()
            for ticket, index in ready.reads:
                moment, top, as_leader = asked.pop(ticket)
                if index < top:
                    raise Violation(
                        f"read position: node {node_id} is to read group {replica.gid} as of"
                        f" {index}, but {top} was committed when that was asked"
                    )
                if as_leader:
                    self._confirmed(node_id, replica, moment)
            for ticket in ready.lost_reads:
                asked.pop(ticket)
            return ready

        def watched_read(it: Read) -> None:
            self._due[id(it)] = (it, group.top)
            read(it)

        def watched_serve(reads: list[Any]) -> None:
            for it in reads:
                _, top = self._due.pop(id(it), (it, 0))
                if replica.applied < top:
                    raise Violation(
                        f"read position: node {node_id} reads group {replica.gid} as of"
                        f" {replica.applied}, but {top} was committed when that was asked"
                    )
            serve(reads)

        raft.read_index, raft.ready = watched_read_index, watched_ready  # type: ignore[method-assign]
        replica.read, replica.serve_reads = watched_read, watched_serve  # type: ignore[method-assign]

    def _confirmed(self, node_id: int, replica: Replica, moment: int) -> None:
        raft = replica.raft
        answers = self._answers.get((replica.gid, raft.term, replica.replica_id), {})
        have = {replica.replica_id} | {it for it, when in answers.items() if when > moment}
        confs = (*self._checks.confs(node_id, replica), raft.conf)
        if not any(is_quorum(conf, have.__contains__) for conf in confs):
            raise Violation(
                f"read quorum: node {node_id} reads group {replica.gid} as leader of term"
                f" {raft.term}, but since it was asked only {sorted(have)} are of that term"
            )
