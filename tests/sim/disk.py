"""The disk of a simulated node: the files of its log and its state store, and what can go wrong."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from random import Random

from eraft.errors import StoreStalled
from eraft.storage.directory import Identity
from eraft.storage.founding import founding_state
from eraft.storage.memory import MemoryStore
from eraft.storage.memory_files import MemoryFile, MemoryFiles
from eraft.storage.wal import LogOptions, WriteRequest, format_log
from tests.sim.conditions import Conditions


class FaultyStore(MemoryStore):
    """A state store that can stall, as RocksDB does when it cannot keep up."""

    def __init__(self) -> None:
        super().__init__()
        self.stalls = False

    def copy(self) -> FaultyStore:
        """Another store with the same rows, all of them durable."""
        store = FaultyStore()
        store._rows, store._keys = self._rows, self._keys
        store._shared = self._shared = True
        return store

    def unflushed(self, prefix: bytes) -> bool:
        """Whether a crash could lose a change of a row whose key begins so."""
        return any(key.startswith(prefix) for undo in self._undo for key, _ in undo)

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        ranges: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Write, or StoreStalled."""
        if self.stalls:
            raise StoreStalled("the simulated store stalls")
        super().write(rows, ranges)


class FaultyFile(MemoryFile):
    """A file of `FaultyFiles`."""

    faults: FaultyFiles

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Read, or EIO."""
        if self.faults.failing_reads:
            raise OSError(errno.EIO, "simulated read error")
        return super().pread(size_bytes, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write, or ENOSPC where the file would grow."""
        if self.faults.full and offset + len(data) > self.size():
            raise OSError(errno.ENOSPC, "simulated full disk")
        if self.faults.forgotten:
            self.faults.written(self.name, offset, offset + len(data))
        super().pwrite(data, offset)

    def sync(self) -> None:
        """Sync, or EIO. What was written counts as clean then: no later sync writes it."""
        if self.faults.failing_syncs:
            self.faults.failing_syncs -= 1
            self.faults.forgotten += [
                (self.name, offset, before) for offset, before, _ in self._content.unsynced
            ]
            raise OSError(errno.EIO, "simulated sync error")
        super().sync()


class FaultyFiles(MemoryFiles):
    """Files in memory with errors on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.failing_reads = False
        self.failing_syncs = 0
        """How many syncs are still to fail."""
        self.forgotten: list[tuple[str, int, bytes]] = []
        """Name, offset and what is really on disk, where the sync of a write has failed."""

    def written(self, name: str, start: int, end: int) -> None:
        """What is written again has another chance to become durable."""
        before, self.forgotten = self.forgotten, []
        for its_name, offset, data in before:
            after = offset + len(data)
            if its_name != name or after <= start or end <= offset:
                self.forgotten.append((its_name, offset, data))
                continue
            if offset < start:
                self.forgotten.append((name, offset, data[: start - offset]))
            if end < after:
                self.forgotten.append((name, end, data[end - offset :]))

    def crash(self, rng: Random) -> None:
        """Lose what was not synced, also where a later sync pretended to."""
        super().crash(rng)
        for name, offset, before in reversed(self.forgotten):
            if name in self._contents and rng.random() < 0.5:
                self._contents[name].data[offset : offset + len(before)] = before
        self.forgotten.clear()

    def open(self, name: str) -> MemoryFile:
        """Open an existing file."""
        return self._faulty(super().open(name))

    def create(self, name: str) -> MemoryFile:
        """Make an empty file."""
        self.forgotten = [it for it in self.forgotten if it[0] != name]
        return self._faulty(super().create(name))

    def copy(self) -> FaultyFiles:
        """Other files with the same on them, all of it durable."""
        files = FaultyFiles()
        for name in self.names():
            files.create(name).pwrite(self.open(name).pread(1 << 30, 0), 0)
            files.open(name).sync()
        files._unsynced_names.clear()
        return files

    def _faulty(self, file: MemoryFile) -> MemoryFile:
        faulty = FaultyFile(file.name, file._content)
        faulty.faults = self
        return faulty


class Disk:
    """What a node leaves behind when it stops."""

    def __init__(self, identity: Identity, founders: list[int], conditions: Conditions) -> None:
        self.identity = identity
        self.files = FaultyFiles()
        self.store = FaultyStore()
        self.free_bytes = 0
        """Room that the node is told of every second, if not 0."""
        self.misdirects = False
        """The next record goes to a wrong place, and the disk says that all is well."""
        self._conditions = conditions
        self._salts = Random(identity.node_id)
        state = founding_state(identity.node_id, founders)
        format_log(self.files, self.options, [] if state is None else [state])

    @property
    def options(self) -> LogOptions:
        """How the node keeps its log."""
        return LogOptions(
            self.identity.store_id,
            segment_size_bytes=self._conditions.segment_bytes,
            retention_bytes=self._conditions.retention_bytes,
            random_u64=lambda: int(self._salts.random() * (1 << 53)),
        )

    def copy(self, conditions: Conditions) -> Disk:
        """A disk with the same on it, under other conditions."""
        disk = Disk.__new__(Disk)
        disk.identity = self.identity
        disk.files = self.files.copy()
        disk.store = self.store.copy()
        disk.free_bytes = 0
        disk.misdirects = False
        disk._conditions = conditions
        disk._salts = Random(self.identity.node_id)
        return disk

    def write(self, request: WriteRequest) -> None:
        """Take a record; it is durable after a sync."""
        offset = request.offset
        if self.misdirects:
            self.misdirects = False
            offset = max(0, offset - 4096)
        request.file.pwrite(request.data, offset)
