"""Both state stores, and a small log on files in memory."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eraft.storage.memory_files import MemoryFiles
from eraft.storage.state import MemoryStore, RocksStore, StateStore
from eraft.storage.wal import LogOptions, WriteAheadLog, WriteRequest, format_log
from eraft.types import ConfState, GroupState

STORE_ID = "0123456789abcdef" * 2


@pytest.fixture(params=["rocksdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    """A store that is empty, of each kind."""
    made: StateStore = (
        RocksStore(str(tmp_path / "db")) if request.param == "rocksdb" else MemoryStore()
    )
    yield made
    made.close()


def group_state(gid: int, base_index: int = 0, base_term: int = 0) -> GroupState:
    """A replica of three, as founded or as put in place of an older one."""
    return GroupState(gid, 1, 1, ConfState((1, 2, 3)), base_index=base_index, base_term=base_term)


def log_options(
    segment_size_bytes: int = 64 * 1024, seed: int = 1, retention_bytes: int = 1 << 40
) -> LogOptions:
    """Options whose salts come from a seed."""
    rng = random.Random(seed)
    return LogOptions(
        STORE_ID, segment_size_bytes, retention_bytes, random_u64=lambda: rng.getrandbits(64)
    )


def carry_out(log: WriteAheadLog, request: WriteRequest) -> None:
    """Do what the log writer does, and report it."""
    request.file.pwrite(request.data, request.offset)
    request.file.sync()
    log.durable(request.position)


def prepare(log: WriteAheadLog, files: MemoryFiles) -> None:
    """Do what the thread that prepares segments does."""
    for preparation in log.preparations():
        preparation.run(files)
        log.prepared(preparation)


@pytest.fixture
def new_log() -> Callable[..., tuple[MemoryFiles, WriteAheadLog]]:
    """Make a new log in memory whose groups 1 and 2 are founded."""

    def make(options: LogOptions) -> tuple[MemoryFiles, WriteAheadLog]:
        files = MemoryFiles()
        format_log(files, options, [group_state(1), group_state(2)])
        return files, WriteAheadLog.open(files, options)

    return make
