"""Counting the votes of a campaign (Raft paper, section 5.2)."""

from eraft.raft.quorum import VoteResult, vote_result
from eraft.types import ConfState


class Ballot:
    """The votes that one campaign has received."""

    __slots__ = ("_conf", "_votes")

    def __init__(self, conf: ConfState) -> None:
        self._conf = conf
        self._votes: dict[int, bool] = {}

    def record(self, replica_id: int, granted: bool) -> VoteResult:
        """Counts a vote; the first answer of a replica stands, so duplicates change nothing."""
        self._votes.setdefault(replica_id, granted)
        return vote_result(self._conf.voters, self._votes, self._conf.outgoing)
