"""What a configuration has decided: the commit index and the result of an election.

A majority of the voters decides (Raft dissertation, section 3.5); in a joint
configuration a majority of the incoming voters and one of the outgoing voters,
each counted for itself (section 4.3). A half without voters decides nothing,
so it is never in the way of the other: with no voters at all every index is
committed and every election won, as in etcd-io/raft.
"""

from collections.abc import Mapping, Sequence
from enum import Enum

from eraft._impl import commit


class VoteResult(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def commit_index(
    voters: Sequence[int], acknowledged: Mapping[int, int], outgoing: Sequence[int] = ()
) -> int:
    """The largest index that a majority (of each half, if joint) has acknowledged.

    `acknowledged` maps replica ids to the last index that they have durably,
    0..2**63-1; who is missing has nothing, who is no voter does not count.
    `commit.INDEX_MAX` without voters.
    """
    return min(
        commit.quorum_index([acknowledged.get(replica_id, 0) for replica_id in half])
        for half in (voters, outgoing)
    )


def vote_result(
    voters: Sequence[int], votes: Mapping[int, bool], outgoing: Sequence[int] = ()
) -> VoteResult:
    """Whether a majority (of each half, if joint) said yes, can no longer say yes, or neither.

    `votes` maps replica ids to yes or no; who is not a voter does not count.
    """
    results = {_half_result(half, votes) for half in (voters, outgoing) if half}
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def _half_result(voters: Sequence[int], votes: Mapping[int, bool]) -> VoteResult:
    majority = len(voters) // 2 + 1
    yes = sum(votes.get(voter, False) for voter in voters)
    missing = sum(voter not in votes for voter in voters)
    if yes >= majority:
        return VoteResult.WON
    return VoteResult.PENDING if yes + missing >= majority else VoteResult.LOST
