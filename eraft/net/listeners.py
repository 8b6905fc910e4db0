"""The three ports of a node."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from eraft import limits
from eraft.errors import ConfigError
from eraft.node.options import NodeOptions

Factory = Callable[[], asyncio.BaseProtocol]

_BACKLOG = 1024


class Listeners:
    """Binds all three ports before anything else happens, and accepts when the node is there.

    `client`, `peer` and `admin` are the addresses to advertise.
    """

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._bound: list[tuple[socket.socket, Factory]] = []
        self._servers: list[asyncio.Server] = []
        self.client = ""
        self.peer = ""
        self.admin = ""

    def bind(self, client: Factory | None, peer: Factory, admin: Factory) -> None:
        """Bind the ports; ConfigError names the one that cannot be had.

        Without a factory the port of the clients is somebody else's to bind.
        """
        options = self._options
        if client is None:
            self.client = options.advertise_client or options.client
            if not _parse("client", self.client)[1]:
                raise ConfigError(f"client address {self.client!r}: others must be told a port")
        else:
            self.client = self._bind("client", options.client, options.advertise_client, client)
        self.peer = self._bind("peer", options.peer, options.advertise_peer, peer)
        self.admin = self._bind("admin", options.admin, options.advertise_admin, admin)

    def _bind(self, name: str, address: str, advertise: str, factory: Factory) -> str:
        host, port = _parse(name, address)
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted connections inherit these: one whose other end has vanished ends.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.KEEPALIVE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.KEEPALIVE_S // 3)
            sock.setblocking(False)
            sock.bind(target)
        except OSError as error:
            self.close()
            raise ConfigError(f"{name} address {address}: {error.strerror or error}") from error
        self._bound.append((sock, factory))
        bound_host, bound_port = sock.getsockname()[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        return advertise or f"{shown}:{bound_port}"

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for sock, factory in self._bound:
            self._servers.append(await loop.create_server(factory, sock=sock, backlog=_BACKLOG))

    def close(self) -> None:
        """Accept no more."""
        for server in self._servers:
            server.close()
        if not self._servers:
            for sock, _ in self._bound:
                sock.close()


def _parse(name: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{name} address {address!r}: must be host:port")
    return host, int(port)
