"""What goes wrong in a simulated cluster: which kinds, how often and for how long, by the seed."""

from __future__ import annotations

from collections.abc import Callable

from eraft.errors import StorageError
from eraft.storage.memory_files import SECTOR_BYTES
from eraft.storage.segments import HEADER_BYTES
from tests.sim.checks import DocumentedLoss
from tests.sim.dice import Dice
from tests.sim.disk import FaultyStore
from tests.sim.politics import Politics
from tests.sim.world import World

SECOND_US = 1_000_000
ROOM = 1 << 40
WRITING_US = 200_000
"""For so long a large record is waited for, in which the power is cut,"""
SYNCING_US = 99
"""so long after it was begun: before the fastest disk has it."""


class Nemesis:
    """Strikes at random, and repairs everything in the end.

    Each seed has some kinds of faults and not others (swarm testing, Groce et
    al. 2012): what is always there together hides what it is alone.
    """

    def __init__(self, world: World, dice: Dice) -> None:
        self.world = world
        self.dice = dice
        self.strikes = 0
        self.victims: set[int] = set()
        """Nodes whose disk has lost durable data, or is to: at most a minority."""
        self.given_up: set[int] = set()
        """Nodes that stay down."""
        self._most_victims = (len(world.ids) - 1) // 2
        self._ways = [self._wipe, self._flip, self._misdirect]
        self._over = False
        self._lurking: dict[int, int] = {}
        """Until when a record of these nodes is waited for."""
        politics = Politics(world, dice)
        kinds: list[Callable[[], None]] = [
            self.isolate_leader,
            self.isolate_leader,
            self.isolate_one,
            self.swap_leaders,
            self.cut_pair,
            self.cut_one_way,
            self.split,
            self.reset,
            self.cut_power,
            self.cut_power,
            self.kill,
            self.stop,
            self.cut_all_power,
            self.crash_leader,
            self.pause,
            self.pause_leader,
            self.stall_disk,
            self.stall_leader,
            self.stall_store,
            self.jump_clock,
            self.fill_disk,
            self.fail_sync,
            self.fail_reads,
            politics.step_down,
            politics.campaign,
            politics.hand_over,
            politics.rivals,
            politics.reconfigure,
            politics.reconfigure,
            self.leave_behind,
            self.destroy,
        ]
        chance = dice.choice((0.25, 0.5, 0.8))
        self.kinds = [kind for kind in kinds if dice.random() < chance] or [self.isolate_leader]
        # What happens all the time meets everything else.
        often = dice.choice((None, None, None, politics.reconfigure, self.leave_behind))
        self.kinds += [often] * len(self.kinds) if often else []
        greetings: list[Callable[[int, int], None]] = [
            politics.change_early,
            politics.hand_over_early,
            politics.read_early,
            politics.read_early,
            self._stall_early,
            self._crash_early,
            self._cut_early,
        ]
        self._greetings = [it for it in greetings if dice.random() < chance / 2]
        self._greeting_us = dice.choice((0, 2_000, 50_000))
        if politics.reconfigure in self.kinds and self.destroy in self.kinds:
            self.kinds.remove(self.destroy)  # a minority of what are voters just then
        if self.destroy in self.kinds:
            self._keep_voters()
        self.gap_us = dice.choice((500_000, 1_500_000, 3_000_000))
        self.longest_us = dice.choice((1_000_000, 4_000_000, 8_000_000))
        world.on_failure = self._failed
        world.on_record = self._writes

    def destroys(self, often: bool) -> None:
        """Disks are destroyed, again and again as somebody replaces the nodes."""
        self.kinds = [it for it in self.kinds if it.__name__ not in ("reconfigure", "destroy")]
        self.kinds += [self.destroy] * (1 + often * len(self.kinds) // 4)
        self._ways.append(self._lose_state)
        self._keep_voters()

    def _keep_voters(self) -> None:
        """What is a minority of the nodes is one of the voters, too."""
        self._greetings = [it for it in self._greetings if it.__name__ != "change_early"]

    def retire(self, node_id: int) -> None:
        """A node is out of the cluster for good."""
        self.world.ids.remove(node_id)
        self.given_up.add(node_id)
        self.victims.discard(node_id)
        self.world.checks.members.out(node_id, self.world.table.version)

    @property
    def orderly(self) -> bool:
        """Whether members change as the config table says, and not otherwise."""
        names = {it.__name__ for it in (*self.kinds, *self._greetings)}
        return names.isdisjoint(("reconfigure", "change_early"))

    def strike(self) -> int:
        """Something goes wrong; how long until the next time."""
        kind = self.dice.choice(self.kinds)
        self.strikes += 1
        kind()
        return self.dice.within((self.gap_us // 10, 2 * self.gap_us))

    def greet(self, node_id: int, gid: int) -> None:
        """Something may happen to a leader as soon as it leads."""
        if self._greetings and not self._over and self.dice.random() < 0.5:
            what = self.dice.choice(self._greetings)
            delay_us = self.dice.within((0, self._greeting_us))
            self.world.later(delay_us, node_id, self._greet, what, node_id, gid)

    def _greet(self, what: Callable[[int, int], None], node_id: int, gid: int) -> None:
        if not self._over:
            what(node_id, gid)

    def repair(self) -> None:
        """Everything works again, but what is destroyed."""
        world = self.world
        self._over = True
        world.tell("everything is repaired")
        world.heal()
        world.stalled.clear()
        world.paused.clear()
        world.wall_offset_ms.clear()
        for node_id in world.ids:
            self._mend_disk(node_id)
            self._restart(node_id)

    def good(self) -> list[int]:
        """The nodes that have all of their data."""
        return [node_id for node_id in self.world.ids if node_id not in self.victims]

    # Helpers

    def _node(self) -> int:
        chosen: int = self.dice.choice(self.world.ids)
        return chosen

    def _leader(self) -> int:
        gids = sorted({gid for node in self.world.nodes.values() for gid in node.replicas})
        return (self.world.leader(self.dice.choice(gids)) if gids else 0) or self._node()

    def _for_a_while(self, what: Callable[..., None], *details: object) -> None:
        """Undo something later, unless everything has been repaired by then."""
        delay_us = self.dice.within((self.longest_us // 20, self.longest_us))

        def undo() -> None:
            if not self._over:
                what(*details)

        self.world.later(delay_us, 0, undo)

    def _tell(self, what: str) -> None:
        self.world.tell(f"! {what}")

    # The network

    def isolate_one(self) -> None:
        """One node is cut off from all others."""
        self._cut({self._node()})

    def isolate_leader(self) -> None:
        """The leader of a group is cut off."""
        self._cut({self._leader()})

    def swap_leaders(self) -> None:
        """A leader that was cut off for a while is back the moment its successor is gone."""
        gid = self.dice.choice(sorted(self.world.checks.groups))
        first = self.world.leader(gid)
        if not first:
            return
        self._tell(f"[{first}] cut off, until its successor in group {gid} is gone")
        others = [it for it in self.world.ids if it != first]
        self.world.isolate(first)

        def back() -> None:
            second = self.world.leader(gid)
            if second not in (0, first):
                self._crash(second, power=self.dice.random() < 0.5)
            self._mend([*((first, it) for it in others), *((it, first) for it in others)])

        self._for_a_while(back)

    def split(self) -> None:
        """Two parts, at random."""
        self._cut({node_id for node_id in self.world.ids if self.dice.random() < 0.5})

    def _cut(self, part: set[int]) -> None:
        self._tell(f"{sorted(part)} cut off")
        pairs = [
            (a, b) for a in self.world.ids for b in self.world.ids if a in part and b not in part
        ]
        breaks = self.dice.random() < 0.5
        for a, b in pairs:
            if breaks:
                self.world.network.cut(a, b)
            else:
                self.world.network.block(a, b)
                self.world.network.block(b, a)
        self._for_a_while(self._mend, [*pairs, *((b, a) for a, b in pairs)])

    def _mend(self, directions: list[tuple[int, int]]) -> None:
        for sender, to in directions:
            self.world.network.unblock(sender, to)
        self.world.network.dial_all()

    def _pair(self) -> tuple[int, int]:
        a, b = self.dice.sample(self.world.ids, 2)
        return a, b

    def cut_pair(self) -> None:
        """Two nodes do not hear each other."""
        a, b = self._pair()
        self._tell(f"nodes {a} and {b} cut off from each other")
        self.world.network.cut(a, b)
        self._for_a_while(self._mend, [(a, b), (b, a)])

    def cut_one_way(self) -> None:
        """One node does not hear another one, or any."""
        sender, to = self._pair()
        if self.dice.random() < 0.5:
            sender = self._leader()
        receivers = [it for it in self.world.ids if it not in (sender, to)]
        directions = [(sender, it) for it in (receivers if self.dice.random() < 0.5 else [to])]
        directions = [it for it in directions if it[0] != it[1]]
        self._tell(f"nothing arrives from {directions}")
        for direction in directions:
            self.world.network.block(*direction)
        self._for_a_while(self._mend, directions)

    def reset(self) -> None:
        """The connections between two nodes break, and come back."""
        a, b = self._pair()
        self._tell(f"the connections of nodes {a} and {b} break")
        self.world.network.break_links(a, b)

    # Processes

    def _crash(self, node_id: int, power: bool) -> None:
        if node_id in self.world.nodes:
            self._tell(f"node {node_id} crashes")
            self.world.crash(node_id, power)
            self._for_a_while(self._restart, node_id)

    def cut_power(self) -> None:
        """A node loses what it has not synced."""
        self._crash(self._node(), power=True)

    def kill(self) -> None:
        """A process dies."""
        self._crash(self._node(), power=False)

    def crash_leader(self) -> None:
        """The leader of a group dies."""
        self._crash(self._leader(), power=self.dice.random() < 0.5)

    def cut_all_power(self) -> None:
        """All nodes lose what they have not synced."""
        for node_id in self.world.ids:
            self._crash(node_id, power=True)

    def stop(self) -> None:
        """A node is stopped in an orderly way."""
        node_id = self._node()
        if node_id in self.world.nodes and node_id not in self.world.paused:
            self._tell(f"node {node_id} is to stop")
            with self.world.acting(node_id) as node:
                node.leads.leave()
            self.world.later(self.dice.within((0, SECOND_US)), node_id, self._stop, node_id)

    def _stop(self, node_id: int) -> None:
        if self._over:
            self.world.nodes[node_id].leads.leaving = False
            return
        self.world.stop(node_id)
        self._for_a_while(self._restart, node_id)

    def _restart(self, node_id: int) -> None:
        world = self.world
        if node_id in world.nodes or node_id in self.given_up:
            return
        try:
            world.start(node_id)
        except DocumentedLoss as loss:
            self._tell(f"node {node_id} stays down: {loss}")
            self.given_up.add(node_id)
        except StorageError as error:
            self._tell(f"node {node_id} does not start: {error}")
            self._for_a_while(self._restart, node_id)

    def _failed(self, node_id: int, error: StorageError) -> None:
        if self._over and node_id not in self.world.checks.destroyed:
            raise AssertionError(f"progress: a good disk fails on node {node_id}: {error}")
        self._for_a_while(self._restart, node_id)

    def pause(self) -> None:
        """A process does not run for a while."""
        self._pause(self._node())

    def pause_leader(self) -> None:
        """A leader does not run for a while, and may not have heard of that when it goes on."""
        self._pause(self._leader())

    def _pause(self, node_id: int) -> None:
        if node_id in self.world.nodes:
            self._tell(f"node {node_id} pauses")
            self.world.paused.add(node_id)
            self._for_a_while(self._unpause, node_id)

    def _unpause(self, node_id: int) -> None:
        self._tell(f"node {node_id} goes on")
        self.world.paused.discard(node_id)
        self.world.resume()

    # New leaders

    def _crash_early(self, node_id: int, gid: int) -> None:
        self._crash(node_id, power=True)

    def _cut_early(self, node_id: int, gid: int) -> None:
        self._cut({node_id})

    def _stall_early(self, node_id: int, gid: int) -> None:
        self._stall(node_id)

    # Logs

    def leave_behind(self) -> None:
        """Much is written while a node is away: logs roll over, and it may need a snapshot."""
        gid = self.dice.choice([it for it in sorted(self.world.checks.groups) if it])
        leader = self.world.leader(gid)
        if self.dice.random() < 0.5:
            self._crash(self._node(), power=self.dice.random() < 0.5)
        if leader not in self.world.nodes:
            return
        if self.dice.random() < 0.6:
            delay_us = self.dice.within((0, SECOND_US // 2))
            self.world.later(delay_us, 0, self._lurk, leader)
        self._tell(f"much is written on node {leader}")
        conversation = self.world.connect(leader)
        for number in range(self.dice.randint(10, 60)):
            command = f"SET filler{number % 7} {number:0700}"
            self.world.later(number * 10_000, leader, conversation.send, command)

    def _lurk(self, node_id: int) -> None:
        """A node is to lose its power just while it writes a record of several sectors."""
        self._lurking[node_id] = self.world.now_us + WRITING_US

    def _writes(self, node_id: int, size_bytes: int) -> None:
        if size_bytes > SECTOR_BYTES and self._lurking.pop(node_id, 0) > self.world.now_us:
            delay_us = self.dice.within((0, SYNCING_US))
            self.world.later(delay_us, node_id, self._cut_power_writing, node_id)

    def _cut_power_writing(self, node_id: int) -> None:
        if not self._over:
            self._crash(node_id, power=True)

    # Clocks

    def jump_clock(self) -> None:
        """The wall clock of a node is set to another time."""
        node_id = self._node()
        self.world.wall_offset_ms[node_id] = self.dice.randint(-10_000, 10_000)
        self._tell(f"clock of node {node_id}: {self.world.wall_offset_ms[node_id]} ms")

    # Disks

    def stall_disk(self) -> None:
        """A disk does not answer for a while."""
        self._stall(self._node())

    def stall_leader(self) -> None:
        """The disk of a leader does not answer for a while."""
        self._stall(self._leader())

    def _stall(self, node_id: int) -> None:
        self._tell(f"the disk of node {node_id} stalls")
        self.world.stalled.add(node_id)
        self._for_a_while(self._unstall, node_id)

    def _unstall(self, node_id: int) -> None:
        self._tell(f"the disk of node {node_id} answers")
        self.world.stalled.discard(node_id)
        self.world.resume()

    def stall_store(self) -> None:
        """A state store takes no writes for a while."""
        node_id = self._node()
        self._tell(f"the store of node {node_id} stalls")
        self.world.disks[node_id].store.stalls = True
        self._for_a_while(self._mend_disk, node_id)

    def fill_disk(self) -> None:
        """No room, as the node is told, or finds out."""
        node_id = self._node()
        self._tell(f"the disk of node {node_id} is full")
        self.world.disks[node_id].free_bytes = 1
        if self.dice.random() < 0.3:
            self.world.disks[node_id].files.full = True
        self._for_a_while(self._mend_disk, node_id)

    def fail_sync(self) -> None:
        """The next sync fails: the node stops."""
        node_id = self._node()
        self._tell(f"a sync of node {node_id} fails")
        self.world.disks[node_id].files.failing_syncs = 1

    def fail_reads(self) -> None:
        """Nothing can be read: the node cannot start, or stops."""
        node_id = self._node()
        self._tell(f"the disk of node {node_id} cannot be read")
        self.world.disks[node_id].files.failing_reads = True
        self._for_a_while(self._mend_disk, node_id)

    def _mend_disk(self, node_id: int) -> None:
        disk = self.world.disks[node_id]
        disk.store.stalls = False
        disk.files.full = disk.files.failing_reads = False
        disk.files.failing_syncs = 0
        disk.free_bytes = ROOM

    def destroy(self) -> None:
        """Durable data of a minority is destroyed; from then on it counts as failed."""
        node_id = self._node()
        if node_id in self.victims or len(self.victims) >= self._most_victims:
            return
        self.victims.add(node_id)
        self.world.checks.destroyed.add(node_id)
        how: Callable[[int], None] = self.dice.choice(self._ways)
        how(node_id)

    def _wipe(self, node_id: int) -> None:
        """A new disk under the old name; the others must have nothing to do with it."""
        if node_id in self.world.nodes:
            self.world.crash(node_id)
        self._tell(f"the disk of node {node_id} is replaced by an empty one")
        self.world.format(node_id, f"{node_id + 1000:032x}")
        self._for_a_while(self._restart, node_id)

    def _lose_state(self, node_id: int) -> None:
        """The state store is empty, the log is not: it may be too short to begin from nothing."""
        if node_id in self.world.nodes:
            self.world.crash(node_id)
        self._tell(f"the state store of node {node_id} is lost")
        self.world.disks[node_id].store = FaultyStore()
        self._for_a_while(self._restart, node_id)

    def _flip(self, node_id: int) -> None:
        """A bit of the log rots; maybe of its last record."""
        if node_id in self.world.nodes:
            self.world.crash(node_id)
        files = self.world.disks[node_id].files
        files.failing_reads = False
        files.failing_syncs = 0
        name = self.dice.choice([it for it in files.names() if it.endswith(".log")])
        file = files.open(name)
        used = len(file.pread(file.size(), 0).rstrip(b"\0"))
        offset = self.dice.within((HEADER_BYTES, max(used - 1, HEADER_BYTES)))
        bit = 1 << self.dice.randrange(8)
        self._tell(f"a bit rots at offset {offset} of {name} of node {node_id}")
        (byte,) = file.pread(1, offset)
        file.pwrite(bytes([byte ^ bit]), offset)
        file.sync()
        self._for_a_while(self._restart, node_id)

    def _misdirect(self, node_id: int) -> None:
        """A record goes to the wrong place; nobody notices until the node starts again."""
        self._tell(f"a write of node {node_id} goes to a wrong place")
        self.world.disks[node_id].misdirects = True
        self._for_a_while(self._crash, node_id, False)
