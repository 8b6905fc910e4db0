"""The state store on RocksDB, through rocksdict."""

import weakref
from collections.abc import Iterable, Iterator, Sequence

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from eraft import limits
from eraft.errors import StorageError, StoreStalled
from eraft.storage.cache import ABSENT, RowCache

WRITE_BUFFER_BYTES = 8 * limits.MIB
"""Small enough for a processor's cache: a row costs 2.4 us in one of 16 MiB, 1.3 us in one of 4."""
WRITE_BUFFERS = 3
"""One that fills, one that is flushed and one to spare: with two, writers wait for a flush."""
BLOCK_CACHE_BYTES = 32 * limits.MIB
BLOOM_BITS_PER_KEY = 10
OPEN_FILES = 256
COMPRESSION = (DBCompressionType.none(),) * 2 + (DBCompressionType.lz4(),) * 5
"""By level: what is written often stays as it is, LZ4 doubled the time of a bulk load."""
INFO_LOG_FILES = 2

# What bounds the room on disk, in write buffers. A level below the first has a key once at most. So
# what counts is how far the first one grows, how much compactions leave to be done, and what
# one of them has twice while it runs.
LEVEL0_COMPACTION = 4
LEVEL0_STALL = 12
LEVEL1 = 16
TABLE_FILE = 4
COMPACTION = 16
COMPACTION_DEBT = 512
MANIFEST = 1 / 4
"""RocksDB's own journal of its files, which would grow to 1 GiB."""
INFO_LOG = 1 / 16
ROOM_BESIDE_ROWS = 48
"""All that a database takes beside three times its rows, whatever is overwritten how often."""

_STALL = "Write stall"
_PROPERTIES = {
    "rows": "rocksdb.estimate-num-keys",
    "memory_tables_bytes": "rocksdb.cur-size-all-mem-tables",
    "table_readers_bytes": "rocksdb.estimate-table-readers-mem",
    "block_cache_bytes": "rocksdb.block-cache-usage",
    "files_bytes": "rocksdb.total-sst-files-size",
    "files_level0": "rocksdb.num-files-at-level0",
    "flushes_pending": "rocksdb.num-immutable-mem-table",
    "compaction_pending_bytes": "rocksdb.estimate-pending-compaction-bytes",
    "write_stopped": "rocksdb.is-write-stopped",
}


class RocksScan:
    """The rows of a range as they were when the scan was made.

    It pins files and memory of the database until it is exhausted or closed.
    """

    def __init__(self, rows: RdictIter, options: ReadOptions, path: str) -> None:
        self._rows: RdictIter | None = rows
        self._options = options  # rocksdict's iterator borrows the bound in it
        self._path = path

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        rows = self._rows
        if rows is None:
            raise StopIteration
        try:
            if rows.valid():
                row = rows.key(), rows.value()
                rows.next()
                return row
            rows.status()
        except Exception as error:
            raise StorageError(f"{self._path}: cannot scan: {error}") from error
        self._exhausted()
        raise StopIteration

    def _exhausted(self) -> None:
        self.close()

    def close(self) -> None:
        """Release what is pinned; nothing follows afterwards."""
        self._rows = None


class RocksSnapshot(RocksScan):
    """A scan that goes on from any place, also from its end, until it is closed.

    An iterator of the database sees one moment for as long as it lives (those of
    rocksdict's own snapshots do not).
    """

    def __init__(self, rows: RdictIter, options: ReadOptions, start: bytes, path: str) -> None:
        super().__init__(rows, options, path)
        self._start = start

    def seek(self, key: bytes) -> None:
        """Go on with the first row at or behind the key."""
        if self._rows is None:
            raise StorageError(f"{self._path}: the snapshot is closed")
        self._rows.seek(max(key, self._start))

    def _exhausted(self) -> None:
        """It stays: it may be asked for another place."""


class RocksStore:
    """A `StateStore` on one RocksDB database with one column family.

    RocksDB's own write-ahead log is off: what is not flushed is applied again
    from eraft's log. Writers are never put to sleep (`no_slowdown`): where
    RocksDB would stall them, `write` raises StoreStalled. Any other error of
    RocksDB is a StorageError, after which the node has to stop: a failed
    write may be there or not once the database is opened again.
    """

    def __init__(self, path: str, write_buffer_bytes: int = WRITE_BUFFER_BYTES) -> None:
        """Open the database in directory `path`, made if it is not there.

        It takes three times the room of its rows and ROOM_BESIDE_ROWS of
        `write_buffer_bytes` at most. An open snapshot keeps what it sees beside that.

        Raises:
            StorageError: it is locked by a process, damaged, not writable, or the disk is full.
        """
        self.path = path
        self.stalls = 0
        self._scans: weakref.WeakSet[RocksScan] = weakref.WeakSet()
        self._blocks = Cache(BLOCK_CACHE_BYTES)
        self._cache = RowCache()
        try:
            self._database = Rdict(path, _options(self._blocks, write_buffer_bytes))
        except Exception as error:
            raise StorageError(f"{path}: {_open_error(str(error))}") from error
        options = WriteOptions()
        options.disable_wal = True  # type: ignore[method-assign,assignment]
        options.no_slowdown = True
        self._database.set_write_options(options)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if there is none."""
        cached = self._cache.rows.get(key, ABSENT)
        if cached is not ABSENT:
            return cached  # type: ignore[return-value]
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise StorageError(f"{self.path}: cannot read: {error}") from error
        self._cache.remember(key, value)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        rows = self._cache.rows
        try:
            return [rows[key] for key in keys]
        except KeyError:
            return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes) -> RocksScan:
        """Return the rows with start <= key < end in key order, as of now."""
        scan = RocksScan(*self._iterator(start, end), self.path)
        self._scans.add(scan)
        return scan

    def snapshot(self, start: bytes, end: bytes) -> RocksSnapshot:
        """Return the rows with start <= key < end as of now, to be read in any order."""
        snapshot = RocksSnapshot(*self._iterator(start, end), start, self.path)
        self._scans.add(snapshot)
        return snapshot

    def _iterator(self, start: bytes, end: bytes) -> tuple[RdictIter, ReadOptions]:
        options = ReadOptions()
        options.set_iterate_upper_bound(max(start, end))
        try:
            rows = self._database.iter(options)
            rows.seek(start)
        except Exception as error:
            raise StorageError(f"{self.path}: cannot scan: {error}") from error
        return rows, options

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        ranges: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Atomically delete the ranges, then put (or, for None, delete) the rows.

        Sorted rows are several times cheaper than unsorted ones.

        Raises:
            StoreStalled: nothing was written; RocksDB flushes or compacts, try again later.
        """
        if self._database.property_int_value(_PROPERTIES["write_stopped"]):
            # It would be refused for certain, and a large batch takes long to make.
            self.stalls += 1
            raise StoreStalled(f"{self.path}: {_STALL}")
        rows = list(rows)
        batch = WriteBatch(raw_mode=True)
        for start, end in ranges:
            if start < end:
                batch.delete_range(start, end)
        put, delete = batch.put, batch.delete
        for key, row in rows:
            if row is None:
                delete(key)
            else:
                put(key, row)
        try:
            self._database.write(batch)
        except Exception as error:
            if _STALL in str(error):
                self.stalls += 1
                raise StoreStalled(f"{self.path}: {error}") from error
            raise StorageError(f"{self.path}: cannot write: {error}") from error
        if ranges:
            self._cache.clear()
        self._cache.written(rows)

    def flush(self) -> None:
        """Wait until everything written before the call is on disk.

        It runs without the GIL and may take as long as the disk does: call it
        in a thread.
        """
        try:
            self._database.flush(True)
        except Exception as error:
            raise StorageError(f"{self.path}: cannot flush: {error}") from error

    def stats(self) -> dict[str, int]:
        """Return figures for people and for pushing back before RocksDB stalls."""
        value = self._database.property_int_value
        figures = {name: value(key) or 0 for name, key in _PROPERTIES.items()}
        figures["stalls"] = self.stalls
        return figures

    def close(self) -> None:
        """Flush and close; scans and snapshots end, since they would keep the database's lock."""
        for scan in list(self._scans):
            scan.close()
        try:
            self._database.close()
        except Exception as error:
            raise StorageError(f"{self.path}: cannot close: {error}") from error


def _options(cache: Cache, write_buffer_bytes: int) -> Options:
    """Return the settings of the database: little memory, bounded room on disk."""
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    # In the cache they would be evicted by data blocks: 96 us instead of 5 for a random get.
    table.set_cache_index_and_filter_blocks(False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    # Most of the rows are in the last level then, whatever their number.
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_level_zero_file_num_compaction_trigger(LEVEL0_COMPACTION)
    options.set_level_zero_slowdown_writes_trigger(LEVEL0_STALL)
    options.set_level_zero_stop_writes_trigger(LEVEL0_STALL)
    options.set_max_bytes_for_level_base(LEVEL1 * write_buffer_bytes)
    options.set_target_file_size_base(TABLE_FILE * write_buffer_bytes)
    options.set_max_compaction_bytes(COMPACTION * write_buffer_bytes)
    options.set_soft_pending_compaction_bytes_limit(COMPACTION_DEBT * write_buffer_bytes)
    options.set_hard_pending_compaction_bytes_limit(COMPACTION_DEBT * write_buffer_bytes)
    options.set_max_manifest_file_size(int(MANIFEST * write_buffer_bytes))
    options.set_num_levels(len(COMPRESSION))
    options.set_compression_per_level(list(COMPRESSION))
    options.set_max_open_files(OPEN_FILES)
    options.set_max_log_file_size(int(INFO_LOG * write_buffer_bytes))
    options.set_keep_log_file_num(INFO_LOG_FILES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _open_error(text: str) -> str:
    """Return what is wrong in words that say what to do about it."""
    lowered = text.lower()
    if "no space left" in lowered:
        return f"the disk is full: {text}"
    if "lock hold by" in lowered or "resource temporarily unavailable" in lowered:
        return f"the database is in use by another process: {text}"
    if "read-only file system" in lowered or "permission denied" in lowered:
        return f"not writable: {text}"
    if "corruption" in lowered:
        return f"the database is damaged, replace this node's replicas from their peers: {text}"
    return f"cannot open the database: {text}"
