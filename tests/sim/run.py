"""One simulation: a cluster, clients and trouble from one seed, then calm, then the reckoning."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass, replace

from eraft import limits
from eraft._impl import batch, hashing
from eraft.node.replica import Replica
from eraft.storage import rows as layout
from eraft.storage.items import decode_conf, encode_conf
from eraft.storage.snapshots import generations
from eraft.types import METASERVER_GID
from tests.linear.checker import explain_all
from tests.sim.checks import Violation
from tests.sim.clients import NUMBER_COMMANDS, TEXT_COMMANDS, Script
from tests.sim.conditions import Conditions
from tests.sim.dice import Dice
from tests.sim.faults import Nemesis
from tests.sim.opening import histories_of, opened, reopened
from tests.sim.operator import Operator
from tests.sim.world import TICK_US, World

CALM_TICKS = 400
LEFT_OVER_TICKS = CALM_TICKS + int(limits.SNAPSHOT_KEEP_S / limits.TICK_S)
"""What has come of a snapshot whose sender is out of the cluster is kept for a while."""
CALM_FLUSH_US = (10_000, 100_000)
"""A snapshot can have to wait for two flushes, and be followed by another one."""
OPENED_LIVE = 20
"""One seed in so many opens its cluster itself."""
DIVERGES = 5
"""In one seed of so many the state of a replica changes behind its back."""
REPLACES = 4
"""In one seed of so many nodes are replaced."""
REPLACE_TICKS = 1200
COLLECTS = 4
"""After one seed of so many garbage is collected; a process is given as many at a time."""
OPERATIONS_LEAST = 200
HURRY = 8
"""So much less clients think once the time is over and they have not done enough."""
STRIKES_LEAST = 5


@dataclass(slots=True, frozen=True)
class Profile:
    """How large a simulation is."""

    nodes: int = 3
    groups: int = 1
    clients: int = 5
    ticks: int = 600


STANDARD = Profile()


@dataclass(slots=True)
class Outcome:
    """What a simulation did."""

    seed: int
    digest: int
    operations: int
    strikes: int
    events: int
    kinds: list[str]


def conditions_of(dice: Dice) -> Conditions:
    """How fast and reliable everything is in one seed."""
    conditions = Conditions(
        network_us=dice.choice(((100, 500), (200, 5_000), (1_000, 30_000))),
        client_us=dice.choice(((50, 300), (100, 5_000))),
        dial_us=(20_000, 1_000_000),
        notice_us=dice.choice(((100, 1_000), (1_000, 2_000_000))),
        disk_us=dice.choice(((100, 300), (200, 20_000), (2_000, 60_000))),
        flush_us=dice.choice(((10_000, 500_000), (1_000_000, 8_000_000))),
        turn_us=dice.choice(((0, 0), (0, 2_000), (0, 10_000))),
        segment_bytes=dice.choice((8, 16, 64, 256)) * 1024,
        retention_bytes=dice.choice((1024, 32 * 1024, 1 << 30)),
        append_bytes=dice.choice((1, 500, 1 << 20)),
        flight_bytes=dice.choice((400, 1 << 22)),
        tail_bytes=dice.choice((1024, 16 * 1024, 1 << 26)),
        chunk_bytes=dice.choice((200, 2 * 1024, 256 * 1024)),
        check_ticks=dice.choice((5, 20, 100)),
        heartbeat_ticks=dice.choice((2, 4, 4)),
        drift=dice.choice((0.0, 0.0, 0.15)),
    )
    if dice.random() < 0.4:
        conditions.spike_chance = dice.choice((0.001, 0.02))
        conditions.spike_us = (50_000, 1_500_000)
    if dice.random() < 0.4:
        conditions.drop = dice.choice((0.0, 0.02, 0.2))
        conditions.duplicate = dice.choice((0.0, 0.02, 0.2))
        conditions.late = dice.choice((0.0, 0.02, 0.1))
        conditions.late_us = (1_000, dice.choice((50_000, 3_000_000)))
    return conditions


class Simulation:
    """Runs one seed."""

    def __init__(self, seed: int, profile: Profile = STANDARD, story: list[str] | None = None):
        self.seed = seed
        self.profile = profile
        self.dice = Dice(seed)
        conditions = conditions_of(self.dice)
        start = replace(conditions, drop=0.0, duplicate=0.0, late=0.0, spike_chance=0.0)
        self.world = self._open(start)
        self.world.story = story
        self.world.tell(f"seed {seed}: {conditions}")
        self.world.conditions = conditions
        self.histories = histories_of(self.world, profile.groups)
        readers = self.dice.choice((0, 1, 2))
        self.scripts = [
            Script(
                self.world, self.histories, number, self.dice, number > profile.clients - readers
            )
            for number in range(1, profile.clients + 1)
        ]
        self.nemesis = Nemesis(self.world, self.dice)
        self._reads = self.dice.choice((0.2, 0.5))
        self._early_reads = self.dice.choice((0.0, 0.7))
        self._think_us = self.dice.choice((250_000, 400_000))
        self._pipelines = self.dice.choice(((1,), (1, 1, 2, 3, 6)))
        self._over = False
        self.operator: Operator | None = None
        if seed % REPLACES == 2:
            self.operator = Operator(self.world, self.nemesis, Dice(seed + (1 << 40)))

    def _open(self, conditions: Conditions) -> World:
        """A cluster that is open; mostly one that was opened before, as that takes time."""
        profile = self.profile
        if self.seed % OPENED_LIVE == 0:
            return opened(profile.groups, profile.nodes, self.seed, conditions)
        return reopened(profile.groups, profile.nodes, self.seed, conditions)

    def run(self) -> Outcome:
        """AssertionError (mostly a `Violation`) if something does not hold."""
        world = self.world
        world.tell(f"kinds of faults: {sorted({kind.__name__ for kind in self.nemesis.kinds})}")
        for script in self.scripts:
            self._think_later(script)
        self._strike()
        world.on_leader = self._led
        end_us = world.now_us + self.profile.ticks * TICK_US
        while world.now_us < end_us or not self._enough():
            world.run_for(TICK_US)
            if world.now_us == end_us:
                self._think_us //= HURRY
        self._over = True
        self._calm()
        self._reckon()
        if not self.nemesis.victims and self.seed % DIVERGES == 0:
            self._diverge()
            if self.operator is not None:
                self._replace(self.operator)
                self._reckon()
        return Outcome(
            self.seed,
            world.digest,
            sum(len(history) for history in self.histories.of_key.values()),
            self.nemesis.strikes,
            world.events,
            sorted({kind.__name__ for kind in self.nemesis.kinds}),
        )

    def _enough(self) -> bool:
        operations = sum(len(history) for history in self.histories.of_key.values())
        return operations >= OPERATIONS_LEAST and self.nemesis.strikes >= STRIKES_LEAST

    # Trouble

    def _strike(self) -> None:
        if not self._over:
            self.world.later(self.nemesis.strike(), 0, self._strike)

    def _led(self, node_id: int, gid: int) -> None:
        """Somebody leads: clients may hear of it at once."""
        if self._over:
            return
        self.nemesis.greet(node_id, gid)
        if gid and self.dice.random() < self._early_reads:
            for script in self.scripts[:2]:
                if not script.waiting:
                    script.go_to(node_id)
                    script.send(self._pipeline(reads_only=True))

    def _think_later(self, script: Script) -> None:
        delay_us = self.dice.within((self._think_us // 10, 2 * self._think_us))
        self.world.later(delay_us, 0, self._think, script)

    def _think(self, script: Script) -> None:
        if self._over:
            return
        dice = self.dice
        script.look()
        if dice.random() < (0.05 if script.waiting else 0.01):
            script.leave("by chance")
        if not script.waiting or dice.random() < 0.1:
            script.send(self._pipeline(script.readonly or dice.random() < self._reads))
        self._think_later(script)

    def _pipeline(self, reads_only: bool) -> list[tuple[str, bytes]]:
        dice, histories = self.dice, self.histories
        found = []
        for _ in range(dice.choice(self._pipelines)):
            if dice.random() < 0.7:
                name = "GET" if reads_only else dice.choice(TEXT_COMMANDS)
                found.append((name, dice.choice(histories.texts)))
            else:
                name = "GET" if reads_only else dice.choice(NUMBER_COMMANDS)
                found.append((name, dice.choice(histories.numbers)))
        return found

    # Calm

    def _calm(self) -> None:
        """Without faults everything has to work again soon, and what was acknowledged is there."""
        world = self.world
        conditions = world.conditions
        conditions.drop = conditions.duplicate = conditions.late = conditions.spike_chance = 0.0
        conditions.flush_us = CALM_FLUSH_US
        if self.operator is not None:
            self.operator.finish()
        self.nemesis.repair()
        if self.operator is not None:
            self._replace(self.operator)
        self._until(self._settled, "all groups are led and all clients are answered")
        self._until(self._has_room, "all nodes know that their disks have room")
        commands: dict[int, list[tuple[str, bytes]]] = {}
        for key in self.histories.of_key:
            name = "INCR" if key in self.histories.numbers else "SET"
            of_group = commands.setdefault(self._owner(key), [])
            of_group += [("GETRANGE", key), (name, key), ("GET", key)]
        for script in self.scripts[:2]:
            for of_group in commands.values():
                self._until_executed(script, of_group)

    def _owner(self, key: bytes) -> int:
        """The group that has a key."""
        return self.world.table.owners()[hashing.bucket_of(key)]

    def _replace(self, operator: Operator) -> None:
        what = "all that has lost something is replaced"
        self._until(lambda: operator.idle, what, REPLACE_TICKS)

    def _has_room(self) -> bool:
        """Nodes look once a second."""
        return not any(node.room.full for node in self.world.nodes.values())

    def _until_executed(self, script: Script, commands: list[tuple[str, bytes]]) -> None:
        for _ in range(20):
            before = script.executed
            script.send(commands)
            self._until(lambda: not script.waiting, f"client {script.number} is answered")
            if script.executed - before == len(commands):
                return
        raise Violation(f"progress: {commands} are not executed")

    def _until(self, condition: object, what: str, ticks: int = CALM_TICKS) -> None:
        for _ in range(ticks):
            for script in self.scripts:
                script.look()
            if condition():  # type: ignore[operator]
                return
            self.world.run_for(TICK_US)
        raise Violation(f"progress: it does not happen that {what}")

    def _settled(self) -> bool:
        world = self.world
        good = [world.nodes[node_id] for node_id in self.nemesis.good()]
        for gid in range(self.profile.groups + 1):
            leader = world.leader(gid)
            if not leader or any(node.leader_of(gid) != leader for node in good):
                return False
        return not any(script.waiting for script in self.scripts)

    # Reckoning

    def _reckon(self) -> None:
        world = self.world
        found = explain_all(self.histories.of_key)
        if found:
            raise Violation(f"linearizable: {found}")

        for gid in range(self.profile.groups + 1):
            what = "all replicas have applied the same"
            self._until(lambda it=gid: self._caught_up(it), what)
            first, *others = self._homes(gid)
            rows = rows_of(world.nodes[first].replicas[gid])
            for node_id in others:
                found = rows_of(world.nodes[node_id].replicas[gid])
                if found != rows:
                    differing = sorted(set(rows) ^ set(found))[:4]
                    raise Violation(
                        f"equal replicas: group {gid} on nodes {first} and {node_id}: {differing}"
                    )
        self._until(self._as_wanted, "nodes have the replicas that the config table wants there")
        what = "state that was replaced is deleted"
        self._until(lambda: not self._left_over(), what, LEFT_OVER_TICKS)

    def _as_wanted(self) -> bool:
        """Whether nodes have the replicas that the config table wants there, and these vote."""
        table = self.world.table
        for node in map(self.world.nodes.__getitem__, self.nemesis.good()):
            wanted = table.hosted(node.identity.node_id, node.identity.store_id)
            found = {gid: replica.replica_id for gid, replica in node.replicas.items()}
            if found != {gid: replica.replica_id for gid, replica in wanted}:
                return False
        if any(group.changing for group in table.groups.values()):
            return False
        return not self.world.checks.members.orderly or all(
            {*self.world.nodes[self.world.leader(gid)].replicas[gid].raft.conf.voters}
            == {it.replica_id for it in group.replicas}
            for gid, group in table.groups.items()
        )

    def _left_over(self) -> bool:
        """Whether a store has state that no replica needs, as of snapshots that were replaced."""
        for node_id in self.nemesis.good():
            node = self.world.nodes[node_id]
            used = {replica.rows.generation for replica in node.replicas.values()}
            if {*generations(self.world.disks[node_id].store)} - used:
                return True
        return False

    def _diverge(self) -> None:
        """The replica whose state is another one is quarantined, and only that."""
        world = self.world
        key = self.histories.texts[0]
        gid = self._owner(key)
        replicas = {it: world.nodes[it].replicas[gid] for it in self._homes(gid)}
        voters = {*replicas[world.leader(gid)].raft.conf.voters}
        node_id = self.dice.choice(
            [
                it
                for it, replica in replicas.items()
                if 2 * len(voters - {replica.replica_id}) > len(voters)
            ]
        )
        world.checks.diverged.add(node_id)
        rows = replicas[node_id].rows
        rows.rows[batch.data_key(rows.data_prefix, key)] = batch.encode_row(1, 0, b"rotten")
        world.tell(f"! the state of group {gid} on node {node_id} changes behind its back")
        self._until_executed(self.scripts[0], [("APPEND", key)])
        what = f"node {node_id} quarantines a state that is not that of the others"
        self._until(lambda: gid in world.nodes[node_id].quarantines, what)
        self.nemesis.victims.add(node_id)

    def _caught_up(self, gid: int) -> bool:
        nodes = self.world.nodes
        homes = [nodes[it] for it in self._homes(gid)]
        if not all(gid in node.replicas for node in homes):
            return False
        return len({node.replicas[gid].applied for node in homes}) == 1

    def _homes(self, gid: int) -> list[int]:
        """The nodes whose replicas of a group have to be right."""
        good = self.nemesis.good()
        return [it for it in self.world.table.groups[gid].node_ids if it in good]


def rows_of(replica: Replica) -> list[tuple[bytes, bytes]]:
    """All rows, without the generation."""
    generation = replica.rows.generation
    scan = replica.rows.scan(*layout.generation_range(generation))
    rows = [(key[layout.GENERATION_BYTES :], row) for key, row in scan]
    if replica.gid == METASERVER_GID:
        # Each founder knows the store of its own replica only.
        key = layout.conf_key(generation)[layout.GENERATION_BYTES :]
        rows = [(it, row if it != key else _without_stores(row)) for it, row in rows]
    return rows


def _without_stores(row: bytes) -> bytes:
    conf, members = decode_conf(row)
    return encode_conf(conf, [replace(member, store_id="") for member in members])


def simulate(seed: int, profile: Profile = STANDARD, story: list[str] | None = None) -> Outcome:
    """Run one seed; AssertionError if something does not hold."""
    return Simulation(seed, profile, story).run()


def prepare() -> None:
    """Before many seeds: no log, and no garbage collection in the middle of a seed."""
    logging.disable(logging.CRITICAL)
    gc.freeze()
    gc.disable()


def attempt(seed: int) -> str:
    """What went wrong, if anything did."""
    try:
        simulate(seed)
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if seed % COLLECTS == 0:
            gc.collect()


def attempt_some(seeds: list[int]) -> list[tuple[int, str]]:
    """The same of each seed."""
    return [(seed, attempt(seed)) for seed in seeds]
