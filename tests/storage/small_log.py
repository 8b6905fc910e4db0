"""Logs of small segments, which are full and compacted soon."""

from collections.abc import Callable

from eraft._impl import log as entry_log
from eraft.storage.items import entries_item
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES
from eraft.storage.wal import WriteAheadLog
from tests.storage.conftest import carry_out, log_options, prepare

NewLog = Callable[..., tuple[MemoryFiles, WriteAheadLog]]
SEGMENT = HEADER_BYTES + 4000
RETAINED = 4
OPTIONS = {"segment_size_bytes": SEGMENT, "retention_bytes": RETAINED * SEGMENT}


def entry(number: int, size: int = 200) -> bytes:
    return entry_log.encode_entry(1 + number // 10, 0, b"%07d" % number * (size // 7))


def reopened(files: MemoryFiles, seed: int = 99) -> WriteAheadLog:
    return WriteAheadLog.open(files, log_options(seed=seed, **OPTIONS))


def fill(
    log: WriteAheadLog,
    files: MemoryFiles,
    first: int,
    last: int,
    every: int = 5,
    quiet: int | None = None,
) -> None:
    """Append entries of group 1; all are released every so often, as after a flush.

    So are those of group 2 up to `quiet`.
    """
    for number in range(first, last + 1):
        carry_out(log, log.append([entries_item(1, number, entry(number))]))
        if every and number % every == 0:
            log.release([(1, 1, number)])
            if quiet is not None:
                log.release([(2, 1, quiet)])
        prepare(log, files)


def segment_files(files: MemoryFiles) -> list[str]:
    return [name for name in files.names() if name.endswith(".log")]
