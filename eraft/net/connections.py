"""Client and admin connections: sockets around `eraft.node.client.Client` and `AdminClient`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol, cast

from eraft import limits
from eraft.node.slots import SlotQueue

if TYPE_CHECKING:
    from eraft.net.server import Server

logger = logging.getLogger("eraft.net")


class Conversation(Protocol):
    """A connection without its socket, as the node offers it."""

    slots: SlotQueue
    output_full: bool

    @property
    def stopped(self) -> bool: ...

    def receive(self, data: bytes | bytearray | memoryview) -> None: ...

    def resume(self) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Reads into the one buffer that all connections share, and writes replies once a turn.

    That is safe because a conversation takes in all bytes, or copies them,
    before `buffer_updated` returns.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: asyncio.Transport
        self.conversation: Conversation
        self._paused = False
        self._closing = False

    def open_conversation(self, addr: str, laddr: str) -> Conversation:
        """The node's side of this connection."""
        raise NotImplementedError

    def close_conversation(self) -> None:
        """The socket is gone."""

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=limits.CLIENT_OUTPUT_BYTES // 64)
        self.server.enter()
        addr = _address(self.transport.get_extra_info("peername"))
        laddr = _address(self.transport.get_extra_info("sockname"))
        self.conversation = self.open_conversation(addr, laddr)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.enter()
        self.server.connection_lost(self)
        self.close_conversation()

    def get_buffer(self, size_hint: int) -> memoryview:
        return self.server.receive_buffer

    def buffer_updated(self, size_bytes: int) -> None:
        server = self.server
        if not server.scheduled:
            server.enter()
            server.schedule()
        conversation = self.conversation
        conversation.receive(server.receive_buffer[:size_bytes])
        if conversation.stopped:
            self._pause()

    def eof_received(self) -> bool:
        """The client sends no more: close once everything it sent is answered."""
        self._closing = True
        self.server.wants_flush(self)
        return True

    def pause_writing(self) -> None:
        """The client reads too slowly: take nothing more from it until it caught up."""
        self.conversation.output_full = True
        self._pause()

    def resume_writing(self) -> None:
        self.server.enter()
        self.conversation.output_full = False
        self.conversation.resume()
        self._unpause()
        self.server.schedule()

    # From the node and the server

    def on_output(self) -> None:
        """Replies wait to be written, at the end of the turn that is under way or scheduled."""
        self.server.unflushed[self] = None

    def on_close(self, why: str, at_once: bool) -> None:
        """The node ends this connection: at once, or when everything is answered."""
        logger.debug("closing %s: %s", self.transport.get_extra_info("peername"), why)
        if at_once:
            self.transport.abort()
            return
        self._closing = True
        self.server.wants_flush(self)

    def flush(self) -> None:
        """Write what is answered, and close or read on if the connection is due for it."""
        slots = self.conversation.slots
        transport = self.transport
        if slots.output:
            data = slots.take()
            if data and not transport.is_closing():
                transport.write(data)
        if self._closing:
            if not len(slots):
                transport.close()
        elif self._paused and not self.conversation.stopped:
            self._unpause()

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
            self.server.paused.add(self)

    def _unpause(self) -> None:
        if self._paused and not self.conversation.output_full:
            self._paused = False
            self.server.paused.discard(self)
            if not self.transport.is_closing():
                self.transport.resume_reading()


class ClientConnection(Connection):
    """A Redis client."""

    def open_conversation(self, addr: str, laddr: str) -> Conversation:
        self.client = self.server.node.connect(addr, laddr, self.on_output, self.on_close)
        return self.client

    def close_conversation(self) -> None:
        self.server.node.disconnect(self.client)


class AdminConnection(Connection):
    """An operator's connection."""

    def open_conversation(self, addr: str, laddr: str) -> Conversation:
        return self.server.node.connect_admin(self.on_output, self.on_close)


class RefusedConnection(asyncio.Protocol):
    """One more connection than the limit: told so and closed, in Redis's words."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refused = cast(asyncio.Transport, transport)
        refused.write(b"-ERR max number of clients reached\r\n")
        refused.close()


def _address(name: Any) -> str:
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"
    return str(name)
