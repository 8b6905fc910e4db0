"""What a majority of the voters has: the commit index.

An entry is committed once more than half of the voters have it durable
(Raft dissertation, section 3.5); while the membership changes, more than
half of the incoming and more than half of the outgoing voters (section 4.3).
The same count confirms a leader's reads.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["IMPL", "INDEX_MAX", "MatchTable", "quorum_index"]

IMPL: Final = "python"
INDEX_MAX: Final = 2**63 - 1
"""Larger than any index: what an empty half of a joint configuration has."""


def quorum_index(indexes: Sequence[int]) -> int:
    """Return the largest index that a majority of `indexes` has reached.

    INDEX_MAX if there are none: no voters are in the way of the other half.
    """
    if not indexes:
        return INDEX_MAX
    return sorted(indexes)[(len(indexes) - 1) // 2]


class MatchTable:
    """The match index of every voter, and what a majority (of both halves, if joint) has."""

    __slots__ = ("_committed", "_incoming", "_match", "_outgoing")

    def __init__(self, voters: Sequence[int], outgoing: Sequence[int] = ()) -> None:
        """ValueError if a half names a replica twice, or an id is not in 0..2**64-1."""
        for half in (voters, outgoing):
            if len(set(half)) != len(half) or not all(0 <= replica < 1 << 64 for replica in half):
                raise ValueError(f"no half of a configuration can be {list(half)}")
        self._incoming = tuple(voters)
        self._outgoing = tuple(outgoing)
        self._match: dict[int, int] = {}
        self._committed = 0
        self.reset()

    def record(self, replica_id: int, index: int) -> int:
        """A replica has everything up to `index`; return the committed index.

        An index below what was recorded before changes nothing, nor does a
        replica that is no voter. Raises ValueError beyond INDEX_MAX.
        """
        old = self._match.get(replica_id)
        if old is not None and index > old:
            if index > INDEX_MAX:
                raise ValueError(f"replica {replica_id}: index {index} is out of range")
            self._match[replica_id] = index
            # Only a replica that passes the committed index can move it.
            if old <= self._committed < index:
                self._count()
        return self._committed

    def match(self, replica_id: int) -> int:
        """Return the match index of a replica, 0 if it is no voter."""
        return self._match.get(replica_id, 0)

    def committed(self) -> int:
        """Return the largest index that a majority of each half has; INDEX_MAX without voters."""
        return self._committed

    def reset(self) -> None:
        """All match indexes become 0."""
        self._match = dict.fromkeys((*self._incoming, *self._outgoing), 0)
        self._count()

    def _count(self) -> None:
        match = self._match
        committed = quorum_index([match[replica] for replica in self._incoming])
        if self._outgoing:
            committed = min(committed, quorum_index([match[replica] for replica in self._outgoing]))
        self._committed = committed
