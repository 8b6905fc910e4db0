"""Where the state machines keep their rows: the store and the overlay above it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from eraft._impl import batch
from eraft.storage import rows as layout
from eraft.storage.items import decode_conf, encode_conf
from eraft.storage.memory import MemoryStore
from eraft.storage.rocks import RocksStore
from eraft.types import ConfState, ReplicaAddress

__all__ = ["MemoryStore", "ReplicaRows", "RocksStore", "Scan", "StateStore", "StoreSnapshot"]

_UP_TO = b"deleted up to "


class Scan(Protocol):
    """An iterator over (key, row) that holds resources until exhausted or closed."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]: ...

    def __next__(self) -> tuple[bytes, bytes]: ...

    def close(self) -> None:
        """Release what the scan holds; it is exhausted afterwards."""


class StoreSnapshot(Protocol):
    """The rows of a range as of one moment, in key order from any place on.

    It holds back disk space until it is closed.
    """

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]: ...

    def __next__(self) -> tuple[bytes, bytes]: ...

    def seek(self, key: bytes) -> None:
        """Go on with the first row at or behind the key."""

    def close(self) -> None:
        """Let go of that moment; nothing follows afterwards."""


class StateStore(Protocol):
    """An ordered map of bytes with atomic batches; one a node, shared by its replicas.

    After a crash it holds some prefix of the batches that were written, at
    least all of those before the last `flush` that returned.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if there is none."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""

    def scan(self, start: bytes, end: bytes) -> Scan:
        """Return the rows with start <= key < end in key order, as of the call."""

    def snapshot(self, start: bytes, end: bytes) -> StoreSnapshot:
        """Return the rows with start <= key < end as of the call, to be read in any order."""

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        ranges: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Atomically delete the ranges, then put (or, for None, delete) the rows.

        Raises:
            StoreStalled: nothing was written; call again later.
            StorageError: anything else; the node has to stop.
        """

    def flush(self) -> None:
        """Block until everything written before the call is durable."""

    def stats(self) -> dict[str, int]:
        """Return figures for people."""

    def close(self) -> None:
        """Give everything back."""


class ReplicaRows:
    """The rows of one replica: an overlay of unwritten ones above the store.

    What a state machine writes while a range of entries is applied collects
    here, and so do the rows that say how far it applied; `write` hands all of
    it to the store in one atomic batch. The host calls it between applied
    ranges only: state and applied index never come apart, whatever a crash
    leaves. Reads see the overlay, so apply reads its own writes.

    `digest` is that of everything that was ever written here, in order: what
    the replicas of a group compare. It is kept in the row that says how far
    the replica has applied, which is not part of it.
    """

    def __init__(self, store: StateStore, generation: int) -> None:
        self.store = store
        self.generation = generation
        self.data_prefix = layout.prefix(generation, layout.DATA)
        self.rows: dict[bytes, bytes | None] = {}
        """Unwritten rows by full key, None where deleted; `batch.apply_sets` adds to it."""
        self.size_hint = 0
        """About how many bytes wait; who adds to `rows` directly adds here too."""
        self.digest = layout.decode_applied(store.get(layout.applied_key(generation)))[3]
        """Of all changes (see `batch.digest_change`); `batch.apply_sets` goes on with it."""
        self._ranges: list[tuple[bytes, bytes]] = []
        self._meta_prefix = layout.prefix(generation, layout.META)

    @property
    def pending(self) -> int:
        """Rows and range deletions that wait for `write`."""
        return len(self.rows) + len(self._ranges)

    def get(self, key: bytes) -> bytes | None:
        """Return the row at the full key, None if there is none."""
        rows = self.rows
        if key in rows:
            return rows[key]
        if self._ranges and self._deleted(key):
            return None
        return self.store.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row at each full key, None where there is none."""
        rows = self.rows
        if not rows and not self._ranges:
            return self.store.get_many(keys)
        found: list[bytes | None] = [None] * len(keys)
        wanted: list[int] = []
        for place, key in enumerate(keys):
            if key in rows:
                found[place] = rows[key]
            elif not self._deleted(key):
                wanted.append(place)
        if wanted:
            values = self.store.get_many([keys[place] for place in wanted])
            for place, value in zip(wanted, values, strict=True):
                found[place] = value
        return found

    def put(self, key: bytes, row: bytes) -> None:
        """Set the row at the full key."""
        self.rows[key] = row
        self.size_hint += len(key) + len(row)
        self.digest = batch.digest_change(self.digest, key, row)

    def delete(self, key: bytes) -> None:
        """Remove the row at the full key, if there is one."""
        self.rows[key] = None
        self.size_hint += len(key)
        self.digest = batch.digest_change(self.digest, key, None)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Remove every row with start <= key < end."""
        for key in [key for key in self.rows if start <= key < end]:
            del self.rows[key]
        if start < end:
            self._ranges.append((start, end))
            self.size_hint += len(start) + len(end)
            last = _UP_TO + end[layout.GENERATION_BYTES :]
            self.digest = batch.digest_change(self.digest, start, last)

    def meta(self, name: bytes) -> bytes | None:
        """Return the META row of that name, None if there is none."""
        return self.get(self._meta_prefix + name)

    def set_meta(self, name: bytes, value: bytes) -> None:
        """Set the META row of that name."""
        self.put(self._meta_prefix + name, value)

    def applied(self) -> tuple[int, int, int]:
        """Return index and term of the last applied entry and the replica's clock in ms."""
        return layout.decode_applied(self.get(layout.applied_key(self.generation)))[:3]

    def set_applied(self, index: int, term: int, clock_ms: int) -> None:
        """Note how far the replica has applied; the host's, after each range."""
        key = layout.applied_key(self.generation)
        self.rows[key] = layout.encode_applied(index, term, clock_ms, self.digest)
        self.size_hint += len(key)

    def conf(self) -> tuple[ConfState, tuple[ReplicaAddress, ...]] | None:
        """Return the group's configuration and its members as of the last applied entry.

        None if no entry that is applied has changed it. ProtocolError if it is malformed.
        """
        row = self.get(layout.conf_key(self.generation))
        return None if row is None else decode_conf(row)

    def set_conf(self, conf: ConfState, members: Sequence[ReplicaAddress]) -> None:
        """Note the configuration after an entry that changed it; the host's, not in the digest."""
        key = layout.conf_key(self.generation)
        self.rows[key] = encode_conf(conf, members)
        self.size_hint += len(key)

    def scan(self, start: bytes, end: bytes) -> Scan:
        """Return the rows with start <= key < end in key order, as of the call.

        The overlay is merged in, not written first: a scan in the middle of an
        applied range must not tear it.
        """
        stored = self.store.scan(start, end)
        if not self.rows and not self._ranges:
            return stored
        ours = sorted((key, row) for key, row in self.rows.items() if start <= key < end)
        if not ours and not self._ranges:
            return stored
        return _MergedScan(stored, ours, tuple(self._ranges))

    def write(self) -> None:
        """Hand everything over to the store in one atomic, sorted batch.

        Raises:
            StoreStalled: nothing was written and the overlay is as it was.
        """
        if not self.rows and not self._ranges:
            return
        rows = self.rows
        keys = sorted(rows)  # keys alone: comparing pairs takes twice as long
        self.store.write(zip(keys, map(rows.__getitem__, keys), strict=True), self._ranges)
        rows.clear()
        self._ranges.clear()
        self.size_hint = 0

    def _deleted(self, key: bytes) -> bool:
        """Tell whether an unwritten range deletion covers the key."""
        return any(start <= key < end for start, end in self._ranges)


class _MergedScan:
    """A scan of the store with the unwritten rows of an overlay above it."""

    def __init__(
        self,
        stored: Scan,
        ours: list[tuple[bytes, bytes | None]],
        ranges: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self._stored = stored
        self._merged = self._merge(ours, ranges)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        return next(self._merged)

    def close(self) -> None:
        """Release the store's scan; nothing follows afterwards."""
        self._stored.close()
        self._merged = iter(())

    def _merge(
        self, ours: list[tuple[bytes, bytes | None]], ranges: tuple[tuple[bytes, bytes], ...]
    ) -> Iterator[tuple[bytes, bytes]]:
        place = 0
        for key, row in self._stored:
            while place < len(ours) and ours[place][0] < key:
                own_key, own_row = ours[place]
                place += 1
                if own_row is not None:
                    yield own_key, own_row
            if place < len(ours) and ours[place][0] == key:
                continue  # ours stands for it, when the next key of the store comes
            if not any(start <= key < end for start, end in ranges):
                yield key, row
        for own_key, own_row in ours[place:]:
            if own_row is not None:
                yield own_key, own_row
