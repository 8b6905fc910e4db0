"""Files of segments that are free: recycled or removed, whatever fails or ends meanwhile."""

import errno
import logging
import random
from typing import Any

import pytest

from eraft.storage.items import (
    entries_item,
    group_state_item,
    node_item,
)
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import HEADER_BYTES, open_segment, segment_name
from eraft.storage.wal import WriteAheadLog, WriteRequest, format_log
from tests.storage.conftest import STORE_ID, carry_out, group_state, log_options, prepare
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
