"""Connections between nodes: in order and complete until they break, with what is under way.

As in `eraft.net.peers` every node dials every other one twice, and sends only
on what it dialled. Beyond that, frames of Raft messages may be lost, doubled
or late if the conditions say so: the core does not rely on connections.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from eraft import limits
from eraft._impl import frames
from eraft.errors import ProtocolError
from eraft.node import hello
from eraft.node.hello import Forget

if TYPE_CHECKING:
    from eraft.node.node import Node
    from tests.sim.world import World

CHANNELS = (hello.MAIN, hello.BULK)
KIND_OFFSET = frames.FRAME_HEADER_BYTES
UNACKED_US = int(limits.PEER_UNACKED_S * 1e6)


class Link:
    """One dialled connection; `epoch` tells its lives apart."""

    __slots__ = (
        *("channel", "dialling", "epoch", "held", "kept", "last_us", "reader", "sender", "stores"),
        *("to", "up"),
    )

    def __init__(self, sender: int, to: int, channel: int) -> None:
        self.sender = sender
        self.to = to
        self.channel = channel
        self.up = False
        self.dialling = False
        self.epoch = 0
        self.last_us = 0
        self.held: list[bytes] = []
        self.reader = frames.FrameReader(limits.PEER_FRAME_BYTES)
        self.kept: list[Forget] = []
        """What the two ends have to forget of each other once neither may hear the other."""
        self.stores = ("", "")
        """The disks of both ends when the connection came about."""

    def end(self) -> None:
        """Nothing arrives on it any more, not even what is under way."""
        self.up = False
        self.epoch += 1
        for forget in self.kept:
            forget()
        self.kept.clear()


class Network:
    """The links of a world and what is wrong with them, in each direction by itself."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.links: dict[tuple[int, int, int], Link] = {}
        self.blocked: dict[tuple[int, int], int] = {}
        """Directions in which nothing arrives, each with the number of the block."""
        self._blocks = 0
        self.sent_bytes = 0

    # Traffic

    def send(self, sender: int, to: int, channel: int, data: list[bytes]) -> None:
        """Frames of one turn."""
        link = self.links.get((sender, to, channel))
        if link is None or not link.up:
            return
        conditions = self._world.conditions
        if conditions.drop or conditions.duplicate or conditions.late:
            data = [frame for frame in data if self._passes(link, frame)]
        if data:
            self._send(link, data[0] if len(data) == 1 else b"".join(data))

    def _passes(self, link: Link, frame: bytes) -> bool:
        """Whether a frame goes the usual way, too."""
        if frame[KIND_OFFSET] != frames.RAFT:
            return True
        world, conditions = self._world, self._world.conditions
        chance = world.dice.random()
        if chance < conditions.drop:
            return False
        chance -= conditions.drop
        if chance < conditions.late + conditions.duplicate:
            delay_us = world.dice.within(conditions.late_us)
            world.later(delay_us, link.to, self._stray, link.sender, link.to, frame)
        return chance >= conditions.late

    def _send(self, link: Link, data: bytes) -> None:
        self.sent_bytes += len(data)
        if (link.sender, link.to) in self.blocked:
            link.held.append(data)
            return
        world, conditions = self._world, self._world.conditions
        delay_us = world.dice.within(conditions.network_us)
        if conditions.spike_chance and world.dice.random() < conditions.spike_chance:
            delay_us += world.dice.within(conditions.spike_us)
        link.last_us = max(link.last_us, world.now_us + delay_us)
        world.later(link.last_us - world.now_us, link.to, self._arrive, link, link.epoch, data)

    def _arrive(self, link: Link, epoch: int, data: bytes) -> None:
        if epoch != link.epoch:
            return
        if (link.sender, link.to) in self.blocked:
            link.held.append(data)
            return
        self._world.checks.connected(link.sender, link.to, link.stores)
        with self._world.acting(link.to) as node:
            for kind, body in link.reader.feed(data):
                if epoch != link.epoch:
                    break  # the frame before has shown who that is
                self._take(node, link.sender, kind, body)

    def _stray(self, sender: int, to: int, frame: bytes) -> None:
        if (sender, to) not in self.blocked:
            reader = frames.FrameReader(limits.PEER_FRAME_BYTES)
            ((kind, body),) = reader.feed(frame)
            with self._world.acting(to) as node:
                self._take(node, sender, kind, body)

    def _take(self, node: Node, sender: int, kind: int, body: bytes) -> None:
        self._world.witness(body)
        node.inbound.take(sender, kind, body)

    # Connections

    def dial(self, sender: int) -> None:
        """The node has a look at whom it should be connected with."""
        world = self._world
        for to in sorted(world.nodes[sender].table.nodes):
            for channel in CHANNELS if to != sender else ():
                link = self.links.get((sender, to, channel))
                if link is None:
                    link = self.links[sender, to, channel] = Link(sender, to, channel)
                if not link.up and not link.dialling:
                    link.dialling = True
                    delay_us = world.dice.within(world.conditions.dial_us)
                    world.later(delay_us, sender, self._dialled, link)

    def hang_up(self, sender: int) -> None:
        """The node has no connections any more to those that are out of its config table."""
        nodes = self._world.nodes[sender].table.nodes
        for link in self.links.values():
            if link.sender == sender and link.up and link.to not in nodes:
                link.end()

    def _hung_up(self, link: Link, why: str) -> None:
        """One end has nothing to do with the other one any more."""
        world = self._world
        world.tell(f"the connection from node {link.sender} to node {link.to} is closed: {why}")
        noticed = link.up and link.sender in world.nodes
        link.end()
        if noticed:
            link.dialling = True
            delay_us = world.dice.within(world.conditions.notice_us)
            world.later(delay_us, link.sender, self._lost, link.sender, link.to, [link])

    def dial_all(self) -> None:
        """Something has changed that may let connections come about."""
        for sender in list(self._world.nodes):
            self.dial(sender)

    def _dialled(self, link: Link) -> None:
        link.dialling = False
        world = self._world
        a, b = link.sender, link.to
        if link.up or b not in world.nodes or b in world.paused:
            return
        if (a, b) in self.blocked or (b, a) in self.blocked:
            return
        greeted = []
        try:
            for one, other in ((a, b), (b, a)):
                greeting = hello.encode(world.disks[one].identity, other, link.channel)
                ((_, body),) = frames.FrameReader(limits.PEER_GREETING_BYTES).feed(greeting)
                node = world.nodes[other]
                found = hello.check(body, node.identity, node.table)
                greeted.append((node.handshakes, found))
        except ProtocolError as error:
            world.tell(f"node {a} does not get a connection to node {b}: {error}")
            return
        link.end()
        link.up = True
        hang_up = partial(self._hung_up, link)
        link.kept = [handshakes.keep(found, hang_up) for handshakes, found in greeted]
        link.stores = (world.disks[a].identity.store_id, world.disks[b].identity.store_id)
        world.checks.connected(a, b, link.stores)
        link.last_us = 0
        link.held.clear()
        link.reader = frames.FrameReader(limits.PEER_FRAME_BYTES)
        if link.channel == hello.MAIN:
            with world.acting(a) as node:
                node.peer_up(b)

    def cut(self, a: int, b: int) -> None:
        """Nothing passes in either direction, and the connections break."""
        self.block(a, b)
        self.block(b, a)
        self.break_links(a, b)

    def block(self, sender: int, to: int) -> None:
        """Nothing that is sent arrives. Connections live on for as long as TCP has patience."""
        self._blocks += 1
        self.blocked[sender, to] = self._blocks
        self._world.later(UNACKED_US, 0, self._give_up, sender, to, self._blocks)

    def _give_up(self, sender: int, to: int, block: int) -> None:
        """What was sent, or that it had arrived, was not acknowledged for too long."""
        if self.blocked.get((sender, to)) == block:
            self.break_links(sender, to)

    def unblock(self, sender: int, to: int) -> None:
        """What was sent meanwhile arrives after all, if the connection is still there."""
        self.blocked.pop((sender, to), None)
        for channel in CHANNELS:
            link = self.links.get((sender, to, channel))
            if link is not None and link.up:
                held, link.held = link.held, []
                for data in held:
                    self._send(link, data)

    def heal(self) -> None:
        """Everything passes again."""
        for sender, to in list(self.blocked):
            self.unblock(sender, to)
        self.dial_all()

    def break_links(self, a: int, b: int) -> None:
        """The connections between two nodes end, and what is under way is lost."""
        for sender, to in ((a, b), (b, a)):
            self._end(sender, to)
        self.dial_all()

    def _end(self, sender: int, to: int) -> None:
        """The sender dials again once it has noticed."""
        world = self._world
        ended = []
        for channel in CHANNELS:
            link = self.links.get((sender, to, channel))
            if link is not None and link.up:
                link.end()
                link.dialling = True
                ended.append(link)
        if ended and sender in world.nodes:
            delay_us = world.dice.within(world.conditions.notice_us)
            if delay_us or sender in world.paused:
                world.later(delay_us, sender, self._lost, sender, to, ended)
            else:
                self._lost(sender, to, ended)

    def _lost(self, sender: int, to: int, ended: list[Link]) -> None:
        for link in ended:
            link.dialling = False
            # A node hears nothing more of links to those that its table has not any more.
            if link.channel == hello.MAIN and to in self._world.nodes[sender].table.nodes:
                with self._world.acting(sender) as node:
                    node.peer_down(to)
        self.dial(sender)

    def crashed(self, node_id: int) -> None:
        """A node is gone. What it had sent may still arrive."""
        world = self._world
        for link in self.links.values():
            if link.sender == node_id:
                link.up = link.dialling = False
                if not world.conditions.notice_us[1] or world.dice.random() < 0.5:
                    link.end()
        for other in list(world.nodes):
            self._end(other, node_id)
