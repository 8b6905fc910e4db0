"""Who may stand for election and lead, who voted for whom, and which terms are obeyed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from eraft.node.replica import Replica
from eraft.raft import Role
from eraft.raft.kinds import (
    APPEND_REPLY,
    HEARTBEAT_REPLY,
    OF_LEADER,
    READ_INDEX_REPLY,
    VOTE_REPLY,
)
from eraft.types import ConfState, HardState, Message
from tests.sim.known import Violation, change_ahead, is_quorum

if TYPE_CHECKING:
    from tests.sim.checks import Checks

TAKES_TERM = OF_LEADER | {APPEND_REPLY, HEARTBEAT_REPLY, VOTE_REPLY, READ_INDEX_REPLY}
"""Kinds whose term is that of their sender. (A vote may be ignored, and a pre-vote has none.)"""


class ElectionChecks:
    """The rules of terms, candidates and votes."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._stood: set[tuple[int, int, int]] = set()
        """Group, term and replica of every candidate that has asked for votes."""

    def asked(self, message: Message) -> None:
        """A candidate asks for a vote."""
        self._stood.add((message.gid, message.term, message.sender))

    def voted(self, node_id: int, gid: int, own_id: int, new: HardState) -> None:
        """A vote becomes durable that was not before."""
        if new.vote not in (0, own_id) and (gid, new.term, new.vote) not in self._stood:
            raise Violation(
                f"vote: node {node_id} votes in term {new.term} of group {gid} for replica"
                f" {new.vote}, which has not asked for it"
            )

    def watch(self, node_id: int, replica: Replica) -> None:
        """Compare what messages of other terms do with what they may do."""
        step, raft = replica.step, replica.raft

        def watched_step(message: Message) -> None:
            if message.term == raft.term:
                step(message)
            elif message.term < raft.term:
                before = _state(replica)
                try:
                    step(message)
                finally:
                    if _state(replica) != before:
                        raise Violation(
                            f"old terms: {message} changes node {node_id} from {before} to"
                            f" {_state(replica)}"
                        )
            else:
                step(message)
                if message.kind in TAKES_TERM and raft.term < message.term:
                    raise Violation(
                        f"new terms: node {node_id} stays in term {raft.term} after {message}"
                    )

        replica.step = watched_step  # type: ignore[method-assign]

    def turned(self, node_id: int, replica: Replica) -> None:
        """Only voters stand for election or lead, and only who has applied every known change."""
        raft = replica.raft
        role = raft.role
        if role is Role.FOLLOWER:
            return
        where = f"node {node_id} is {role.value} of group {replica.gid} in term {raft.term}"
        if not raft.conf.votes(replica.replica_id):
            raise Violation(f"voters stand: {where}, but no voter of {raft.conf}")
        if role is not Role.LEADER and change_ahead(raft):
            raise Violation(
                f"voters stand: {where}, but between {raft.applied}, which is applied, and"
                f" {raft.commit}, which is committed, the members change"
            )

    def leads(self, node_id: int, replica: Replica, confs: Iterable[ConfState]) -> None:
        """By the configuration before this turn, or the one that has been applied in it."""
        raft = replica.raft

        def voted(replica_id: int) -> bool:
            """Whether the vote is durable, or a newer term, before which it can have been."""
            home = replica.members.home(replica_id)
            group = self._checks.disks.get(home, {}).get(replica.gid)
            if group is None or home in self._checks.destroyed:
                return True
            state = group.hard_state
            return state.term > raft.term or (
                (state.term, state.vote) == (raft.term, replica.replica_id)
            )

        if not any(is_quorum(conf, voted) for conf in confs):
            raise Violation(
                f"majority of votes: node {node_id} leads group {replica.gid} in term {raft.term},"
                f" but no majority of {' or '.join(map(str, confs))} has voted for it"
            )


def _state(replica: Replica) -> tuple[object, ...]:
    raft = replica.raft
    return raft.role, raft.term, raft.vote, raft.leader_id, raft.commit, raft.log.last_index
