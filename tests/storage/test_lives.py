"""The log of a node that lives through one power cut after the other, at any step of any work.

Groups are founded, written to, moved on by snapshots and removed; segments are
prepared, recycled and made on the spot, before or while a record is written;
the cut comes before any change of a file, also during recovery. What is there
afterwards is what was logged up to some record, not before the last reported one.
"""

import random
from dataclasses import dataclass, field, replace

import pytest

from eraft import limits
from eraft._impl import log as entry_log
from eraft.storage.files import File, Files
from eraft.storage.items import (
    Item,
    entries_item,
    group_state_item,
    hard_state_item,
    node_item,
    tombstone_item,
)
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES, Preparation
from eraft.storage.wal import LogOptions, WriteAheadLog, format_log
from eraft.types import ConfState, GroupState, HardState
from tests.storage.conftest import STORE_ID

GIDS = (1, 2, 3)
CONF = ConfState((1, 2, 3))
SEEDS_A_TEST = 25


class PowerCut(Exception):
    """Nothing happens any more."""


class Fused:
    """Files that a power cut ends after so many changes."""

    def __init__(self, files: MemoryFiles, changes: int) -> None:
        self._files = files
        self._left = changes

    def change(self) -> None:
        if not self._left:
            raise PowerCut
        self._left -= 1

    def names(self) -> list[str]:
        return self._files.names()

    def open(self, name: str) -> File:
        return FusedFile(self, self._files.open(name))

    def create(self, name: str) -> File:
        self.change()
        return FusedFile(self, self._files.create(name))

    def publish(self, temporary: str, name: str) -> bool:
        self.change()
        return self._files.publish(temporary, name)

    def rename(self, name: str, new_name: str) -> None:
        self.change()
        self._files.rename(name, new_name)

    def remove(self, name: str) -> None:
        self.change()
        self._files.remove(name)


class FusedFile:
    """A file of `Fused`."""

    def __init__(self, fuse: Fused, file: File) -> None:
        self._fuse = fuse
        self._file = file
        self.name = file.name
        self.fileno, self.size = file.fileno, file.size
        self.pread, self.pread_into, self.read_ahead = file.pread, file.pread_into, file.read_ahead
        self.close = file.close

    def pwrite(self, data: bytes, offset: int) -> None:
        self._fuse.change()
        self._file.pwrite(data, offset)

    def sync(self) -> None:
        self._fuse.change()
        self._file.sync()


@dataclass(frozen=True)
class Group:
    """What was logged of a group."""

    replica_id: int
    generation: int
    base: int = 0
    entries: tuple[bytes, ...] = ()
    hard_state: HardState = field(default_factory=HardState)

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    def state(self, gid: int) -> GroupState:
        term = self.hard_state.term if self.base else 0
        state = GroupState(gid, self.replica_id, self.generation, CONF)
        return replace(state, hard_state=self.hard_state, base_index=self.base, base_term=term)


@dataclass(frozen=True)
class Logged:
    """What the log has to say after some record."""

    groups: dict[int, Group]
    tombstones: dict[int, int]
    node: bytes = b""

    def check(self, log: WriteAheadLog, released: dict[int, int]) -> None:
        assert (log.tombstones, log.node) == (self.tombstones, self.node)
        assert set(log.groups) == set(self.groups)
        for gid, group in self.groups.items():
            found = log.groups[gid]
            assert found.state.replica_id == group.replica_id
            assert found.state.generation == group.generation
            assert (found.hard_state, found.last_index) == (group.hard_state, group.last)
            base = found.base_index
            assert group.base <= base <= max(group.base, released.get(group.generation, 0))
            if base < group.last:
                blob = b"".join(group.entries[base - group.base :])
                assert log.read(gid, base + 1, group.last, 1 << 30) == (blob, group.last)


class Lives:
    """The lives of one node."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.files = MemoryFiles()
        self.segment = HEADER_BYTES + self.rng.randint(900, 3000)
        self.generation = 2
        groups = {gid: Group(1, gid) for gid in (1, 2)}
        self.history = {1: Logged(groups, {})}
        self.position = self.reported = 1
        self.released: dict[int, int] = {}
        """By generation."""
        format_log(self.files, self.options(), [groups[gid].state(gid) for gid in groups])

    def options(self) -> LogOptions:
        size = HEADER_BYTES + self.rng.randint(900, 3000)
        if self.rng.random() < 0.9:
            size = self.segment
        retention = self.rng.randint(1, 5) * self.segment
        return LogOptions(STORE_ID, size, retention, random_u64=lambda: self.rng.getrandbits(64))

    def open(self, files: Files) -> WriteAheadLog:
        log = WriteAheadLog.open(files, self.options())
        assert self.reported <= log.position <= self.position
        self.position = self.reported = log.position
        self.history = {log.position: self.history[log.position]}
        self.history[log.position].check(log, self.released)
        return log

    def live(self) -> None:
        """One life, to its end."""
        most = self.rng.choice((8, 60, 400))
        files = Fused(self.files, self.rng.randint(0, most))
        try:
            log = self.open(files)
            quiet = self.rng.choice((0, *GIDS))
            for _ in range(self.rng.randint(1, 80)):
                self.write(log, quiet, files)
                if self.rng.random() < 0.25:
                    self.release(log)
        except PowerCut:
            pass
        self.files.crash(self.rng)

    def write(self, log: WriteAheadLog, quiet: int, files: Files) -> None:
        """One record, and a preparation before or after it is durable."""
        items, logged = self.items(self.history[self.position], quiet)
        self.position += 1
        self.history[self.position] = logged
        request = log.append(items)
        early = self.rng.random() < 0.5
        preparations = log.preparations() if self.rng.random() < 0.8 else []
        if early:
            self.prepare(log, preparations, files)
        request.file.pwrite(request.data, request.offset)
        request.file.sync()
        self.reported = request.position
        log.durable(request.position)
        if not early:
            self.prepare(log, preparations, files)

    def prepare(self, log: WriteAheadLog, preparations: list[Preparation], files: Files) -> None:
        for preparation in preparations:
            if self.rng.random() < 0.9:
                preparation.run(files)
                log.prepared(preparation)
            else:
                log.prepare_failed(preparation, OSError("disk"))
                log.retry_preparation()

    def items(self, before: Logged, quiet: int) -> tuple[list[Item], Logged]:
        rng = self.rng
        items: list[Item] = []
        groups, tombstones = dict(before.groups), dict(before.tombstones)
        for gid in GIDS:
            if gid == quiet and rng.random() < 0.95:
                continue
            group = groups.get(gid)
            chance = rng.random()
            if group is None or chance < 0.05:
                # Founded, or moved on by a snapshot, or removed.
                if group is not None and chance < 0.02:
                    items.append(tombstone_item(gid, group.replica_id))
                    tombstones[gid] = group.replica_id
                    del groups[gid]
                    continue
                self.generation += 1
                if group is None:
                    group = Group(tombstones.get(gid, 0) + 1, self.generation)
                else:
                    base = group.last + rng.randint(0, 5)
                    hard_state = HardState(group.hard_state.term + 1, 0, base)
                    group = Group(group.replica_id, self.generation, base, (), hard_state)
                items.append(group_state_item(group.state(gid)))
            elif chance < 0.2:
                term = group.hard_state.term + 1
                group = replace(group, hard_state=HardState(term, rng.randint(0, 3), group.base))
                items.append(hard_state_item(gid, group.hard_state))
            elif chance < 0.95:
                keep = group.last
                if rng.random() < 0.1:
                    keep = rng.randint(
                        max(group.base, self.released.get(group.generation, 0)), keep
                    )
                sizes = [rng.choice((5, 50, 300, 300, 300)) for _ in range(rng.randint(1, 3))]
                sizes += [5000] * (rng.random() < 0.02)
                new = tuple(entry_log.encode_entry(1, 0, rng.randbytes(size)) for size in sizes)
                group = replace(group, entries=group.entries[: keep - group.base] + new)
                items.append(entries_item(gid, keep + 1, b"".join(new)))
            groups[gid] = group
        node = before.node
        if rng.random() < 0.05 or not items:
            node = rng.randbytes(5)
            items.append(node_item(node))
        return items, Logged(groups, tombstones, node)

    def release(self, log: WriteAheadLog) -> None:
        released = []
        for gid, group in self.history[self.position].groups.items():
            if self.rng.random() < 0.8:
                first = max(group.base, self.released.get(group.generation, 0))
                index = self.rng.randint(first, group.last)
                self.released[group.generation] = index
                released.append((gid, group.generation, index))
        log.release(released)


@pytest.mark.parametrize("first_seed", range(0, 250, SEEDS_A_TEST))
def test_power_cuts_between_any_two_steps(first_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPIED_SHARE", 1)
    for seed in range(first_seed, first_seed + SEEDS_A_TEST):
        lives = Lives(seed)
        slice_bytes = lives.rng.choice((1, 500, 2000, 1 << 30))
        monkeypatch.setattr(limits, "COMPACTION_SLICE_BYTES", slice_bytes)
        for _ in range(8):
            lives.live()
        lives.open(lives.files)
