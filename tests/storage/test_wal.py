"""The log while it runs: records, segments, reading back, preparing the next segment."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import DiskFull, InvariantViolation, LogCompacted, LogCorrupt
from eraft.storage.files import DiskFiles
from eraft.storage.index import ROW_ENTRIES_BYTES
from eraft.storage.items import entries_item, group_state_item, hard_state_item, node_item
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES
from eraft.storage.wal import WriteAheadLog, format_log
from eraft.types import HardState
from tests.storage.conftest import carry_out, group_state, log_options

NewLog = Callable[..., tuple[MemoryFiles, WriteAheadLog]]


def entries(term: int, *payloads: bytes) -> bytes:
    return b"".join(entry_log.encode_entry(term, 0, payload) for payload in payloads)


def reopened(files: MemoryFiles) -> WriteAheadLog:
    return WriteAheadLog.open(files, log_options(seed=99))


def test_what_was_appended_is_there_after_a_restart(new_log: NewLog) -> None:
    files, log = new_log(log_options())
    assert log.position == log.durable_position == 1
    carry_out(
        log,
        log.append(
            [
                hard_state_item(1, HardState(3, 2, 0)),
                entries_item(1, 1, entries(3, b"a", b"bb", b"")),
                hard_state_item(2, HardState(9, 1, 0)),
            ]
        ),
    )
    carry_out(log, log.append([node_item(b'{"generation": 5}')]))
    carry_out(log, log.append([entries_item(1, 3, entries(4, b"C", b"D"))]))
    carry_out(log, log.append([hard_state_item(1, HardState(4, 3, 2))]))
    for one in (log, reopened(files)):
        assert one.position == one.durable_position == 5
        assert one.node == b'{"generation": 5}'
        assert list(one.groups) == [1, 2]
        assert one.groups[1].state == group_state(1)
        assert one.groups[1].hard_state == HardState(4, 3, 2)
        assert one.groups[2].hard_state == HardState(9, 1, 0)
        assert one.groups[1].last_index == 4
        assert one.groups[2].last_index == 0
        loaded = one.load(1, 0, 0)
        assert loaded.slice(1, 4, 1000) == (entries(3, b"a", b"bb") + entries(4, b"C", b"D"), 4)
        assert one.load(2, 0, 0).last_index == 0
        assert one.log_bytes(1) == 5 * 13 + 5
        assert one.log_bytes(3) == 0


def test_load_leaves_what_is_applied_on_disk(new_log: NewLog) -> None:
    files, log = new_log(log_options())
    carry_out(log, log.append([entries_item(1, 1, entries(2, b"a", b"b") + entries(5, b"c"))]))
    loaded = reopened(files).load(1, 2, 2)
    assert (loaded.base_index, loaded.base_term, loaded.last_index) == (2, 2, 3)
    assert reopened(files).read(1, 1, 2, 1000) == (entries(2, b"a", b"b"), 2)
    assert reopened(files).load(1, 3, 5).last_term == 5


@pytest.mark.parametrize(("applied", "term"), [(4, 5), (3, 4), (1, 1), (0, 1)])
def test_applied_state_that_contradicts_the_log(new_log: NewLog, applied: int, term: int) -> None:
    _, log = new_log(log_options())
    carry_out(log, log.append([entries_item(1, 1, entries(2, b"a", b"b") + entries(5, b"c"))]))
    with pytest.raises(LogCorrupt, match="applied"):
        log.load(1, applied, term)


def test_applied_below_the_base_or_a_commit_beyond_the_end(new_log: NewLog) -> None:
    _, log = new_log(log_options())
    carry_out(log, log.append([group_state_item(group_state(1, base_index=10, base_term=4))]))
    with pytest.raises(LogCorrupt, match="applied index 9"):
        log.load(1, 9, 4)
    assert log.load(1, 10, 4).last_term == 4
    carry_out(log, log.append([hard_state_item(2, HardState(1, 1, 1))]))
    with pytest.raises(LogCorrupt, match="committed"):
        log.load(2, 0, 0)


def test_a_group_state_replaces_everything_of_its_group(new_log: NewLog) -> None:
    files, log = new_log(log_options())
    carry_out(
        log,
        log.append(
            [entries_item(1, 1, entries(2, b"a", b"b")), entries_item(2, 1, entries(1, b"other"))]
        ),
    )
    carry_out(
        log,
        log.append(
            [
                group_state_item(group_state(1, base_index=7, base_term=3)),
                entries_item(1, 8, entries(3, b"h")),
            ]
        ),
    )
    for one in (log, reopened(files)):
        assert one.groups[1].last_index == 8
        assert one.read(1, 8, 8, 0) == (entries(3, b"h"), 8)
        with pytest.raises(LogCompacted, match="entry 7"):
            one.read(1, 7, 8, 1000)
        assert one.read(2, 1, 1, 0) == (entries(1, b"other"), 1)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [entries_item(1, 2, entries(1, b"gap"))],
        [entries_item(1, 0, entries(1, b"below"))],
        [entries_item(1, 1, b"")],
        [entries_item(1, 1, entries(1, b"cut")[:-1])],
        [entries_item(3, 1, entries(1, b"stranger"))],
        [hard_state_item(3, HardState())],
        [(1, 99, 0, b"")],
        [(1, codec.GROUP_STATE, 0, b"{}")],
        [(2, codec.GROUP_STATE, 0, group_state_item(group_state(1))[3])],
        [(1, codec.HARD_STATE, 0, b"short")],
    ],
)
def test_items_that_contradict_the_log_are_refused(new_log: NewLog, items: list) -> None:
    _, log = new_log(log_options())
    with pytest.raises(InvariantViolation):
        log.append(items)


def test_durable_positions_only_rise(new_log: NewLog) -> None:
    _, log = new_log(log_options())
    log.append([node_item(b"x")])
    log.durable(2)
    with pytest.raises(InvariantViolation, match="durable"):
        log.durable(1)
    with pytest.raises(InvariantViolation, match="durable"):
        log.durable(3)


def test_one_record_may_supersede_its_own_entries(new_log: NewLog) -> None:
    files, log = new_log(log_options())
    carry_out(
        log,
        log.append(
            [
                entries_item(1, 1, entries(1, b"a", b"b", b"c")),
                entries_item(1, 1, entries(2, b"A", b"B", b"C")),
                entries_item(1, 3, entries(3, b"d", b"e")),
            ]
        ),
    )
    for one in (log, reopened(files)):
        assert one.read(1, 1, 4, 1000) == (entries(2, b"A", b"B") + entries(3, b"d", b"e"), 4)


@pytest.mark.parametrize("seed", range(6))
def test_reading_back_is_what_memory_would_give(new_log: NewLog, seed: int) -> None:
    rng = random.Random(seed)
    files, log = new_log(log_options(segment_size_bytes=300_000))
    memory = {1: entry_log.EntryLog(), 2: entry_log.EntryLog()}
    term = 1
    for _ in range(250):
        items = []
        for gid, mine in memory.items():
            if rng.random() < 0.3:
                continue
            first = mine.last_index + 1
            if rng.random() < 0.1:
                term += 1
                first = rng.randint(1, first)
                if first <= mine.last_index:
                    mine.truncate(first)
            sizes = [rng.choice((0, 20, 3000)) for _ in range(rng.randint(1, 4))]
            if rng.random() < 0.02:
                sizes.append(200_000)
            blob = entries(term, *(rng.randbytes(size) for size in sizes))
            mine.extend(first, blob)
            items.append(entries_item(gid, first, blob))
        if items:
            carry_out(log, log.append(items))
        if rng.random() < 0.02:
            for preparation in log.preparations():
                preparation.run(files)
                log.prepared(preparation)
    assert log.segments > 4
    assert log.segments_awaited > 0
    for one in (log, reopened(files)):
        for gid, mine in memory.items():
            loaded = one.load(gid, 0, 0)
            assert loaded.last_index == mine.last_index
            for _ in range(60):
                first = rng.randint(1, mine.last_index)
                last = rng.randint(first, mine.last_index)
                limit = rng.choice((0, 100, 5000, 250_000, 10**9))
                expected = mine.slice(first, last, limit)
                assert one.read(gid, first, last, limit) == expected
                assert loaded.slice(first, last, limit) == expected


def test_the_index_has_rows_by_size_not_by_entry(new_log: NewLog) -> None:
    files, log = new_log(log_options(segment_size_bytes=8 * 1024 * 1024))
    for number in range(2000):
        carry_out(log, log.append([entries_item(1, number + 1, entries(1, b"x" * 300))]))
    size = log.log_bytes(1)
    assert size == 2000 * 313
    assert log.groups[1].rows <= size // ROW_ENTRIES_BYTES + 2
    assert reopened(files).groups[1].rows == log.groups[1].rows


def test_a_quiet_group_in_a_busy_log_is_found_without_reading_all_of_it(new_log: NewLog) -> None:
    _, log = new_log(log_options(segment_size_bytes=64 * 1024 * 1024))
    for number in range(40):
        carry_out(
            log,
            log.append(
                [
                    entries_item(1, number + 1, entries(1, b"quiet")),
                    entries_item(2, number + 1, entries(1, b"x" * 200_000)),
                ]
            ),
        )
    assert 5 < log.groups[1].rows < 12
    assert log.read(1, 39, 40, 1000) == (entries(1, b"quiet", b"quiet"), 40)


def test_a_damaged_record_is_noticed_when_it_is_read(new_log: NewLog) -> None:
    _, log = new_log(log_options())
    request = log.append([entries_item(1, 1, entries(1, b"a"))])
    carry_out(log, request)
    request.file.pwrite(b"?", request.offset + len(request.data) - 9)
    with pytest.raises(LogCorrupt, match="group 1"):
        log.read(1, 1, 1, 0)


def test_segments_are_prepared_one_ahead(new_log: NewLog) -> None:
    files, log = new_log(log_options(segment_size_bytes=HEADER_BYTES + 1000))
    (preparation,) = log.preparations()
    assert log.preparations() == []
    log.prepare_failed(preparation, OSError("disk"))
    assert log.preparations() == []
    log.retry_preparation()
    (preparation,) = log.preparations()
    preparation.run(files)
    log.prepared(preparation)
    assert log.preparations() == []
    assert (log.segments, log.size_bytes) == (2, 2 * (HEADER_BYTES + 1000))
    for number in itertools.count(1):
        request = log.append([entries_item(1, number, entries(1, b"x" * 200))])
        carry_out(log, request)
        if request.file.name == preparation.name:
            break
    assert log.segments_awaited == 0
    assert len(log.preparations()) == 1
    assert reopened(files).groups[1].last_index == number


def test_a_prepared_segment_survives_a_restart(new_log: NewLog) -> None:
    files, log = new_log(log_options(segment_size_bytes=HEADER_BYTES + 1000))
    (preparation,) = log.preparations()
    preparation.run(files)
    again = reopened(files)
    assert again.segments == 2
    assert again.preparations() == []


def test_a_preparation_that_comes_too_late_is_dropped(new_log: NewLog) -> None:
    files, log = new_log(log_options(segment_size_bytes=HEADER_BYTES + 1000))
    (late,) = log.preparations()
    number = 0
    while log.segments == 1:
        number += 1
        carry_out(log, log.append([entries_item(1, number, entries(1, b"x" * 200))]))
    assert log.segments_awaited == 1
    late.run(files)
    log.prepared(late)
    assert log.segments == 2
    carry_out(log, log.append([entries_item(1, number + 1, entries(1, b"on"))]))
    again = reopened(files)
    assert again.groups[1].last_index == number + 1
    assert len([name for name in files.names() if name.endswith(".log")]) == 2
    assert not [name for name in files.names() if name.endswith(".tmp")]


def test_a_preparation_that_wins_while_the_log_makes_its_own(new_log: NewLog) -> None:
    files, log = new_log(log_options(segment_size_bytes=HEADER_BYTES + 1000))
    (early,) = log.preparations()
    early.run(files)
    number = 0
    while log.segments == 1:
        number += 1
        carry_out(log, log.append([entries_item(1, number, entries(1, b"x" * 200))]))
    log.prepared(early)
    carry_out(log, log.append([entries_item(1, number + 1, entries(1, b"on"))]))
    assert log.segments == 2
    assert reopened(files).groups[1].last_index == number + 1


@pytest.mark.parametrize("spare", [True, False])
def test_a_record_larger_than_a_segment_gets_its_own(new_log: NewLog, spare: bool) -> None:
    files, log = new_log(log_options(segment_size_bytes=HEADER_BYTES + 1000))
    if spare:
        (preparation,) = log.preparations()
        preparation.run(files)
        log.prepared(preparation)
    large = entries(1, b"x" * 300_000)
    carry_out(log, log.append([entries_item(1, 1, large)]))
    carry_out(log, log.append([entries_item(1, 2, entries(1, b"small"))]))
    for one in (log, reopened(files)):
        assert one.read(1, 1, 2, 10**6) == (large + entries(1, b"small"), 2)
    assert log.segments_awaited == 2


def test_disk_space_mark(new_log: NewLog) -> None:
    _, log = new_log(log_options())
    assert log.refuses(log.options.free_disk_bytes) is None
    assert isinstance(log.refuses(log.options.free_disk_bytes - 1), DiskFull)


def test_on_a_real_disk(tmp_path: Path) -> None:
    files = DiskFiles(str(tmp_path))
    options = log_options(segment_size_bytes=HEADER_BYTES + 2000)
    format_log(files, options, [group_state(1)])
    log = WriteAheadLog.open(files, options)
    for number in range(1, 101):
        carry_out(log, log.append([entries_item(1, number, entries(1, b"%d" % number * 30))]))
        for preparation in log.preparations():
            preparation.run(files)
            log.prepared(preparation)
    log.close()
    assert log.segments_awaited == 0
    again = WriteAheadLog.open(files, options)
    assert again.position == 101
    assert again.load(1, 0, 0).payload(100) == b"100" * 30
    assert again.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    again.close()
    files.close()
