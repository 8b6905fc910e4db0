"""One replica of a deterministic group with its disk: it does what a Ready allows and no more.

Writes reach the disk late and in order, acknowledgements of them come later
still, `after` waits for the disk, a crash loses everything that is not on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eraft._impl import log as entries
from eraft.errors import ProtocolError
from eraft.raft import Config, Fetch, RaftGroup, Ready, Role, SnapshotOffer
from eraft.raft.confchange import ConfChange
from eraft.types import ConfState, EntryKind, HardState, Message
from tests.raft.oracle import Entry, decode

if TYPE_CHECKING:
    from tests.raft.network import Network


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    log: list[Entry] = field(default_factory=list)
    """From `base` on."""
    base: int = 0
    base_term: int = 0
    applied: int = 0
    conf: ConfState = field(default_factory=ConfState)
    """As of the applied index."""

    @property
    def last_index(self) -> int:
        return self.base + len(self.log)

    def term(self, index: int) -> int:
        return self.log[index - self.base - 1][0] if index > self.base else self.base_term

    def has(self, index: int, entry: Entry) -> bool:
        """What is below the base is in the state of the machine."""
        if index <= self.base:
            return True
        return index <= self.last_index and self.log[index - self.base - 1] == entry

    def compact(self, index: int) -> None:
        assert self.base <= index <= self.applied, "compacted, but not applied durably"
        self.base_term = self.term(index)
        del self.log[: index - self.base]
        self.base = index

    def write(self, ready: Ready) -> None:
        """One record: the switch to a snapshot, hard state, truncation and entries are atomic."""
        if ready.restored is not None:
            restored = ready.restored
            self.base, self.base_term, self.log = restored.index, restored.term, []
            self.applied, self.conf = restored.index, restored.conf
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            assert self.base < ready.first_index, "what is compacted is replaced"
            assert ready.first_index <= self.last_index + 1, "a gap in the log on disk"
            self.log[ready.first_index - self.base - 1 :] = decode(ready.entries)


class Host:
    """One replica and its disk, running or not."""

    def __init__(self, network: Network, config: Config) -> None:
        self.network = network
        self.config = config
        self.replica_id = config.replica_id
        self.disk = Disk(conf=config.conf)
        self.incarnation = 0
        self.group: RaftGroup | None = None
        self.waiting: list[Ready] = []
        """For the disk, in order; the first `writing` of them are being written."""
        self.writing = 0
        self.stalled_until = 0.0
        self.pending: list[tuple[int, int, bytes]] = []
        self.handed_state = HardState()
        self.told: list[str] = []
        self.outgoing: dict[int, tuple[int, int, ConfState]] = {}
        """What is kept for a peer that needs a snapshot: index, term and configuration."""
        self.start()

    @property
    def role(self) -> Role | None:
        return self.group.role if self.group is not None else None

    # Life

    def start(self) -> None:
        """From what the disk has; the memory gets a tail of the log of any length."""
        assert self.group is None
        disk, rng = self.disk, self.network.rng
        self.incarnation += 1
        base = rng.randint(disk.base, disk.applied)
        log = entries.EntryLog(base, disk.term(base))
        for entry in disk.log[base - disk.base :]:
            log.append(*entry)
        self.handed_state = disk.hard_state
        config = replace(self.config, conf=disk.conf)
        self.group = RaftGroup(config, disk.hard_state, log, disk.applied)
        self.group.listen_to(self.network.issued)
        self.stalled_until = 0.0
        self.network.at(rng.random(), self._tick, self.incarnation)

    def crash(self) -> None:
        """Records reach the disk in order, so a crash leaves some first part of them there."""
        for ready in self.waiting[: self.network.rng.randint(0, self.writing)]:
            self.disk.write(ready)
        self.group = None
        self.waiting = []
        self.writing = 0
        self.pending = []
        self.outgoing = {}
        self.incarnation += 1

    def flush(self) -> None:
        """The state machine up to here becomes durable, as by a flush of RocksDB."""
        if self.group is None or any(ready.restored for ready in self.waiting):
            return  # what is flushed is another generation, which is not in use yet
        self.disk.applied = self.group.applied
        self.disk.conf = self.group.conf
        rng = self.network.rng
        if rng.random() < self.network.compact_share:
            self.disk.compact(rng.randint(self.disk.base, self.disk.applied))
            self.group.compact(self.disk.base)

    # Inputs

    def call(self, act: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """One input to the group and everything that follows from it at once."""
        group = self.group
        assert group is not None
        commit, term = group.commit, group.term
        try:
            return act(*args, **options)
        finally:
            self.network.oracle.steps += 1
            assert group.term >= term, "the term never goes back"
            if group.commit != commit:
                self.network.oracle.commit_moved(self, group, commit)
            self.drain()

    def propose(self, payload: bytes) -> int:
        group = self.group
        assert group is not None
        index: int = self.call(self._propose, group, payload)
        return index

    def _propose(self, group: RaftGroup, payload: bytes) -> int:
        index = group.propose(payload)
        self.pending.append((index, group.term, payload))
        return index

    def change(self, change: ConfChange) -> int:
        """Proposes a change of the members."""
        assert self.group is not None
        index: int = self.call(self.group.propose_conf_change, change)
        return index

    def transfer(self, replica_id: int) -> None:
        assert self.group is not None
        self.call(self.group.transfer_leadership, replica_id)

    def read(self) -> int:
        assert self.group is not None
        ticket: int = self.call(self._read, self.group)
        return ticket

    def _read(self, group: RaftGroup) -> int:
        ticket = group.read_index()
        self.network.oracle.read_asked(self, ticket)
        return ticket

    def _tick(self, incarnation: int) -> None:
        if incarnation == self.incarnation and self.group is not None:
            self.network.at(1.0, self._tick, incarnation)
            self.call(self.group.tick)

    def receive(self, message: Message) -> None:
        if self.group is None:
            return
        members = self.group.conf.members
        try:
            self.call(self.group.step, message)
        except ProtocolError:
            assert message.sender not in members, "a member is refused"
            self.network.refused += 1

    # Outputs

    def drain(self) -> None:
        while self.group is not None and self.group.has_ready():
            self._handle(self.group, self.group.ready())
        if self.group is not None:
            assert self.group.ready() == Ready(), "has_ready said that there is nothing"

    def _handle(self, group: RaftGroup, ready: Ready) -> None:
        oracle, network = self.network.oracle, self.network
        for change in ready.role_changes:
            oracle.role_changed(self, group, change)
            self.told.append(change.role.value)
        assert (ready.token != 0) == (ready.hard_state is not None or ready.entries != b"")
        if ready.hard_state is not None:
            oracle.hard_state(self.handed_state, ready.hard_state)
            self.handed_state = ready.hard_state
        assert self.handed_state.term == group.term, "a new term is always persisted"
        assert self.handed_state.vote == group.vote, "a vote is always persisted"
        if ready.entries:
            oracle.handed_out(self, group, ready.first_index, ready.entries)
        for message in ready.messages:
            network.send(self, message)
        if ready.token or (ready.after and self.waiting):
            self._write(ready)
        else:
            for message in ready.after:
                network.send(self, message)
        if ready.apply is not None:
            self._apply(group, *ready.apply)
        for ticket, index in ready.reads:
            oracle.read_confirmed(self, ticket, index)
        for ticket in ready.lost_reads:
            oracle.read_lost(self, ticket)
        for replica_id in ready.snapshots:
            network.at(network.rng.random(), self._offer, self.incarnation, replica_id)
        if ready.offer is not None:
            delay = network.rng.uniform(*network.faults.transfer)
            network.at(delay, self._install, self.incarnation, ready.offer)
        for fetch in ready.fetches:
            network.at(network.rng.random(), self._fetch, self.incarnation, fetch)

    def _write(self, ready: Ready) -> None:
        self.waiting.append(ready)
        if not self.writing:
            self._write_next()

    def _write_next(self) -> None:
        network = self.network
        self.writing = len(self.waiting)
        delay = network.rng.uniform(*network.faults.write)
        delay += max(0.0, self.stalled_until - network.now)
        network.at(delay, self._written, self.incarnation)

    def _written(self, incarnation: int) -> None:
        if incarnation != self.incarnation:
            return
        network = self.network
        done, self.waiting = self.waiting[: self.writing], self.waiting[self.writing :]
        for ready in done:
            self.disk.write(ready)
        for ready in done:
            for message in ready.after:
                network.send(self, message)
            delay = network.rng.uniform(*network.faults.acknowledge)
            network.at(delay, self._acknowledged, incarnation, ready.token)
        self.writing = 0
        if self.waiting:
            self._write_next()

    def _acknowledged(self, incarnation: int, token: int) -> None:
        if incarnation == self.incarnation and self.group is not None and token:
            self.call(self.group.persisted, token)

    def _apply(self, group: RaftGroup, first: int, last: int) -> None:
        """Entries are applied, and clients hear what became of their proposals."""
        self.network.oracle.applied(self, group, first, last)
        for index, term, payload in self.pending:
            if index <= last and group.log.term(index) != term:
                self.network.oracle.not_executed(payload)
        self.pending = [proposal for proposal in self.pending if proposal[0] > last]
        for index in range(first, last + 1):
            if group.log.kind(index) == EntryKind.CONF_CHANGE:
                before, commit = group.conf, group.commit
                conf = group.apply_conf_change(index, group.log.payload(index))
                self.network.gone |= {*before.members} - {*conf.members}
                self.network.oracle.configured(index, conf)
                if group.commit != commit:
                    self.network.oracle.commit_moved(self, group, commit)
        group.applied_to(last)
        if self.network.rng.random() < self.network.flush_share:
            self.flush()

    def _offer(self, incarnation: int, replica_id: int) -> None:
        group, rng = self.group, self.network.rng
        if incarnation != self.incarnation or group is None:
            return
        if not group.applied or rng.random() < self.network.faults.drop:
            self.call(group.snapshot_failed, replica_id)
            return
        index = group.applied
        self.outgoing[replica_id] = (index, group.log.term(index), group.conf)
        self.call(group.offer_snapshot, replica_id, index, group.log.term(index), b"state")
        self.network.at(rng.uniform(20, 60), self._give_up, incarnation, replica_id)

    def _give_up(self, incarnation: int, replica_id: int) -> None:
        if incarnation == self.incarnation and self.group is not None:
            self.call(self.group.snapshot_failed, replica_id)

    def _install(self, incarnation: int, offer: SnapshotOffer) -> None:
        """The state has come over, if its sender still has it."""
        network = self.network
        snapshot = network.hosts[offer.sender].outgoing.get(self.replica_id)
        lost = (offer.sender, self.replica_id) in network.cut
        if incarnation != self.incarnation or self.group is None or snapshot is None or lost:
            return
        network.oracle.snapshot(network, *snapshot)
        if self.call(self.group.restored, *snapshot):
            network.restored += 1
            self.pending = [proposal for proposal in self.pending if proposal[0] > snapshot[0]]
        sender = network.hosts[offer.sender]
        if network.rng.random() < 0.5:
            network.at(network.rng.random(), sender._done, self.replica_id, snapshot[0])

    def _done(self, replica_id: int, index: int) -> None:
        if self.group is not None:
            self.call(self.group.snapshot_done, replica_id, index)

    def _fetch(self, incarnation: int, fetch: Fetch) -> None:
        if incarnation != self.incarnation or self.group is None:
            return
        first = fetch.first_index
        if self.network.rng.random() < self.network.faults.drop:
            self.call(self.group.fetch_failed, fetch.replica_id)
            return
        disk = self.disk
        if first <= disk.base:
            self.call(self.group.fetch_failed, fetch.replica_id, compacted=True)
            return
        blob = b""
        for entry in disk.log[first - disk.base - 1 :]:
            encoded = entries.encode_entry(*entry)
            if blob and len(blob) + len(encoded) > fetch.limit_bytes:
                break
            blob += encoded
        self.call(self.group.fetched, fetch.replica_id, first, disk.term(first - 1), blob)
