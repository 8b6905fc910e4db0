"""A small log with everything in it, cut at every byte, with every bit flipped.

Several groups, entries that replace others, a snapshot's GROUP_STATE, a quiet
group that was moved, compaction, a removed replica, several segments, a
recycled one among them. Whatever is damaged, what comes back is the whole log,
or (only where the last record is hit) the log before that record, or an error.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import LogCorrupt, StorageError
from eraft.storage.items import (
    Item,
    entries_item,
    group_state_item,
    hard_state_item,
    node_item,
    tombstone_item,
)
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES, HEADER_USED_BYTES
from eraft.storage.wal import WriteAheadLog, WriteRequest, format_log
from eraft.types import ConfState, GroupState, HardState
from tests.storage.conftest import group_state, log_options
from tests.storage.test_recovery import Image, files_of, image_of

SEGMENT = HEADER_BYTES + 2100
OPTIONS = {"segment_size_bytes": SEGMENT, "retention_bytes": 2 * SEGMENT}


def entry(number: int) -> bytes:
    return entry_log.encode_entry(1 + number // 8, 0, b"%d" % number * 40)


def scripted() -> Iterator[tuple[list[Item], list[tuple[int, int, int]]]]:
    """Records, and what is released once each is durable."""
    yield [hard_state_item(1, HardState(2, 1, 0)), entries_item(2, 1, entry(1) + entry(2))], []
    yield [group_state_item(group_state(3)), entries_item(3, 1, entry(1))], []
    yield [hard_state_item(2, HardState(3, 2, 1)), node_item(b"node")], []
    yield [tombstone_item(3, 1), entries_item(1, 1, entry(1))], [(1, 1, 1), (2, 1, 1)]
    for number in range(2, 30):
        items = [entries_item(1, number, entry(number))]
        if number % 7 == 0:
            # What was not committed is replaced.
            items.append(entries_item(1, number, entry(number + 1)))
        yield items, [(1, 1, number - 1), (2, 1, 1)]
    snapshot = GroupState(1, 1, 2, ConfState((1, 2, 3)), (), HardState(9, 1, 50), 50, 9)
    yield [group_state_item(snapshot), entries_item(2, 3, entry(3))], []
    for number in range(51, 75):
        yield [entries_item(1, number, entry(number + 30))], [(1, 2, number - 1), (2, 1, 1)]


def state_of(log: WriteAheadLog) -> Any:
    """All that a log says."""
    groups = {}
    for gid, group in sorted(log.groups.items()):
        blob = b""
        if group.last_index > group.base_index:
            blob, last = log.read(gid, group.base_index + 1, group.last_index, 1 << 30)
            assert last == group.last_index
        groups[gid] = (group.current_state(), group.last_index, blob)
    return log.position, groups, dict(log.tombstones), log.node


def recovered(image: Image) -> Any:
    """What comes back of an image, None if it is refused."""
    try:
        return state_of(WriteAheadLog.open(files_of(image), log_options(seed=77, **OPTIONS)))
    except LogCorrupt:
        return None


class Built:
    """The log after each of its records."""

    def __init__(self) -> None:
        self.files = MemoryFiles()
        options = log_options(**OPTIONS)
        format_log(self.files, options, [group_state(1), group_state(2)])
        self.log = WriteAheadLog.open(self.files, options)
        self.states = {1: state_of(self.log)}
        self.requests: list[WriteRequest] = []
        self.before: list[Image] = []
        self.recycled = 0
        for items, released in scripted():
            request = self.log.append(items)
            self.before.append(image_of(self.files))
            request.file.pwrite(request.data, request.offset)
            request.file.sync()
            self.log.durable(request.position)
            self.states[request.position] = state_of(self.log)
            self.requests.append(request)
            self.log.release(released)
            for preparation in self.log.preparations():
                self.recycled += bool(preparation.recycled)
                preparation.run(self.files)
                self.log.prepared(preparation)
        self.image = image_of(self.files)


@pytest.fixture(scope="module")
def built() -> Built:
    return Built()


def test_the_log_has_everything_in_it(built: Built) -> None:
    log = built.log
    assert log._oldest_sequence > 1
    assert len(log._segments) >= 2
    assert log.tombstones == {3: 1}
    assert log.groups[1].state.generation == 2
    assert log.groups[1].base_index > 50
    assert log.groups[2].base_index == 1
    assert built.recycled
    assert recovered(built.image) == built.states[log.position]


def test_every_bit_flipped(built: Built) -> None:
    final = built.requests[-1]
    whole, before = built.states[final.position], built.states[final.position - 1]
    outcomes = {"refused": 0, "torn": 0, "harmless": 0}
    for segment in built.log._segments.values():
        name, data = segment.file.name, built.image[segment.file.name]
        for place in [*range(HEADER_USED_BYTES), *range(HEADER_BYTES, segment.end)]:
            in_final = name == final.file.name and place >= final.offset
            for bit in range(8):
                flipped = bytearray(data)
                flipped[place] ^= 1 << bit
                found = recovered(built.image | {name: bytes(flipped)})
                if found is None:
                    outcomes["refused"] += 1
                elif found == whole:
                    outcomes["harmless"] += 1
                else:
                    assert (found, in_final) == (before, True), (name, place, bit)
                    outcomes["torn"] += 1
    assert outcomes["refused"] > 5000
    assert outcomes["torn"] > 300
    assert outcomes["harmless"] < outcomes["refused"] / 20  # padding


def test_zeros_from_any_byte_on(built: Built) -> None:
    """As if the disk had lost the end of a segment.

    What follows in another segment proves that there was more. Of the newest
    segment's end nothing tells: the log is what it was before that. Nothing is
    missing where only padding is hit, and what an earlier use of the file left.
    """
    newest = built.requests[-1].file.name
    for segment in built.log._segments.values():
        name = segment.file.name
        data = built.image[name][: segment.end].ljust(SEGMENT, b"\xa5")
        records = [request for request in built.requests if request.file.name == name]
        for end in [*range(HEADER_USED_BYTES), *range(HEADER_BYTES, segment.end)]:
            cut = data[:end] + bytes(len(data) - end)
            expected = None
            if cut[: segment.end] == data[: segment.end]:
                expected = built.states[built.log.position]
            elif name == newest and end >= HEADER_BYTES:
                hit = next(it for it in records if end < it.offset + len(it.data))
                there = cut[: hit.offset + len(hit.data)] == data[: hit.offset + len(hit.data)]
                expected = built.states[hit.position - (not there)]
            assert recovered(built.image | {name: cut}) == expected, (name, end)


def test_a_file_cut_at_any_byte_is_refused(built: Built) -> None:
    for segment in built.log._segments.values():
        name, data = segment.file.name, built.image[segment.file.name]
        for end in [*range(HEADER_USED_BYTES + 2), *range(HEADER_BYTES - 2, len(data))]:
            assert recovered(built.image | {name: data[:end]}) is None


def test_every_record_torn_at_any_byte(built: Built) -> None:
    """A crash while a record was written: the log is what it was before it, or with it."""
    for request, image in zip(built.requests, built.before, strict=True):
        name = request.file.name
        data = image[name]
        after = request.offset + len(request.data)
        for length in range(len(request.data) + 1):
            written = request.data[:length] + data[request.offset + length : after]
            torn = data[: request.offset] + written + data[after:]
            found = recovered(image | {name: torn})
            if written == request.data:
                assert found == built.states[request.position]
            elif length < codec.RECORD_HEADER_BYTES:
                assert found == built.states[request.position - 1]
            else:  # of the last bytes some are only padding
                assert found in (built.states[request.position - 1], built.states[request.position])


def test_other_stores_and_versions_are_refused(built: Built) -> None:
    files = MemoryFiles()
    for name, data in built.image.items():
        files.create(name).pwrite(data, 0)
    options = log_options(**OPTIONS)
    other = type(options)("f" * 32, random_u64=options.random_u64)
    with pytest.raises(StorageError, match="belongs to store 0123"):
        WriteAheadLog.open(files, other)
