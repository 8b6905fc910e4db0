"""Snapshots of one replica's state: cut into chunks by a source, put together by a sink.

A snapshot is every row of one generation as of one moment, in key order and
without the generation. The first chunk is the head, which tells what the
snapshot is of, the last one the end, with the count and checksum of all rows;
between them are rows. Numbers, little-endian: u32 CRC-32 of the rest, u32 gid,
u64 id of the snapshot, u64 number of the chunk (0, 1, 2...), u8 kind, body.
The body of a head is the JSON of a `GroupState` whose base is the snapshot's
index and term; that of rows is for each u32 length of the key, u32 length of
the row, key, row; that of the end is u64 rows, u32 CRC-32 of all bodies of rows.

Where a sink is, is a `Cursor`: over a new connection a source goes on from
there, as long as it is the same snapshot.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from eraft import limits
from eraft.errors import (
    ChecksumMismatch,
    FrameTooLarge,
    InvariantViolation,
    ProtocolError,
)
from eraft.storage import rows as layout
from eraft.storage.items import Item, decode_group_state, group_state_item
from eraft.storage.state import ReplicaRows, StateStore
from eraft.types import GroupState, HardState

HEAD = 1
ROWS = 2
END = 3
ROWS_PER_LOOK = 64
"""A source asks so often whether it may go on."""

_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<IIQQB")
_ROW = struct.Struct("<II")
_END = struct.Struct("<QI")
_CURSOR = struct.Struct("<QQI")

Rows = list[tuple[bytes, bytes]]
CheckRow = Callable[[bytes, bytes], None]


@dataclass(slots=True, frozen=True)
class Cursor:
    """How far a sink is: the chunk it wants next, and what it has."""

    number: int = 0
    rows: int = 0
    checksum: int = 0
    last_key: bytes = b""

    def encode(self) -> bytes:
        """Return the cursor as bytes."""
        return _CURSOR.pack(self.number, self.rows, self.checksum) + self.last_key

    @classmethod
    def decode(cls, data: bytes) -> "Cursor":
        """Return what `encode` made; ProtocolError if that is none."""
        if not _CURSOR.size <= len(data) <= _CURSOR.size + 2 * limits.KEY_SIZE_BYTES:
            raise ProtocolError(f"snapshot: a cursor of {len(data)} bytes")
        number, rows, checksum = _CURSOR.unpack_from(data)
        if max(number, rows) >= limits.COUNT_LIMIT:
            raise ProtocolError(f"snapshot: a cursor at chunk {number}, row {rows}")
        return cls(number, rows, checksum, data[_CURSOR.size :])

    def after(self, body: bytes, rows: Rows) -> "Cursor":
        """Return the cursor after a chunk of rows."""
        last_key = rows[-1][0] if rows else self.last_key
        checksum = zlib.crc32(body, self.checksum)
        return Cursor(self.number + 1, self.rows + len(rows), checksum, last_key)


class SnapshotSource:
    """Reads a replica's state as of now into chunks, a slice at a time.

    It holds a snapshot of the store until `close`.
    """

    def __init__(
        self,
        rows: ReplicaRows,
        snapshot_id: int,
        state: GroupState,
        chunk_bytes: int = limits.SNAPSHOT_CHUNK_BYTES,
    ) -> None:
        """Take the snapshot.

        Args:
            rows: The replica's; what waits in the overlay is written first.
            snapshot_id: Tells two snapshots of a group apart; never used again.
            state: Its conf and members are those of the last applied entry.
            chunk_bytes: Of rows in a chunk, which only a single larger row exceeds.

        Raises:
            StoreStalled: the overlay cannot be written now; try again later.
        """
        rows.write()
        self.snapshot_id = snapshot_id
        self.cursor = Cursor()
        """Where the next chunk begins."""
        self.finished = False
        """Whether the end was the last chunk."""
        self._snapshot = rows.store.snapshot(*layout.generation_range(rows.generation))
        self._generation = rows.generation.to_bytes(4, "big")
        self._chunk_bytes = chunk_bytes
        self._rows: Rows = []
        self._size_bytes = 0
        applied_key = layout.applied_key(rows.generation)
        self._snapshot.seek(applied_key)
        key, row = next(self._snapshot, (b"", b""))
        index, term, _, _ = layout.decode_applied(row if key == applied_key else None)
        self.head = replace(
            state,
            replica_id=0,
            generation=0,
            hard_state=HardState(),
            base_index=index,
            base_term=term,
        )
        """What the snapshot is of: group, conf, members, index and term."""

    def advance(self, more: Callable[[], bool]) -> bytes | None:
        """Return the next chunk; None if it is not complete yet, or after the end.

        Reads at most what makes a chunk, and no longer than `more` says true.
        """
        if self.finished:
            return None
        if self.cursor.number == 0:
            self.resume(Cursor(1))
            return self._chunk(0, HEAD, orjson.dumps(self.head))
        prefix_bytes = len(self._generation)
        for looked, (key, row) in enumerate(self._snapshot, 1):
            self._rows.append((key[prefix_bytes:], row))
            self._size_bytes += _ROW.size + len(key) - prefix_bytes + len(row)
            if self._size_bytes >= self._chunk_bytes:
                break
            if looked % ROWS_PER_LOOK == 0 and not more():
                return None
        number = self.cursor.number
        if self._rows:
            body = _encode_rows(self._rows)
            self.cursor = self.cursor.after(body, self._rows)
            chunk = self._chunk(number, ROWS, body)
        else:
            self.finished = True
            end = _END.pack(self.cursor.rows, self.cursor.checksum)
            chunk = self._chunk(number, END, end)
        self._rows = []
        self._size_bytes = 0
        return chunk

    def resume(self, cursor: Cursor) -> None:
        """Go on where the sink is."""
        self.cursor = cursor
        self.finished = False
        self._rows = []
        self._size_bytes = 0
        # Behind the last key: its successor in byte order.
        start = cursor.last_key + b"\0" if cursor.last_key else b""
        self._snapshot.seek(self._generation + start)

    def close(self) -> None:
        """Give the store's snapshot back."""
        self.finished = True
        self._rows = []
        self._snapshot.close()

    def _chunk(self, number: int, kind: int, body: bytes) -> bytes:
        rest = _HEADER.pack(0, self.head.gid, self.snapshot_id, number, kind)[4:] + body
        return _CHECKSUM.pack(zlib.crc32(rest)) + rest


class SnapshotSink:
    """Checks the chunks of one snapshot and writes their rows into a fresh generation.

    What is written counts for nothing until the replica's state in the log
    names the generation. So after `complete`: flush the store, then make
    `switch` durable. After a crash before that the generation is an orphan.
    """

    def __init__(
        self,
        store: StateStore,
        gid: int,
        snapshot_id: int,
        generation: int,
        check: CheckRow = lambda key, row: None,
    ) -> None:
        """Begin with nothing; no row of `generation` may ever have been written.

        `check` gets the key, from the kind on, and the value of each row, and
        raises ProtocolError for one that the state machine could not read.
        """
        self.gid = gid
        self.snapshot_id = snapshot_id
        self.generation = generation
        self.cursor = Cursor()
        """What to tell the source over a new connection."""
        self.head: GroupState | None = None
        """What the snapshot is of, once the first chunk is there."""
        self.complete = False
        """Whether everything is there and written; nothing is flushed by that."""
        self._store = store
        self._prefix = generation.to_bytes(4, "big")
        self._applied: bytes | None = None
        self._check = check

    def add(self, chunk: bytes) -> bool:
        """Take the next chunk; False if it is one that was taken already.

        Memory is bounded by the chunk: its rows are written at once.

        Raises:
            StoreStalled: nothing was taken; add the same chunk again later.
            ChecksumMismatch: the chunk, or in the end all rows, are damaged.
            FrameTooLarge: it is larger than a chunk can be.
            ProtocolError: it is of another group or snapshot, not the next
                one, or malformed. Nothing was taken.
        """
        where = f"snapshot {self.snapshot_id} of group {self.gid}"
        if len(chunk) > limits.SNAPSHOT_CHUNK_LIMIT_BYTES:
            raise FrameTooLarge(f"{where}: a chunk of {len(chunk)} bytes")
        if len(chunk) < _HEADER.size:
            raise ProtocolError(f"{where}: a chunk of only {len(chunk)} bytes")
        checksum, gid, snapshot_id, number, kind = _HEADER.unpack_from(chunk)
        if checksum != zlib.crc32(memoryview(chunk)[_CHECKSUM.size :]):
            raise ChecksumMismatch(f"{where}: damaged chunk")
        if gid != self.gid:
            raise ProtocolError(f"{where}: a chunk of group {gid}")
        if snapshot_id != self.snapshot_id:
            raise ProtocolError(f"{where}: a chunk of snapshot {snapshot_id}")
        where = f"{where}, chunk {number}"
        if number < self.cursor.number:
            return False
        if number > self.cursor.number or self.complete:
            raise ProtocolError(f"{where}: expected chunk {self.cursor.number}")
        if (kind == HEAD) != (number == 0) or kind not in (HEAD, ROWS, END):
            raise ProtocolError(f"{where}: unexpected kind {kind}")
        body = chunk[_HEADER.size :]
        if kind == ROWS:
            self._take_rows(body, where)
        elif kind == HEAD:
            self._take_head(body, where)
        else:
            self._take_end(body, where)
        return True

    def switch(self, replica_id: int, hard_state: HardState) -> Item:
        """Return the item that makes the snapshot the replica's state, in place of its log.

        To be made durable only after the store was flushed.

        Args:
            replica_id: The replica on this node.
            hard_state: Its term and vote as they are; the commit index is
                brought up to the snapshot.
        """
        if not self.complete or self.head is None:
            raise InvariantViolation(
                f"snapshot of group {self.gid}: a switch to what is not complete"
            )
        index = self.head.base_index
        state = replace(
            self.head,
            replica_id=replica_id,
            generation=self.generation,
            hard_state=replace(hard_state, commit=max(hard_state.commit, index)),
        )
        return group_state_item(state)

    def _take_head(self, body: bytes, where: str) -> None:
        head = decode_group_state(body)
        if head.gid != self.gid:
            raise ProtocolError(f"{where}: its head is that of group {head.gid}")
        if head.quarantined:
            raise ProtocolError(f"{where}: its replica is quarantined: {head.quarantined[:200]}")
        conf = head.conf
        numbers = [head.base_index, head.base_term, *conf.voters, *conf.learners, *conf.outgoing]
        numbers += conf.learners_next
        for member in head.members:
            numbers += (member.replica_id, member.node_id)
        counts = (type(it) is int and 0 <= it < limits.COUNT_LIMIT for it in numbers)
        if not conf.voters or not all(counts):
            raise ProtocolError(f"{where}: its head has no voters, or numbers out of range")
        self.head = head
        self.cursor = Cursor(1)

    def _take_rows(self, body: bytes, where: str) -> None:
        rows = _decode_rows(body, where)
        last_key = self.cursor.last_key
        for key, row in rows:
            if key <= last_key or key[0] not in layout.KINDS:
                raise ProtocolError(f"{where}: key {key[:40]!r} follows {last_key[:40]!r}")
            last_key = key
            self._check(key, row)
        prefix = self._prefix
        self._store.write([(prefix + key, row) for key, row in rows])
        applied_key = layout.applied_key(self.generation)[len(prefix) :]
        for key, row in rows:
            if key == applied_key:
                self._applied = row
        self.cursor = self.cursor.after(body, rows)

    def _take_end(self, body: bytes, where: str) -> None:
        if len(body) != _END.size:
            raise ProtocolError(f"{where}: an end of {len(body)} bytes")
        rows, checksum = _END.unpack(body)
        if rows != self.cursor.rows:
            raise ProtocolError(f"{where}: {rows} rows were sent, {self.cursor.rows} are here")
        if checksum != self.cursor.checksum:
            raise ChecksumMismatch(f"{where}: the rows are not those that were read")
        head = self.head
        if head is None:
            raise InvariantViolation(f"a snapshot begins with its head: {where}")
        try:
            index, term, _, _ = layout.decode_applied(self._applied)
        except struct.error:
            raise ProtocolError(f"{where}: its applied index is malformed") from None
        if (index, term) != (head.base_index, head.base_term):
            raise ProtocolError(
                f"{where}: its rows are as of entry {index} of term {term}, its head says "
                f"{head.base_index} of term {head.base_term}"
            )
        self.cursor = replace(self.cursor, number=self.cursor.number + 1)
        self.complete = True


def generations(store: StateStore) -> list[int]:
    """Return all generations that have rows in the store, the node's own 0 left out."""
    found: list[int] = []
    start = layout.generation_range(1)[0]
    while True:
        scan = store.scan(start, b"\xff" * 5)
        key = next((key for key, _ in scan), None)
        scan.close()
        if key is None:
            return found
        found.append(int.from_bytes(key[:4], "big"))
        start = layout.generation_range(found[-1])[1]


def delete_generation(store: StateStore, generation: int) -> None:
    """Remove all rows of a generation that nobody reads any more.

    Raises:
        StoreStalled: nothing was removed; try again later.
    """
    store.write([], [layout.generation_range(generation)])


def orphans(store: StateStore, named: set[int]) -> tuple[list[int], int]:
    """At start: the generations that no group's state names, to be deleted, and the next free one.

    That is above all that were found: what is deleted may be back after a
    crash, and must not then be under another replica's number.
    """
    found = generations(store)
    unnamed = [generation for generation in found if generation not in named]
    return unnamed, max([layout.NODE_GENERATION, *found, *named]) + 1


def _encode_rows(rows: Rows) -> bytes:
    parts: list[bytes] = []
    for key, row in rows:
        parts += (_ROW.pack(len(key), len(row)), key, row)
    return b"".join(parts)


def _decode_rows(body: bytes, where: str) -> Rows:
    rows: Rows = []
    offset = 0
    while offset < len(body):
        if offset + _ROW.size > len(body):
            raise ProtocolError(f"{where}: cut in the lengths of a row")
        key_bytes, row_bytes = _ROW.unpack_from(body, offset)
        middle = offset + _ROW.size + key_bytes
        end = middle + row_bytes
        if not key_bytes or end > len(body):
            raise ProtocolError(f"{where}: a row of {key_bytes} and {row_bytes} bytes")
        rows.append((body[middle - key_bytes : middle], body[middle:end]))
        offset = end
    return rows
