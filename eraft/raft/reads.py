"""Linearizable reads without writing to the log: ReadIndex (dissertation, section 6.4).

A leader may answer a read from its state once it knows that it still led
after the read was asked: then no other leader can have committed anything
that the read must see, and its own commit index is new enough. It knows so
when a quorum has answered a message that it sent after the read was asked.

Every round has a context, a number that grows within a leadership and is
never used twice in it. Messages to the peers carry the newest one, answers
echo it, if they are in the same term. So an answer that was delayed confirms
nothing that was asked later, and one to an earlier leadership carries another
term or no context. One round is under way and one collects what is asked meanwhile: reads
batch by themselves, without a timer.

A follower asks its leader for a position and serves the read itself once it
has applied that far (`FollowerReads`); to the leader that is a read like any
other.
"""

from random import Random

from eraft._impl import commit as quorum
from eraft.types import ConfState


class ReadRounds:
    """The reads of one leadership."""

    __slots__ = ("_answered", "_collecting", "_index", "_round", "confirmed", "context")

    def __init__(self, conf: ConfState) -> None:
        self.context = 0
        """Context of the newest round, 0 before the first."""
        self.confirmed: list[tuple[int, int]] = []
        """(ticket, index) of confirmed reads that the host was not told of yet."""
        self._answered = quorum.MatchTable(conf.voters, conf.outgoing)
        self._round: list[int] = []
        self._index = 0
        self._collecting: list[int] = []

    def ask(self, ticket: int) -> None:
        """A read for the next round."""
        self._collecting.append(ticket)

    def begin(self, replica_id: int, commit: int) -> bool:
        """Starts a round for what was collected, unless one is under way or nothing was.

        The leader, `replica_id`, answers itself at once. True if messages
        with the new context have to be sent.
        """
        if self._round or not self._collecting:
            return False
        self.context += 1
        self._index = commit
        self._round, self._collecting = self._collecting, []
        self.answered(replica_id, self.context)
        return bool(self._round)

    def answered(self, replica_id: int, context: int) -> None:
        """A replica has answered a message of this leadership that carried `context`."""
        if not self._round or context != self.context:
            return
        if self._answered.record(replica_id, context) >= context:
            self._confirm()

    def _confirm(self) -> None:
        index = self._index
        self.confirmed += [(ticket, index) for ticket in self._round]
        self._round = []

    def reconfigure(self, conf: ConfState) -> None:
        """Other voters from now on; who has answered the round has answered.

        A leader that was elected before the round began had a majority of
        this configuration or of one before it, and these overlap, so who
        answered in this term since then cannot be a quorum of this one.
        """
        before = self._answered
        self._answered = quorum.MatchTable(conf.voters, conf.outgoing)
        for replica_id in conf.members:
            self._answered.record(replica_id, before.match(replica_id))
        if self._round and self._answered.committed() >= self.context:
            self._confirm()

    def drop(self) -> list[int]:
        """The leadership is over: the tickets that the host was not told of, in order."""
        return [ticket for ticket, _ in self.confirmed] + self._round + self._collecting


class FollowerReads:
    """The reads for which this replica asks its leader.

    One question is under way and one collects, as with the leader's rounds.
    A context must not come back even after a restart, when an answer to an
    old question may still arrive: so each is drawn from 2**62 numbers.
    """

    __slots__ = ("_age", "_context", "_round", "collecting", "confirmed")

    def __init__(self) -> None:
        self.collecting: list[int] = []
        """Tickets for the next question."""
        self.confirmed: list[tuple[int, int]] = []
        """As `ReadRounds.confirmed`."""
        self._context = 0
        self._age = 0
        self._round: list[int] = []

    def begin(self, random: Random) -> int:
        """The context of a question that has to be sent now, 0 for none."""
        if self._round or not self.collecting:
            return 0
        self._context = random.getrandbits(62) + 1
        self._age = 0
        self._round, self.collecting = self.collecting, []
        return self._context

    def answered(self, context: int, index: int) -> None:
        """The leader has confirmed a position for the question."""
        if context == self._context:
            self.confirmed += [(ticket, index) for ticket in self._round]
            self._round = []

    def refused(self, context: int) -> list[int]:
        """The leader does not answer the question: the tickets that are lost."""
        if context != self._context:
            return []
        lost, self._round = self._round, []
        return lost

    def tick(self, limit: int) -> list[int]:
        """One tick passes; after `limit` of them the question is given up: what is lost."""
        if not self._round:
            return []
        self._age += 1
        return self.refused(self._context) if self._age >= limit else []

    def drop(self) -> list[int]:
        """Leader or term are over: the tickets that the host was not told of, in order."""
        lost = [ticket for ticket, _ in self.confirmed] + self._round + self.collecting
        self.confirmed, self._round, self.collecting = [], [], []
        return lost
