"""Clients and reads that wait for something: a leader, room in a lane, answers to their reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eraft.node.rerouted import Rerouted

if TYPE_CHECKING:
    from eraft.node.client import Client
    from eraft.node.node import Node


class Waiting:
    """Who is to be asked again, and when."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._held: dict[int, Client] = {}
        self.resuming: dict[int, Client] = {}
        """Who goes on as soon as there is a turn."""
        self._next_turn: dict[int, Client] = {}
        self._for_lane: list[Client] = []
        self._rerouted: list[Rerouted] = []

    def hold(self, client: Client) -> None:
        """Ask the client again when routing may have changed."""
        self._held[client.session.id] = client

    def resume_later(self, client: Client) -> None:
        """Let the client go on before the turn is over."""
        self.resuming[client.session.id] = client

    def for_next_turn(self, client: Client) -> None:
        """Let others have their turn, and what is answered leave, before the client goes on."""
        self._next_turn[client.session.id] = client

    def end_turn(self) -> None:
        """The turn is over: who waited for the next one is to go on."""
        if self._next_turn:
            self.resuming |= self._next_turn
            self._next_turn.clear()

    def wait_for_lane(self, client: Client) -> None:
        """Let the client go on once a full lane has been proposed."""
        self._for_lane.append(client)

    def lane_drained(self) -> None:
        """A lane that was full has room again."""
        waiters, self._for_lane = self._for_lane, []
        for client in waiters:
            self.resume_later(client)

    def again(
        self, client: Client, slot: Any, commands: list[list[bytes]], leader_only: bool = False
    ) -> None:
        """Reads that a replica could not serve after all: judge their buckets again."""
        client.wait_for_reads()
        readonly = client.session.readonly and not leader_only
        rerouted = Rerouted(client, slot, commands, readonly)
        # Whoever could not serve it may be asked again and again until it is known who leads now:
        # once a tick is enough.
        if rerouted.again or not rerouted.retry(self._node):
            self._rerouted.append(rerouted)

    def forget(self, client: Client) -> None:
        """The client is gone."""
        self._held.pop(client.session.id, None)
        self.resuming.pop(client.session.id, None)
        self._next_turn.pop(client.session.id, None)

    def resume(self) -> None:
        """Let everybody go on whose turn it is."""
        resuming, self.resuming = self.resuming, {}
        for client in resuming.values():
            client.resume()

    def route_again(self) -> None:
        """Routing may have changed: ask everybody again who is held."""
        if self._held:
            held, self._held = self._held, {}
            for client in held.values():
                client.resume()
        if self._rerouted:
            rerouted, self._rerouted = self._rerouted, []
            self._rerouted += [item for item in rerouted if not item.retry(self._node)]
