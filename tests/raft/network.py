"""A deterministic group: replicas, disks and a network in one process, driven by one seed.

Time is in ticks. Every replica lives on a `Host`, which does with a Ready
what its documentation allows and no more: writes reach the disk late and in
order, acknowledgements of them come later still, `after` waits for the disk,
a crash loses everything that is not on it. An `Oracle` watches every step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from eraft._impl import log as entries
from eraft.errors import NotApplied, ProtocolError
from eraft.raft import Config, Fetch, RaftGroup, Ready, Role, SnapshotOffer
from eraft.raft.confchange import ConfChange
from eraft.types import ConfState, EntryKind, HardState, Message
from tests.raft.oracle import Entry, Oracle, decode

GID = 7


@dataclass
class Faults:
    """What the network and the disks do; times in ticks."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: tuple[float, float] = (0.05, 0.15)
    late: float = 0.0
    """Share of messages that are delayed by up to `late_delay` more."""
    late_delay: float = 30.0
    write: tuple[float, float] = (0.02, 0.1)
    """What a write takes. What is handed out meanwhile is written together in the next."""
    acknowledge: tuple[float, float] = (0.0, 0.1)
    """From there until the replica is told."""
    transfer: tuple[float, float] = (0.5, 5.0)
    """What a snapshot takes to come over."""


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


class Network:
    """A group of replicas 1..n over a network that is as bad as `faults` says."""

    def __init__(self, size: int, seed: int, faults: Faults | None = None, **settings: Any) -> None:
        self.rng = Random(seed)
        self.faults = faults or Faults()
        self.flush_share = 0.3
        self.compact_share = 0.0
        self.restored = 0
        self.oracle = Oracle()
        self.now = 0.0
        self.messages = 0
        self.refused = 0
        self.entry_bytes = 0
        self.cut: set[tuple[int, int]] = set()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._payloads = 0
        self._settings = settings
        conf = ConfState(tuple(range(1, size + 1)))
        self.hosts: dict[int, Host] = {}
        self.founding = conf
        self.issued = set(conf.voters)
        self.gone: set[int] = set()
        """Who was removed by a change that somebody has applied."""
        for replica_id in conf.voters:
            self._make(replica_id, conf)

    def _make(self, replica_id: int, conf: ConfState) -> Host:
        config = Config(
            gid=GID,
            replica_id=replica_id,
            conf=conf,
            random=Random(self.rng.random()),
            **self._settings,
        )
        host = self.hosts[replica_id] = Host(self, config)
        return host

    def add_host(self, conf: ConfState) -> Host:
        """A new, empty replica, which `conf` is the founding configuration of, if it knows it."""
        replica_id = len(self.hosts) + 1
        self.issued.add(replica_id)
        for host in self.hosts.values():
            if host.group is not None:
                host.group.listen_to(self.issued)
        return self._make(replica_id, conf)

    # Time

    def at(self, delay: float, act: Callable[..., None], *args: Any) -> None:
        """Does something `delay` ticks from now."""
        self._order += 1
        heapq.heappush(self._events, (self.now + delay, self._order, act, args))

    def run(self, ticks: float) -> None:
        """Lets time pass."""
        end = self.now + ticks
        while self._events and self._events[0][0] <= end:
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)
        self.now = end

    def run_until(self, condition: Callable[[], Any], ticks: float, what: str) -> None:
        """Lets time pass until `condition` holds, which must be within `ticks`."""
        end = self.now + ticks
        while not condition():
            assert self._events and self._events[0][0] <= end, f"not within {ticks} ticks: {what}"
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)

    # Messages

    def send(self, host: Host, message: Message) -> None:
        self.oracle.sent(host, message)
        faults, rng = self.faults, self.rng
        self.messages += 1
        self.entry_bytes += len(message.entries)
        if (message.sender, message.to) in self.cut or rng.random() < faults.drop:
            return
        for _ in range(2 if rng.random() < faults.duplicate else 1):
            delay = rng.uniform(*faults.delay)
            if faults.late and rng.random() < faults.late:
                delay += rng.uniform(0, faults.late_delay)
            self.at(delay, self._deliver, replace(message))

    def _deliver(self, message: Message) -> None:
        if (message.sender, message.to) not in self.cut:
            self.hosts[message.to].receive(message)

    def partition(self, *sides: Iterable[int]) -> None:
        """Only replicas of one side reach each other; who is in none is alone."""
        side_of = {replica_id: n for n, side in enumerate(sides, 1) for replica_id in side}
        self.cut = {
            (a, b)
            for a in self.hosts
            for b in self.hosts
            if a != b and (side_of.get(a, -a) != side_of.get(b, -b))
        }

    def isolate(self, *replica_ids: int) -> None:
        """Cuts each of these from everybody."""
        self.partition([i for i in self.hosts if i not in replica_ids])

    def heal(self) -> None:
        self.cut = set()

    def tell_unreachable(self) -> None:
        """The links that are cut now are noticed by their senders."""
        for sender, to in sorted(self.cut):
            group = self.hosts[sender].group
            if group is not None:
                self.hosts[sender].call(group.unreachable, to)

    # What tests ask for

    def payload(self) -> bytes:
        """Distinct, so that nothing lost, doubled or resurrected can hide."""
        self._payloads += 1
        return b"command %d" % self._payloads

    def leaders(self) -> list[Host]:
        """Who believes to lead, newest term last."""
        found = [host for host in self.hosts.values() if host.role is Role.LEADER]
        return sorted(found, key=lambda host: host.group.term if host.group is not None else 0)

    def connected(self) -> list[Host]:
        """Who runs and can exchange messages with a majority."""

        def near(a: int, b: int) -> bool:
            up = self.hosts[a].group is not None and self.hosts[b].group is not None
            return up and (a, b) not in self.cut and (b, a) not in self.cut

        return [
            host
            for a, host in self.hosts.items()
            if sum(near(a, b) for b in self.hosts) > len(self.hosts) // 2
        ]

    def leader(self, ticks: float = 300) -> Host:
        """Waits for one leader that can reach a majority, followed by all who can reach it."""

        def agreed() -> Host | None:
            near = self.connected()
            for host in near:
                if host.role is Role.LEADER and all(
                    h.group is not None
                    and (h.replica_id, host.replica_id) not in self.cut
                    and h.group.leader_id == host.replica_id
                    for h in near
                ):
                    return host
            return None

        self.run_until(agreed, ticks, "a leader")
        found = agreed()
        assert found is not None
        return found

    def applied(self, payload: bytes) -> int:
        """On how many running replicas a command is applied."""
        for index, ((_, kind, known), _) in enumerate(self.oracle.committed, 1):
            if known == payload and kind == EntryKind.COMMANDS:
                return sum(
                    h.group is not None and h.group.applied >= index for h in self.hosts.values()
                )
        return 0

    def agree(self, replicas: int | None = None, ticks: float = 600) -> bytes:
        """A new command is applied on at least so many replicas, else on all that are connected.

        As a client would: whoever leads is asked again and again.
        """
        end = self.now + ticks
        while self.now < end:
            payload = self.payload()
            asked = [host for host in self.leaders() if self._try(host, payload)]
            if not asked:
                self.run(1)
                continue
            wanted = replicas or len(self.connected())
            retry = self.now + 40
            while self.now < retry:
                if self.applied(payload) >= wanted:
                    return payload
                self.run(1)
        raise AssertionError(f"no agreement within {ticks} ticks")

    def _try(self, host: Host, payload: bytes) -> bool:
        # Only one leader gets it: the payload must stay distinct.
        if host is not self.leaders()[-1]:
            return False
        try:
            host.propose(payload)
        except NotApplied:
            return False
        return True
