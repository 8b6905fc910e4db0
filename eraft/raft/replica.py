"""The rules that every replica follows: terms, roles, votes and what messages do.

`Replica` is the state of figure 2 of the Raft paper and its "Rules for
Servers". `group.RaftGroup` adds what the host of a replica sees of it.
"""

from collections.abc import Iterable

from eraft._impl import log as entries
from eraft.errors import LogCorrupt, ProtocolError
from eraft.raft.confchange import describe
from eraft.raft.config import Config, Role
from eraft.raft.durability import Durability
from eraft.raft.election import Ballot
from eraft.raft.follower import NO_MATCH, append_entries, best_guess
from eraft.raft.kinds import (
    APPEND,
    APPEND_REPLY,
    CONF_CHANGE,
    HEARTBEAT,
    HEARTBEAT_REPLY,
    INDEX_LIMIT,
    KINDS,
    OF_LEADER,
    OF_STRANGER,
    PRE_VOTE,
    PRE_VOTE_REPLY,
    READ_INDEX,
    READ_INDEX_REPLY,
    REPLY_TO,
    SNAPSHOT,
    TERM_LIMIT,
    TIMEOUT_NOW,
    VOTE,
    VOTE_REPLY,
)
from eraft.raft.leader import Leadership
from eraft.raft.quorum import VoteResult
from eraft.raft.reads import FollowerReads
from eraft.raft.ready import RoleChange, SnapshotOffer
from eraft.types import ConfState, HardState, Message

FOLLOWER = Role.FOLLOWER
PRE_CANDIDATE = Role.PRE_CANDIDATE
CANDIDATE = Role.CANDIDATE
LEADER = Role.LEADER


def check_restart(
    config: Config, hard_state: HardState, log: entries.EntryLog, applied: int
) -> None:
    """What is on disk must fit together, or the replica lost what it had promised.

    Raises `LogCorrupt`; such a replica must not take part.
    """
    where = f"group {config.gid}, replica {config.replica_id}"
    if applied < log.base_index:
        raise LogCorrupt(f"{where}: applied {applied}, but the log begins at {log.first_index}")
    if max(hard_state.commit, applied) > log.last_index:
        raise LogCorrupt(
            f"{where}: applied {applied} and committed {hard_state.commit}, but the log ends at"
            f" {log.last_index}"
        )
    if log.last_term > hard_state.term:
        raise LogCorrupt(
            f"{where}: the last entry is of term {log.last_term}, but the hard state is of term"
            f" {hard_state.term}"
        )


class Replica:
    """One replica of one group. The attributes are for reading; only methods change them.

    role, term, vote, leader_id (0 unknown): paper, figure 2.
    commit: the last index known to be committed.
    applied: the last index that the host has reported as applied.
    conf: the configuration as of the last applied change.
    may_campaign: the host clears it while the replica could not lead well,
    for example because its disk stalls; it then stands in no election.
    """

    def __init__(
        self, config: Config, hard_state: HardState, log: entries.EntryLog, applied: int
    ) -> None:
        check_restart(config, hard_state, log, applied)
        self.config = config
        self.gid = config.gid
        self.replica_id = config.replica_id
        self.log = log
        self.role = FOLLOWER
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader_id = 0
        self.commit = max(hard_state.commit, applied)
        self.applied = applied
        self.may_campaign = True
        self.conf = config.conf
        self._peer_ids = tuple(i for i in config.conf.members if i != config.replica_id)
        self._listened_to: frozenset[int] = frozenset()
        self._removed: set[int] = set()
        self._durability = Durability(log.last_index, hard_state.term, self.commit)
        self._leadership: Leadership | None = None
        self._pending_change = 0
        """The last entry that may change the configuration, as of the time when this replica led
        last: until it is applied, no other change may be proposed. At first that is whatever was
        inherited."""
        self._ballot: Ballot | None = None
        self._elapsed = 0
        self._timeout = 0
        self._draw_timeout()
        # What the next Ready has to tell; `_dirty` says that there may be something.
        self._dirty = True
        self._messages: list[Message] = []
        self._after: list[Message] = []
        self._offer: SnapshotOffer | None = None
        self._asked_reads = FollowerReads()
        self._ticket = 0
        self._lost_reads: list[int] = []
        self._role_changes: list[RoleChange] = []

    # What happens

    def tick(self) -> None:
        """One tick of the host's clock passes."""
        self._elapsed += 1
        leadership = self._leadership
        if leadership is None:
            lost = self._asked_reads.tick(self.config.election_ticks)
            if lost:
                self._lost_reads += lost
                self._dirty = True
            if self._elapsed >= self._timeout:
                self._become_follower(self.term, 0, "no leader was heard of")
                self.campaign()
            return
        if self._elapsed >= self.config.election_ticks:
            self._elapsed = 0
            if not leadership.quorum_active():
                self._become_follower(self.term, 0, "no quorum was heard of")
                return
        leadership.tick(self._told_commit, self._messages)
        self._dirty = self._dirty or bool(self._messages)

    def step(self, message: Message) -> None:
        """A message of a peer has arrived.

        Raises `ProtocolError`, and has no effect, if it is not one of a peer of
        this group to this replica, is malformed, or says what no replica can
        say; `LogCorrupt` if it and this replica's log contradict each other:
        either the leader lies or this replica has lost what it had
        acknowledged, so it must not take part any more.
        """
        sender = message.sender
        if (
            (sender not in self._peer_ids and not self._listens_to(message))
            or message.gid != self.gid
            or message.to != self.replica_id
        ):
            raise ProtocolError(
                f"group {self.gid}, replica {self.replica_id} ({describe(self.conf)}): refused"
                f" a message of group {message.gid} from {sender} to {message.to}"
            )
        if message.term != self.term:
            self._dirty = True
            if not self._take_term(message):
                return
        kind = message.kind
        leadership = self._leadership
        if kind == APPEND_REPLY:
            if leadership is not None:
                before = self.commit
                self._advance(leadership.append_reply(message))
                # Most answers of the slower followers neither commit anything nor are owed any.
                self._dirty = self._dirty or self.commit > before or leadership.owes(sender)
            return
        self._dirty = True
        if kind == APPEND:
            self._hear_leader(message)
            self._append(message)
        elif kind == HEARTBEAT_REPLY:
            if leadership is not None:
                leadership.heartbeat_reply(message)
        elif kind == HEARTBEAT:
            self._hear_leader(message)
            self._heartbeat(message)
        elif kind == VOTE:
            self._consider_vote(message)
        elif kind == PRE_VOTE:
            self._consider_pre_vote(message)
        elif kind == VOTE_REPLY:
            self._learn_commit(message)
            if self.role is CANDIDATE:
                self._count_vote(sender, not message.reject)
        elif kind == PRE_VOTE_REPLY:
            self._learn_commit(message)
            # A grant carries the term that was asked about, a refusal the common one.
            if self.role is PRE_CANDIDATE and message.reject == (message.term == self.term):
                self._count_vote(sender, not message.reject)
        elif kind == READ_INDEX:
            if leadership is not None:
                self._ticket += 1
                leadership.read_for(message, self._ticket)
            else:
                self._reply(message, reject=True)
        elif kind == READ_INDEX_REPLY:
            if sender == self.leader_id:
                self._read_confirmed(message)
        elif kind == SNAPSHOT:
            self._hear_leader(message)
            self._snapshot(message)
        elif kind == TIMEOUT_NOW:
            self._hear_leader(message)
            if self.role is FOLLOWER and self._can_campaign():
                self._become_candidate("is told to by its leader", told=True)
        else:
            raise ProtocolError(f"replica {sender} of group {self.gid} sent unknown kind {kind}")

    def persisted(self, token: int) -> None:
        """Everything handed out up to and including `token` is durable."""
        durability = self._durability
        durability.acknowledge(token)
        if self._leadership is not None:
            self._advance(self._leadership.durable(durability.durable_index))
        elif self.role is CANDIDATE and durability.durable_term == self.term:
            # A candidate's own vote is a vote like any other: durable first, then counted.
            self._count_vote(self.replica_id, True)
        if self.commit > self.applied:
            self._dirty = True

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

    def step_down(self, why: str) -> None:
        """Stops leading or campaigning, in the same term; `why` is for people."""
        if self.role is not FOLLOWER:
            self._become_follower(self.term, 0, why)

    # Members

    def listen_to(self, replica_ids: Iterable[int]) -> None:
        """Which replicas have requests that are answered although `conf` does not have them.

        A replica that is behind does not know the newest members yet, but
        they may lead it or need its vote (dissertation, section 4.1). The host
        names those that its directory has issued to the group; everybody
        else, and who was removed, is refused.
        """
        self._listened_to = frozenset(replica_ids) - self._removed - {self.replica_id}

    def _listens_to(self, message: Message) -> bool:
        return message.sender in self._listened_to and message.kind in OF_STRANGER

    def _can_campaign(self) -> bool:
        """Not while a committed change of the configuration is not applied yet.

        Its majorities need not overlap with those of the newest
        configuration, of which that change is an ancestor.
        """
        if not self.may_campaign or not self.conf.votes(self.replica_id):
            return False
        kind = self.log.kind
        return all(kind(i) != CONF_CHANGE for i in range(self.applied + 1, self.commit + 1))

    def _reconfigure(self, conf: ConfState) -> None:
        """The configuration changes: what is under way goes on under the new one, or ends."""
        self._removed |= {*self.conf.members} - {*conf.members}
        self._removed -= {*conf.members}
        self._listened_to -= self._removed
        self.conf = conf
        self._peer_ids = tuple(i for i in conf.members if i != self.replica_id)
        self._dirty = True
        leadership = self._leadership
        if leadership is None:
            if self.role is not FOLLOWER:
                self._become_follower(self.term, 0, "the configuration has changed")
            return
        self._advance(leadership.reconfigure(conf))
        if not conf.votes(self.replica_id):
            # The others hear what is committed, so that they need not find out.
            leadership.send_heartbeats(self._told_commit, self._messages)
            self._become_follower(self.term, 0, "is no voter any more")

    @property
    def _told_commit(self) -> int:
        """How far this replica may apply, and tells the others that the log is committed.

        A leader whose disk does not know yet that a change of the members is
        committed stops before it, also once it has stepped down. Else a
        replica that is out could be gone when this one, which lost power,
        comes back with the old configuration, and needs its vote: of two
        voters the one that stays would be stuck for ever.
        """
        change = self._pending_change
        if self.applied < change <= self.commit and self._durability.durable_commit < change:
            return change - 1
        return self.commit

    # Terms and roles

    def _take_term(self, message: Message) -> bool:
        """Compares terms (paper, section 5.1); True if the message is to be handled further."""
        kind = message.kind
        if kind not in KINDS:
            return True  # `step` refuses it; it must not change the term before
        if not 0 <= message.term < TERM_LIMIT:
            raise ProtocolError(
                f"group {self.gid}: replica {message.sender} speaks of term {message.term}, which"
                f" never was; this is term {self.term}"
            )
        if message.term < self.term:
            if kind in REPLY_TO:
                # Tells the sender of the newer term, also a leader that was left behind.
                self._reply(message, reject=True)
            return False
        if kind in (PRE_VOTE, VOTE) and not message.hint and self._hears_leader():
            return False
        if kind == PRE_VOTE:
            return True
        if kind == PRE_VOTE_REPLY and not message.reject:
            return message.term == self.term + 1
        leader_id = message.sender if kind in OF_LEADER else 0
        self._become_follower(message.term, leader_id, f"replica {message.sender} has a newer term")
        return True

    def _hears_leader(self) -> bool:
        """Whether there is no reason to vote: the leader was heard of a short time ago.

        Without this a replica that was cut off could depose a leader that
        works (dissertation, section 4.2.3).
        """
        return self.leader_id != 0 and self._elapsed < self.config.election_ticks

    def _become(self, role: Role, leader_id: int, why: str) -> None:
        self.role = role
        self.leader_id = leader_id
        self._dirty = True
        self._role_changes.append(RoleChange(role, self.term, leader_id, why))
        self._lost_reads += self._asked_reads.drop()

    def _become_follower(self, term: int, leader_id: int, why: str) -> None:
        if self._leadership is not None:
            self._lost_reads += self._leadership.lost_reads()
            self._leadership = None
        self._ballot = None
        changed = (self.role, self.term, self.leader_id) != (FOLLOWER, term, leader_id)
        if term > self.term:
            self.term = term
            self.vote = 0
        self._draw_timeout()
        if changed:
            self._become(FOLLOWER, leader_id, why)

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

    def _draw_timeout(self) -> None:
        """A new election timeout begins: random, so that votes split rarely (paper, 5.2)."""
        ticks = self.config.election_ticks
        self._elapsed = 0
        self._timeout = self.config.random.randrange(ticks, 2 * ticks)

    # Votes

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

    # Following

    def _hear_leader(self, message: Message) -> None:
        """The sender leads the current term."""
        if self.leader_id == message.sender:
            self._elapsed = 0
            return
        if self.leader_id:
            raise ProtocolError(
                f"one leader per term: in group {self.gid} both {self.leader_id} and"
                f" {message.sender} lead term {self.term}"
            )
        self._become_follower(self.term, message.sender, "heard of the leader")

    def _append(self, message: Message) -> None:
        if not self.conf.voters:
            # Entries lead nowhere from an unknown configuration: only a snapshot helps.
            self._reply(message, hint=1, reject=True)
            return
        matched = append_entries(self.log, self._durability, self.commit, message)
        if matched == NO_MATCH:
            hint, hint_term = best_guess(self.log, message)
            self._reply(message, index=message.index, hint=hint, log_term=hint_term, reject=True)
            return
        self._advance(min(message.commit, matched))
        # Acknowledged means durable here, so the reply waits for the disk.
        self._reply(message, index=matched, durable=True)

    def _read_confirmed(self, message: Message) -> None:
        if message.reject:
            self._lost_reads += self._asked_reads.refused(message.context)
        else:
            self._asked_reads.answered(message.context, message.index)

    def _snapshot(self, message: Message) -> None:
        """The leader offers a snapshot, because it has no more what this replica lacks."""
        index, term = message.index, message.log_term
        if not 0 < index < INDEX_LIMIT or not 0 < term <= message.term:
            raise ProtocolError(
                f"group {self.gid}: replica {message.sender} offers a snapshot up to entry {index}"
                f" of term {term} in term {message.term}"
            )
        if self._has(index, term):
            self._reply(message, index=self.commit, durable=True)
        else:
            self._offer = SnapshotOffer(message.sender, message.term, index, term, message.entries)

    def _has(self, index: int, term: int) -> bool:
        """Whether the log has everything up to a committed entry; then it is known committed."""
        log = self.log
        if self.commit < index <= log.last_index and log.term(index) == term:
            self._advance(index)
        return index <= self.commit

    def _heartbeat(self, message: Message) -> None:
        if message.commit > self.log.last_index:
            raise LogCorrupt(
                f"group {self.gid}: an acknowledged entry stays: replica {message.sender} says that"
                f" this one had entry {message.commit}, which is committed, but its log ends at"
                f" {self.log.last_index}"
            )
        self._advance(message.commit)
        self._reply(message)

    def _advance(self, index: int) -> None:
        """The commit index only grows."""
        if index > self.commit:
            self.commit = index

    def _reply(
        self,
        message: Message,
        *,
        term: int = 0,
        index: int = 0,
        log_term: int = 0,
        hint: int = 0,
        reject: bool = False,
        durable: bool = False,
    ) -> None:
        """Answers a request, with the own term unless another is given.

        With `durable` the answer waits for everything so far. So does one
        that confirms reads in a term that the disk does not know yet. To an
        earlier term's leader nothing is confirmed: it may lead this term by
        now, and have given the context to other reads.
        """
        context = message.context if message.term == self.term else 0
        reply = Message(
            REPLY_TO[message.kind],
            self.gid,
            self.replica_id,
            message.sender,
            term or self.term,
            index,
            log_term,
            self._told_commit,
            context,
            hint,
            reject,
        )
        durable = durable or (context != 0 and self._durability.durable_term != self.term)
        (self._after if durable else self._messages).append(reply)
