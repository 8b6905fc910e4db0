"""Connections between nodes.

Every node dials every other one twice, for the main and the bulk channel,
and only sends on what it dialled; it only receives on what it accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, cast

from eraft import limits
from eraft._impl import frames
from eraft.errors import ProtocolError
from eraft.node import hello
from eraft.types import split_address

if TYPE_CHECKING:
    from eraft.net.server import Server

logger = logging.getLogger("eraft.peers")


class PeerLink(asyncio.Protocol):
    """The dialled connection of one channel to one node; dials again whenever it breaks."""

    def __init__(self, server: Server, node_id: int, channel: int) -> None:
        self._server = server
        self._node_id = node_id
        self._channel = channel
        self._transport: asyncio.Transport | None = None
        self._reader = frames.FrameReader(limits.PEER_FRAME_BYTES)
        self._lost = asyncio.Event()
        self._complaint = ""
        self._forget: hello.Forget | None = None
        """Once the peer has greeted, until the loss of that connection is dealt with."""
        self._there = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    def send(self, data: list[bytes]) -> None:
        """Send frames, or drop them if the link is down or the peer does not keep up."""
        transport = self._transport
        if transport is None or self._forget is None:
            return
        if transport.get_write_buffer_size() > limits.PEER_OUTPUT_BYTES:
            logger.warning("node %d does not keep up: reconnecting", self._node_id)
            transport.abort()
            return
        transport.write(data[0] if len(data) == 1 else b"".join(data))

    def dial_at_once(self) -> None:
        """The node is there: do not wait any longer before it is dialled again."""
        self._there.set()

    def close(self) -> None:
        """End the link for good."""
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _keep_connected(self) -> None:
        delay_s = limits.DIAL_FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        while True:
            node = self._server.node.table.nodes.get(self._node_id)
            if node is None:
                return  # it has just been removed, and this link is about to be closed
            address = node.peer
            host, port = split_address(address)
            self._lost.clear()
            self._there.clear()
            try:
                async with asyncio.timeout(limits.DIAL_TIMEOUT_S):
                    await loop.create_connection(lambda: self, host, port)
            except (OSError, TimeoutError) as error:
                self._complain(f"cannot be reached at {address}: {error}")
            else:
                await self._lost.wait()
                if self._forget is not None:
                    delay_s = limits.DIAL_FIRST_DELAY_S
                    self._down()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._there.wait(), delay_s)
            delay_s = min(2 * delay_s, limits.DIAL_LAST_DELAY_S)

    def _complain(self, why: str) -> None:
        """Log why there is no connection, once for each reason."""
        if why != self._complaint:
            self._complaint = why
            logger.warning("node %d %s", self._node_id, why)

    def _down(self) -> None:
        self._forget = None
        if self._channel == hello.MAIN:
            logger.warning("node %d: connection lost", self._node_id)
            self._server.enter()
            self._server.node.peer_down(self._node_id)
            self._server.schedule()

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # After a cut the kernel sends again in ever longer intervals, up to minutes: dial instead.
        self._transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.PEER_UNACKED_S * 1000)
        )
        self._reader = frames.FrameReader(limits.PEER_FRAME_BYTES)
        node = self._server.node
        self._transport.write(hello.encode(node.identity, self._node_id, self._channel))

    def data_received(self, data: bytes) -> None:
        """The peer's greeting; nothing else comes on this connection."""
        node = self._server.node
        try:
            for kind, body in self._reader.feed(data):
                if kind != frames.HELLO or self._forget is not None:
                    raise ProtocolError(f"sent a frame of kind {kind} where none belongs")
                found = hello.check(body, node.identity, node.table)
                if found.node_id != self._node_id:
                    raise ProtocolError(f"answers as node {found.node_id}")
                self._up(found)
        except ProtocolError as error:
            self._hang_up(str(error))

    def _hang_up(self, why: str) -> None:
        self._complain(why)
        if self._transport is not None:
            self._transport.abort()

    def _up(self, found: hello.Hello) -> None:
        self._forget = self._server.node.handshakes.keep(found, self._hang_up)
        self._complaint = ""
        if self._channel == hello.MAIN:
            logger.info("node %d: connected", self._node_id)
            self._server.enter()
            self._server.node.peer_up(self._node_id)
            self._server.schedule()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._forget is not None:
            self._forget()
        self._lost.set()


class PeerReceiver(asyncio.Protocol):
    """An accepted connection: frames of one other node.

    Until it has greeted it is a stranger, of whom there may be only a few,
    for a short time and with little to say.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader = frames.FrameReader(limits.PEER_GREETING_BYTES)
        self._hello: hello.Hello | None = None
        self._forget: hello.Forget | None = None
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.strangers.add(self)
        self._deadline = asyncio.get_running_loop().call_later(
            limits.PEER_GREETING_S, self._refuse, "no greeting in time"
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._known()
        if self._forget is not None:
            self._forget()

    def _known(self) -> None:
        self._deadline.cancel()
        self._server.strangers.discard(self)

    def data_received(self, data: bytes) -> None:
        server = self._server
        server.enter()
        try:
            for kind, body in self._reader.feed(data):
                if self._hello is None:
                    self._greeted(kind, body)
                elif self._transport.is_closing():
                    break  # what came just now has shown who that is
                else:
                    server.node.inbound.take(self._hello.node_id, kind, body)
        except ProtocolError as error:
            self._refuse(str(error))
        server.told()

    def _greeted(self, kind: int, body: bytes) -> None:
        node = self._server.node
        if kind != frames.HELLO:
            raise ProtocolError(f"frame of kind {kind} before the greeting")
        found = hello.check(body, node.identity, node.table)
        self._hello = found
        self._known()
        self._forget = node.handshakes.keep(found, self._hang_up)
        # It sends no more before it has its answer, so the old reader holds nothing.
        self._reader = frames.FrameReader(limits.PEER_FRAME_BYTES)
        self._transport.write(hello.encode(node.identity, found.node_id, found.channel))
        self._server.greeted(found)

    def _hang_up(self, why: str) -> None:
        self._refuse(f"connection closed: {why}")

    def _refuse(self, why: str) -> None:
        who = "a peer" if self._hello is None else f"node {self._hello.node_id}"
        logger.warning("%s at %s: %s", who, self._transport.get_extra_info("peername"), why)
        if self._hello is None:
            self._transport.write(hello.refusal(why))
        self._transport.close()


class RefusedPeer(asyncio.Protocol):
    """One more stranger than are let in at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
