"""The safety properties of Raft, checked at every step of a simulated group.

The oracle sees everything at once, which no replica can: what is on every
disk, what anybody believes to be committed, what was asked and when. Where
it fails, the name of the property is the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from eraft.raft import RaftGroup, Role, RoleChange
from eraft.types import ConfState, HardState, Message, MessageKind

if TYPE_CHECKING:
    from tests.raft.host import Host
    from tests.raft.network import Network

Entry = tuple[int, int, bytes]
"""term, kind, payload"""

HEADER = struct.Struct("<IBQ")


def decode(blob: bytes) -> Iterator[Entry]:
    """The entries of a blob."""
    offset = 0
    while offset < len(blob):
        size, kind, term = HEADER.unpack_from(blob, offset)
        offset += HEADER.size + size
        yield term, kind, blob[offset - size : offset]


class Oracle:
    """Everything that must hold over all replicas of one group."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.entries: dict[tuple[int, int], tuple[int, Entry]] = {}
        self.committed: list[tuple[Entry, int]] = []
        """By index - 1: the entry, and the term in which somebody first knew it committed."""
        self.executed: set[bytes] = set()
        self.denied: set[bytes] = set()
        """Payloads of proposals that a client was told were not executed."""
        self.asked: dict[tuple[int, int, int], int] = {}
        """(replica, incarnation, ticket) of a read -> what was committed when it was asked."""
        self.confs: dict[int, ConfState] = {}
        """By the index of the change that made it."""
        self.reads_confirmed = 0
        self.steps = 0

    # One leader per term, leader completeness

    def role_changed(self, host: Host, group: RaftGroup, change: RoleChange) -> None:
        if change.role is not Role.LEADER:
            return
        known = self.leaders.setdefault(change.term, host.replica_id)
        assert known == host.replica_id, f"one leader per term: {change.term}"
        # What was committed in earlier terms must be there.
        index = len(self.committed)
        while index and self.committed[index - 1][1] >= change.term:
            index -= 1
        if index > group.log.base_index:
            entry, _ = self.committed[index - 1]
            assert group.last_index >= index, f"leader completeness: {index} is missing"
            assert group.log.term(index) == entry[0], f"leader completeness: {index} differs"

    # Log matching

    def handed_out(self, host: Host, group: RaftGroup, first: int, blob: bytes) -> None:
        """Entries on their way to a disk: (index, term) names one entry and one predecessor."""
        previous = group.log.term(first - 1)
        for index, entry in enumerate(decode(blob), first):
            known = self.entries.setdefault((index, entry[0]), (previous, entry))
            assert known == (previous, entry), f"log matching: {index} of term {entry[0]}"
            previous = entry[0]

    # State machine safety

    def commit_moved(self, host: Host, group: RaftGroup, before: int) -> None:
        assert group.commit >= before, "the commit index never goes back"
        for index in range(max(before, group.log.base_index) + 1, group.commit + 1):
            term = group.log.term(index)
            if index <= len(self.committed):
                assert self.committed[index - 1][0][0] == term, f"state machine safety: {index}"
                continue
            entry = self.entries[index, term][1]
            hosts = host.network.hosts
            for half in filter(None, (group.conf.voters, group.conf.outgoing)):
                holders = sum(hosts[i].disk.has(index, entry) for i in half)
                assert 2 * holders > len(half), f"committed without a durable majority: {index}"
            assert entry[2] not in self.denied, f"not executed, yet committed: {index}"
            self.committed.append((entry, group.term))

    def applied(self, host: Host, group: RaftGroup, first: int, last: int) -> None:
        assert first == group.applied + 1, "applied in order, once"
        assert last <= group.commit, "applied beyond the commit index"
        for index in range(first, last + 1):
            entry, _ = self.committed[index - 1]
            assert group.log.term(index) == entry[0], f"state machine safety: {index}"
            assert group.log.payload(index) == entry[2], f"state machine safety: {index}"
            assert host.disk.has(index, entry), f"applied beyond its own disk: {index}"
            self.executed.add(entry[2])

    # Membership

    def configured(self, index: int, conf: ConfState) -> None:
        known = self.confs.setdefault(index, conf)
        assert known == conf, f"two configurations at {index}: {known} and {conf}"

    def snapshot(self, network: Network, index: int, term: int, conf: ConfState) -> None:
        """What is installed is what everybody who applied everything up to there has."""
        assert self.committed[index - 1][0][0] == term, f"state machine safety: snapshot {index}"
        changes = [i for i in self.confs if i <= index]
        assert conf == (self.confs[max(changes)] if changes else network.founding)

    # Proposals: what a client may be told

    def not_executed(self, payload: bytes) -> None:
        assert payload not in self.executed, "not executed, but it was"
        self.denied.add(payload)

    # Durable promises

    def hard_state(self, before: HardState, after: HardState) -> None:
        assert after.term >= before.term, "the term never goes back"
        assert after.commit >= before.commit, "the durable commit index never goes back"
        if after.term == before.term:
            assert before.vote in (0, after.vote), "one vote per term"

    def sent(self, host: Host, message: Message) -> None:
        """What leaves a replica must be true of its disk at this moment."""
        disk = host.disk
        state = disk.hard_state
        assert message.sender == host.replica_id
        if message.kind == MessageKind.VOTE_REPLY and not message.reject:
            kept = state.term > message.term or (state.term, state.vote) == (
                message.term,
                message.to,
            )
            assert kept, "a vote is told before it is durable"
        if message.kind == MessageKind.APPEND_REPLY and not message.reject:
            assert state.term >= message.term, "acknowledged before the term is durable"
            if state.term == message.term:
                assert disk.last_index >= message.index, "acknowledged before it is durable"
        if message.kind == MessageKind.VOTE:
            kept = state.term > message.term or (state.term, state.vote) == (
                message.term,
                message.sender,
            )
            assert kept, "votes are asked for before the own one is durable"
        if message.kind == MessageKind.HEARTBEAT_REPLY and not message.reject and message.context:
            assert state.term >= message.term, "confirmed in a term that is not durable"

    # ReadIndex

    def read_asked(self, host: Host, ticket: int) -> None:
        self.asked[host.replica_id, host.incarnation, ticket] = len(self.committed)

    def read_confirmed(self, host: Host, ticket: int, index: int) -> None:
        committed = self.asked.pop((host.replica_id, host.incarnation, ticket))
        assert index >= committed, f"stale read: {index}, but {committed} was committed when asked"
        self.reads_confirmed += 1

    def read_lost(self, host: Host, ticket: int) -> None:
        del self.asked[host.replica_id, host.incarnation, ticket]
