"""Noticing that the replicas of a group have come apart.

Each replica keeps a digest of everything that its applies changed (see
`ReplicaRows.digest`). Applies are deterministic, so at the same index all
digests are the same, and once two differ they stay different. They are
compared through the log:

1. At intervals the leader proposes an entry of kind CHECK.
2. A replica that applies it notes its digest at that index and reports it to
   the leader that it follows.
3. The leader's next CHECK says which digest a majority had. If some digest is
   another one it goes out at once.
4. A replica that applies that and noted something else is wrong: its host
   quarantines it. Where no digest can have a majority any more the entry says
   so, and every replica that applies it is quarantined.

Only entries that are applied count, so it does not matter which leader
proposed them, nor whether one that was overwritten. A digest that was noted
before a restart is forgotten, and a replica that is down or lags reports
nothing: what they missed shows at the next check.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

from eraft import limits
from eraft.errors import Diverged, ProtocolError
from eraft.raft.quorum import VoteResult, vote_result
from eraft.types import ConfState

# Little-endian. A check's payload: u8 verdict, u64 index, u32 digest. A
# report's body: u32 gid, u64 replica id, u64 index, u32 digest.
_CHECK = struct.Struct("<BQI")
_REPORT = struct.Struct("<IQQI")


class Verdict(IntEnum):
    """What is known of the digests at an index."""

    NONE = 0
    """Nothing: the first check of a leader, or too few replicas have reported."""
    AGREED = 1
    """A majority of the voters had this one."""
    NO_MAJORITY = 2
    """No digest has a majority: nobody can tell which state is right."""


@dataclass(slots=True, frozen=True)
class Check:
    """The payload of a CHECK entry: the verdict on an earlier one, at `index`."""

    verdict: Verdict
    index: int
    digest: int

    def encode(self) -> bytes:
        """The bytes in the log."""
        return _CHECK.pack(self.verdict, self.index, self.digest)

    @classmethod
    def decode(cls, payload: bytes) -> Check:
        """What `encode` made; ProtocolError if it is something else."""
        try:
            verdict, index, digest = _CHECK.unpack(payload)
            return cls(Verdict(verdict), index, digest)
        except (struct.error, ValueError) as error:
            raise ProtocolError(f"a check entry that no leader made: {error}") from None


@dataclass(slots=True, frozen=True)
class Report:
    """The digest of a replica at the index of a check."""

    gid: int
    replica_id: int
    index: int
    digest: int

    def encode(self) -> bytes:
        """The body of a DIGEST frame."""
        return _REPORT.pack(self.gid, self.replica_id, self.index, self.digest)

    @classmethod
    def decode(cls, body: bytes) -> Report:
        """What `encode` made; ProtocolError if it is something else."""
        if len(body) != _REPORT.size:
            raise ProtocolError(f"digest report of {len(body)} bytes instead of {_REPORT.size}")
        return cls(*_REPORT.unpack(body))


class DigestChecks:
    """One replica's part in the checks of its group, as leader and as follower.

    It holds one digest for each member at most: that of its last report.
    """

    def __init__(self, gid: int, replica_id: int, interval_ticks: int) -> None:
        self._gid = gid
        self._replica_id = replica_id
        self._interval_ticks = interval_ticks
        self.noted = Report(gid, replica_id, 0, 0)
        """The own digest at the last check since the start, index 0 before the first."""
        self._reports: dict[int, Report] = {}
        self._news = False
        self._age_ticks = 0
        self._disputes = 0
        self._proposed_term = 0

    # As any replica

    def restart(self) -> None:
        """The state is another one now: what was noted of the old one says nothing of it."""
        self.noted = Report(self._gid, self._replica_id, 0, 0)

    def keep(self, replica_ids: Collection[int]) -> None:
        """Only these are members now."""
        for replica_id in [it for it in self._reports if it not in replica_ids]:
            del self._reports[replica_id]

    def tick(self) -> None:
        """One tick passes."""
        self._age_ticks += 1

    def applied(self, index: int, payload: bytes, digest: int) -> Report:
        """A CHECK entry is applied, `digest` is the own one there: what the leader wants to know.

        Raises `Diverged` if this replica must not go on; the entry counts as not applied then.
        `ProtocolError` if it is malformed.
        """
        check = Check.decode(payload)
        noted = self.noted
        if check.verdict is Verdict.NO_MAJORITY:
            raise Diverged(
                f"no digest of the replicas' states at entry {check.index} has a majority"
                + (f", the own one is {noted.digest:08x}" if noted.index == check.index else "")
            )
        if (
            check.verdict is Verdict.AGREED
            and check.index == noted.index
            and check.digest != noted.digest
        ):
            raise Diverged(
                f"at entry {check.index} the digest of its state is {noted.digest:08x}, "
                f"the majority of the group has {check.digest:08x}"
            )
        self.noted = Report(self._gid, self._replica_id, index, digest)
        self._age_ticks = 0
        self._proposed_term = 0
        self.reported(self.noted)
        return self.noted

    # As the leader

    def reported(self, report: Report) -> None:
        """A member has applied a check, perhaps before this replica has."""
        known = self._reports.get(report.replica_id)
        if known is None or report.index > known.index:
            self._reports[report.replica_id] = report
            self._news = True

    def due(self, term: int) -> bool:
        """Whether the leader of `term` may have a check to propose; at most one is under way."""
        return self._proposed_term != term and (self._news or self._interval_over)

    @property
    def _interval_over(self) -> bool:
        return self._age_ticks >= self._interval_ticks

    def next_check(self, term: int, conf: ConfState, applied: int) -> bytes | None:
        """The payload of the check to propose now that one may be `due`, if so.

        Groups in which nothing has happened since all their members were
        compared are checked much less often.
        """
        interval_over = self._interval_over
        self._news = False
        noted = self.noted
        found = {
            replica_id: report.digest
            for replica_id, report in self._reports.items()
            if report.index == noted.index
        }
        differ = len(set(found.values())) > 1
        quiet = (
            applied == noted.index
            and found.keys() >= set(conf.members)
            and self._age_ticks < limits.CHECK_QUIET_INTERVALS * self._interval_ticks
        )
        wanted = interval_over and not quiet
        if not differ and not wanted:
            return None
        check = self._judge(found, conf)
        if check.verdict is Verdict.NONE and differ and interval_over:
            self._disputes += 1
            if self._disputes == limits.DIGEST_DISPUTES:
                check = Check(Verdict.NO_MAJORITY, noted.index, 0)
        elif check.verdict is Verdict.AGREED:
            self._disputes = 0
        if check.verdict is Verdict.NONE and not wanted:
            return None
        self._proposed_term = term
        return check.encode()

    def _judge(self, found: dict[int, int], conf: ConfState) -> Check:
        """What a majority of the voters, in both halves of a joint configuration, has."""
        index = self.noted.index
        # What nobody has reported yet can win too, with all the votes that are missing.
        results = [vote_result(conf.voters, dict.fromkeys(found, False), conf.outgoing)]
        for digest in sorted(set(found.values())):
            votes = {replica_id: own == digest for replica_id, own in found.items()}
            results.append(vote_result(conf.voters, votes, conf.outgoing))
            if results[-1] is VoteResult.WON:
                return Check(Verdict.AGREED, index, digest)
        lost = all(result is VoteResult.LOST for result in results)
        return Check(Verdict.NO_MAJORITY if lost else Verdict.NONE, index, 0)
