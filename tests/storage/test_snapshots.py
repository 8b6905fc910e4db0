"""Snapshots: what arrives is what was there, or it is refused; a crash leaves old or new state."""

import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft import limits
from eraft._impl import log as entry_log
from eraft.errors import (
    ChecksumMismatch,
    FrameTooLarge,
    InvariantViolation,
    ProtocolError,
    StorageError,
    StoreStalled,
)
from eraft.storage import rows as layout
from eraft.storage import snapshots
from eraft.storage.items import entries_item
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.snapshots import (
    Cursor,
    SnapshotSink,
    SnapshotSource,
    delete_generation,
    generations,
    orphans,
)
from eraft.storage.state import MemoryStore, ReplicaRows, RocksStore, StateStore
from eraft.storage.wal import WriteAheadLog
from eraft.types import ConfState, GroupState, HardState, ReplicaAddress
from tests.storage.conftest import carry_out, log_options

NewLog = Callable[..., tuple[MemoryFiles, WriteAheadLog]]
MEMBERS = (ReplicaAddress(1, 1, "a"), ReplicaAddress(4, 2, "b"))
STATE = GroupState(1, 4, 3, ConfState((1, 4)), MEMBERS, HardState(9, 4, 70))
INDEX, TERM = 70, 8


def always() -> bool:
    return True


def filled(store: StateStore, generation: int = 3, count: int = 500) -> ReplicaRows:
    """Rows of every kind, some large, with other generations around them."""
    rng = random.Random(count)
    for other in (generation - 1, generation + 1):
        store.write([(layout.meta_key(other, b"x"), b"of another")])
    rows = ReplicaRows(store, generation)
    for number in range(count):
        kind = rng.choice(layout.KINDS)
        key = layout.prefix(generation, kind) + b"%05d" % number
        rows.put(key, rng.randbytes(rng.choice((0, 20, 3000))))
    rows.put(layout.prefix(generation, layout.DATA) + b"large", bytes(600_000))
    rows.set_applied(INDEX, TERM, 123)
    rows.write()
    return rows


def contents(store: StateStore, generation: int) -> dict[bytes, bytes]:
    return {key[4:]: row for key, row in store.scan(*layout.generation_range(generation))}


def chunks_of(source: SnapshotSource) -> list[bytes]:
    chunks = []
    while not source.finished:
        chunk = source.advance(always)
        assert chunk is not None
        chunks.append(chunk)
    return chunks


def sealed(header: bytes, body: bytes) -> bytes:
    """A chunk with a right checksum."""
    return struct.pack("<I", zlib.crc32(header + body)) + header + body


def changed(chunk: bytes, offset: int, field: str, value: int) -> bytes:
    """A chunk with another field, and the right checksum for that."""
    data = bytearray(chunk)
    struct.pack_into(field, data, offset, value)
    return sealed(bytes(data[4:25]), bytes(data[25:]))


def test_what_arrives_is_what_was_there(store: StateStore) -> None:
    rows = filled(store)
    before = contents(store, 3)
    source = SnapshotSource(rows, 11, STATE)
    assert (source.head.base_index, source.head.base_term) == (INDEX, TERM)
    rows.put(layout.meta_key(3, b"later"), b"not in it")
    rows.delete(layout.applied_key(3))
    rows.write()
    chunks = chunks_of(source)
    assert source.advance(always) is None
    assert max(map(len, chunks)) < 600_000 + limits.SNAPSHOT_CHUNK_BYTES + 4000
    assert len(chunks) > 4
    target = MemoryStore()
    sink = SnapshotSink(target, 1, 11, 9)
    for chunk in chunks:
        assert not sink.complete
        assert sink.add(chunk)
    assert sink.complete
    assert contents(target, 9) == before
    assert sink.head is not None
    assert (sink.head.conf, sink.head.members) == (STATE.conf, STATE.members)
    source.close()


def test_a_snapshot_of_a_store_is_of_one_moment(store: StateStore) -> None:
    store.write([(key, b"1") for key in (b"a", b"b", b"c", b"d", b"z")])
    snapshot = store.snapshot(b"b", b"z")
    store.write([(b"b", b"later"), (b"c", None), (b"c\0", b"later")])
    store.flush()
    store.write([(b"d", b"even later")])
    expected = [(b"b", b"1"), (b"c", b"1"), (b"d", b"1")]
    assert list(snapshot) == expected
    assert list(snapshot) == []
    for key, first in ((b"", 0), (b"b", 0), (b"b\0", 1), (b"d", 2), (b"e", 3), (b"zz", 3)):
        snapshot.seek(key)
        assert list(snapshot) == expected[first:]
    snapshot.seek(b"c")
    assert next(iter(snapshot)) == expected[1]
    snapshot.close()
    snapshot.close()
    assert list(snapshot) == []
    with pytest.raises(StorageError, match="closed"):
        snapshot.seek(b"b")
    assert store.get(b"b") == b"later"


def test_snapshots_do_not_keep_the_database_open(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    store.write([(b"a", b"1")])
    snapshot = store.snapshot(b"a", b"b")
    store.close()
    assert list(snapshot) == []
    RocksStore(str(tmp_path / "db")).close()


keys = st.binary(min_size=1, max_size=2)
batches = st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), max_size=8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(batches, st.sampled_from(["", "snapshot", "flush"])), max_size=12))
def test_snapshots_of_both_stores_are_the_same(steps: list[tuple]) -> None:
    memory = MemoryStore()
    with tempfile.TemporaryDirectory() as path:
        rocks = RocksStore(path)
        taken: list[tuple[Any, Any]] = []
        for rows, then in steps:
            for one in (memory, rocks):
                one.write(rows)
            if then == "snapshot":
                bounds = (b"\x10", b"\xf0")
                taken.append((memory.snapshot(*bounds), rocks.snapshot(*bounds)))
            elif then == "flush":
                rocks.flush()
        for ours, theirs in taken:
            assert list(ours) == list(theirs)
            for key in (b"", b"\x10", b"\x50", b"\x90\x01", b"\xf0"):
                ours.seek(key)
                theirs.seek(key)
                assert list(ours) == list(theirs)
        rocks.close()


def test_a_source_stops_when_its_time_is_up(store: StateStore) -> None:
    source = SnapshotSource(filled(store), 11, STATE)
    whole = chunks_of(source)
    source.resume(Cursor())
    looks = 0

    def never() -> bool:
        nonlocal looks
        looks += 1
        return False

    found = []
    turns = 0
    while not source.finished:
        before = looks
        chunk = source.advance(never)
        assert looks - before <= 1
        turns += 1
        if chunk is not None:
            found.append(chunk)
    assert found == whole
    assert turns > len(whole)


@pytest.mark.parametrize("seed", range(8))
def test_a_transfer_goes_on_after_any_chunk(store: StateStore, seed: int) -> None:
    """The connection breaks again and again; what was on its way is lost or comes twice."""
    rng = random.Random(seed)
    source = SnapshotSource(filled(store), 11, STATE)
    target = MemoryStore()
    sink = SnapshotSink(target, 1, 11, 9)
    breaks = 0
    while not sink.complete:
        chunk = source.advance(always)
        what = rng.random()
        if chunk is None or what < 0.3:
            breaks += 1
            source.resume(Cursor.decode(sink.cursor.encode()))
        if chunk is not None and what > 0.15:
            assert sink.add(chunk)
            assert not sink.add(chunk)
            if what < 0.3:
                source.resume(sink.cursor)
    assert breaks or seed == 5
    assert contents(target, 9) == contents(store, 3)


def test_bad_chunks_are_refused_and_change_nothing() -> None:
    source = SnapshotSource(filled(MemoryStore()), 11, STATE)
    chunks = chunks_of(source)
    target = MemoryStore()
    sink = SnapshotSink(target, 1, 11, 9)
    sink.add(chunks[0])
    head, good, later, end = chunks[0], chunks[1], chunks[2], chunks[-1]
    body = good[25:]
    bad: list[tuple[bytes, type[Exception], str]] = [
        (good[:20], ProtocolError, "only 20 bytes"),
        (good[:-1], ChecksumMismatch, "damaged chunk"),
        (good[:30] + bytes((good[30] ^ 1,)) + good[31:], ChecksumMismatch, "damaged chunk"),
        (changed(good, 4, "<I", 2), ProtocolError, "a chunk of group 2"),
        (changed(good, 8, "<Q", 12), ProtocolError, "a chunk of snapshot 12"),
        (later, ProtocolError, "chunk 2: expected chunk 1"),
        (changed(end, 16, "<Q", 1), ProtocolError, "rows were sent, 0 are here"),
        (changed(good, 24, "<B", 1), ProtocolError, "unexpected kind 1"),
        (changed(good, 24, "<B", 9), ProtocolError, "unexpected kind 9"),
        (sealed(good[4:25], body[:-1]), ProtocolError, "a row of"),
        (sealed(good[4:25], body + b"xxx"), ProtocolError, "cut in the lengths"),
        (sealed(good[4:25], body + body), ProtocolError, "follows"),
        (sealed(good[4:25], struct.pack("<II", 2, 0) + b"\x09k"), ProtocolError, "follows"),
        (sealed(good[4:25], struct.pack("<II", 0, 0)), ProtocolError, "a row of 0"),
        (changed(end, 16, "<Q", 1)[:-1], ChecksumMismatch, "damaged"),
        (bytes(limits.SNAPSHOT_CHUNK_LIMIT_BYTES + 1), FrameTooLarge, "bytes"),
        (b"", ProtocolError, "only 0 bytes"),
    ]
    for chunk, error, why in bad:
        before = sink.cursor
        with pytest.raises(error, match=why):
            sink.add(chunk)
        assert sink.cursor == before
        assert contents(target, 9) == {}
    for chunk in chunks[1:-1]:
        sink.add(chunk)
    with pytest.raises(InvariantViolation, match="not complete"):
        sink.switch(4, HardState())
    with pytest.raises(ChecksumMismatch, match="not those that were read"):
        sink.add(sealed(end[4:25], end[25:-1] + bytes((end[-1] ^ 1,))))
    with pytest.raises(ProtocolError, match="an end of 13 bytes"):
        sink.add(sealed(end[4:25], end[25:] + b"x"))
    assert not sink.add(head)
    assert sink.add(end)
    with pytest.raises(ProtocolError, match="expected chunk"):
        sink.add(changed(end, 16, "<Q", len(chunks)))
    fresh = SnapshotSink(MemoryStore(), 1, 11, 9)
    nobody = head[25:].replace(b'"voters":[1,4]', b'"voters":[]')
    text = head[25:].replace(b'"voters":[1,4]', b'"voters":["1"]')
    for head_body, why in ((nobody, "no voters"), (text, "no voters, or numbers")):
        with pytest.raises(ProtocolError, match=why):
            fresh.add(sealed(head[4:25], head_body))
    for head_body, why in (
        (b"{}", "group state"),
        (head[25:].replace(b":1,", b":2,", 1), "group 2"),
        (orjson.dumps(replace(STATE, quarantined="rows differ")), "is quarantined: rows differ"),
    ):
        with pytest.raises(ProtocolError, match=why):
            fresh.add(sealed(head[4:25], head_body))


def test_every_flipped_bit_of_a_chunk_is_refused() -> None:
    rows = ReplicaRows(MemoryStore(), 3)
    rows.set_meta(b"a", b"value")
    rows.set_applied(INDEX, TERM, 1)
    chunks = chunks_of(SnapshotSource(rows, 11, STATE))
    assert len(chunks) == 3
    for number, chunk in enumerate(chunks):
        sink = SnapshotSink(MemoryStore(), 1, 11, 9)
        for earlier in chunks[:number]:
            sink.add(earlier)
        for place in range(len(chunk)):
            for bit in range(8):
                flipped = bytearray(chunk)
                flipped[place] ^= 1 << bit
                with pytest.raises(ProtocolError):
                    sink.add(bytes(flipped))
        assert sink.add(chunk)


def test_rows_of_another_moment_than_the_head_says_are_refused() -> None:
    source = SnapshotSource(filled(MemoryStore()), 11, STATE)
    chunks = chunks_of(source)
    sink = SnapshotSink(MemoryStore(), 1, 11, 9)
    sink.add(sealed(chunks[0][4:25], chunks[0][25:].replace(b'_index":70', b'_index":71')))
    for chunk in chunks[1:-1]:
        sink.add(chunk)
    with pytest.raises(ProtocolError, match="as of entry 70 of term 8, its head says 71"):
        sink.add(chunks[-1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 10,
        b"x" * 200_000,
        Cursor(number=1 << 62).encode(),
        Cursor(number=1, rows=1 << 62).encode(),
    ],
)
def test_malformed_cursors(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="cursor"):
        Cursor.decode(data)


def test_what_waits_in_the_overlay_is_part_of_the_snapshot() -> None:
    store = MemoryStore()
    rows = filled(store)
    rows.put(layout.meta_key(3, b"new"), b"row")
    rows.set_applied(INDEX + 1, TERM, 124)
    source = SnapshotSource(rows, 11, STATE)
    assert source.head.base_index == INDEX + 1
    assert rows.pending == 0


class Stalling(MemoryStore):
    """A store that stalls every other time."""

    stalls = False

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        ranges: Any = (),
    ) -> None:
        self.stalls = not self.stalls
        if self.stalls:
            raise StoreStalled("test")
        super().write(rows, ranges)


def test_a_stalled_store_takes_the_same_chunk_later() -> None:
    source_store = MemoryStore()
    source = SnapshotSource(filled(source_store), 11, STATE)
    target = Stalling()
    sink = SnapshotSink(target, 1, 11, 9)
    stalls = 0
    for chunk in chunks_of(source):
        try:
            sink.add(chunk)
        except StoreStalled:
            stalls += 1
            assert sink.add(chunk)
    assert stalls == 3
    assert sink.complete
    assert contents(target, 9) == contents(source_store, 3)


def without_orphans(store: StateStore, named: set[int]) -> int:
    """Delete what nobody names, as a node does when it starts; the next free generation."""
    unnamed, free = orphans(store, named)
    for generation in unnamed:
        delete_generation(store, generation)
    return free


def test_generations_that_nobody_names_are_removed(store: StateStore) -> None:
    store.write([(layout.meta_key(generation, b"x"), b"y") for generation in (0, 1, 2, 7, 2**31)])
    assert generations(store) == [1, 2, 7, 2**31]
    # What is removed may be back after a crash: its number is not given away.
    assert without_orphans(store, {2, 5}) == 2**31 + 1
    assert generations(store) == [2]
    assert store.get(layout.meta_key(0, b"x")) == b"y"
    assert without_orphans(store, {2, 5}) == 6
    assert without_orphans(store, set()) == 3
    assert generations(store) == []
    assert without_orphans(store, set()) == 1


def receiving(store: MemoryStore, log: WriteAheadLog, source: SnapshotSource) -> Iterator[None]:
    """The receiver's whole way, which may end at each step."""
    generation = without_orphans(store, {1})
    yield
    sink = SnapshotSink(store, 1, 11, generation)
    for chunk in chunks_of(source):
        yield
        sink.add(chunk)
    yield
    store.flush()
    yield
    request = log.append([sink.switch(4, HardState(9, 4, 2))])
    yield
    request.file.pwrite(request.data, request.offset)
    yield
    request.file.sync()
    log.durable(request.position)
    yield
    delete_generation(store, 1)
    yield
    store.flush()


@pytest.mark.parametrize("steps", range(13))
@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_step_leaves_the_old_or_the_new_state(
    new_log: NewLog, steps: int, seed: int
) -> None:
    """The receiver can always begin anew."""
    rng = random.Random(seed * 100 + steps)
    source_store = MemoryStore()
    source = SnapshotSource(filled(source_store, count=60), 11, STATE)
    expected = contents(source_store, 3)
    files, log = new_log(log_options(seed=seed))
    store = MemoryStore()
    own = ReplicaRows(store, 1)
    carry_out(log, log.append([entries_item(1, 1, entry_log.encode_entry(1, 0, b"old"))]))
    own.set_applied(1, 1, 5)
    own.set_meta(b"old", b"state")
    own.write()
    store.flush()
    old = contents(store, 1)
    for _ in islice(receiving(store, log, source), steps + 1):
        pass
    store.crash(rng)
    files.crash(rng)
    again = WriteAheadLog.open(files, log_options(seed=seed + 50))
    state = again.groups[1].state
    rows = ReplicaRows(store, state.generation)
    free = without_orphans(store, {state.generation})
    assert generations(store) == [state.generation]
    index, term, _ = rows.applied()
    again.load(1, index, term)
    if state.generation == 1:
        assert contents(store, 1) == old
        assert steps <= 8
    else:
        assert steps >= 7
        assert contents(store, state.generation) == expected
        assert (state.replica_id, state.base_index, state.base_term) == (4, INDEX, TERM)
        assert again.groups[1].hard_state == HardState(9, 4, INDEX)
        assert (again.groups[1].last_index, index) == (INDEX, INDEX)
    assert free > state.generation
    source.resume(Cursor())
    sink = SnapshotSink(store, 1, 11, free)
    for chunk in chunks_of(source):
        sink.add(chunk)
    assert contents(store, free) == expected


def test_the_kinds_are_what_the_documents_say() -> None:
    assert (snapshots.HEAD, snapshots.ROWS, snapshots.END) == (1, 2, 3)


def test_a_row_that_the_machine_cannot_read_is_refused(store: StateStore) -> None:
    rows = filled(store)

    def check(key: bytes, row: bytes) -> None:
        if key[0] == layout.DATA:
            raise ProtocolError("unreadable")

    source = SnapshotSource(rows, 11, STATE)
    sink = SnapshotSink(store, 1, 11, 9, check)
    with pytest.raises(ProtocolError, match="unreadable"):
        while True:
            chunk = source.advance(always)
            if chunk is not None:
                sink.add(chunk)
    assert not sink.complete
    assert not list(store.scan(*layout.kind_range(9, layout.DATA)))
