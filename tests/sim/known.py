"""What the checks know of groups and disks without believing the nodes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from eraft.node.replica import Replica
from eraft.raft import RaftGroup, Role
from eraft.raft.kinds import CONF_CHANGE
from eraft.storage.wal import WriteAheadLog
from eraft.types import ConfState, HardState

_NO_STATE = HardState()
_ENTRY = struct.Struct("<IBQ")


class Violation(AssertionError):
    """One of the rules does not hold; the message begins with its name."""


class DocumentedLoss(Exception):
    """A damaged last record was taken for a torn one, which cannot be told apart."""


def parse_entries(blob: bytes) -> list[tuple[int, int, bytes]]:
    """Term, kind and payload of each entry."""
    found = []
    offset = 0
    while offset < len(blob):
        size, kind, term = _ENTRY.unpack_from(blob, offset)
        offset += _ENTRY.size
        found.append((term, kind, bytes(blob[offset : offset + size])))
        offset += size
    return found


@dataclass(slots=True)
class DurableGroup:
    """What a node's disk has of one group."""

    hard_state: HardState = _NO_STATE
    base_index: int = 0
    base_term: int = 0
    terms: list[int] = field(default_factory=list)
    """Of the entries after the base."""
    generation: int = 0
    """Of the rows that the log builds on."""
    replica_id: int = 0

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.terms)

    def term(self, index: int) -> int:
        """The term of an entry, 0 if it is not here."""
        place = index - self.base_index - 1
        if place == -1:
            return self.base_term
        return self.terms[place] if 0 <= place < len(self.terms) else 0

    def since(self, index: int) -> list[int]:
        """The term of that entry and of all after it."""
        return [self.term(index), *self.terms[index - self.base_index :]]

    def has(self, index: int, term: int) -> bool:
        """Whether the entry is here, or in the state that the log builds on."""
        return index <= self.base_index or self.term(index) == term


NOTHING: Final = DurableGroup()
"""What a disk has of a group that was never there."""


@dataclass(slots=True)
class History:
    """What is known of one group over all of its replicas."""

    entries: dict[tuple[int, int], tuple[int, int, bytes]] = field(default_factory=dict)
    """(index, term) -> term before it, kind, payload, of every entry that was ever durable."""
    committed: dict[int, tuple[int, int]] = field(default_factory=dict)
    """index -> its term, and a term in which it was certainly committed."""
    top: int = 0
    leaders: dict[int, int] = field(default_factory=dict)
    confs: dict[int, ConfState] = field(default_factory=dict)
    """Of whoever had applied just so much first."""


class Seen:
    """What a replica was like after its last turn."""

    __slots__ = ("conf", "conf_before", "log", "now", "replica")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.now: tuple[int, int, Role, int] | None = None
        """Term, commit index, role and applied index; None before the first turn."""
        self.conf = self.conf_before = replica.raft.conf
        """The configuration, and that before the turn."""
        self.log: object = None
        """What counts as durable, and the end of the log, which tells all of it (log matching)."""


def entries_of(log: WriteAheadLog, gid: int) -> list[tuple[int, int, bytes]]:
    """Term, kind and payload of each entry that a log has of a group."""
    group = log.groups[gid]
    found: list[tuple[int, int, bytes]] = []
    while group.base_index + len(found) < group.last_index:
        first = group.base_index + len(found) + 1
        blob, _ = log.read(gid, first, group.last_index, 1 << 30)
        found += parse_entries(blob)
    return found


def recovered(log: WriteAheadLog, gid: int) -> DurableGroup:
    """What a log that was opened has of a group."""
    group = log.groups[gid]
    terms = [term for term, _, _ in entries_of(log, gid)]
    base, state = (group.base_index, group.base_term), group.state
    return DurableGroup(group.hard_state, *base, terms, state.generation, state.replica_id)


def change_ahead(raft: RaftGroup) -> bool:
    """Whether a change of the members is committed that the replica has not applied."""
    kinds = map(raft.log.kind, range(raft.applied + 1, raft.commit + 1))
    return CONF_CHANGE in kinds


def is_quorum(conf: ConfState, has: Callable[[int], bool]) -> bool:
    """Whether a majority of the voters has something, in a joint configuration of both halves."""
    return all(2 * sum(map(has, half)) > len(half) for half in (conf.voters, conf.outgoing) if half)
