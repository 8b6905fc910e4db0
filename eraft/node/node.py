"""One node without I/O: its replicas, log, routing and connections, composed.

The shell calls in with what happened (bytes, ticks, a durable log position)
after telling the time with `at`. A turn of its event loop calls `drain`, whose
outputs leave, and then `apply`, which works while disks and peers are busy.
Everything of all groups that has to become durable in a turn is one record, and
everything for one peer is one frame.

Where to read on: `replica` is a group's member on this node, `shard`, `meta` and `hosted` are
its kinds, and `groups` makes them; its parts are `members` (who is in the group) with
`reconcile` (who should be), `proposals`, `readqueue`, `bulk` and `fetching` (what its peers
get), `takeover` (of a snapshot) and `divergence`. `client` is a Redis connection with its
`session` and `slots`; `reads`, `rerouted` and `walks` are its reads, `waiting` says who goes on
when, and `local` has what the node answers by itself. `admin` and `status` are for operators.
`hello`, `inbound`, `outbox` and `gossip` deal with other nodes, `sending` and `receiving` with
snapshots to and from them, `metaclient` and `catalog` with the metaserver. `writing` and
`flushing` bring state to the disk, `room` looks after its space, `leads` after who leads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from eraft import limits
from eraft._impl import resp
from eraft.errors import InvariantViolation, LogCorrupt
from eraft.metaserver.table import ConfigTable
from eraft.node.admin import AdminClient
from eraft.node.catalog import Catalog
from eraft.node.client import Client
from eraft.node.context import Context
from eraft.node.flushing import Flushing
from eraft.node.gossip import Gossip, Lead
from eraft.node.groups import Groups
from eraft.node.hello import Handshakes
from eraft.node.inbound import Inbound
from eraft.node.leads import Leads
from eraft.node.meta import MetaReplica
from eraft.node.metaclient import MetaClient
from eraft.node.options import NodeOptions
from eraft.node.outbox import Outbox
from eraft.node.outputs import Outputs
from eraft.node.reads import Job
from eraft.node.receiving import SnapshotReceiver
from eraft.node.replica import Replica
from eraft.node.room import DiskRoom
from eraft.node.sending import SnapshotSender
from eraft.node.session import Session
from eraft.node.shard import ShardReplica
from eraft.node.waiting import Waiting
from eraft.node.writing import Writing
from eraft.shardkv.router import Router
from eraft.shardkv.specs import PLAIN_READS, PLAIN_WRITES
from eraft.storage.directory import Identity
from eraft.storage.machine import MachineFactory
from eraft.storage.state import StateStore
from eraft.storage.wal import WriteAheadLog
from eraft.types import BUCKETS, METASERVER_GID, GroupState, Message, NodeAddress

logger = logging.getLogger("eraft.node")


class Node:
    """The composition; one instance serves from start to stop of the process."""

    def __init__(
        self,
        options: NodeOptions,
        identity: Identity,
        address: NodeAddress,
        log: WriteAheadLog | None,
        corrupt: str,
        store: StateStore,
        random: Random,
        pid: int,
        wall_ms: int,
        now_s: float,
        machine: MachineFactory | None = None,
    ) -> None:
        self.options = options
        self.machine = machine
        """Makes the state machines of data groups, None for shardkv's."""
        self.identity = identity
        self.address = address
        self._log = log
        self.store = store
        self.random = random
        self.wall_ms = wall_ms
        self.now_s = now_s
        self.quarantined = corrupt
        """Why none of this node's replicas takes part, "" if they do."""
        self.quarantines: dict[int, GroupState] = {}
        """By gid: replicas of this node that do not take part, while the others do."""

        self.command_table = resp.CommandTable(PLAIN_WRITES, PLAIN_READS)
        self.admit = bytearray(BUCKETS)
        self.lanes: list[resp.Lane | None] = [None]
        self.shards: list[Any] = [None]

        self.catalog = Catalog(self)
        self.router = Router(identity.node_id)
        self.router.set_table(self.table)
        self.outbox = Outbox()
        self.writing = Writing(self)
        self.flushing = Flushing(self)
        self.waiting = Waiting(self)
        self.gossip = Gossip(identity.node_id, self.send_frame)
        self.handshakes = Handshakes()
        self.room = DiskRoom(self)
        self.leads = Leads(self)
        self.meta = MetaClient(self)
        self.context = Context(self, pid)
        self.clients: dict[int, Client] = {}
        self._session_count = 0

        self._outputs = Outputs()
        self._dirty: dict[int, Replica] = {}
        self._committed: dict[int, Replica] = {}
        self._stirred = False
        self._jobs: deque[Job] = deque()
        self._leads_changed = False

        self.replicas: dict[int, Replica] = {}
        self.sending = SnapshotSender(self)
        self.receiving = SnapshotReceiver(self)
        self.inbound = Inbound(self)
        self.groups = Groups(self)
        if log is not None:
            try:
                self.groups.restore(log)
                self.groups.follow(self.table)
            except LogCorrupt as error:
                self._quarantine_all(str(error))
        self._learn_peers()

    def quarantine(self, state: GroupState) -> None:
        """A replica neither votes nor serves until it is replaced; `state` says why."""
        logger.critical(
            "QUARANTINED: group %d, replica %d: %s", state.gid, state.replica_id, state.quarantined
        )
        self.quarantines[state.gid] = state
        self.replicas.pop(state.gid, None)
        self.router.groups.pop(state.gid, None)
        self._dirty.pop(state.gid, None)
        self.receiving.forget(state.gid)
        self._leads_changed = True

    def _quarantine_all(self, why: str) -> None:
        """This node's replicas neither vote nor serve until they are replaced."""
        self.quarantined = why
        self.quarantines.clear()
        self.replicas.clear()
        self.router.groups.clear()
        self._dirty.clear()
        self.sending.close()
        self.outbox.forget()

    @property
    def log(self) -> WriteAheadLog:
        """The write-ahead log; a quarantined node has nothing that would ask for it."""
        if self._log is None or self.quarantined:
            raise InvariantViolation(
                f"a quarantined node does not touch its log: {self.quarantined}"
            )
        return self._log

    @property
    def logged_bytes(self) -> int:
        """How much was logged since the start."""
        return 0 if self._log is None else self._log.appended_bytes

    @property
    def table(self) -> ConfigTable:
        """The newest version of the config table that this node knows."""
        return self.catalog.table

    # Time and inputs

    def at(self, wall_ms: int, now_s: float) -> None:
        """The time of what the shell tells next: wall clock and monotonic."""
        self.wall_ms = wall_ms
        self.now_s = now_s

    def capped_wall_ms(self) -> int:
        """The wall clock as far as the peers' clocks let this node believe it."""
        return self.gossip.capped_wall_ms(self.wall_ms, self.now_s)

    def tick(self) -> None:
        """One tick of limits.TICK_S (or as configured)."""
        self._watch_disk()
        self.writing.tick()
        for replica in list(self.replicas.values()):
            replica.tick()
        self.meta.tick()
        self.catalog.register()
        self.leads.tick()
        if self._leads_changed or self.gossip.announcement_due(self.now_s):
            self._announce()
        self.waiting.route_again()
        self.groups.tick()
        self.sending.tick()
        self.receiving.tick()
        self.writing.write(self.catalog.rows)
        if self.flushing.due or self.sending.waiting:
            self.stir()

    def _watch_disk(self) -> None:
        """A node whose disk does not answer neither leads nor campaigns."""
        limit_s = self.options.election_ticks * self.options.tick_s
        busy_s = self.outbox.log_busy_s(self.now_s)
        stalled = busy_s > limit_s
        may_campaign = not stalled and not self.leads.leaving
        for replica in self.replicas.values():
            replica.raft.may_campaign = may_campaign
            if stalled and replica.leading:
                logger.warning(
                    "group %d: stepping down, the log has been waiting for the disk for %.1f s",
                    replica.gid,
                    busy_s,
                )
                replica.raft.step_down("the disk does not answer")
                self.touch(replica)

    def peer_up(self, node_id: int) -> None:
        """The connection to a node is there."""
        self.gossip.peer(node_id).connected = True
        self.router.link_up(node_id)
        self.room_changed()
        self.meta.leader_changed()

    def peer_down(self, node_id: int) -> None:
        """The connection to a node is gone."""
        self.gossip.peer(node_id).connected = False
        self.router.link_down(node_id)
        self.room_changed()
        for replica in self.replicas.values():
            replica.node_unreachable(node_id)

    def log_durable(self, position: int) -> None:
        """The record handed out last is durable."""
        if self.outbox.log_idle:
            return
        self.log.durable(position)
        for replica in self.outbox.durable():
            self.touch(replica)

    def store_flushed(self) -> None:
        """The flush that a turn has asked for has finished."""
        self.flushing.finished()

    def free_disk(self, free_bytes: int) -> None:
        """How much room the data directory's file system has."""
        if self.room.measure(free_bytes):
            self.room_changed()

    # Connections

    def connect(
        self,
        addr: str,
        laddr: str,
        on_output: Callable[[], None],
        on_close: Callable[[str, bool], None],
    ) -> Client:
        """A new client connection."""
        self._session_count += 1
        session = Session(id=self._session_count, addr=addr, laddr=laddr, created_s=self.now_s)
        client = Client(self, session, on_output, on_close)
        self.clients[session.id] = client
        return client

    def connect_admin(
        self, on_output: Callable[[], None], on_close: Callable[[str, bool], None]
    ) -> AdminClient:
        """A new connection of an operator."""
        return AdminClient(self, on_output, on_close)

    def disconnect(self, client: Client) -> None:
        """A client connection is gone."""
        client.lost()
        self.clients.pop(client.session.id, None)
        self.waiting.forget(client)

    def shard(self, gid: int) -> ShardReplica:
        """The local replica of a data group."""
        replica = self.replicas[gid]
        assert isinstance(replica, ShardReplica)
        return replica

    def start_job(self, job: Job) -> None:
        """Advance a job by a slice each turn until it ends."""
        self._jobs.append(job)

    # From replicas

    def touch(self, replica: Replica) -> None:
        """The replica has something to do in this turn's drain."""
        self._dirty[replica.gid] = replica

    def stir(self) -> None:
        """Something other than a replica has work for a turn."""
        self._stirred = True

    def apply_later(self, replica: Replica) -> None:
        """The replica has something to apply, or reads to serve, in this turn's second half."""
        self._committed[replica.gid] = replica

    def remove(self, replica: Replica) -> None:
        """A replica was removed from its group."""
        self.groups.remove(replica)
        self.receiving.forget(replica.gid)
        self._dirty.pop(replica.gid, None)
        self._leads_changed = True
        self.waiting.route_again()

    def send(self, node_id: int, message: Message, bulk: bool) -> None:
        """Put a message into this turn's frame for a node, if it is connected."""
        if self.gossip.peer(node_id).connected:
            self.outbox.send(node_id, message, bulk)

    def send_frame(self, node_id: int, frame: bytes) -> None:
        """Send an encoded frame to a node."""
        self._outputs.frames.setdefault(node_id, []).append(frame)

    def send_bulk(self, node_id: int, frame: bytes) -> None:
        """Send an encoded frame to a node, on the connection for large ones."""
        self._outputs.bulk.setdefault(node_id, []).append(frame)

    def lead_changed(self, replica: Replica) -> None:
        """A replica's role or leader changed: tell the peers and route again."""
        self._leads_changed = True

    def ownership_changed(self, replica: Replica) -> None:
        """Whether the group takes writes, or which of its buckets, may have changed."""
        if isinstance(replica, ShardReplica):
            replica.refusal = self.room.refuse_writes(replica)
            if replica.ordinal <= limits.LANES:
                admits = replica.serving and replica.refusal is None
                self.router.admit_table(self.admit, replica.ordinal, replica, admits)
        self._leads_changed = True

    def room_changed(self) -> None:
        """This node or a peer has room on its disk now, or none any more."""
        for replica in self.replicas.values():
            self.ownership_changed(replica)
        self._leads_changed = True

    # Who leads

    def leader_of(self, gid: int) -> int:
        """The node that leads a group as far as this node knows, else 0."""
        return self.router.leader(gid, self.now_s)

    def heard_leads(self, node_id: int, leads: Sequence[Lead]) -> None:
        """A node leads these groups and no others."""
        before = self.leader_of(METASERVER_GID)
        self.router.note_leads(node_id, [(lead.gid, lead.term) for lead in leads], self.now_s)
        if self.leader_of(METASERVER_GID) != before:
            self.meta.leader_changed()
        self.waiting.route_again()

    def announce_soon(self) -> None:
        """Tell the peers in this turn what this node leads."""
        self._leads_changed = True

    def _announce(self) -> None:
        self._leads_changed = False
        leads = [
            Lead(replica.gid, replica.raft.term)
            for replica in self.replicas.values()
            if replica.serving
        ]
        self.gossip.announce(
            leads,
            self.table.version,
            full=bool(self.room.full),
            leaving=self.leads.leaving,
            wall_ms=self.wall_ms,
            now_s=self.now_s,
        )
        self.heard_leads(self.identity.node_id, leads)

    # The config table

    def table_changed(self) -> None:
        """The catalog has a newer version."""
        self.writing.write(self.catalog.rows)
        self.flushing.want()
        self.router.set_table(self.table)
        self._learn_peers()
        self.handshakes.judge(self.table)
        if not self.quarantined:
            self.groups.follow(self.table)
        self._leads_changed = True

    def _learn_peers(self) -> None:
        for node_id in self.table.nodes:
            if node_id != self.identity.node_id:
                self.gossip.peer(node_id)
        for node_id in self.table.removed_nodes:
            if self.gossip.peers.pop(node_id, None) is not None:
                self.router.link_down(node_id)
        self._outputs.peers_changed = True

    def meta_requested(self, body: bytes, on_answer: Callable[[dict[str, Any]], None]) -> None:
        """A request to the metaserver whose leader should be here."""
        replica = self.replicas.get(METASERVER_GID)
        if isinstance(replica, MetaReplica):
            replica.request(body, on_answer)
        else:
            on_answer({"retry": True})

    # One turn

    @property
    def has_work(self) -> bool:
        """Whether there is something to do in a turn: the shell lets the node have one soon."""
        outputs = self._outputs
        return bool(
            self._dirty
            or self._stirred
            or self._leads_changed
            or self._jobs
            or outputs.frames
            or outputs.bulk
            or outputs.peers_changed
            or self.waiting.resuming
            or self.outbox.waiting
        )

    def drain(self) -> Outputs:
        """The first half of a turn: what its events ask to be logged and sent.

        The shell lets all of that leave and calls `apply` then.
        """
        if self._jobs:
            self._advance_jobs()
        self._stirred = self.sending.advance()
        while self._dirty or self.waiting.resuming:
            self.waiting.resume()
            dirty, self._dirty = self._dirty, {}
            for replica in dirty.values():
                replica.drain()
            if self._dirty and all(gid in dirty for gid in self._dirty):
                break
        if self._leads_changed:
            self._announce()
        outputs = self._outputs
        self._outputs = Outputs()
        outbox = self.outbox
        if outbox.frames_due:
            outbox.collect_frames(outputs, self.table.version)
        if outbox.record_due:
            outbox.collect_record(outputs, self.log, self.now_s)
        outputs.flush = self.flushing.begin()
        return outputs

    def apply(self) -> None:
        """The second half of a turn: what is committed is applied, and answered.

        The disks and the peers are busy with the first half meanwhile.
        """
        committed, self._committed = self._committed, {}
        for replica in committed.values():
            replica.apply()
        self.waiting.end_turn()

    def _advance_jobs(self) -> None:
        for _ in range(min(len(self._jobs), limits.JOB_SLICES)):
            job = self._jobs.popleft()
            if job.advance():
                self._jobs.append(job)
