"""One replica of one Raft group, without I/O.

`RaftGroup` is told what happens (messages, ticks, proposals, what the disk
has finished) and hands out what to do as data (`Ready`). It never waits,
never looks at a clock and draws chance only from the generator it was given,
so the same inputs give the same outputs.

The algorithm is that of the Raft paper (Ongaro and Ousterhout, "In Search of
an Understandable Consensus Algorithm", extended version) with, from Ongaro's
dissertation: pre-vote (section 9.6), leader stickiness and check-quorum (4.2.3
and 6.2), membership changes with learners and joint consensus (chapter 4),
leadership transfer (3.10), snapshots (chapter 5), reads without log writes
(6.4), and a leader that writes to its own disk in parallel with its followers
(10.2.1).

Where to read on: `state` is what a replica knows of itself, `election` how it stands for
election and votes, `replica` what messages and ticks do, `quorum` and `confchange` say what
a configuration decides and becomes, `leader` replicates and commits, `follower`
accepts entries, `progress` is the flow control per peer, `reads` confirms
reads, `durability` tracks what is on disk.
"""

from eraft._impl import log as entries
from eraft.errors import (
    ConfChangeRefused,
    InvariantViolation,
    NotLeader,
    Overloaded,
    ProtocolError,
    TransferUnderWay,
)
from eraft.raft import confchange
from eraft.raft.config import Config
from eraft.raft.kinds import APPEND_REPLY, COMMANDS, CONF_CHANGE, INDEX_LIMIT, READ_INDEX
from eraft.raft.leader import NO_RUN, Leadership, Run
from eraft.raft.reads import FollowerReads
from eraft.raft.ready import Fetch, Ready, Restored, Status
from eraft.raft.replica import Replica
from eraft.raft.state import FOLLOWER, LEADER
from eraft.types import ConfState, HardState, Message

NO_LIMIT = 1 << 62
NOT_HANDED = HardState(term=-1)
"""Differs from every hard state: the next one is handed out, whatever it is."""


class RaftGroup(Replica):
    """One replica as its host sees it: `tick` and `step` (of `Replica`) and what is here go in,
    `ready` comes out.
    """

    def __init__(
        self, config: Config, hard_state: HardState, log: entries.EntryLog, applied: int = 0
    ) -> None:
        """Starts as a follower from what is on disk.

        `log` holds at least the entries after `applied`, all of it durable;
        `hard_state` is the last one written. Raises `LogCorrupt` if they do
        not fit together: such a replica lost what it had promised and must
        not take part.
        """
        super().__init__(config, hard_state, log, applied)
        self._changed_at = applied
        self._handed_state = hard_state
        self._handed_apply = applied
        self._restored: Restored | None = None

    # What happens

    def propose(self, payload: bytes, kind: int = COMMANDS) -> int:
        """Appends an entry; returns its index, which together with `term` names it.

        Raises `NotLeader`, `TransferUnderWay` while leadership is handed over, and `Overloaded`
        while more than `uncommitted_bytes` are not committed.
        """
        leadership = self._leadership
        if leadership is None or leadership.transferee:
            raise self._no_proposals()
        if self.overloaded:
            raise Overloaded(
                f"group {self.gid}: more than {self.config.uncommitted_bytes} bytes of the log"
                " are not committed"
            )
        self._dirty = True
        return self.log.append(self.term, kind, payload)

    def tell_commit(self) -> None:
        """Sends every peer what is committed at once, if this replica leads.

        Usually the next append or heartbeat does.
        """
        if self._leadership is not None:
            self._leadership.send_heartbeats(self._told_commit, self._messages)
            self._dirty = True

    @property
    def overloaded(self) -> bool:
        """Whether more than `uncommitted_bytes` of the log are not committed."""
        log, limit = self.log, self.config.uncommitted_bytes
        return log.size_bytes > limit and log.size_from(self.commit + 1) > limit

    def _no_proposals(self) -> NotLeader | TransferUnderWay:
        where = f"group {self.gid}: replica {self.replica_id}"
        if self._leadership is None:
            return NotLeader(f"{where} is {self.role.value}")
        return TransferUnderWay(f"{where} hands over to replica {self._leadership.transferee}")

    def propose_conf_change(self, change: confchange.ConfChange) -> int:
        """Appends a change of the members as leader; returns its index.

        It takes effect on each replica when its host applies that entry (see
        `apply_conf_change`). Raises `NotLeader`, `TransferUnderWay`, and
        `ConfChangeRefused` if the change is illegal, if one before it is not
        applied yet, or if no entry of this term is committed yet: only then is
        it sure that no change of an earlier leader is still open
        (dissertation, section 4.1, and the erratum to it).
        """
        leadership = self._leadership
        if leadership is None or leadership.transferee:
            raise self._no_proposals()
        if self.commit < leadership.first_index:
            raise ConfChangeRefused(
                f"group {self.gid}: no entry of term {self.term} is committed yet"
            )
        if self.applied < self._pending_change:
            raise ConfChangeRefused(
                f"group {self.gid}: a change up to index {self._pending_change} may be under"
                f" way, applied is {self.applied}"
            )
        confchange.changed(self.conf, change)
        return self._append_change(confchange.encode(change))

    def _append_change(self, payload: bytes) -> int:
        self._dirty = True
        self._pending_change = self.log.append(self.term, CONF_CHANGE, payload)
        return self._pending_change

    def apply_conf_change(self, index: int, payload: bytes) -> ConfState:
        """The host applies an entry of kind CONF_CHANGE; returns the configuration after it.

        Call it for each such entry of a range that was handed out, in order
        and before `applied_to` passes it. What it returns belongs to the
        applied index, so the host makes both durable together and gives it to
        `Config` at the next start. A leader that is no voter any more steps down.

        A payload that is none, or a change that is impossible, changes nothing,
        on every replica alike: no leader of ours appends one.
        """
        if not self._changed_at < index <= self._handed_apply or index <= self.applied:
            raise InvariantViolation(
                f"changes are applied in order, once: {index} after {self._changed_at},"
                f" applied {self.applied}, handed out {self._handed_apply}"
            )
        self._changed_at = index
        try:
            conf = confchange.changed(self.conf, confchange.decode(payload))
        except (ProtocolError, ConfChangeRefused):
            return self.conf
        self._reconfigure(conf)
        return conf

    def transfer_leadership(self, replica_id: int) -> None:
        """Begins to hand leadership over to a voter (dissertation, section 3.10).

        Until it is over, `transferee` names it and proposals are refused.
        It ends with this replica's step down, or without one when the target
        is `unreachable` or `election_ticks` are over: then this replica goes
        on to lead. Raises `NotLeader`, and `TransferRefused` if the target is
        no voter or is not following closely enough to catch up at once. To
        itself there is nothing to do.
        """
        leadership = self._leadership
        if leadership is None:
            raise NotLeader(f"group {self.gid}: replica {self.replica_id} is {self.role.value}")
        if replica_id != self.replica_id:
            leadership.transfer(replica_id)
            self._dirty = True

    @property
    def transferee(self) -> int:
        """The replica that leadership is being handed over to, 0 for none."""
        return self._leadership.transferee if self._leadership is not None else 0

    def read_index(self) -> int:
        """Asks for a read position; the ticket comes back in `Ready.reads` or `lost_reads`.

        A replica that does not lead asks its leader; the ticket is lost when
        leader or term change, or without an answer for `election_ticks`.
        Raises `NotLeader` if no leader is known. Tickets grow and are never reused.
        """
        leadership = self._leadership
        if leadership is None and not self.leader_id:
            raise NotLeader(f"group {self.gid}: replica {self.replica_id} knows no leader")
        self._dirty = True
        self._ticket += 1
        if leadership is not None:
            leadership.reads.ask(self._ticket)
        else:
            self._asked_reads.collecting.append(self._ticket)
        return self._ticket

    def applied_to(self, index: int) -> None:
        """The host has applied everything up to `index` of what was handed out."""
        if not self.applied <= index <= self._handed_apply:
            raise InvariantViolation(
                f"applied in order: {index} is reported, {self.applied} was applied and"
                f" {self._handed_apply} handed out"
            )
        self.applied = index
        if self.conf.auto_leave and self.role is LEADER and index >= self._pending_change:
            # A new leader comes here with the first entry of its term.
            self._append_change(confchange.encode(confchange.LEAVE_JOINT))
        log = self.log
        while log.size_bytes > self.config.tail_bytes and log.base_index < index:
            log.compact((log.base_index + index + 1) // 2)

    def fetched(self, replica_id: int, first_index: int, prev_term: int, blob: bytes) -> None:
        """The answer to a `Fetch`: entries from `first_index` on, and the term before them.

        Raises `ProtocolError` if they are malformed.
        """
        if self._leadership is not None:
            message = self._leadership.fetched(
                replica_id, first_index, prev_term, blob, self._told_commit
            )
            if message is not None:
                self._messages.append(message)
            self._dirty = True

    def fetch_failed(self, replica_id: int, compacted: bool = False) -> None:
        """The entries of a `Fetch` cannot be read; it is asked again after a while.

        With `compacted` they are gone for good: the peer needs a snapshot, and
        `Ready.snapshots` names it.
        """
        if self._leadership is not None:
            self._leadership.fetch_failed(replica_id, compacted)
            self._dirty = True

    def unreachable(self, replica_id: int) -> None:
        """The link to a peer was lost, and with it perhaps messages."""
        if self._leadership is not None:
            self._leadership.unreachable(replica_id)

    # Snapshots

    def compact(self, index: int) -> None:
        """Entries up to `index` leave the memory; the host decides what stays on its disk.

        `InvariantViolation` beyond `applied`.
        """
        if index > self.applied:
            raise InvariantViolation(
                f"only what is applied is compacted: {index}, applied is {self.applied}"
            )
        self.log.compact(index)

    def offer_snapshot(
        self, replica_id: int, index: int, log_term: int, metadata: bytes = b""
    ) -> bool:
        """Offers a peer that `Ready.snapshots` named the state as of an applied entry.

        The host keeps that state, with the configuration that belongs to
        `index`, for as long as it sends it; it sends it its own way, when the
        peer's host asks for it. At the end, also when the peer is silent for
        too long or the node cannot send, it calls `snapshot_done` or
        `snapshot_failed`. It may offer again, if the offer may be lost.

        False if there is nobody to offer it to any more: this replica does
        not lead, or the peer is gone or does not need it. Whoever stops
        leading drops what it was sending.
        """
        if not 0 < index <= self.applied:
            raise InvariantViolation(
                f"a snapshot holds what is applied: {index}, applied is {self.applied}"
            )
        if self._leadership is None:
            return False
        message = self._leadership.offer_snapshot(replica_id, index, log_term, metadata)
        if message is None:
            return False
        self._messages.append(message)
        self._dirty = True
        return True

    def snapshot_done(self, replica_id: int, index: int) -> None:
        """The peer's host says that it has installed a snapshot up to `index`.

        Replication goes on behind it. What counts as durable on the peer is
        only what its replica acknowledges; if it has nothing, it is found out.
        """
        if self._leadership is not None:
            self._leadership.snapshot_done(replica_id, index)
            self._dirty = True

    def snapshot_failed(self, replica_id: int) -> None:
        """The peer has not got its snapshot; if it still needs one, it is named again later."""
        if self._leadership is not None:
            self._leadership.snapshot_failed(replica_id)

    def restored(self, index: int, term: int, conf: ConfState) -> bool:
        """The host has the whole state as of entry `index` of `term`, checked and durable.

        The order for the host of a replica that got a `Ready.offer`:

        1. Fill a fresh generation of the state machine beside the one in use,
           verify it, make it durable. The replica goes on meanwhile: it
           votes, hears its leader, and may catch up from its log.
        2. Call this. False: the replica has come as far by itself; drop the
           fresh generation. (Both answers go to the leader by themselves.)
        3. True: from now on `log` is another, empty object, and `commit`,
           `applied` and `conf` are those of the snapshot. Forget ranges that
           were handed out and not applied yet, switch to the fresh
           generation. Of pending proposals with an index up to `index` nobody
           knows the outcome. The next Ready has `restored`: persist it as it
           says; only when its token is durable the leader gets its answer and
           anything is applied, and only then delete the old generation.

        A crash before that leads back to the old generation and log, later to
        the new one. `conf` is the configuration of the snapshot; it and the
        state come from another node, so `ProtocolError` if no group can have
        it or the term is one that this replica has never seen.
        """
        try:
            confchange.check(conf)
        except ConfChangeRefused as error:
            raise ProtocolError(f"group {self.gid}: snapshot up to {index}: {error}") from None
        if not conf.voters or not 0 < term <= self.term or not 0 < index < INDEX_LIMIT:
            raise ProtocolError(
                f"group {self.gid}, replica {self.replica_id} in term {self.term}: no snapshot can"
                f" end with entry {index} of term {term} and {confchange.describe(conf)}"
            )
        fresh = self.role is not LEADER and not self._has(index, term)
        if fresh:
            self._reset(index, term, conf)
        self._dirty = True
        if self.leader_id not in (0, self.replica_id):
            self._after.append(
                Message(
                    kind=APPEND_REPLY,
                    gid=self.gid,
                    sender=self.replica_id,
                    to=self.leader_id,
                    term=self.term,
                    index=self.commit,
                    commit=self.commit,
                )
            )
        return fresh

    def _reset(self, index: int, term: int, conf: ConfState) -> None:
        """Everything until here is replaced by the snapshot, in memory and with the next Ready."""
        if self.role is not FOLLOWER:
            self._become_follower(self.term, 0, "installs a snapshot")
        self.log = entries.EntryLog(index, term)
        self._durability.reset(index)
        self.commit = self.applied = index
        self._handed_apply = self._changed_at = index
        self._reconfigure(conf)
        self._restored = Restored(index, term, conf)
        if self._offer is not None and self._offer.index <= index:
            self._offer = None

    # What to do

    def has_ready(self) -> bool:
        """False if `ready` would be empty."""
        return self._dirty

    def ready(self) -> Ready:
        """Hands out everything there is to do since the last call."""
        ready = Ready()
        if self._restored is not None:
            ready.restored, self._restored = self._restored, None
            self._handed_state = NOT_HANDED
        run = self._persist(ready)
        leadership = self._leadership
        if leadership is not None:
            self._lead(leadership, run, ready)
        elif self._asked_reads.collecting or self._asked_reads.confirmed:
            self._ask_reads(self._asked_reads, ready)
        last = min(self._told_commit, self._durability.durable_index)
        if last > self._handed_apply:
            ready.apply = (self._handed_apply + 1, last)
            self._handed_apply = last
        if self._messages:
            ready.messages, self._messages = self._messages, []
        if self._after:
            ready.after, self._after = self._after, []
        if self._offer is not None:
            ready.offer, self._offer = self._offer, None
        if self._role_changes:
            ready.role_changes, self._role_changes = self._role_changes, []
        if self._lost_reads:
            ready.lost_reads, self._lost_reads = self._lost_reads, []
        self._dirty = False
        return ready

    def _persist(self, ready: Ready) -> Run:
        """Fills in what has to be persisted; returns the run of entries."""
        durability = self._durability
        handed = self._handed_state
        last = self.log.last_index
        run = NO_RUN
        if durability.handed_index < last:
            first = durability.handed_index + 1
            run = (first, *self.log.slice(first, last, NO_LIMIT))
            ready.first_index, ready.entries = first, run[1]
        elif handed.term == self.term and handed.vote == self.vote and not self._owes_commit:
            return run
        if handed.commit != self.commit or handed.term != self.term or handed.vote != self.vote:
            handed = HardState(self.term, self.vote, self.commit)
            ready.hard_state = self._handed_state = handed
        ready.token = durability.hand_out(last, self.term, handed.commit)
        return run

    @property
    def _owes_commit(self) -> bool:
        """Whether the commit index alone is a reason to persist the hard state."""
        return self._told_commit != self.commit != self._handed_state.commit

    def _lead(self, leadership: Leadership, run: Run, ready: Ready) -> None:
        """What only a leader does: reads, once its term has a committed entry, and appends."""
        reads = leadership.reads
        if self.commit >= leadership.first_index and reads.begin(self.replica_id, self.commit):
            leadership.send_heartbeats(self._told_commit, self._messages)
        if reads.confirmed:
            ready.reads, reads.confirmed = reads.confirmed, []
            if leadership.remote_reads:
                ready.reads = leadership.answer_reads(ready.reads, self._messages)
        fetches: list[Fetch] = []
        leadership.send_appends(self._told_commit, run, self._messages, fetches)
        if fetches:
            ready.fetches = fetches
        if leadership.snapshots:
            ready.snapshots, leadership.snapshots = leadership.snapshots, []

    def _ask_reads(self, reads: FollowerReads, ready: Ready) -> None:
        """What only a follower does: it asks for what was collected, and tells the answers."""
        context = reads.begin(self.config.random)
        if context:
            self._messages.append(
                Message(
                    kind=READ_INDEX,
                    gid=self.gid,
                    sender=self.replica_id,
                    to=self.leader_id,
                    term=self.term,
                    context=context,
                )
            )
        if reads.confirmed:
            ready.reads, reads.confirmed = reads.confirmed, []

    @property
    def durable_index(self) -> int:
        """The last entry of the log that is known to be on this replica's disk."""
        return self._durability.durable_index

    @property
    def last_index(self) -> int:
        """The last entry of the log."""
        return self.log.last_index

    def status(self) -> Status:
        """The replica at a glance."""
        leadership = self._leadership
        return Status(
            gid=self.gid,
            replica_id=self.replica_id,
            role=self.role.value,
            term=self.term,
            vote=self.vote,
            leader_id=self.leader_id,
            commit=self.commit,
            applied=self.applied,
            durable_index=self.durable_index,
            first_index=self.log.first_index,
            last_index=self.log.last_index,
            log_size_bytes=self.log.size_bytes,
            conf=self.conf,
            transferee=self.transferee,
            peers=tuple(leadership.peers()) if leadership is not None else (),
        )
