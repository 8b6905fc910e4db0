"""Campaigns and votes (Raft paper, section 5.2 and 5.4.1; dissertation, section 9.6)."""

from eraft.raft.ballot import Ballot
from eraft.raft.kinds import CONF_CHANGE, PRE_VOTE, VOTE, VOTE_REPLY
from eraft.raft.leader import Leadership
from eraft.raft.quorum import VoteResult
from eraft.raft.state import CANDIDATE, LEADER, PRE_CANDIDATE, ReplicaState
from eraft.types import Message


class Voter(ReplicaState):
    """A replica that stands for election, and votes for others."""

    def campaign(self) -> None:
        """Stands for election, if it may, does not lead, and a majority would agree.

        The pre-vote comes first, so that a replica that cannot win, because
        it is cut off or its log is behind, does not disturb the others with
        a new term (dissertation, section 9.6).
        """
        if self.role is LEADER or not self._can_campaign():
            return
        self._ballot = Ballot(self.conf)
        self._become(PRE_CANDIDATE, 0, "asks for pre-votes")
        self._request_votes(PRE_VOTE, self.term + 1, self._messages)
        self._count_vote(self.replica_id, True)

    def _can_campaign(self) -> bool:
        """Not while a committed change of the configuration is not applied yet.

        Its majorities need not overlap with those of the newest
        configuration, of which that change is an ancestor.
        """
        if not self.may_campaign or not self.conf.votes(self.replica_id):
            return False
        kind = self.log.kind
        return all(kind(i) != CONF_CHANGE for i in range(self.applied + 1, self.commit + 1))

    def _become_candidate(self, why: str = "asks for votes", told: bool = False) -> None:
        """Paper, section 5.2. The votes are asked for only once the own vote and log are durable.

        Else a replica that crashes meanwhile could come back with a shorter
        log, stand in the same term again and win by the old answers. `told`:
        by the leader, whose followers then answer although they hear it.
        """
        self.term += 1
        self.vote = self.replica_id
        self._ballot = Ballot(self.conf)
        self._draw_timeout()
        self._become(CANDIDATE, 0, why)
        self._request_votes(VOTE, self.term, self._after, told)

    def _become_leader(self) -> None:
        self._ballot = None
        self._elapsed = 0
        self._pending_change = self.log.last_index
        self._leadership = Leadership(
            self.config, self.conf, self.term, self.log, self._durability.durable_index
        )
        self._become(LEADER, self.replica_id, "won the election")

    def _request_votes(
        self, kind: int, term: int, messages: list[Message], told: bool = False
    ) -> None:
        log, conf = self.log, self.conf
        messages += [
            Message(
                kind=kind,
                gid=self.gid,
                sender=self.replica_id,
                to=peer_id,
                term=term,
                index=log.last_index,
                log_term=log.last_term,
                hint=int(told),
            )
            for peer_id in self._peer_ids
            if conf.votes(peer_id)
        ]

    def _count_vote(self, replica_id: int, granted: bool) -> None:
        if self._ballot is None:
            return
        result = self._ballot.record(replica_id, granted)
        if result is VoteResult.LOST:
            self._become_follower(self.term, 0, "lost the election")
        elif result is VoteResult.WON and self.role is PRE_CANDIDATE:
            self._become_candidate()
        elif result is VoteResult.WON:
            self._become_leader()

    def _hear_vote(self, message: Message) -> None:
        """An answer to a campaign, be it an earlier one."""
        self._learn_commit(message)
        if message.kind == VOTE_REPLY:
            asked = self.role is CANDIDATE
        else:  # a grant carries the term that was asked about, a refusal the common one
            asked = self.role is PRE_CANDIDATE and message.reject == (message.term == self.term)
        if asked:
            self._count_vote(message.sender, not message.reject)

    def _learn_commit(self, message: Message) -> None:
        """Who refuses a vote says what is committed; a candidate that has that entry knows it then.

        Else a group can be stuck: a leader that is no voter any more has
        stepped down, and the only voters are replicas that have that change
        but do not know that it is committed, with logs that are shorter than
        the old leader's, whose vote they still need. (The idea is raft-rs's.)
        A campaign ends if a change is among what was learned.
        """
        log, index = self.log, message.commit
        if not message.reject or not self.commit < index <= log.last_index:
            return
        if log.term(index) == message.log_term:
            self._advance(index)
            if self.role is not LEADER and not self._can_campaign():
                self.step_down("has to apply a change of the configuration first")

    def _is_up_to_date(self, message: Message) -> bool:
        """The election restriction: no vote for a log that lacks entries (paper, 5.4.1)."""
        log = self.log
        return (message.log_term, message.index) >= (log.last_term, log.last_index)

    def _consider_pre_vote(self, message: Message) -> None:
        """A grant carries the term that is asked about, and promises nothing."""
        granted = message.term > self.term and self._is_up_to_date(message)
        if granted:
            self._reply(message, term=message.term)
        else:
            self._refuse(message)

    def _consider_vote(self, message: Message) -> None:
        """One vote per term, and only once it is durable does anybody hear of it (paper, 5.2)."""
        granted = self.vote in (0, message.sender) and self._is_up_to_date(message)
        if granted:
            self.vote = message.sender
            self._draw_timeout()
            self._reply(message, durable=True)
        else:
            self._refuse(message)

    def _refuse(self, message: Message) -> None:
        """No vote; waits for the disk, because it may be the answer of a new term."""
        log_term = self.log.term(self._told_commit)
        self._reply(message, log_term=log_term, reject=True, durable=message.kind == VOTE)
