"""What the log lets go of: compaction, retention, recycling, quiet and removed groups."""

import errno
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from eraft import limits
from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import InvariantViolation, LogCompacted, LogCorrupt
from eraft.storage.items import (
    compact_item,
    copy_item,
    entries_item,
    group_state_item,
    hard_state_item,
    node_item,
    tombstone_item,
)
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES, encode_header, open_segment, segment_name
from eraft.storage.wal import LogOptions, WriteAheadLog, WriteRequest, format_log
from eraft.types import GroupState, HardState
from tests.storage.conftest import STORE_ID, carry_out, group_state, log_options, prepare

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


def test_the_log_does_not_grow(new_log: NewLog) -> None:
    """Its part of the disk: the retention, the spare, and what a header still asks for."""
    files, log = new_log(log_options(**OPTIONS))
    most = 0
    for number in range(1, 2000, 50):
        fill(log, files, number, number + 49)
        most = max(most, sum(files.open(name).size() for name in files.names()))
        assert sum(files.open(name).size() for name in files.names()) == log.size_bytes
    assert most <= (RETAINED + 4) * SEGMENT
    assert log.segments_awaited == 0
    for one in (log, reopened(files)):
        group = one.groups[1]
        assert group.last_index == 2000
        assert group.log_bytes > (RETAINED - 2) * 4000
        with pytest.raises(LogCompacted, match=f"the first one is {group.base_index + 1}"):
            one.read(1, group.base_index, 2000, 1000)
        blob = b"".join(entry(number) for number in range(group.base_index + 1, 2001))
        assert one.read(1, group.base_index + 1, 2000, 1 << 30) == (blob, 2000)
        assert (group.base_term, group.state) == (
            1 + group.base_index // 10,
            one.groups[1].state,
        )
        assert one.load(1, 1998, 1 + 1998 // 10).last_index == 2000
        assert group.rows < 100


def test_a_follower_catches_up_from_what_is_retained(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 40)
    assert log.groups[1].base_index == 0, "the log is smaller than the retention"
    fill(log, files, 41, 500)
    assert 500 - log.groups[1].base_index > (RETAINED - 2) * 4000 // 250


def test_what_is_not_flushed_is_not_compacted(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 30)
    fill(log, files, 31, 400, every=0)
    assert log.groups[1].base_index <= 30
    blob = b"".join(entry(number) for number in range(31, 401))
    assert reopened(files).read(1, 31, 400, 1 << 30) == (blob, 400)


def test_a_crash_during_the_flush_finds_all_entries(new_log: NewLog) -> None:
    """Nothing is released before the flush has finished; so nothing can be gone."""
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 400, every=0)
    again = reopened(files)
    assert again.load(1, 0, 0).last_index == 400
    fill(again, files, 401, 500, every=0)
    assert again.groups[1].base_index == 0


def test_files_are_recycled(new_log: NewLog) -> None:
    """A recycled file keeps its old records, which do not count under its new salt."""
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 1000)
    log_files = segment_files(files)
    spare = files.open(log_files[-1]).pread(SEGMENT, HEADER_BYTES)
    assert any(spare)
    salts = {open_segment(files, int(name[:16]), STORE_ID)[0].salt for name in log_files}
    assert len(salts) == len(log_files)
    assert reopened(files).groups[1].last_index == 1000


def test_many_segments_that_become_free_at_once_are_removed(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 600, every=0)
    assert log.segments > 30
    log.release([(1, 1, 600)])
    fill(log, files, 601, 700)
    assert log.segments <= RETAINED + 4
    assert len(files.names()) == log.segments
    assert reopened(files).groups[1].last_index == 700


@pytest.mark.parametrize("released", [0, 2, 5])
def test_a_quiet_group_does_not_pin_segments(new_log: NewLog, released: int) -> None:
    files, log = new_log(log_options(**OPTIONS))
    carry_out(log, log.append([hard_state_item(2, HardState(7, 3, 0)), node_item(b"mine")]))
    for number in range(1, 6):
        carry_out(log, log.append([entries_item(2, number, entry(number))]))
    carry_out(log, log.append([hard_state_item(2, HardState(7, 3, released))]))
    fill(log, files, 1, 1000, quiet=released)
    assert log.segments <= RETAINED + 4
    for one in (log, reopened(files)):
        group = one.groups[2]
        assert one.node == b"mine"
        assert (group.base_index, group.last_index) == (released, 5)
        assert group.hard_state == HardState(7, 3, released)
        loaded = one.load(2, released, 1 if released else 0)
        blob = b"".join(entry(number) for number in range(released + 1, 6))
        assert loaded.slice(released + 1, 5, 10**6) == (blob, 5)


def test_a_group_that_has_not_said_what_it_needs_pins_its_segments(new_log: NewLog) -> None:
    """After a start nobody has flushed yet: nothing is moved for that."""
    files, log = new_log(log_options(**OPTIONS))
    carry_out(log, log.append([entries_item(2, 1, entry(1))]))
    fill(log, files, 1, 500)
    assert segment_name(1) in files.names()
    fill(log, files, 501, 600, quiet=0)
    assert log.segments <= RETAINED + 4
    assert log.read(2, 1, 1, 0) == (entry(1), 1)


def test_a_busy_group_that_is_behind_is_not_moved(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 20)
    size = log.appended_bytes
    fill(log, files, 21, 220, every=0)
    assert log.appended_bytes - size < 200 * 340, "its entries were written again"


def test_what_is_too_much_to_copy_stays(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "COPIED_SHARE", RETAINED * SEGMENT // 1000)
    files, log = new_log(log_options(**OPTIONS))
    for number in range(1, 11):
        carry_out(log, log.append([entries_item(2, number, entry(number, 900))]))
    fill(log, files, 1, 200, quiet=3)
    assert log.groups[2].first_sequence == 2
    assert "group 2: entries 4 to 10 are not applied and keep old segments" in caplog.text
    assert log.read(2, 4, 10, 1 << 30)[1] == 10
    fill(log, files, 201, 300, quiet=10)
    assert segment_name(1) not in files.names()


def test_the_copies_of_all_groups_are_limited_together(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is copied counts for as long as it is needed, or two groups would take turns."""
    monkeypatch.setattr(limits, "COPIED_SHARE", 1)
    files, log = new_log(log_options(**OPTIONS))
    size = (RETAINED - 2) * SEGMENT // 10
    for gid in (1, 2):
        for number in range(1, 11):
            carry_out(log, log.append([entries_item(gid, number, entry(number, size))]))
    carry_out(log, log.append([group_state_item(group_state(3))]))
    for number in range(1, 400):
        carry_out(log, log.append([entries_item(3, number, entry(number))]))
        if number % 5 == 0:
            log.release([(1, 1, 0), (2, 1, 0), (3, 1, number)])
        prepare(log, files)
    assert log.groups[1].first_sequence > 10
    assert log.groups[2].first_sequence < 10


@pytest.mark.parametrize("busy", [True, False])
def test_what_is_copied_for_one_record_is_limited(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """However much a group has in the segments that are to go; each slice is durable by itself."""
    monkeypatch.setattr(limits, "COMPACTION_SLICE_BYTES", 2000)
    retention = 40 * SEGMENT
    files, log = new_log(log_options(segment_size_bytes=SEGMENT, retention_bytes=retention))
    stuck = [entry(number, 900) for number in range(1, 41)]
    for number, blob in enumerate(stuck, 1):
        carry_out(log, log.append([entries_item(2, number, blob)]))
        prepare(log, files)
    for number in range(1, 500):
        carry_out(log, log.append([entries_item(1, number, entry(number))]))
        prepare(log, files)
    log.release([(1, 1, 499), (2, 1, 4)])
    slices = 0
    while log.groups[2].first_sequence < 30:
        before = log.appended_bytes
        items = [entries_item(1, 500 + slices, entry(500))] if busy else [node_item(b"idle")]
        carry_out(log, log.append(items))
        prepare(log, files)
        slices += 1
        assert log.appended_bytes - before < 2 * SEGMENT
        again = WriteAheadLog.open(files, log_options(seed=7))
        for one in (log, again):
            base = one.groups[2].base_index
            assert one.read(2, base + 1, 40, 1 << 30) == (b"".join(stuck[base:]), 40)
            assert one.load(2, 4, 1).last_index == 40
    assert slices >= 9, "one row of the index at a time"
    for _ in range(20):
        carry_out(log, log.append([node_item(bytes(3000))]))
        prepare(log, files)
    assert log.segments <= 40 + 4


def test_entries_behind_and_in_place_of_copies(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    blobs = [entry(number) for number in range(1, 11)]
    carry_out(log, log.append([entries_item(2, 1, b"".join(blobs))]))
    fill(log, files, 1, 200, quiet=3)
    assert log.groups[2].first_sequence > 1, "it was copied"
    new = entry(70)
    for first in (11, 8, 5):
        carry_out(log, log.append([entries_item(2, first, new)]))
        blobs = [*blobs[: first - 1], new]
        for one in (log, reopened(files)):
            assert one.read(2, 4, first, 1 << 30) == (b"".join(blobs[3:]), first)


def test_a_row_of_which_only_compacted_entries_are_left_pins_nothing(new_log: NewLog) -> None:
    """Half of it is compacted, the rest replaced: it counts for nobody."""
    files, log = new_log(log_options(**OPTIONS))
    blob = b"".join(entry(number) for number in range(1, 11))
    carry_out(log, log.append([entries_item(2, 1, blob)]))
    carry_out(log, log.append([compact_item(2, 5, 1), entries_item(2, 6, entry(70))]))
    fill(log, files, 1, 600, quiet=5)
    assert log.segments <= RETAINED + 4
    for one in (log, reopened(files)):
        assert one.read(2, 6, 6, 0) == (entry(70), 6)


@pytest.mark.parametrize(
    ("first", "count", "fits"),
    [(1, 10, True), (1, 20, True), (11, 10, True), (1, 9, False), (2, 9, False), (11, 11, False)],
)
def test_a_copy_is_the_whole_of_what_it_replaces(
    new_log: NewLog, first: int, count: int, fits: bool
) -> None:
    _, log = new_log(log_options(**OPTIONS))
    for number in (1, 11):
        blob = b"".join(entry(it, 900) for it in range(number, number + 10))
        carry_out(log, log.append([entries_item(2, number, blob)]))
    assert log.groups[2].rows == 2
    item = copy_item(2, first, b"".join(entry(it, 900) for it in range(first, first + count)))
    if not fits:
        with pytest.raises(InvariantViolation, match="the copy of entries .* does not fit the log"):
            log.append([item])
        return
    carry_out(log, log.append([item]))
    blob = b"".join(entry(it, 900) for it in range(1, 21))
    assert log.read(2, 1, 20, 1 << 30) == (blob, 20)


def test_a_removed_replica_never_comes_back(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    carry_out(log, log.append([entries_item(2, 1, entry(1))]))
    carry_out(log, log.append([tombstone_item(2, 1), tombstone_item(9, 4)]))
    fill(log, files, 1, 400)
    assert log.segments <= RETAINED + 4
    for one in (log, reopened(files)):
        assert list(one.groups) == [1]
        assert one.tombstones == {2: 1, 9: 4}
        with pytest.raises(InvariantViolation, match="replica 1 of group 2 was removed"):
            one.append([group_state_item(group_state(2))])
        with pytest.raises(InvariantViolation, match="never founded"):
            one.append([entries_item(2, 2, entry(2))])
    again = reopened(files)
    newer = GroupState(2, 2, 5, group_state(2).conf)
    carry_out(again, again.append([group_state_item(newer)]))
    assert reopened(files).groups[2].state == newer


def test_what_an_old_replica_released_is_not_the_new_ones(new_log: NewLog) -> None:
    """A flush that began before a snapshot was installed ends after it."""
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 20)
    newer = GroupState(1, 1, 2, group_state(1).conf)
    carry_out(log, log.append([group_state_item(newer), entries_item(1, 1, entry(1))]))
    log.release([(1, 1, 20)])
    assert log.groups[1].released is None
    with pytest.raises(InvariantViolation, match="applied up to 2, but it ends at 1"):
        log.release([(1, 2, 2)])


@pytest.mark.parametrize(("index", "base"), [(4, 5), (11, 5)])
def test_compaction_below_the_base_or_beyond_the_end(
    new_log: NewLog, index: int, base: int
) -> None:
    _, log = new_log(log_options(**OPTIONS))
    carry_out(log, log.append([entries_item(1, 1, b"".join(entry(n) for n in range(1, 11)))]))
    carry_out(log, log.append([compact_item(1, base, 1)]))
    with pytest.raises(InvariantViolation, match=f"compaction to {index} does not fit"):
        log.append([compact_item(1, index, 2)])


def test_segments_that_are_gone_without_compaction_are_corruption(new_log: NewLog) -> None:
    """A header that says so is not enough: the entries must have been compacted, by a record."""
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 60, every=0)
    name = segment_files(files)[-1]
    spare, header = open_segment(files, int(name[:16]), STORE_ID)
    second = log._segments[2]
    forged = type(header)(STORE_ID, header.sequence, header.salt, SEGMENT, 2, second.first_position)
    spare.file.pwrite(encode_header(forged), 0)
    files.remove(segment_name(1))
    with pytest.raises(LogCorrupt, match=r"segments with the entries 1 to \d+ are gone, but"):
        reopened(files)


def test_a_checkpoint_that_contradicts_the_log_is_corruption(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    other = WriteAheadLog.open(files, log_options(**OPTIONS))
    carry_out(other, other.append([hard_state_item(1, HardState(5, 1, 0))]))
    items = other._index.checkpoint()
    with pytest.raises(InvariantViolation, match="checkpoint of group 1 contradicts"):
        log.append(items)


class Interrupted(Exception):
    """The process ends here."""


class Failing:
    """Files of which the n-th change, and all after it, fail with `error`.

    Whether the change is there then is up to `happens`.
    """

    changes = ("rename", "remove", "publish", "create")

    def __init__(
        self, files: MemoryFiles, left: int, error: Exception, happens: bool = False
    ) -> None:
        self._files = files
        self._left = left
        self._error = error
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._files, name)

        def call(*args: Any) -> Any:
            fails = name in self.changes and not self._left
            if name in self.changes and not fails:
                self._left -= 1
            found = method(*args) if self._happens or not fails else None
            if fails:
                raise self._error
            return found

        return call


class Unsynced(Failing):
    """Their directory cannot be synced, from the n-th change on that needs it."""

    changes = ("rename", "remove", "publish")

    def __init__(self, files: MemoryFiles, left: int) -> None:
        super().__init__(files, left, OSError(errno.EIO, "test"), happens=True)


@pytest.mark.parametrize("changes", range(8))
def test_a_crash_between_any_two_steps_of_recycling(new_log: NewLog, changes: int) -> None:
    for seed in range(12):
        files, log = new_log(log_options(**OPTIONS))
        fill(log, files, 1, 300, every=0)
        log.release([(1, 1, 300)])
        number = 300
        with pytest.raises(Interrupted):
            for number in range(301, 500):
                carry_out(log, log.append([entries_item(1, number, entry(number))]))
                for preparation in log.preparations():
                    if preparation.removed or preparation.recycled:
                        failing = Failing(files, changes, Interrupted())
                        preparation.run(failing)  # type: ignore[arg-type]
                        raise Interrupted
                    preparation.run(files)
                    log.prepared(preparation)
        files.crash(random.Random(seed))
        again = reopened(files)
        assert again.groups[1].last_index == number
        assert again.load(1, 300, 31).last_index == number
        fill(again, files, number + 1, number + 200)
        assert again.segments <= RETAINED + 4
        assert len(files.names()) == again.segments


@pytest.mark.parametrize("changes", range(8))
def test_a_directory_that_cannot_be_synced_leaves_nothing_behind(
    new_log: NewLog, changes: int
) -> None:
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 300, every=0)
    log.release([(1, 1, 300)])
    failed = 0
    for number in range(301, 700):
        carry_out(log, log.append([entries_item(1, number, entry(number))]))
        for preparation in log.preparations():
            try:
                preparation.run(Unsynced(files, changes))  # type: ignore[arg-type]
                log.prepared(preparation)
            except OSError as error:
                failed += 1
                log.prepare_failed(preparation, error)
                log.retry_preparation()
                prepare(log, files)
    assert failed
    fill(log, files, 700, 750)
    assert sum(name.endswith(".tmp") for name in files.names()) == 0
    assert len(files.names()) == log.segments <= RETAINED + 4
    assert reopened(files).groups[1].last_index == 750


def test_preparations_that_fail_are_logged_once(
    new_log: NewLog, caplog: pytest.LogCaptureFixture
) -> None:
    files, log = new_log(log_options(**OPTIONS))
    caplog.set_level(logging.INFO)
    for number in range(1, 11):
        carry_out(log, log.append([entries_item(1, number, entry(number))]))
        if number % 3 == 0:
            log.retry_preparation()
        for preparation in log.preparations():
            log.prepare_failed(preparation, OSError(28, "No space left on device"))
    assert len([it for it in caplog.records if "cannot be prepared" in it.message]) == 1
    log.retry_preparation()
    prepare(log, files)
    assert log.segments == 2


@pytest.mark.parametrize("seed", range(60))
def test_random_lives_with_compaction_and_power_cuts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is always what it was at some record not before the last reported one."""
    rng = random.Random(seed)
    monkeypatch.setattr(limits, "COPIED_SHARE", rng.choice((1, 4)))
    monkeypatch.setattr(limits, "COMPACTION_SLICE_BYTES", rng.choice((1, 300, 2000, 1 << 30)))
    segment = HEADER_BYTES + rng.randint(1200, 4000)
    options = LogOptions(
        STORE_ID, segment, rng.randint(1, 5) * segment, random_u64=lambda: rng.getrandbits(64)
    )
    files = MemoryFiles()
    format_log(files, options, [group_state(1), group_state(2)])
    logs: dict[int, list[bytes]] = {1: [], 2: []}
    history = {1: logs}
    applied = {1: 0, 2: 0}
    flushed = {1: 0, 2: 0}
    for _ in range(5):
        log = WriteAheadLog.open(files, options)
        quiet = rng.choice((0, 1, 2))
        for _ in range(rng.randint(1, 60)):
            logs = dict(logs)
            items = []
            for gid in (1, 2):
                if gid == quiet or rng.random() < 0.2:
                    continue
                keep = len(logs[gid])
                if rng.random() < 0.1:
                    keep = rng.randint(applied[gid], keep)
                new = [entry_log.encode_entry(1, 0, rng.randbytes(rng.randint(0, 300)))]
                logs[gid] = logs[gid][:keep] + new
                items.append(entries_item(gid, keep + 1, new[0]))
            request = log.append(items or [node_item(b"x")])
            history[log.position] = logs
            request.file.pwrite(request.data, request.offset)
            if rng.random() < 0.02:
                break
            request.file.sync()
            log.durable(request.position)
            for gid in (1, 2):
                applied[gid] = rng.randint(applied[gid], len(logs[gid]))
            if rng.random() < 0.2:
                flushed = dict(applied)
                log.release([(gid, 1, index) for gid, index in flushed.items()])
            if rng.random() < 0.7:
                for preparation in log.preparations():
                    if rng.random() < 0.9:
                        preparation.run(files)
                        log.prepared(preparation)
                    else:
                        log.prepare_failed(preparation, OSError("disk"))
                        log.retry_preparation()
        reported = log.durable_position
        files.crash(rng)
        again = WriteAheadLog.open(files, options)
        assert reported <= again.position <= log.position
        logs = history[again.position]
        for gid, blobs in logs.items():
            group = again.groups[gid]
            assert group.base_index <= flushed[gid]
            assert group.last_index == len(blobs)
            if group.base_index < len(blobs):
                found = again.read(gid, group.base_index + 1, len(blobs), 1 << 30)
                assert found == (b"".join(blobs[group.base_index :]), len(blobs))
        history = {again.position: logs}


def test_kinds_of_items_are_what_the_documents_say() -> None:
    assert (codec.CHECKPOINT, codec.COMPACT, codec.TOMBSTONE, codec.COPY) == (5, 6, 7, 8)


def switch(log: WriteAheadLog, files: MemoryFiles, number: int) -> tuple[int, WriteRequest]:
    """Append entries of group 1 until one goes to the next segment; that one is not written."""
    while True:
        request = log.append([entries_item(1, number, entry(number))])
        if request.offset == HEADER_BYTES:
            return number, request
        carry_out(log, request)
        prepare(log, files)
        number += 1


def test_a_segment_is_free_only_once_what_frees_it_is_durable(new_log: NewLog) -> None:
    files, log = new_log(log_options(**OPTIONS))
    number, request = switch(log, files, 1)
    later = log.append([group_state_item(group_state(1, base_index=500, base_term=9))])
    carry_out(log, request)
    prepare(log, files)
    files.crash(random.Random(1))
    assert reopened(files).load(1, 0, 0).last_index == number
    assert later.position == log.position


def test_what_only_the_header_of_a_dropped_segment_allows_is_not_removed(new_log: NewLog) -> None:
    """Two segments were prepared, but the first record of the first one is torn: one goes."""
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 200, every=0)
    log.release([(1, 1, 200)])
    current = log.append([entries_item(1, 201, entry(201))])
    carry_out(log, current)
    assert log._oldest_sequence > 1
    number, _ = switch(log, files, 202)
    prepare(log, files)
    for seed in (1, 2):
        again = reopened(files, seed)
        assert again.groups[1].last_index == number - 1


def test_a_spare_that_is_too_small_stays_until_another_one_is_there(new_log: NewLog) -> None:
    """After a crash its header can be the only one that does not ask for segments that are gone."""
    files, log = new_log(log_options(**OPTIONS))
    fill(log, files, 1, 200, every=0)
    log.release([(1, 1, 200)])
    number, request = switch(log, files, 201)
    carry_out(log, request)
    prepare(log, files)
    number, _ = switch(log, files, number + 1)
    prepare(log, files)
    assert segment_name(1) not in files.names()
    files.crash(random.Random(1))
    for changes in range(2):
        again = reopened(files)
        assert again.groups[1].last_index == number - 1
        again._files = Failing(files, changes, Interrupted())  # type: ignore[assignment]
        with pytest.raises(Interrupted):
            again.append([entries_item(1, number, entry(number, 2 * SEGMENT))])
        files.crash(random.Random(1))
    again = reopened(files)
    carry_out(again, again.append([entries_item(1, number, entry(number, 2 * SEGMENT))]))
    assert reopened(files).groups[1].last_index == number


def test_the_first_segment_of_an_empty_log_begins_with_record_1() -> None:
    files = MemoryFiles()
    format_log(files, log_options(**OPTIONS), [])
    log = reopened(files)
    carry_out(log, log.append([node_item(b"x")]))
    prepare(log, files)
    assert open_segment(files, 2, STORE_ID)[1].oldest_position == 1
