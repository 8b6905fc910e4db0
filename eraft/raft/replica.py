"""The rules that every replica follows: what ticks and messages do, and how it follows a leader.

Figure 2 of the Raft paper: `state` is its state, `election` its votes, and this the rest of its
"Rules for Servers". `group.RaftGroup` adds what the host of a replica sees of it.
"""

from collections.abc import Iterable

from eraft.errors import LogCorrupt, ProtocolError
from eraft.raft.confchange import describe
from eraft.raft.election import Voter
from eraft.raft.follower import NO_MATCH, append_entries, best_guess
from eraft.raft.kinds import (
    APPEND,
    APPEND_REPLY,
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
from eraft.raft.ready import SnapshotOffer
from eraft.raft.state import CANDIDATE, FOLLOWER
from eraft.types import ConfState, Message


class Replica(Voter):
    """One replica of one group: what it does when something happens."""

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
        if kind == HEARTBEAT_REPLY:
            if leadership is not None:
                leadership.heartbeat_reply(message)
                self._dirty = self._dirty or leadership.owes(sender)
            return
        self._dirty = True
        if kind == APPEND:
            self._hear_leader(message)
            self._append(message)
        elif kind == HEARTBEAT:
            self._hear_leader(message)
            self._heartbeat(message)
        elif kind == VOTE:
            self._consider_vote(message)
        elif kind == PRE_VOTE:
            self._consider_pre_vote(message)
        elif kind in (PRE_VOTE_REPLY, VOTE_REPLY):
            self._hear_vote(message)
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

    # Members

    def listen_to(self, replica_ids: Iterable[int]) -> None:
        """Which replicas have requests that are answered although `conf` does not have them.

        A replica that is behind does not know the newest members yet, but
        they may lead it or need its vote (dissertation, section 4.1). The host
        names those that its directory has issued to the group; everybody
        else, and who was removed, is refused.
        """
        named = frozenset(replica_ids)
        self._removed &= named
        self._listened_to = named - self._removed - {self.replica_id}

    def _listens_to(self, message: Message) -> bool:
        return message.sender in self._listened_to and message.kind in OF_STRANGER

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

    # Terms

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
