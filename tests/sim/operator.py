"""An operator of a simulated cluster: nodes come, go and are replaced while all else goes on.

The sequences are those of `eraft cluster add-node`, `remove-node` and
`replace-node`, by the same commands to admin ports. Each step follows from
the config table as it is then, whatever became of the steps before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from eraft.errors import StorageError
from eraft.metaserver.table import ConfigTable
from eraft.types import METASERVER_GID
from tests.sim.checks import DocumentedLoss
from tests.sim.dice import Dice
from tests.sim.faults import Nemesis
from tests.sim.world import World

Work = Generator[None, None, None]
"""Something that takes time; it goes on whenever the operator looks at it."""

MOST_NODES = 5
LEAST_REPLICAS = 3
"""Else a minority of a group's replicas would be none."""
HASTE_US = (50_000, 150_000)


class Operator:
    """Replaces nodes whose disk has lost something, and at times others; adds and removes some.

    What is broken comes first: all else is broken off as it is then.
    """

    def __init__(self, world: World, nemesis: Nemesis, dice: Dice) -> None:
        """With a stream of chance of its own, as what it does is to move nothing else."""
        self.world = world
        self.nemesis = nemesis
        self.dice = dice
        self.done = 0
        """How much has been carried out."""
        self._busy = self._over = False
        self._look_us = dice.choice(((100_000, 400_000), (300_000, 2_000_000)))
        kinds = (self._replace_one, self._renew_one, self._grow, self._shrink)
        self._kinds = [kind for kind in kinds if dice.random() < 0.5]
        self._eager = dice.choice((0.02, 0.1))
        if dice.random() < 0.7 or not self._kinds:
            nemesis.destroys(often=dice.random() < 0.5)
        world.checks.members.orderly = nemesis.orderly
        self._work = self._days()
        self._look_later()

    @property
    def idle(self) -> bool:
        """Whether there is nothing left to do."""
        return not self._busy and not self.nemesis.victims

    def finish(self) -> None:
        """Begin nothing more but to replace what is broken, and do not wait."""
        self._over = True
        self._look_us = HASTE_US
        for node_id in [it for it in self.world.nodes if it not in self.world.ids]:
            self._end(node_id)

    def _look_later(self) -> None:
        self.world.later(self.dice.within(self._look_us), 0, self._look)

    def _look(self) -> None:
        next(self._work)
        self._look_later()

    def _days(self) -> Work:
        while True:
            broken = sorted(self.nemesis.victims)
            self._busy = True
            quarantines = broken and self._quarantines(broken[0])
            if quarantines and self.dice.random() < 0.5:
                yield from self._renew(broken[0], quarantines)
            elif broken:
                yield from self._replace(broken[0])
            elif self._kinds and not self._over and self.dice.random() < self._eager:
                kind: Callable[[], Work] = self.dice.choice(self._kinds)
                yield from kind()
            self._busy = False
            yield

    # What can be ordered

    def _replace_one(self) -> Work:
        yield from self._replace(self.dice.choice(self.world.ids))

    def _replace(self, old: int) -> Work:
        """All replicas of a node are made anew on a new one, or on a newer one if that breaks."""
        self._tell(f"node {old} is to be replaced")
        leaves, new = {old}, 0
        while True:
            table = yield from self._table()
            if new in self.nemesis.victims:
                leaves.add(new)
                new = 0
            if not _hosted(table, leaves):
                break
            if not new:
                new = self._add(table)
            elif _registered(table, new):
                for gid, group in table.groups.items():
                    gone = [it.node_id for it in group.replicas if it.node_id in leaves]
                    if gone and new not in group.node_ids:
                        yield from self._ask("REPLICAS", gid, "ADD", new, "REMOVE", gone[0])
            yield
        yield from self._forget(leaves)

    def _renew_one(self) -> Work:
        """A sound replica; meanwhile its node is not counted on."""
        node_id = self.dice.choice(self.world.ids)
        self.nemesis.victims.add(node_id)
        yield from self._renew(node_id, [self.dice.choice(sorted(self.world.checks.groups))])

    def _renew(self, node_id: int, gids: list[int]) -> Work:
        """Replicas of a node are made anew in their place."""
        self._tell(f"the replicas of groups {gids} on node {node_id} are to be made anew")
        table = yield from self._table()
        old = {it.replica_id for gid in gids for it in table.groups[gid].replicas}
        for gid in gids:
            while True:
                here = [it for it in table.groups[gid].replicas if it.node_id == node_id]
                if any(it.replica_id in old for it in here):
                    yield from self._ask("REPLICAS", gid, "ADD", node_id, "REMOVE", node_id)
                elif not table.groups[gid].changing:
                    break
                yield
                table = yield from self._table()
        self.nemesis.victims.discard(node_id)
        self.done += 1

    def _quarantines(self, node_id: int) -> list[int]:
        """The groups whose replicas on a node are quarantined, while others there are not."""
        node = self.world.nodes.get(node_id)
        return sorted(node.quarantines) if node is not None else []

    def _grow(self) -> Work:
        """One more node, with a replica of every group."""
        if len(self.world.ids) >= MOST_NODES:
            return
        table = yield from self._table()
        new = self._add(table)
        while not self.nemesis.victims:
            table = yield from self._table()
            lacking = [gid for gid, it in table.groups.items() if new not in it.node_ids]
            if not lacking and not any(it.changing for it in table.groups.values()):
                self.done += 1
                return
            for gid in lacking if _registered(table, new) else ():
                yield from self._ask("REPLICAS", gid, "ADD", new)
            yield

    def _shrink(self) -> Work:
        """One node less, where that leaves enough replicas."""
        table = yield from self._table()
        if any(len(it.replicas) <= LEAST_REPLICAS for it in table.groups.values()):
            return
        old = self.dice.choice(self.world.ids)
        self._tell(f"node {old} is to be removed")
        while not self.nemesis.victims:
            if not _hosted(table, {old}):
                yield from self._forget({old})
                return
            for gid, group in table.groups.items():
                if any(it.node_id == old for it in group.replicas):
                    yield from self._ask("REPLICAS", gid, "REMOVE", old)
            yield
            table = yield from self._table()

    # Steps

    def _add(self, table: ConfigTable) -> int:
        """A new node is started; it finds the metaserver at its present members."""
        members = table.groups[METASERVER_GID].replicas
        metaserver = {it.node_id: table.nodes[it.node_id].peer for it in members}
        node_id = self.world.add(metaserver)
        self._tell(f"node {node_id} is new")
        return node_id

    def _forget(self, node_ids: set[int]) -> Work:
        """Nodes without replicas leave the table and are switched off, some of them later.

        Not later if the disk is a new one: two founders with empty disks would be a majority
        that knows of no cluster, and found one of their own.
        """
        table = yield from self._table()
        for node_id in sorted(node_ids):
            disk = self.world.disks[node_id]
            emptied = node_id in table.nodes and (
                disk.identity.store_id != table.nodes[node_id].store_id
            )
            while node_id in table.nodes:
                yield from self._ask("FORGET", node_id)
                yield
                table = yield from self._table()
            self.nemesis.retire(node_id)
            self._tell(f"node {node_id} is out")
            if self._over or emptied or self.dice.random() < 0.5:
                self._end(node_id)
            else:
                self._start(node_id)
                self.world.later(self.dice.within((0, 8_000_000)), 0, self._end, node_id)
        self.done += 1

    def _start(self, node_id: int) -> None:
        """A node that is out runs after all."""
        if node_id not in self.world.nodes:
            try:
                self.world.start(node_id)
            except (StorageError, DocumentedLoss) as error:
                self._tell(f"node {node_id} does not start: {error}")

    def _end(self, node_id: int) -> None:
        if node_id in self.world.nodes:
            self.world.crash(node_id)

    # Commands

    def _table(self) -> Generator[None, None, ConfigTable]:
        """The newest config table, whenever the metaserver tells it."""
        while True:
            reply = yield from self._ask("QUERY")
            if reply.startswith(b"$"):
                return ConfigTable.from_json(reply.partition(b"\r\n")[2][:-2])
            yield

    def _ask(self, *words: object) -> Generator[None, None, bytes]:
        """The reply of a node that should be sound to a META command, empty if it dies before."""
        world = self.world
        while not (running := [it for it in self.nemesis.good() if it in world.nodes]):
            yield
        node_id = self.dice.choice(running)
        admin = world.nodes[node_id].connect_admin(lambda: None, lambda why, at_once: None)
        life = world.life(node_id)
        command = " ".join(("META", *map(str, words)))

        def arrive() -> None:
            with world.acting(node_id):
                admin.receive(command.encode() + b"\r\n")

        world.later(0, node_id, arrive)
        while not admin.slots.output:
            yield
            if world.life(node_id) != life:
                return b""
        reply = admin.slots.take()
        if words[0] != "QUERY":
            self._tell(f"{command} on node {node_id}: {reply.decode().strip()}")
        return reply

    def _tell(self, what: str) -> None:
        self.world.tell(f"* {what}")


def _hosted(table: ConfigTable, node_ids: set[int]) -> bool:
    """Whether replicas are on these nodes, or may be."""
    return any(it.node_id in node_ids for group in table.groups.values() for it in group.members)


def _registered(table: ConfigTable, node_id: int) -> bool:
    return node_id in table.nodes and bool(table.nodes[node_id].store_id)
