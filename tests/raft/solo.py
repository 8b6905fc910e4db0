"""One replica whose peers, disk and clock are played by the test."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from eraft._impl import log as entries
from eraft.raft import Config, RaftGroup, Ready, Role
from eraft.types import ConfState, EntryKind, HardState, Message, MessageKind

GID = 7


def blob(*terms: int, payload: bytes = b"x") -> bytes:
    """Encoded entries of these terms."""
    return b"".join(entries.encode_entry(term, EntryKind.COMMANDS, payload) for term in terms)


class Solo:
    """Replica 1 of a group of `size`."""

    def __init__(
        self,
        size: int = 3,
        *,
        terms: Sequence[int] = (),
        hard_state: HardState | None = None,
        applied: int = 0,
        base: tuple[int, int] = (0, 0),
        conf: ConfState | None = None,
        **settings: Any,
    ) -> None:
        log = entries.EntryLog(*base)
        for term in terms:
            log.append(term, EntryKind.COMMANDS, b"old")
        self.config = Config(
            gid=GID,
            replica_id=1,
            conf=conf or ConfState(tuple(range(1, size + 1))),
            random=Random(1),
            **settings,
        )
        self.group = RaftGroup(self.config, hard_state or HardState(log.last_term), log, applied)

    def take(self) -> Ready:
        """The next Ready."""
        return self.group.ready()

    def take_apply(self) -> Ready:
        """The next Ready with something to apply, which may wait for the disk."""
        ready = self.group.ready()
        while ready.apply is None:
            assert ready.token, "there is nothing to apply"
            self.group.persisted(ready.token)
            ready = self.group.ready()
        return ready

    def settle(self) -> list[Ready]:
        """Does everything at once, disk included, until there is nothing to do."""
        seen = []
        while self.group.has_ready():
            ready = self.group.ready()
            seen.append(ready)
            if ready.token:
                self.group.persisted(ready.token)
            if ready.apply:
                self.apply(*ready.apply)
        return seen

    def apply(self, first: int, last: int) -> None:
        group = self.group
        for index in range(first, last + 1):
            if group.log.kind(index) == EntryKind.CONF_CHANGE:
                group.apply_conf_change(index, group.log.payload(index))
        group.applied_to(last)

    def hear(self, kind: MessageKind, sender: int = 2, **fields: Any) -> None:
        """A message of a peer, in the replica's own term unless told otherwise."""
        fields.setdefault("term", self.group.term)
        fields.setdefault("to", 1)
        fields.setdefault("gid", GID)
        self.group.step(Message(kind=kind, sender=sender, **fields))

    def acknowledge(self, sender: int, index: int, **fields: Any) -> None:
        self.hear(MessageKind.APPEND_REPLY, sender, index=index, **fields)

    def peers(self) -> list[int]:
        return [i for i in self.group.conf.members if i != 1]

    def lead(self) -> Solo:
        """Wins an election; the peers have everything, the first entry is committed."""
        group = self.group
        group.campaign()
        for peer in self.peers():
            self.hear(MessageKind.PRE_VOTE_REPLY, peer, term=group.term + (group.role is PRE))
        self.settle()
        for peer in self.peers():
            self.hear(MessageKind.VOTE_REPLY, peer)
        self.settle()
        assert group.role is Role.LEADER
        first = group.last_index
        for peer in self.peers():
            self.acknowledge(peer, first)
        self.settle()
        assert group.commit >= first
        return self


PRE = Role.PRE_CANDIDATE


def kinds(messages: Sequence[Message]) -> list[MessageKind]:
    return [MessageKind(message.kind) for message in messages]


def appends(messages: Sequence[Message], to: int = 2) -> list[Message]:
    """The appends for a peer."""
    return [m for m in messages if m.kind == MessageKind.APPEND and m.to == to]


def terms(solo: Solo) -> list[int]:
    """Of the entries in memory."""
    log = solo.group.log
    return [log.term(index) for index in range(log.first_index, log.last_index + 1)]
