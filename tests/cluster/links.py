"""The network between nodes, for tests that cut it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

import orjson

from eraft._impl import frames


class Links:
    """Relays between nodes. What is cut stalls without a word, as packets do that get lost.

    Every node advertises its relay's address instead of its own; the greeting
    tells which node has dialled.
    """

    def __init__(self) -> None:
        self._cut: set[frozenset[int]] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def relay(self, node_id: int, address: str) -> str:
        """The address under which others reach the node that listens at `address`."""

        async def start() -> int:
            async def accepted(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                self._tasks.add(task)
                try:
                    await self._relay(node_id, address, near, back)
                finally:
                    back.close()
                    self._tasks.discard(task)

            server = await asyncio.start_server(accepted, "127.0.0.1", 0)
            self._servers.append(server)
            port: int = server.sockets[0].getsockname()[1]
            return port

        port = asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        return f"127.0.0.1:{port}"

    def isolate(self, node_id: int, others: list[int]) -> None:
        """Let nothing pass between the node and the others."""
        cut = {frozenset((node_id, other)) for other in others if other != node_id}
        self._loop.call_soon_threadsafe(self._set, cut)

    def heal(self) -> None:
        """Let everything pass, also what has waited."""
        self._loop.call_soon_threadsafe(self._set, set())

    def _set(self, cut: set[frozenset[int]]) -> None:
        self._cut = cut
        self._changed.set()
        self._changed = asyncio.Event()

    async def _relay(
        self, node_id: int, address: str, near: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            greeting = await near.readexactly(frames.FRAME_HEADER_BYTES)
            greeting += await near.readexactly(int.from_bytes(greeting[:4], "little"))
            ((_, body),) = frames.FrameReader(len(greeting)).feed(greeting)
            link = frozenset((node_id, orjson.loads(body)["node_id"]))
            far, forth = await asyncio.open_connection(host, int(port))
            await self._pass(link)
            try:
                forth.write(greeting)
                await asyncio.gather(self._copy(link, near, forth), self._copy(link, far, back))
            finally:
                forth.close()

    async def _copy(
        self, link: frozenset[int], source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65536):
            await self._pass(link)
            target.write(data)
            await target.drain()
        await self._pass(link)
        target.close()

    async def _pass(self, link: frozenset[int]) -> None:
        while link in self._cut:
            await self._changed.wait()
