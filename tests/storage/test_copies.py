"""Groups that do not go on: what they still need moves to newer segments, within limits."""

from typing import Any

import pytest

from eraft import limits
from eraft.errors import InvariantViolation
from eraft.storage import index, wal
from eraft.storage.items import (
    copy_item,
    entries_item,
    group_state_item,
    hard_state_item,
    node_item,
)
from eraft.storage.reading import read_entries
from eraft.storage.segments import segment_name
from eraft.storage.wal import WriteAheadLog
from eraft.types import HardState
from tests.storage.conftest import carry_out, group_state, log_options, prepare
from tests.storage.small_log import (
    OPTIONS,
    RETAINED,
    SEGMENT,
    NewLog,
    entry,
    fill,
    reopened,
)


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


@pytest.mark.parametrize("released", [0, 30])
def test_of_quiet_groups_few_rows_are_read_for_one_record(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch, released: int
) -> None:
    """Their entries are few, but to find them much of the log has to be read."""
    monkeypatch.setattr(index, "ROW_DISTANCE_BYTES", 1)
    gids = range(2, 22)
    retention = 40 * SEGMENT
    files, log = new_log(log_options(segment_size_bytes=SEGMENT, retention_bytes=retention))
    for gid in gids[1:]:
        carry_out(log, log.append([group_state_item(group_state(gid))]))
    for number in range(1, 31):
        items = [entries_item(gid, number, entry(number, 7)) for gid in gids]
        carry_out(log, log.append(items))
        prepare(log, files)
    for number in range(1, 600):
        carry_out(log, log.append([entries_item(1, number, entry(number))]))
        prepare(log, files)
    log.release([(1, 1, 599), *((gid, 1, released) for gid in gids)])
    reads: list[tuple[int, int]] = []

    def read(segments: Any, group: Any, first: int, last: int, limit: int) -> tuple[bytes, int]:
        reads.extend((group.state.gid, row.first_index) for row in rows(group, first, last))
        return read_entries(segments, group, first, last, limit)

    def rows(group: Any, first: int, last: int) -> list[Any]:
        return sorted({group.find(number) for number in range(first, last + 1)})

    monkeypatch.setattr(wal, "read_entries", read)
    records = 0
    while any((log.groups[gid].first_sequence or 99) <= 20 for gid in gids):
        reads.clear()
        carry_out(log, log.append([node_item(b"idle")]))
        prepare(log, files)
        assert len(reads) <= limits.COMPACTION_SLICE_ROWS
        records += 1
        assert records < 1000


def test_of_many_groups_few_are_looked_at_for_one_record(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMPACTION_SLICE_GROUPS", 20)
    size = 100_000
    files, log = new_log(log_options(segment_size_bytes=size, retention_bytes=2 * size))
    gids = range(3, 303)
    for gid in gids:
        items = [group_state_item(group_state(gid)), entries_item(gid, 1, entry(1, 1400))]
        carry_out(log, log.append(items))
        prepare(log, files)
    looked: list[int] = []
    for name in ("old_rows", "pinned_bytes", "first_sequence"):
        counted = _counted(getattr(index.GroupIndex, name), looked)
        monkeypatch.setattr(index.GroupIndex, name, counted)

    def write(count: int, each: int = 10) -> int:
        """Write records; to how many groups were looked at for one of them at most."""
        most = 0
        for _ in range(count):
            looked.clear()
            carry_out(log, log.append([node_item(bytes(each))]))
            prepare(log, files)
            most = max(most, len(looked))
        return most

    assert write(40, size // 20) <= 3 * 20, "for new segments"
    assert write(40) <= 3 * 20
    assert write(40) == 0, "nothing has changed"
    log.release([(gid, 1, 1) for gid in gids])
    assert 20 <= write(100) <= 3 * 20, "after a flush"
    assert write(40) == 0
    assert all(log.groups[gid].base_index == 1 for gid in gids)
    assert log._oldest_sequence > 4


def _counted(function: Any, calls: list[int]) -> Any:
    """The method or property, so that its calls are noted."""
    inner = function.fget if isinstance(function, property) else function

    def counted(group: index.GroupIndex, *arguments: Any) -> Any:
        calls.append(group.state.gid)
        return inner(group, *arguments)

    return property(counted) if isinstance(function, property) else counted


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
