"""Both stores behave as StateStore says; the overlay above them reads its own writes."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft.errors import StoreStalled
from eraft.storage import rows as layout
from eraft.storage.state import MemoryStore, ReplicaRows, RocksStore, StateStore


def everything(store: StateStore) -> dict[bytes, bytes]:
    return dict(store.scan(b"", b"\xff" * 20))


def test_get_put_delete(store: StateStore) -> None:
    store.write([(b"a", b"1"), (b"b", b""), (b"c", b"3")])
    assert store.get(b"a") == b"1"
    assert store.get(b"b") == b""
    assert store.get(b"nothing") is None
    store.write([(b"a", None), (b"nothing", None), (b"c", b"4")])
    assert store.get_many([b"c", b"a", b"b", b"c"]) == [b"4", None, b"", b"4"]
    assert store.get_many([]) == []


def test_of_two_rows_with_one_key_the_later_counts(store: StateStore) -> None:
    store.write([(b"k", b"1"), (b"k", b"2"), (b"x", b"1"), (b"x", None)])
    assert everything(store) == {b"k": b"2"}


def test_ranges_are_deleted_before_the_rows_are_put(store: StateStore) -> None:
    store.write([(bytes((key,)), b"old") for key in range(10)])
    store.write([(b"\x04", b"new")], [(b"\x02", b"\x06"), (b"\x08", b"\x08"), (b"\x09", b"\x01")])
    kept = {bytes((key,)): b"old" for key in (0, 1, 6, 7, 8, 9)}
    assert everything(store) == kept | {b"\x04": b"new"}


def test_scan_is_ordered_bounded_and_of_one_moment(store: StateStore) -> None:
    keys = [bytes((0, key)) for key in range(100)]
    random.Random(3).shuffle(keys)
    store.write([(key, key) for key in keys])
    scan = store.scan(b"\x00\x0a", b"\x00\x14")
    store.write([(b"\x00\x0b", None), (b"\x00\x0c", b"later"), (b"\x00\x0c\x01", b"later")])
    assert list(scan) == [(bytes((0, key)), bytes((0, key))) for key in range(10, 20)]
    assert list(scan) == []
    assert list(store.scan(b"\x05", b"\x01")) == []


def test_a_scan_reaches_its_end_whatever_happens_to_memory_meanwhile(store: StateStore) -> None:
    """rocksdict's iterator borrows its bounds: they must live as long as the scan."""
    store.write([(b"k%05d" % n, b"row") for n in range(2000)])
    scan = store.scan(b"k", bytes(bytearray(b"l" * 11)))  # not a constant: nobody else keeps it
    seen = 0
    for _ in scan:
        seen += 1
        bytes(bytearray(b"a" * 11))  # the size of the bound: takes its place if it was freed
    assert seen == 2000


def test_a_closed_scan_is_exhausted(store: StateStore) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")])
    scan = store.scan(b"a", b"z")
    assert next(scan) == (b"a", b"1")
    scan.close()
    scan.close()
    assert list(scan) == []


def test_open_scans_do_not_keep_the_database_open(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    store.write([(b"a", b"1"), (b"b", b"2")])
    scan = store.scan(b"a", b"z")
    store.close()
    assert list(scan) == []
    again = RocksStore(str(tmp_path / "db"))
    assert again.get(b"a") == b"1"
    again.close()


def test_rocksdb_keeps_what_was_flushed(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    store.write([(b"a", b"1")])
    store.flush()
    store.close()
    again = RocksStore(str(tmp_path / "db"))
    assert everything(again) == {b"a": b"1"}
    assert again.stats()["rows"] == 1
    again.close()


def test_a_stalled_batch_is_not_written_and_can_be_written_again(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    rng = random.Random(7)
    value = rng.randbytes(64 * 1024)
    overlay = ReplicaRows(store, 9)
    for number in range(20_000):
        for place in range(64):
            overlay.put(layout.meta_key(9, b"%d.%d" % (number, place)), value)
        try:
            overlay.write()
        except StoreStalled:
            break
    else:
        pytest.fail("RocksDB never stalled: this test shows nothing")
    assert store.stalls == 1
    assert overlay.pending == 64
    assert store.get(layout.meta_key(9, b"%d.0" % number)) is None
    assert overlay.meta(b"%d.63" % number) == value
    store.flush()
    overlay.write()
    assert overlay.pending == 0
    assert store.get(layout.meta_key(9, b"%d.63" % number)) == value
    store.close()


keys = st.binary(min_size=1, max_size=2)
row_lists = st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), max_size=8)
range_lists = st.lists(st.tuples(keys, keys), max_size=2)
operations = st.lists(
    st.tuples(st.just("write"), row_lists, range_lists)
    | st.tuples(st.just("flush"), st.none(), st.none())
    | st.tuples(st.just("scan"), keys, keys),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(operations, min_size=1, max_size=3))
def test_the_double_does_what_rocksdb_does(lives: list[list[tuple]]) -> None:
    memory = MemoryStore()
    with tempfile.TemporaryDirectory() as path:
        for life in lives:
            rocks = RocksStore(path)
            for name, first, second in life:
                if name == "write":
                    rocks.write(first, second)
                    memory.write(first, second)
                elif name == "flush":
                    rocks.flush()
                    memory.flush()
                else:
                    assert list(rocks.scan(first, second)) == list(memory.scan(first, second))
            assert everything(rocks) == everything(memory)
            wanted = [bytes((key,)) for key in range(256)]
            assert rocks.get_many(wanted) == memory.get_many(wanted)
            rocks.close()
            memory.flush()


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_falls_back_to_a_batch_boundary_after_the_last_flush(seed: int) -> None:
    rng = random.Random(seed)
    store = MemoryStore()
    states = [everything(store)]
    flushed = 0
    started = 0
    for _ in range(40):
        step = rng.random()
        if step < 0.7:
            rows = [
                (rng.randbytes(1), rng.choice((None, rng.randbytes(2))))
                for _ in range(rng.randrange(6))
            ]
            ranges = [(rng.randbytes(1), rng.randbytes(1))] if rng.random() < 0.3 else []
            store.write(rows, ranges)
            states.append(everything(store))
        elif step < 0.8:
            store.flush()
            flushed = len(states) - 1
        elif step < 0.9:
            started = store.batches
            store.write([(b"during", rng.randbytes(1))])
            states.append(everything(store))
            store.flushed(started)
            flushed = max(flushed, started)
        else:
            store.crash(rng)
            after = everything(store)
            assert store.batches >= flushed
            assert after == states[store.batches]
            del states[store.batches + 1 :]
            flushed = store.batches


def test_crashes_reach_every_boundary() -> None:
    seen = set()
    for seed in range(100):
        store = MemoryStore()
        for number in range(6):
            store.write([(b"n", b"%d" % number)])
            if number == 2:
                store.flush()
        store.crash(random.Random(seed))
        seen.add(store.get(b"n"))
    assert seen == {b"2", b"3", b"4", b"5"}


def test_the_overlay_reads_its_own_writes(store: StateStore) -> None:
    rows = ReplicaRows(store, 3)
    key = [layout.meta_key(3, bytes((name,))) for name in range(6)]
    for number in range(4):
        rows.put(key[number], b"old")
    rows.write()
    assert rows.pending == 0
    assert rows.size_hint == 0
    rows.put(key[0], b"new")
    rows.delete(key[1])
    rows.put(key[4], b"young")
    rows.put(key[2], b"doomed")
    rows.delete_range(key[2], key[4])
    rows.put(key[3], b"reborn")
    expected = [b"new", None, None, b"reborn", b"young", None]
    assert [rows.get(one) for one in key] == expected
    assert rows.get_many(key) == expected
    merged = [(k, v) for k, v in zip(key, expected, strict=True) if v is not None]
    assert list(rows.scan(key[0], key[5])) == merged
    assert store.get(key[0]) == b"old"
    assert rows.size_hint > 0
    rows.write()
    assert list(store.scan(key[0], key[5])) == merged
    assert rows.get_many(key) == expected


def test_applied_index_and_rows_become_visible_together() -> None:
    store = MemoryStore()
    rows = ReplicaRows(store, 5)
    assert rows.applied() == (0, 0, 0)
    rows.set_meta(b"x", b"1")
    rows.set_applied(7, 2, 123)
    assert rows.applied() == (7, 2, 123)
    assert ReplicaRows(store, 5).applied() == (0, 0, 0)
    batches = store.batches
    rows.write()
    assert store.batches == batches + 1
    assert ReplicaRows(store, 5).applied() == (7, 2, 123)
    assert ReplicaRows(store, 5).meta(b"x") == b"1"
    assert ReplicaRows(store, 6).meta(b"x") is None


def test_the_digest_is_of_every_change_and_comes_back_with_the_applied_index() -> None:
    store = MemoryStore()

    def digests(generation: int) -> list[int]:
        rows = ReplicaRows(store, generation)
        found = [rows.digest]
        for step in range(6):
            if step < 2:
                rows.set_meta(b"x", b"1")
            elif step < 4:
                rows.delete(layout.meta_key(generation, b"x"))
            else:
                rows.delete_range(*layout.bucket_range(generation, layout.DATA, step))
            found.append(rows.digest)
            rows.set_applied(step, 2, 123)
            rows.write()
            assert rows.digest == ReplicaRows(store, generation).digest == found[-1]
        rows.set_meta(b"lost", b"")
        rows.set_applied(6, 2, 123)
        assert ReplicaRows(store, generation).digest == found[-1] != rows.digest
        return found

    assert digests(5) == digests(9)
    assert len(set(digests(7))) == 7


@pytest.mark.parametrize("seed", range(20))
def test_the_overlay_is_a_dict_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    store = MemoryStore()
    rows = ReplicaRows(store, 1)
    model: dict[bytes, bytes] = {}

    def some_key() -> bytes:
        return layout.meta_key(1, rng.randbytes(1)[:1])

    for _ in range(300):
        step = rng.random()
        if step < 0.5:
            key, row = some_key(), rng.randbytes(2)
            rows.put(key, row)
            model[key] = row
        elif step < 0.65:
            key = some_key()
            rows.delete(key)
            model.pop(key, None)
        elif step < 0.75:
            start, end = some_key(), some_key()
            rows.delete_range(start, end)
            model = {key: row for key, row in model.items() if not start <= key < end}
        elif step < 0.85:
            rows.write()
        else:
            start, end = sorted((some_key(), some_key()))
            inside = sorted((k, v) for k, v in model.items() if start <= k < end)
            scan = rows.scan(start, end)
            rows.put(layout.meta_key(1, b"later"), b"")
            rows.delete(layout.meta_key(1, b"later"))
            assert list(scan) == inside
            wanted = [some_key() for _ in range(5)]
            assert rows.get_many(wanted) == [model.get(key) for key in wanted]
            assert [rows.get(key) for key in wanted] == [model.get(key) for key in wanted]


def test_closing_a_merged_scan(store: StateStore) -> None:
    rows = ReplicaRows(store, 1)
    rows.set_meta(b"a", b"1")
    rows.write()
    rows.set_meta(b"b", b"2")
    scan = rows.scan(*layout.generation_range(1))
    assert next(scan) == (layout.meta_key(1, b"a"), b"1")
    scan.close()
    assert list(scan) == []
