"""One group's member on this node: consensus, log, state machine and who waits for what.

What every group has is here; `ShardReplica`, `MetaReplica` and `HostedReplica` add how their
commands and reads look.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft._impl import frames, log
from eraft.errors import Diverged, StorageError
from eraft.node import fetching
from eraft.node.bulk import BulkAppends
from eraft.node.divergence import DigestChecks
from eraft.node.members import Members
from eraft.node.proposals import Proposal, Proposals, Waiter
from eraft.node.readqueue import Read, ReadQueue
from eraft.node.reconcile import Reconciler
from eraft.node.takeover import Takeover
from eraft.raft import Config, RaftGroup, Ready, Role, RoleChange
from eraft.raft.kinds import APPEND_REPLY, CHECK, COMMANDS, CONF_CHANGE
from eraft.storage.items import entries_item, group_state_item, hard_state_item
from eraft.storage.machine import StateMachine
from eraft.storage.state import ReplicaRows
from eraft.types import GroupState, HardState, Message

if TYPE_CHECKING:
    from eraft.node.node import Node

logger = logging.getLogger("eraft.replica")


class Replica:
    """A Raft group's member together with its state machine.

    The node drains it once per turn of the event loop: `propose` what has
    gathered, then hand over what the core wants done.
    """

    def __init__(
        self,
        node: Node,
        state: GroupState,
        hard_state: HardState,
        entries: log.EntryLog,
        rows: ReplicaRows,
        machine: StateMachine,
    ) -> None:
        self.node = node
        self.gid = state.gid
        self.replica_id = state.replica_id
        self.members = Members(self, state.members)
        self.entries = entries
        self.rows = rows
        self.machine = machine
        self.applied, self.applied_term, _ = rows.applied()
        options = node.options
        self.raft = RaftGroup(
            Config(
                gid=state.gid,
                replica_id=state.replica_id,
                conf=state.conf,
                election_ticks=options.election_ticks,
                heartbeat_ticks=options.heartbeat_ticks,
                append_limit_bytes=limits.APPEND_SIZE_BYTES,
                appends_in_flight=limits.APPENDS_IN_FLIGHT,
                tail_bytes=options.log_tail_bytes,
                random=Random(node.random.getrandbits(64)),
            ),
            hard_state,
            entries,
            applied=self.applied,
        )
        self.proposals = Proposals()
        self.reads = ReadQueue(self)
        self._apply_to = self.applied
        self._bulk = BulkAppends()
        self.checks = DigestChecks(state.gid, state.replica_id, options.check_ticks)
        self.reconciler = Reconciler(self)
        self.serving = False
        """Whether it answers as the leader: an entry of its term is applied."""
        self.led = False
        """Whether it led after the last turn; in this one the core may have changed its role."""
        self.retired = False
        """Quarantined, or removed from its group: it takes part in nothing any more."""
        self.takeover = Takeover(self)

    # Inputs

    def tick(self) -> None:
        """One tick of the election and heartbeat timers, and the deadlines of who waits."""
        node = self.node
        self.raft.tick()
        self.proposals.expire(node.now_s)
        self.reads.expire(node.now_s)
        self.checks.tick()
        if self.serving and self.leading:  # the core may have stepped down since the last turn
            self._check_digests()
        self.reconciler.tick()
        if self.has_work:
            node.touch(self)
        if self.members.removed and node.leader_of(self.gid) not in (0, node.identity.node_id):
            self.leave()

    def step(self, message: Message) -> None:
        """A message from another replica; ProtocolError when it is not from this group."""
        self.raft.step(message)
        if message.kind == APPEND_REPLY:
            self._bulk.answered(message)
        if self.raft.has_ready():
            self.node.touch(self)

    def node_unreachable(self, node_id: int) -> None:
        """The connection to that node broke: what is in flight to it may be lost."""
        for replica_id, home in self.members.homes.items():
            if home == node_id and replica_id != self.replica_id:
                self.raft.unreachable(replica_id)
                self._bulk.forget(replica_id)
        self.node.touch(self)

    def read(self, read: Read) -> None:
        """Serve `read` at a position that is confirmed after now."""
        if self.retired:
            read.reroute(self.node)
            return
        if read.after_writes:
            read.after_writes = False
            if self.gathering:
                self.reads.behind_writes.append(read)
                return
            if self.proposals.pending:
                read.barrier = self.proposals.pending[-1].index
        self.reads.collecting.append(read)
        self.node.touch(self)

    def serve_reads(self, reads: list[Read]) -> None:
        """Serve reads whose confirmed position is applied."""
        self.reads.serve(reads)

    def read_behind_clock(self, read: Read) -> None:
        """Serve the read once the log's clock has passed the time of its first attempt."""
        self.want_clock()
        read.after_writes = True
        self.read(read)

    def want_clock(self) -> None:
        """Bring the log's clock forward by an entry; for the subclass."""

    @property
    def gathering(self) -> bool:
        """Whether something waits for the next entry; for the subclass."""
        return False

    @property
    def clock_ms(self) -> int:
        """The state machine's clock, for the subclass that has one."""
        return 0

    @property
    def leader_node(self) -> int:
        """The node id of the leader that this replica follows, 0 when it knows none."""
        return self.members.home(self.raft.leader_id)

    @property
    def leading(self) -> bool:
        """Whether this replica leads its group; it answers only once it is `serving` too."""
        return self.raft.role is Role.LEADER

    @property
    def proposes(self) -> bool:
        """Whether it leads and is not handing over: meanwhile what gathers waits."""
        return self.leading and not self.raft.transferee

    @property
    def following(self) -> bool:
        """Whether it follows a leader that can be asked for read positions."""
        leader = self.leader_node
        follows = not self.retired and not self.led and bool(leader)
        return follows and self.node.gossip.peer(leader).connected

    @property
    def saturated(self) -> bool:
        """Whether so much is not applied yet that nothing more may be proposed."""
        return (
            len(self.proposals.pending) >= limits.PROPOSALS_PENDING
            or self.entries.size_bytes >= 2 * self.raft.config.tail_bytes
            or self.raft.overloaded
        )

    @property
    def choked(self) -> bool:
        """Whether so much waits for a store that stalls that nothing more may be applied."""
        rows = self.rows
        return rows.pending >= limits.OVERLAY_ROWS or rows.size_hint >= limits.OVERLAY_BYTES

    # One turn

    @property
    def has_work(self) -> bool:
        """Whether a turn may have something to do here, be it what an earlier one had to leave."""
        return (
            self.raft.has_ready()
            or self.gathering
            or bool(self.reads.collecting or self.reads.confirmed)
            or self._apply_to > self.applied
        )

    def drain(self) -> None:
        """Propose what has gathered and hand over everything that the core wants done."""
        if self.retired:
            return
        if self.gathering and self.proposes:
            if not self.node.outbox.log_idle:
                self.node.outbox.want_log(self)
            elif not self.saturated:
                self.propose_gathered()
        if self.reads.collecting:
            self.reads.ask()
        while self.raft.has_ready():
            self._handle(self.raft.ready())
        if self._apply_to > self.applied or self.reads.confirmed:
            self.node.apply_later(self)

    def apply(self) -> None:
        """Apply what is committed, and serve the reads that waited for it."""
        if self.retired:
            return
        if self._apply_to > self.applied and not self.choked:
            self._apply_slice()
            # It may have been saturated, and what is applied may let the core go on.
            if not self.retired and (self.gathering or self.raft.has_ready()):
                self.node.touch(self)
        if self.reads.confirmed:
            self.reads.serve_applied()

    def propose_gathered(self) -> None:
        """Make one entry of what has gathered since the last one; for the subclass."""

    def propose(self, payload: bytes, waiters: Sequence[Waiter]) -> int:
        """Append an entry as leader and remember who waits for its replies."""
        index = self.raft.propose(payload)
        self.proposed(index, waiters)
        if self.reads.behind_writes:
            self.reads.proposed(index)
        return index

    def proposed(self, index: int, waiters: Sequence[Waiter]) -> None:
        """Remember who waits for the entry that was appended just now."""
        self.proposals.add(index, self.raft.term, waiters, self.node.now_s)

    def _handle(self, ready: Ready) -> None:
        node = self.node
        if ready.token:
            if ready.restored is not None:
                assert ready.hard_state is not None, "it goes with the switch"
                self.takeover.persist(ready.hard_state)
            elif ready.hard_state is not None:
                node.outbox.persist(hard_state_item(self.gid, ready.hard_state))
            if ready.entries:
                node.outbox.persist(entries_item(self.gid, ready.first_index, ready.entries))
            node.outbox.on_durable(self, ready.token)
        for message in ready.messages:
            self._send(message)
        if ready.after:
            node.outbox.send_after(self, ready.after)
        if ready.apply is not None:
            self._apply_to = ready.apply[1]
        for wanted in ready.fetches:
            fetching.fetch(self, wanted)
        for replica_id in ready.snapshots:
            node.sending.want(self, replica_id)
        if ready.offer is not None:
            node.receiving.offered(self, ready.offer)
        for change in ready.role_changes:
            self._role_changed(change)
        for ticket, index in ready.reads:
            self.reads.position(ticket, index)
        for ticket in ready.lost_reads:
            self.reads.lost(ticket)

    def _send(self, message: Message) -> None:
        bulk = self._bulk.takes(message)
        home = self.members.home(message.to)
        if home:
            self.node.send(home, message, bulk)

    def send_released(self, messages: Sequence[Message]) -> None:
        """Send messages that had to wait until the log was durable."""
        if not self.retired:
            for message in messages:
                self._send(message)

    # Applying

    def _apply_slice(self) -> None:
        """Apply entries up to the limit of one turn."""
        index = self.applied
        budget_bytes = limits.APPLY_SLICE_BYTES
        term = self.applied_term
        rows = self.rows
        while index < self._apply_to and budget_bytes > 0:
            index += 1
            term, kind, payload = self._entry(index)
            budget_bytes -= len(payload)
            proposal = self.proposals.at(index, term)
            replies: list[Any] | None = None
            if proposal is not None and proposal.waiters:
                replies = []
            try:
                if kind == COMMANDS:
                    self.machine.apply(rows, index, term, payload, replies)
                elif kind == CHECK:
                    self._check_applied(index, payload)
            except Diverged as error:
                self._quarantine(str(error), index, term)
                return
            except (StorageError, MemoryError):
                raise
            except Exception as error:
                if self.leading and term == self.raft.term:
                    raise  # this replica made it
                logger.error("group %d: entry %d", self.gid, index, exc_info=error)
                self.suspend(f"entry {index} cannot be applied: {type(error).__name__}: {error}")
                return
            if kind == CONF_CHANGE:
                self.members.apply(index, payload)
                if replies is not None:
                    replies.append(None)
            if proposal is not None and replies is not None:
                self.settle(proposal, replies)
            if self.members.removed:
                break
        self.applied, self.applied_term = index, term
        rows.set_applied(index, term, self.clock_ms)
        self.raft.applied_to(index)
        if rows.pending >= limits.WRITE_BEHIND_ROWS or rows.size_hint >= limits.WRITE_BEHIND_BYTES:
            self.node.writing.write(self.rows)
        if self._apply_to > index or self.members.removed:
            self.node.touch(self)
        if self.members.removed and not self.led:
            self.leave()
        else:
            self.after_apply()

    def settle(self, proposal: Proposal, replies: list[Any]) -> None:
        """Hand the replies of an applied entry to those who wait for them."""
        proposal.settle(replies)

    def after_apply(self) -> None:
        """A range has been applied; for the subclass."""
        if not self.serving and self.leading and self.applied_term == self.raft.term:
            self.serving = True
            self.serving_changed()

    def _entry(self, index: int) -> tuple[int, int, bytes]:
        entries = self.entries
        if index >= entries.first_index:
            return entries.term(index), entries.kind(index), entries.payload(index)
        return fetching.read_entry(self.node.log, self.gid, index)

    # Members

    @property
    def state(self) -> GroupState:
        """What the replica is, with the configuration of the last applied entry."""
        return GroupState(
            self.gid, self.replica_id, self.rows.generation, self.raft.conf, self.members.addresses
        )

    def members_changed(self) -> None:
        """The group has other members, or some of them live elsewhere."""
        self.checks.keep(self.members.homes)
        self._bulk.keep(self.members.homes)
        self.node.ownership_changed(self)

    def leave(self) -> None:
        """This replica is not of its group any more; what it still has to say leaves first."""
        while self.raft.has_ready():
            self._handle(self.raft.ready())
        self._retire()
        self.node.remove(self)

    # Snapshots

    def begin_anew(self, head: GroupState, rows: ReplicaRows) -> None:
        """The state is that of a snapshot now, and the log behind it is empty."""
        self.rows, self.entries = rows, self.raft.log
        self.applied, self.applied_term, _ = rows.applied()
        self._apply_to = self.applied
        self._bulk.clear()
        self.checks.restart()
        self.reads.drop()
        self.proposals.give_up(head.base_index)
        self.reload()
        self.members.adopt(head.members)

    def check_row(self, key: bytes, row: bytes) -> None:
        """Raise ProtocolError if no replica of the group can have the row; for the subclass.

        `key` begins with the kind, without a generation.
        """

    def check_rows(self, rows: ReplicaRows) -> None:
        """Raise ProtocolError if the rows do not fit each other; for the subclass."""

    def reload(self) -> None:
        """The rows are others than before: make what is kept beside them anew; for the subclass."""

    # Comparing the replicas

    def _check_digests(self) -> None:
        """A leader lets the replicas' digests be compared now and then."""
        raft = self.raft
        if not self.checks.due(raft.term) or raft.transferee or self.saturated:
            return
        if self.node.room.refuse_writes(self) is None:
            check = self.checks.next_check(raft.term, raft.conf, self.applied)
            if check is not None:
                raft.propose(check, CHECK)

    def _check_applied(self, index: int, payload: bytes) -> None:
        """Note the digest at a check, and tell the leader; raises Diverged."""
        report = self.checks.applied(index, payload, self.rows.digest)
        leader = self.leader_node
        if leader and not self.leading and self.node.gossip.peer(leader).connected:
            self.node.send_frame(leader, frames.encode_frame(frames.DIGEST, report.encode()))

    def _quarantine(self, why: str, index: int, term: int) -> None:
        """This replica's state cannot be trusted: it takes part in nothing from now on.

        The entry at `index` said so. That is durable as soon as the node's
        next record is. Should a crash come first, the next check finds the same.
        """
        self.raft.tell_commit()  # the verdict is committed, and the others may not know yet
        for message in self.raft.ready().messages:
            self._send(message)
        state = replace(self.suspend(why), base_index=index, base_term=term)
        self.node.outbox.persist(group_state_item(state))

    def suspend(self, why: str) -> GroupState:
        """This replica takes part in nothing until the node starts again; returns its state.

        For what a peer can bring about: it must not stop the node, nor
        anything for good. Nothing that is applied since the last rows were written is kept.
        """
        raft = self.raft
        raft.step_down("it is quarantined")
        hard_state = HardState(raft.term, raft.vote, raft.commit)
        state = replace(self.state, hard_state=hard_state, quarantined=why)
        if self.takeover.under_way:
            # Its rows are what the replica has from now on. Entries behind it were not persisted.
            self.takeover.persist(replace(hard_state, commit=0))
        self.node.quarantine(state)
        self._retire()
        self.node.groups.close_lane(self)
        return state

    def _retire(self) -> None:
        """Take part in nothing any more; whoever waits is told."""
        self.retired = True
        if self.serving:
            self.serving = False
            self.serving_changed()
        self.reads.retire()
        self.proposals.give_up()

    # Roles

    def _role_changed(self, change: RoleChange) -> None:
        # A replica that campaigns in vain changes its role twice a second.
        settled = change.role is Role.LEADER or change.leader_id != 0
        logger.log(
            logging.INFO if settled else logging.DEBUG,
            "group %d: replica %d is %s in term %d, the leader is on node %s: %s",
            self.gid,
            self.replica_id,
            change.role.name.lower(),
            change.term,
            self.members.home(change.leader_id) or "?",
            change.why,
        )
        self.led = change.role is Role.LEADER
        serving = self.led and self.applied_term == change.term
        if serving != self.serving:
            self.serving = serving
            self.serving_changed()
        if change.role is not Role.LEADER:
            self.reads.drop()
            self.proposals.depose()
        self.node.lead_changed(self)

    def serving_changed(self) -> None:
        """Whether this replica answers as leader has changed; for the subclass."""
