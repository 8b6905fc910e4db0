"""The process of one node: event loop, sockets, timers, signals and the log writer."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import uvloop

from eraft import IMPL, __version__, limits
from eraft._impl import wal
from eraft.errors import ConfigError, InvariantViolation, LogCorrupt, StorageError
from eraft.net.connections import AdminConnection, ClientConnection, Connection, RefusedConnection
from eraft.net.descriptors import client_connections
from eraft.net.listeners import Listeners
from eraft.net.peers import PeerLink, PeerReceiver, RefusedPeer
from eraft.node import hello
from eraft.node.node import Node
from eraft.node.options import NodeOptions
from eraft.node.outputs import Outputs
from eraft.storage.directory import DataDirectory, open_directory
from eraft.storage.files import DiskFiles
from eraft.storage.machine import MachineFactory
from eraft.storage.segments import Preparation
from eraft.storage.state import RocksStore
from eraft.storage.wal import LogOptions, WriteAheadLog
from eraft.types import NodeAddress

logger = logging.getLogger("eraft")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2


class Server:
    """Runs a `Node`: tells it what happens and carries out what it answers."""

    def __init__(
        self,
        options: NodeOptions,
        directory: DataDirectory,
        machine: MachineFactory | None = None,
    ) -> None:
        self._options = options
        self._machine = machine
        self._directory = directory
        self.receive_buffer = memoryview(bytearray(limits.RECEIVE_BUFFER_BYTES))
        self.paused: set[Connection] = set()
        self.node: Node
        self._loop = asyncio.get_running_loop()
        self.unflushed: dict[Connection, None] = {}
        self._connections: dict[Connection, None] = {}
        self._connection_limit = client_connections(options.connections)
        self._admins = 0
        self.strangers: set[PeerReceiver] = set()
        self.scheduled = False
        self._links: dict[tuple[int, int], PeerLink] = {}
        # A long flush must not keep a segment from being ready in time.
        self._flusher = ThreadPoolExecutor(1, "eraft-flush")
        self._preparer = ThreadPoolExecutor(1, "eraft-segment")
        self._files = DiskFiles(directory.log_path)
        self._disk_checked_s = 0.0
        self._stop = self._loop.create_future()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._writer = wal.LogWriter(self._eventfd)

    # Start and stop

    async def start(self) -> None:
        """Bind, recover, and serve; ConfigError or StorageError when it cannot."""
        listeners = Listeners(self._options)
        listeners.bind(
            client=self._accept_client if self._machine is None else None,
            peer=self._accept_peer,
            admin=self._accept_admin,
        )
        identity = self._directory.identity
        self._log, corrupt = self._recover()
        # Only now: it begins with the compactions that the last stop left, on all processors.
        self._store = RocksStore(self._directory.state_path)
        address = NodeAddress(
            identity.node_id, identity.store_id, listeners.client, listeners.peer, listeners.admin
        )
        self.node = Node(
            self._options,
            identity,
            address,
            self._log,
            corrupt,
            self._store,
            Random(secrets.randbits(64)),
            os.getpid(),
            time.time_ns() // 1_000_000,
            self._loop.time(),
            self._machine,
        )
        self._loop.set_exception_handler(self._unexpected)
        self._loop.add_reader(self._eventfd, self._log_written)
        self._check_disk()
        self._listeners = listeners
        await listeners.start()
        self._tick_at = self._loop.time()
        self._tick()
        self._directory.write_pid()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
        gc.collect()
        gc.freeze()
        logger.info(
            "node %d of cluster %s serves clients at %s, peers at %s, admin at %s (eraft %s, %s)",
            identity.node_id,
            identity.cluster_id,
            address.client,
            address.peer,
            address.admin,
            __version__,
            IMPL,
        )

    def _recover(self) -> tuple[WriteAheadLog | None, str]:
        """The log, or None and why it is corrupt."""
        started_s = time.monotonic()
        options = LogOptions(
            self._directory.identity.store_id,
            segment_size_bytes=self._options.segment_size_bytes,
            retention_bytes=self._options.log_retention_bytes,
            free_disk_bytes=self._options.free_disk_bytes,
        )
        try:
            log = WriteAheadLog.open(self._files, options)
        except LogCorrupt as error:
            logger.critical("QUARANTINED: %s", error)
            return None, str(error)
        logger.info(
            "log recovered: %d groups, %.1f MiB in %d ms",
            len(log.groups),
            log.size_bytes / limits.MIB,
            (time.monotonic() - started_s) * 1000,
        )
        return log, ""

    async def run(self) -> int:
        """Serve until a signal or a fatal error; the exit status."""
        status = await self._stop
        await self._shut_down(clean=status == EXIT_OK)
        return int(status)

    def _signalled(self, number: int) -> None:
        self.stop(signal.Signals(number).name)

    def stop(self, why: str) -> None:
        """The first time the node hands over what it leads before it stops; again: stop now."""
        logger.info("stopping: %s", why)
        if self._stop.done():
            return
        if self.node.leads.leaving:
            self._stop.set_result(EXIT_OK)
            return
        self._stop_at = self._loop.time() + limits.HAND_OVER_S
        self.enter()
        self.node.leads.leave()
        self.schedule()

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception out of a connection's callback, which ends that connection.

        A broken invariant or a failing disk ends the node.
        """
        error = context.get("exception")
        if isinstance(error, (InvariantViolation, StorageError)):
            self.fail(error)
        elif not isinstance(error, ConnectionError):
            logger.error("%s", context.get("message"), exc_info=error)

    def fail(self, error: BaseException) -> None:
        """Stop the node at once: it must not go on after this."""
        if not self._stop.done():
            logger.critical("the node stops: %s: %s", type(error).__name__, error, exc_info=error)
            self._stop.set_result(EXIT_FAILED)

    async def _shut_down(self, clean: bool) -> None:
        # The log writer cannot be interrupted, and whoever ends the process must not wait for ever.
        # What is to be written after that is as much as there is, and a slow disk may do it: only
        # a node that has failed is not given the time. To kill it meanwhile would lose nothing.
        watchdog = threading.Timer(limits.SHUT_DOWN_S, _give_up)
        watchdog.daemon = True
        watchdog.start()
        self._listeners.close()
        for link in self._links.values():
            link.close()
        for connection in list(self._connections):
            connection.flush()
            connection.transport.abort()
        self._loop.remove_reader(self._eventfd)
        await self._loop.run_in_executor(None, self._writer.close)
        try:
            if clean:
                watchdog.cancel()
                self.node.writing.write_all()
                await self._loop.run_in_executor(self._flusher, self._store.flush)
            self._flusher.shutdown()
            self._preparer.shutdown()
            self._store.close()
        except StorageError as error:
            logger.error("state not flushed, the next start makes it from the log: %s", error)
        if self._log is not None:
            self._log.close()
        watchdog.cancel()
        logger.info("stopped")

    # Turns

    def enter(self) -> None:
        """Tell the node the time, before anything else is told to it."""
        self.node.at(time.time_ns() // 1_000_000, self._loop.time())

    def schedule(self) -> None:
        """Let the node have a turn once this round of events is through."""
        if not self.scheduled:
            self.scheduled = True
            self._loop.call_soon(self._turn)

    def told(self) -> None:
        """Something happened to the node: let it have a turn if that makes work for it."""
        if self.node.has_work or self.unflushed:
            self.schedule()

    def wants_flush(self, connection: Connection) -> None:
        """The connection has output, or has to look whether it may close."""
        self.unflushed[connection] = None
        self.schedule()

    def _turn(self) -> None:
        self.scheduled = False
        if self._stop.done():
            return
        self.enter()
        try:
            outputs = self.node.drain()
            self._carry_out(outputs)
            self.node.apply()
            self._flush_connections()
            if outputs.record is not None:
                self._prepare_segments()
                self.node.writing.write_meanwhile()
        except Exception as error:
            self.fail(error)
            return
        self.told()
        if self.node.leads.leaving:
            self._stop_if_left()

    def _carry_out(self, outputs: Outputs) -> None:
        record = outputs.record
        if record is not None:
            self._writer.submit(record.file.fileno(), record.offset, record.data, record.position)
        self._send(hello.MAIN, outputs.frames)
        self._send(hello.BULK, outputs.bulk)
        if outputs.peers_changed:
            self._dial()
        if outputs.flush:
            self._flush_store()

    def _flush_connections(self) -> None:
        if self.unflushed:
            unflushed, self.unflushed = self.unflushed, {}
            for connection in unflushed:
                connection.flush()

    def _stop_if_left(self) -> None:
        late = self._loop.time() >= self._stop_at
        if (self.node.leads.left or late) and not self._stop.done():
            self._stop.set_result(EXIT_OK)

    def _send(self, channel: int, frames: dict[int, list[bytes]]) -> None:
        """Send each node its frames; a node that is not in the table yet has no link."""
        for node_id, data in frames.items():
            link = self._links.get((node_id, channel))
            if link is not None:
                link.send(data)

    def _log_written(self) -> None:
        os.eventfd_read(self._eventfd)
        self.enter()
        error = self._writer.error
        if error:
            self.fail(StorageError(f"writing the log: {os.strerror(error)}; fsync is not retried"))
            return
        try:
            self.node.log_durable(self._writer.durable)
        except Exception as failure:
            self.fail(failure)
        self.told()

    def _tick(self) -> None:
        """The node's clock: ticks do not drift, and those that were missed are not made up for."""
        if self._stop.done():
            return
        now_s = self._loop.time()
        self._tick_at = max(self._tick_at + self._options.tick_s, now_s)
        self._loop.call_at(self._tick_at, self._tick)
        self.enter()
        try:
            self.node.tick()
        except Exception as error:
            self.fail(error)
        self.told()
        if self.node.leads.leaving:
            self.schedule()
        if now_s >= self._disk_checked_s + limits.DISK_CHECK_INTERVAL_S:
            self._check_disk()
        for connection in list(self.paused):
            connection.flush()

    def _check_disk(self) -> None:
        self._disk_checked_s = self._loop.time()
        self.node.free_disk(self._directory.free_bytes())
        if self._log is not None:
            self._log.retry_preparation()

    # Work beside the loop

    def _flush_store(self) -> None:
        def finished(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if error is not None:
                self.fail(error)
                return
            self.enter()
            try:
                self.node.store_flushed()
            except Exception as failure:
                self.fail(failure)
            self.schedule()

        self._loop.run_in_executor(self._flusher, self._store.flush).add_done_callback(finished)

    def _prepare_segments(self) -> None:
        for preparation in self.node.log.preparations():
            self._prepare_segment(preparation)

    def _prepare_segment(self, preparation: Preparation) -> None:
        log = self.node.log

        def finished(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if error is None:
                log.prepared(preparation)
            elif isinstance(error, OSError):
                log.prepare_failed(preparation, error)
            else:
                self.fail(error)

        future = self._loop.run_in_executor(self._preparer, preparation.run, self._files)
        future.add_done_callback(finished)

    # Connections

    def _accept_client(self) -> asyncio.BaseProtocol:
        if len(self._connections) - self._admins >= self._connection_limit:
            return RefusedConnection()
        connection = ClientConnection(self)
        self._connections[connection] = None
        return connection

    def _accept_admin(self) -> asyncio.BaseProtocol:
        if self._admins >= limits.ADMIN_CONNECTIONS:
            return RefusedConnection()
        self._admins += 1
        connection = AdminConnection(self)
        self._connections[connection] = None
        return connection

    def _accept_peer(self) -> asyncio.BaseProtocol:
        if len(self.strangers) >= limits.PEER_STRANGERS:
            return RefusedPeer()
        return PeerReceiver(self)

    def greeted(self, found: hello.Hello) -> None:
        """A node has dialled this one: it is there again, if it was not."""
        link = self._links.get((found.node_id, found.channel))
        if link is not None:
            link.dial_at_once()

    def connection_lost(self, connection: Connection) -> None:
        """Forget a connection whose socket is gone."""
        self._connections.pop(connection, None)
        self.unflushed.pop(connection, None)
        self.paused.discard(connection)
        if isinstance(connection, AdminConnection):
            self._admins -= 1

    def _dial(self) -> None:
        """Have links to exactly the nodes of the config table."""
        wanted = set(self.node.table.nodes) - {self.node.identity.node_id}
        for node_id, channel in list(self._links):
            if node_id not in wanted:
                self._links.pop((node_id, channel)).close()
        for node_id in sorted(wanted):
            for channel in (hello.MAIN, hello.BULK):
                if (node_id, channel) not in self._links:
                    self._links[node_id, channel] = PeerLink(self, node_id, channel)


def _give_up() -> None:
    """The disk does not answer: end the process as a crash would."""
    logger.critical(
        "the node stops without its disk, which has not answered for %d s; what was acknowledged "
        "is in the log",
        limits.SHUT_DOWN_S,
    )
    logging.shutdown()
    os._exit(EXIT_FAILED)


async def _serve(options: NodeOptions, directory: DataDirectory) -> int:
    server = Server(options, directory)
    await server.start()
    return await server.run()


def run(options: NodeOptions) -> int:
    """Serve one node until SIGTERM or SIGINT; the exit status of the process.

    0 after a clean stop, 1 after a fatal error, 2 when the node cannot start
    with its settings, directory, ports or disk.
    """
    try:
        with open_directory(options.data_dir) as directory:
            return uvloop.run(_serve(options, directory))
    except (ConfigError, StorageError) as error:
        logger.error("%s", error)
        return EXIT_CONFIG
