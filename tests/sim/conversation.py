"""Clients of simulated nodes, as far as bytes go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from eraft.node.client import Client

if TYPE_CHECKING:
    from tests.sim.world import World


class Conversation:
    """A client of one node: what it sends, and the bytes that it got back."""

    def __init__(self, world: World, node_id: int) -> None:
        self.received = b""
        self.closed = ""
        self.node_id = node_id
        self.on_data: Callable[[], None] | None = None
        """Called when something has come."""
        self._world = world
        self._life = world.life(node_id)
        self._sends_us = 0
        self._comes_us = 0
        self.client: Client = world.nodes[node_id].connect(
            "10.0.0.9:9", "10.0.0.1:1", self._ready, self._closed
        )

    def send(self, *commands: str | bytes) -> None:
        """Send inline commands (text) or raw bytes."""
        world = self._world
        if self._life != world.life(self.node_id):
            return
        for command in commands:
            data = command.encode() + b"\r\n" if isinstance(command, str) else command
            if world.conditions.client_us[1]:
                arrives_us = world.now_us + world.dice.within(world.conditions.client_us)
                self._sends_us = max(self._sends_us, arrives_us)
                world.later(self._sends_us - world.now_us, self.node_id, self._deliver, data)
            else:
                self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        with self._world.acting(self.node_id):
            self.client.receive(data)

    def _ready(self) -> None:
        """Output waits; the world takes it after a turn."""
        self._world.wake(self.node_id)

    def _closed(self, why: str, at_once: bool) -> None:
        self.closed = why

    def take(self) -> None:
        """The node's output is on its way, also if the node does not live to see it arrive."""
        if not self.client.slots.output:
            return
        data = self.client.slots.take()
        world = self._world
        arrives_us = world.now_us + world.dice.within(world.conditions.client_us)
        self._comes_us = max(self._comes_us, arrives_us)
        if self._comes_us > world.now_us:
            world.later(self._comes_us - world.now_us, 0, self._came, data)
        else:
            self._came(data)

    def _came(self, data: bytes) -> None:
        self._world.witness(data)
        self.received += data
        if self.on_data is not None:
            self.on_data()

    def hang_up(self) -> None:
        """End it; the node finds out as soon as it can."""
        world = self._world
        if self._life == world.life(self.node_id):
            world.later(0, self.node_id, self._hung_up)

    def _hung_up(self) -> None:
        self._world.conversations[self.node_id].remove(self)
        with self._world.acting(self.node_id) as node:
            node.disconnect(self.client)
