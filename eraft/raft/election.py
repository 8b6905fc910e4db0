"""Counting votes (Raft paper, section 5.2)."""

from collections.abc import Mapping, Sequence
from enum import Enum


class VoteResult(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def vote_result(voters: Sequence[int], votes: Mapping[int, bool]) -> VoteResult:
    """Whether a majority of `voters` said yes, can no longer say yes, or neither.

    `votes` maps replica ids to yes or no; who is not a voter does not count.
    """
    quorum = len(voters) // 2 + 1
    yes = sum(votes.get(voter, False) for voter in voters)
    missing = sum(voter not in votes for voter in voters)
    if yes >= quorum:
        return VoteResult.WON
    return VoteResult.PENDING if yes + missing >= quorum else VoteResult.LOST


class Ballot:
    """The votes that one campaign has received."""

    __slots__ = ("_voters", "_votes")

    def __init__(self, voters: Sequence[int]) -> None:
        self._voters = voters
        self._votes: dict[int, bool] = {}

    def record(self, replica_id: int, granted: bool) -> VoteResult:
        """Counts a vote; the first answer of a replica stands, so duplicates change nothing."""
        self._votes.setdefault(replica_id, granted)
        return vote_result(self._voters, self._votes)
