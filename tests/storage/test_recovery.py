"""What recovery makes of torn, flipped, missing and forged bytes."""

import random
from collections.abc import Callable

import pytest

from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import LogCorrupt, StorageError
from eraft.storage.items import entries_item, group_state_item, hard_state_item
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import (
    HEADER_BYTES,
    HEADER_USED_BYTES,
    SegmentHeader,
    encode_header,
    segment_name,
)
from eraft.storage.wal import LogOptions, WriteAheadLog, WriteRequest, format_log
from eraft.types import HardState
from tests.storage.conftest import STORE_ID, carry_out, group_state, log_options

NewLog = Callable[..., tuple[MemoryFiles, WriteAheadLog]]
Image = dict[str, bytes]
SMALL = HEADER_BYTES + 1100


def image_of(files: MemoryFiles) -> Image:
    return {name: files.open(name).pread(1 << 30, 0) for name in files.names()}


def files_of(image: Image) -> MemoryFiles:
    files = MemoryFiles()
    for name, data in image.items():
        file = files.create("new")
        file.pwrite(data, 0)
        file.sync()
        files.publish("new", name)
    return files


def opened(image: Image) -> WriteAheadLog:
    return WriteAheadLog.open(files_of(image), log_options(SMALL, seed=77))


def entry(number: int) -> bytes:
    return entry_log.encode_entry(1, 0, b"%d" % number * 12)


def small_log(new_log: NewLog, records: int = 12) -> tuple[Image, list[WriteRequest]]:
    """A log over several segments, every record durable before the next one is written."""
    files, log = new_log(log_options(SMALL))
    requests = []
    for number in range(1, records + 1):
        requests.append(
            log.append(
                [
                    hard_state_item(1, HardState(1, 1, number - 1)),
                    entries_item(1, number, entry(number)),
                ]
            )
        )
        carry_out(log, requests[-1])
    assert log.segments == 3
    return image_of(files), requests


def expect_all_but_at_most_the_last(image: Image, records: int) -> int:
    """Recover; return how many entries came back, all or all but the last, -1 if corrupt."""
    try:
        log = opened(image)
    except LogCorrupt:
        return -1
    last = log.groups[1].last_index
    assert last in (records - 1, records)
    assert log.position == last + 1
    blob, end = log.read(1, 1, last, 1 << 30)
    assert (blob, end) == (b"".join(entry(number) for number in range(1, last + 1)), last)
    return last


def changed(image: Image, name: str, data: bytes) -> Image:
    return image | {name: data}


def test_one_flipped_bit_at_every_byte(new_log: NewLog) -> None:
    image, requests = small_log(new_log)
    final = requests[-1]
    outcomes = {"corrupt": 0, "torn": 0, "harmless": 0}
    for name, data in image.items():
        used = len(data.rstrip(b"\0"))
        for place in [*range(HEADER_USED_BYTES), *range(HEADER_BYTES, used)]:
            inside = final.offset <= place < final.offset + len(final.data)
            in_final = name == final.file.name and inside
            # Of the file's header all bits; a checksum covers the rest.
            for bit in range(8) if place < HEADER_USED_BYTES else (place % 8,):
                flipped = bytearray(data)
                flipped[place] ^= 1 << bit
                last = expect_all_but_at_most_the_last(changed(image, name, bytes(flipped)), 12)
                if last == 11:
                    assert in_final, (name, place, bit)
                    outcomes["torn"] += 1
                elif last == 12:
                    outcomes["harmless"] += 1
                else:
                    outcomes["corrupt"] += 1
    assert outcomes["corrupt"] > 500
    assert outcomes["torn"] > 60
    # Only the padding between records carries no information.
    assert outcomes["harmless"] < outcomes["corrupt"] / 20


def test_a_log_cut_at_any_byte_is_corrupt(new_log: NewLog) -> None:
    """Segments have their full length before they are used: a crash cannot shorten them."""
    image, _ = small_log(new_log)
    for name, data in image.items():
        for end in [*range(HEADER_USED_BYTES + 2), *range(HEADER_BYTES - 2, len(data))]:
            with pytest.raises(LogCorrupt):
                opened(changed(image, name, data[:end]))


def test_the_last_record_torn_at_any_byte_is_dropped(new_log: NewLog) -> None:
    image, requests = small_log(new_log)
    final = requests[-1]
    data = image[final.file.name]
    for length in range(len(final.data)):
        end = final.offset + length
        torn = data[:end] + bytes(len(data) - end)
        last = expect_all_but_at_most_the_last(changed(image, final.file.name, torn), 12)
        assert last == (12 if torn == data else 11)


def test_the_header_of_a_torn_record_proves_the_one_before_it(new_log: NewLog) -> None:
    image, requests = small_log(new_log)
    before, final = requests[-2:]
    assert before.file.name == final.file.name
    data = bytearray(image[final.file.name])
    data[final.offset + codec.RECORD_HEADER_BYTES + 20] ^= 1
    data[before.offset + codec.RECORD_HEADER_BYTES + 20] ^= 1
    with pytest.raises(LogCorrupt, match=r"no record 12 .* found record 13 .* up to 12 had been"):
        opened(changed(image, final.file.name, bytes(data)))


def test_zeros_in_place_of_any_earlier_part_are_corruption(new_log: NewLog) -> None:
    image, requests = small_log(new_log)
    for request in requests[:-1]:
        data = image[request.file.name]
        for start, size in ((0, len(request.data)), (0, 48), (48, 1), (60, 30)):
            hole = bytearray(data)
            begin = request.offset + start
            if not any(hole[begin : begin + size]):
                continue
            hole[begin : begin + size] = bytes(size)
            with pytest.raises(LogCorrupt, match=f"no record {request.position} "):
                opened(changed(image, request.file.name, bytes(hole)))


def test_a_missing_segment_is_corruption(new_log: NewLog) -> None:
    image, _ = small_log(new_log)
    for name in list(image)[:-1]:
        missing = {other: data for other, data in image.items() if other != name}
        with pytest.raises(LogCorrupt, match=r"is missing|says that records"):
            opened(missing)
    with pytest.raises(LogCorrupt, match="no segments"):
        opened({})


def test_a_missing_segment_before_an_unused_one_is_corruption(new_log: NewLog) -> None:
    """No record is left that could tell of it; the gap in the sequence does."""
    files, log = new_log(log_options(SMALL))
    for number in range(1, 9):
        carry_out(log, log.append([entries_item(1, number, entry(number))]))
    assert log.segments == 2
    for preparation in log.preparations():
        preparation.run(files)
    image = image_of(files)
    assert list(image) == [segment_name(sequence) for sequence in (1, 2, 3)]
    del image[segment_name(2)]
    with pytest.raises(LogCorrupt, match=f"{segment_name(2)} is missing"):
        opened(image)


def test_what_an_interrupted_preparation_left_is_removed(new_log: NewLog) -> None:
    image, _ = small_log(new_log)
    files = files_of(image | {segment_name(4) + ".1.tmp": b"half a header", "stranger": b"x"})
    assert WriteAheadLog.open(files, log_options(SMALL)).groups[1].last_index == 12
    assert files.names() == [*image, "stranger"]


def test_segments_that_changed_places_are_corruption(new_log: NewLog) -> None:
    image, _ = small_log(new_log)
    first, second, *_ = image
    swapped = image | {first: image[second], second: image[first]}
    with pytest.raises(LogCorrupt, match="says that it is segment"):
        opened(swapped)


def test_corruption_is_left_as_it_is(new_log: NewLog) -> None:
    image, requests = small_log(new_log)
    data = bytearray(image[requests[3].file.name])
    data[requests[3].offset + 50] ^= 1
    damaged = changed(image, requests[3].file.name, bytes(data))
    files = files_of(damaged)
    for _ in range(2):
        with pytest.raises(LogCorrupt, match=requests[3].file.name):
            WriteAheadLog.open(files, log_options())
        assert image_of(files) == damaged


def header(**fields: object) -> bytes:
    """The header of segment 1, with some fields in place of others."""
    values: dict = {
        "store_id": STORE_ID,
        "sequence": 1,
        "salt": 5,
        "size_bytes": SMALL,
        "oldest_sequence": 1,
        "oldest_position": 1,
    } | fields
    return encode_header(SegmentHeader(**values))


def test_a_log_of_another_store_or_a_newer_format_is_refused(new_log: NewLog) -> None:
    image, _ = small_log(new_log)
    name = segment_name(1)
    other = header(store_id="f" * 32) + image[name][HEADER_BYTES:]
    with pytest.raises(StorageError, match="belongs to store ffff") as raised:
        opened(changed(image, name, other))
    assert not isinstance(raised.value, LogCorrupt)


def unfinished_log(
    new_log: NewLog, segment_size_bytes: int = SMALL
) -> tuple[MemoryFiles, WriteAheadLog, list[WriteRequest]]:
    """A log with three records at the writer at once, none of them reported durable."""
    files, log = new_log(log_options(segment_size_bytes))
    requests = [log.append([entries_item(1, number, entry(number))]) for number in (1, 2, 3)]
    return files, log, requests


def test_valid_records_after_a_torn_one_do_not_count(new_log: NewLog) -> None:
    """None of the three was known durable, so nobody was told of them: no corruption."""
    files, _, requests = unfinished_log(new_log)
    for request in (requests[0], requests[2]):
        request.file.pwrite(request.data, request.offset)
    log = WriteAheadLog.open(files, log_options(SMALL, seed=5))
    assert log.groups[1].last_index == 1
    rest = requests[1].file.pread(SMALL, log.append([hard_state_item(1, HardState(2))]).offset)
    assert not any(rest)


def test_a_dropped_record_does_not_come_back(new_log: NewLog) -> None:
    """The new record 3 ends where the dropped record 4 began: only zeros keep that one out."""
    files, _, requests = unfinished_log(new_log)
    for request in (requests[0], requests[2]):
        request.file.pwrite(request.data, request.offset)
        request.file.sync()
    log = WriteAheadLog.open(files, log_options(SMALL, seed=5))
    replacement = log.append([entries_item(1, 2, entry(7))])
    assert (replacement.offset, len(replacement.data)) == (
        requests[1].offset,
        len(requests[1].data),
    )
    carry_out(log, replacement)
    again = WriteAheadLog.open(files, log_options(SMALL, seed=6))
    assert again.groups[1].last_index == 2


def test_a_torn_tail_that_reaches_into_the_next_segment(new_log: NewLog) -> None:
    files, log = new_log(log_options(SMALL))
    requests: list[WriteRequest] = []
    while len({request.file.name for request in requests}) < 2:
        number = len(requests) + 1
        requests.append(log.append([entries_item(1, number, entry(number))]))
    for request in requests[:-2]:
        carry_out(log, request)
    requests[-1].file.pwrite(requests[-1].data, requests[-1].offset)
    again = WriteAheadLog.open(files, log_options(SMALL, seed=5))
    last = again.groups[1].last_index
    assert last == len(requests) - 2
    assert again.segments == 2
    for number in range(last + 1, last + 5):
        carry_out(again, again.append([entries_item(1, number, entry(number))]))
    final = WriteAheadLog.open(files, log_options(SMALL, seed=6))
    blob = b"".join(entry(number) for number in range(1, last + 5))
    assert final.read(1, 1, last + 4, 1 << 30) == (blob, last + 4)


def test_what_recovery_believes_survives_a_power_cut_right_after(new_log: NewLog) -> None:
    """Records found in the page cache only are made durable before anything builds on them."""
    for seed in range(40):
        files, _, requests = unfinished_log(new_log)
        for request in requests:
            request.file.pwrite(request.data, request.offset)
        log = WriteAheadLog.open(files, log_options(SMALL, seed=5))
        assert log.groups[1].last_index == 3
        files.crash(random.Random(seed))
        assert WriteAheadLog.open(files, log_options(SMALL, seed=6)).groups[1].last_index == 3


def test_unproven_records_are_written_again(new_log: NewLog) -> None:
    """After a failed sync a sync alone would do nothing: see `_Reader.mend`."""
    files, _, requests = unfinished_log(new_log, 4 * SMALL)
    written: list[tuple[int, bytes]] = []
    for request in requests:
        request.file.pwrite(request.data, request.offset)
        request.file.sync()
    content = files._contents[requests[0].file.name]
    original = content.write
    content.write = lambda data, offset: (written.append((offset, data)), original(data, offset))[1]
    WriteAheadLog.open(files, log_options(SMALL, seed=5))
    again = [(request.offset, request.data) for request in requests]
    assert [one for one in written if one in again] == again


def test_a_record_inside_a_value_is_not_believed(new_log: NewLog) -> None:
    """Not even with everything right but the salt, at a place where a record is looked for."""
    files, log = new_log(log_options(SMALL * 4))
    forged = codec.encode_record(
        0xDEADBEEF, 1, 3, 3, [entries_item(1, 1, entry_log.encode_entry(9, 0, b"forged"))]
    )
    value = b"".join(forged for _ in range(20))
    for shift in range(8):
        blob = entry_log.encode_entry(1, 0, bytes(shift) + value)
        request = log.append([entries_item(1, 1, blob)])
        request.file.pwrite(request.data, request.offset)
        # The record around the value is torn: its header never reached the disk.
        request.file.pwrite(bytes(48), request.offset)
        again = WriteAheadLog.open(files_of(image_of(files)), log_options(SMALL, seed=5))
        assert again.groups[1].last_index == 0
        files, log = new_log(log_options(SMALL * 4, seed=shift))


def test_with_the_salt_it_would_be_believed(new_log: NewLog) -> None:
    """The test above can fail: the same bytes under the right salt do count."""
    options = log_options(SMALL * 4)
    files, log = new_log(options)
    salt = LogOptions(STORE_ID, random_u64=log_options().random_u64).random_u64() | 1
    request = log.append([entries_item(1, 1, entry(1))])
    genuine = codec.encode_record(salt, 1, 2, 1, [entries_item(1, 1, entry(1))])
    assert genuine == request.data
    request.file.pwrite(genuine, request.offset + 1000)
    again = WriteAheadLog.open(files, options)
    assert again.groups[1].last_index == 1


def test_records_of_an_earlier_use_of_the_file_do_not_count(new_log: NewLog) -> None:
    """A recycled segment gets a new salt and sequence; what it held is not valid any more."""
    image, requests = small_log(new_log)
    name = requests[0].file.name
    # As if segment 1 were recycled while it holds records: a new header, the old bytes.
    recycled = {name: header(salt=12345) + image[name][HEADER_BYTES:]}
    log = opened(recycled)
    assert log.position == 0
    assert dict(log.groups) == {}
    assert not any(files_of(recycled).open(name).pread(0, HEADER_BYTES))


def test_segments_before_the_oldest_needed_are_removed(new_log: NewLog) -> None:
    files, _ = new_log(log_options(SMALL))
    data = {segment_name(1): image_of(files)[segment_name(1)]}
    # Segment 2 was prepared when 2 was already the oldest, its first record being number 40.
    salt = 4711
    record = codec.encode_record(
        salt, 2, 40, 39, [group_state_item(group_state(1, base_index=100, base_term=3))]
    )
    body = header(sequence=2, salt=salt, oldest_sequence=2, oldest_position=40) + record
    data[segment_name(2)] = body.ljust(SMALL, b"\0")
    for image in (data, {segment_name(2): data[segment_name(2)]}):
        files = files_of(image)
        again = WriteAheadLog.open(files, log_options(SMALL))
        assert again.position == 40
        assert files.names() == [segment_name(2)]


@pytest.mark.parametrize("seed", range(150))
def test_random_lives_with_power_cuts(seed: int) -> None:
    """After every crash the log is what it was at some record not before the last reported one."""
    rng = random.Random(seed)
    options = LogOptions(
        STORE_ID, HEADER_BYTES + rng.randint(500, 3000), random_u64=lambda: rng.getrandbits(64)
    )
    files = MemoryFiles()
    format_log(files, options, [group_state(1), group_state(2)])
    state: dict[int, tuple[HardState, list[bytes]]] = {1: (HardState(), []), 2: (HardState(), [])}
    history = {1: state}
    for _ in range(6):
        log = WriteAheadLog.open(files, options)
        for _ in range(rng.randint(1, 25)):
            state, request = random_record(rng, log, history[log.position])
            history[log.position] = state
            queue = [request]
            if rng.random() < 0.2:
                state, request = random_record(rng, log, state)
                history[log.position] = state
                queue.append(request)
            stop = rng.random() < 0.1
            for request in queue:
                request.file.pwrite(request.data, request.offset)
                if stop and rng.random() < 0.5:
                    continue
                request.file.sync()
                if not stop:
                    log.durable(request.position)
            if stop:
                break
            if rng.random() < 0.6:
                for preparation in log.preparations():
                    preparation.run(files)
                    log.prepared(preparation)
        reported = log.durable_position
        files.crash(rng)
        again = WriteAheadLog.open(files, options)
        assert reported <= again.position <= log.position
        check(again, history[again.position])
        history = {again.position: history[again.position]}


def random_record(
    rng: random.Random, log: WriteAheadLog, state: dict[int, tuple[HardState, list[bytes]]]
) -> tuple[dict[int, tuple[HardState, list[bytes]]], WriteRequest]:
    state = dict(state)
    items = []
    for gid in (1, 2):
        hard_state, blobs = state[gid]
        if rng.random() < 0.4:
            hard_state = HardState(hard_state.term + 1, rng.randint(0, 3), 0)
            items.append(hard_state_item(gid, hard_state))
        if rng.random() < 0.7 or not items:
            keep = len(blobs) if rng.random() < 0.8 else rng.randint(0, len(blobs))
            new = [
                entry_log.encode_entry(hard_state.term + 1, 0, rng.randbytes(rng.randint(0, 99)))
                for _ in range(rng.randint(1, 3))
            ]
            blobs = blobs[:keep] + new
            items.append(entries_item(gid, keep + 1, b"".join(new)))
        state[gid] = hard_state, blobs
    return state, log.append(items)


def check(log: WriteAheadLog, state: dict[int, tuple[HardState, list[bytes]]]) -> None:
    for gid, (hard_state, blobs) in state.items():
        assert log.groups[gid].hard_state == hard_state
        assert log.groups[gid].last_index == len(blobs)
        if blobs:
            assert log.read(gid, 1, len(blobs), 1 << 30) == (b"".join(blobs), len(blobs))
