"""What nodes ask of their disks: it takes a time, and on a stalled disk it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eraft.errors import StorageError
from eraft.storage.segments import Preparation
from eraft.storage.wal import WriteRequest

if TYPE_CHECKING:
    from tests.sim.world import World

Action = tuple[Callable[..., None], tuple[Any, ...]]


class DiskWork:
    """The log writers, segment preparers and flushes of all nodes, as events of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stuck: dict[int, list[Action]] = {}

    def started(self, node_id: int) -> None:
        """The node begins a new life, and nothing of the one before is under way."""
        self._stuck[node_id] = []
        self.check(node_id)

    def resume(self, node_id: int) -> None:
        """Go on where the disk was stalled, if it is not any more."""
        if self._stuck[node_id] and node_id not in self._world.stalled:
            stuck, self._stuck[node_id] = self._stuck[node_id], []
            for what, details in stuck:
                self._world.later(0, node_id, what, *details)

    def check(self, node_id: int) -> None:
        """What the shell does every second, on a disk of which something is known."""
        node, disk = self._world.nodes[node_id], self._world.disks[node_id]
        if disk.free_bytes:
            node.free_disk(disk.free_bytes)
        if not node.quarantined:
            node.log.retry_preparation()

    def write(self, node_id: int, request: WriteRequest) -> None:
        """Write a record, and sync it."""
        world = self._world
        world.disks[node_id].write(request)
        if world.on_record is not None:
            world.on_record(node_id, len(request.data))
        delay_us = world.dice.within(world.conditions.disk_us)
        world.later(delay_us, node_id, self._written, node_id, request)

    def flush(self, node_id: int) -> None:
        """Flush what the state store has by now."""
        world = self._world
        batches = world.disks[node_id].store.batches
        delay_us = world.dice.within(world.conditions.flush_us)
        world.later(delay_us, node_id, self._flushed, node_id, batches)

    def prepare(self, node_id: int, preparation: Preparation) -> None:
        """Make a segment ready to be written to."""
        world = self._world
        delay_us = world.dice.within(world.conditions.disk_us)
        world.later(delay_us, node_id, self._prepare, node_id, preparation)

    def _answers(self, node_id: int, what: Callable[..., None], *details: Any) -> bool:
        """Whether the disk answers; otherwise it goes on with this when it does."""
        if node_id in self._world.stalled:
            self._stuck[node_id].append((what, (node_id, *details)))
            return False
        return True

    def _written(self, node_id: int, request: WriteRequest) -> None:
        if not self._answers(node_id, self._written, request):
            return
        world = self._world
        try:
            request.file.sync()
        except OSError as error:
            world.failed(node_id, StorageError(f"writing the log: {error}"))
            return
        world.checks.durable(node_id, request.position)
        with world.acting(node_id) as node:
            node.log_durable(request.position)

    def _flushed(self, node_id: int, batches: int) -> None:
        if self._answers(node_id, self._flushed, batches):
            self._world.disks[node_id].store.flushed(batches)
            with self._world.acting(node_id) as node:
                node.store_flushed()

    def _prepare(self, node_id: int, preparation: Preparation) -> None:
        if not self._answers(node_id, self._prepare, preparation):
            return
        log = self._world.nodes[node_id].log
        try:
            preparation.run(self._world.disks[node_id].files)
        except OSError as error:
            log.prepare_failed(preparation, error)
            return
        with self._world.acting(node_id):
            log.prepared(preparation)
