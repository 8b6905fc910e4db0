"""A data group's replica: the lane of its next entry, its reads and its expiry."""

from __future__ import annotations

from typing import Any

from eraft import limits
from eraft._impl import resp
from eraft.node.proposals import NEVER, NOT_APPLIED, PROPOSED_S, Proposal, Waiter
from eraft.node.readqueue import Read
from eraft.node.reads import ROWS_PER_FETCH, SMALL_RUN, GetRun, serve_runs
from eraft.node.replica import Replica
from eraft.shardkv.machine import ShardMachine, check_row
from eraft.shardkv.router import CLUSTER_DOWN

TICK = (b"_TICK",)


class ShardReplica(Replica):
    """Admits commands of its buckets into a lane; each turn's lane becomes one entry."""

    machine: ShardMachine

    def open_lane(self, ordinal: int) -> None:
        """Take a place in the table of lanes that the parsers of all connections use."""
        self.ordinal = ordinal
        self.lane = resp.Lane(self.rows.data_prefix, limits.ENTRY_TARGET_BYTES)
        self._waiters: list[Waiter] = []
        self._lane_deadline_s = NEVER
        self._last_ts_ms = 0
        self._ownership = -1
        self.refusal: resp.ReplyError | None = None
        """What is answered to writes while there is no room for them on disk."""
        self._chores = Chores(0, self.node.now_s)

    def check_row(self, key: bytes, row: bytes) -> None:
        check_row(key, row)

    def reload(self) -> None:
        version = self.machine.ownership_version
        self.machine = ShardMachine(self.rows)
        # Reads that were admitted before have row keys of the old generation.
        self.machine.ownership_version = version + 1
        self.lane = resp.Lane(self.rows.data_prefix, limits.ENTRY_TARGET_BYTES)
        self.node.lanes[self.ordinal] = self.lane

    @property
    def clock_ms(self) -> int:
        return self.machine.clock_ms

    # Writes

    def enqueue(self, waiter: Waiter) -> None:
        """`waiter.count` commands have just been appended to the lane."""
        if not self._waiters:
            self.node.touch(self)
        if waiter.deadline_s < self._lane_deadline_s:
            self._lane_deadline_s = waiter.deadline_s
        self._waiters.append(waiter)

    def add(self, args: list[bytes], waiter: Waiter) -> None:
        """Append one command, in the form that the log keeps, to the lane."""
        self.lane.add(args)
        self.enqueue(waiter)

    @property
    def gathering(self) -> bool:
        return bool(self.lane.count)

    def propose_gathered(self) -> None:
        if not self.lane.count:
            return
        full = self.lane.full
        waiters, self._waiters = self._waiters, []
        self._lane_deadline_s = NEVER
        self._last_ts_ms = max(self._last_ts_ms, self.node.capped_wall_ms())
        self.propose(self.lane.take(self._last_ts_ms), waiters)
        if full:
            self.node.waiting.lane_drained()

    def want_clock(self) -> None:
        if not self.lane.count:
            self.lane.add(TICK)
            self.enqueue(Chores(1, self.node.now_s))

    def tick(self) -> None:
        if self._lane_deadline_s - self.node.now_s < PROPOSED_S:
            self._refuse_lane(CLUSTER_DOWN)
        if self.serving:
            self._propose_chores()
        super().tick()

    def _refuse_lane(self, error: resp.ReplyError) -> None:
        """What is in the lane was never proposed: refuse it, certainly not executed."""
        full = self.lane.full
        waiters, self._waiters = self._waiters, []
        self._lane_deadline_s = NEVER
        self.lane.clear()
        for waiter in waiters:
            waiter.refuse(error)
        self.reads.refused()
        if full:
            self.node.waiting.lane_drained()

    # Reads

    def serve_reads(self, reads: list[Read]) -> None:
        """As every replica does, but small runs of GETs share one look-up of rows."""
        ownership = self.machine.ownership_version
        applied = self.applied
        runs: list[GetRun] = []
        others: list[Read] = []
        keys = 0
        client = None
        for read in reads:
            if (
                type(read) is GetRun
                and read.count <= SMALL_RUN
                and read.client is not client
                and not read.client.postpones(read)
                and read.barrier <= applied
                and read.ownership == ownership
                and self.serving
            ):
                client = read.client
                keys += read.count
                if keys > ROWS_PER_FETCH:
                    self._serve_runs(runs)
                    runs = []
                    keys = read.count
                runs.append(read)
            else:
                others.append(read)
        if runs:
            self._serve_runs(runs)
        if others:
            super().serve_reads(others)

    def read_behind_clock(self, read: Any) -> None:
        if self.leading:
            read.client.wait_for_reads()
            super().read_behind_clock(read)
        else:  # only a leader can bring the clock forward
            read.reroute(self.node, leader_only=True)

    def _serve_runs(self, runs: list[GetRun]) -> None:
        for run in serve_runs(self, runs):
            self.read_behind_clock(run)

    # Roles and ownership

    def serving_changed(self) -> None:
        if self.serving:
            self._last_ts_ms = self.machine.clock_ms
        else:
            self._refuse_lane(NOT_APPLIED)
        self.node.ownership_changed(self)

    def after_apply(self) -> None:
        super().after_apply()
        if self.machine.ownership_version != self._ownership:
            self._ownership = self.machine.ownership_version
            self.node.ownership_changed(self)

    def _propose_chores(self) -> None:
        """What a leader proposes by itself: ownership after the opening, rows that are due."""
        if self._chores.waiting:
            return
        claim = self.node.router.claim(self.gid, self.machine)
        commands = [claim] if claim is not None else []
        commands += self.machine.due(self.node.capped_wall_ms(), limits.EXPIRE_BATCH)
        count = 0
        for command in commands:
            if self.lane.full:  # keys can be long: the rest at the next tick
                break
            self.lane.add(command)
            count += 1
        if count:
            self._chores = Chores(count, self.node.now_s)
            self.enqueue(self._chores)

    def settle(self, proposal: Proposal, replies: list[Any]) -> None:
        rejected = self.machine.not_owned
        if rejected:
            router = self.node.router
            for place, reply in enumerate(replies):
                if type(reply) is type(rejected):
                    replies[place] = router.redirect(reply.bucket)
        proposal.settle(replies)


class Chores:
    """The leader's own commands: nobody wants their replies, only whether they are under way."""

    __slots__ = ("count", "deadline_s", "waiting")

    def __init__(self, count: int, now_s: float) -> None:
        self.count = count
        self.deadline_s = now_s + limits.ANSWER_DEADLINE_S
        self.waiting = count > 0

    def settle(self, replies: list[Any], start: int) -> None:
        self.waiting = False

    def refuse(self, error: resp.ReplyError) -> None:
        self.waiting = False
