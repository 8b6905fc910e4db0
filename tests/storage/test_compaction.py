"""What the log lets go of: compaction, retention, removed groups."""

import random

import pytest

from eraft import limits
from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import InvariantViolation, LogCompacted, LogCorrupt
from eraft.storage.items import (
    compact_item,
    entries_item,
    group_state_item,
    hard_state_item,
    node_item,
    tombstone_item,
)
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES, encode_header, open_segment, segment_name
from eraft.storage.wal import LogOptions, WriteAheadLog, format_log
from eraft.types import GroupState, HardState
from tests.storage.conftest import STORE_ID, carry_out, group_state, log_options
from tests.storage.small_log import (
    OPTIONS,
    RETAINED,
    SEGMENT,
    NewLog,
    entry,
    fill,
    reopened,
    segment_files,
)


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
