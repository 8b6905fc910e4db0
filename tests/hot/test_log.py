"""The memory log, against a plain list of entries."""

import random
import sys
from typing import Any

import pytest

from eraft.errors import InvariantViolation, LogCompacted, ProtocolError

Entry = tuple[int, int, bytes]
CHUNK_BYTES = 65536
"""What the compiled log takes its memory in."""


def encoded(entries: list[Entry]) -> bytes:
    """By the format's definition, not by the code under test."""
    return b"".join(
        len(payload).to_bytes(4, "little")
        + kind.to_bytes(1, "little")
        + term.to_bytes(8, "little")
        + payload
        for term, kind, payload in entries
    )


class Model:
    """A log as a list: entry i is at entries[i - base - 1]."""

    def __init__(self, base: int, base_term: int) -> None:
        self.base = base
        self.terms = [base_term]
        self.entries: list[Entry] = []

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    def extend(self, entries: list[Entry]) -> None:
        self.entries += entries
        self.terms += [term for term, _, _ in entries]

    def truncate(self, index: int) -> None:
        del self.entries[index - self.base - 1 :]
        del self.terms[index - self.base :]

    def compact(self, index: int) -> None:
        del self.entries[: index - self.base]
        del self.terms[: index - self.base]
        self.base = index

    def slice(self, first: int, last: int, limit: int) -> tuple[bytes, int]:
        taken = [self.entries[first - self.base - 1]]
        for entry in self.entries[first - self.base : last - self.base]:
            if len(encoded([*taken, entry])) > limit:
                break
            taken.append(entry)
        return encoded(taken), first + len(taken) - 1

    def conflict(self, first: int, entries: list[Entry]) -> int:
        for index, (term, _, _) in enumerate(entries, first):
            if index > self.base and (index > self.last or self.terms[index - self.base] != term):
                return index
        return first + len(entries)

    def before(self, index: int, term: int) -> tuple[int, int]:
        for i in range(min(index, self.last), self.base - 1, -1):
            if self.terms[i - self.base] <= term:
                return i, self.terms[i - self.base]
        return min(index, self.base - 1), 0


def random_entries(
    rng: random.Random, term: int, count: int, sizes: tuple[int, ...]
) -> list[Entry]:
    entries = []
    for _ in range(count):
        term += rng.choice((0, 0, 0, 1, 5))
        entries.append((term, rng.randint(0, 1), rng.randbytes(rng.choice(sizes))))
    return entries


def check(log: Any, model: Model, rng: random.Random) -> None:
    assert (log.base_index, log.base_term) == (model.base, model.terms[0])
    assert (log.last_index, log.last_term) == (model.last, model.terms[-1])
    assert log.first_index == model.base + 1
    assert log.size_bytes == len(encoded(model.entries))
    index = rng.randint(model.base, model.last)
    assert log.term(index) == model.terms[index - model.base]
    term = rng.randint(0, model.terms[-1] + 1)
    index = rng.randint(model.base - 2, model.last + 2)
    assert log.find_conflict_by_term(index, term) == model.before(index, term)
    if model.entries:
        first = rng.randint(model.base + 1, model.last)
        last = rng.randint(first, model.last)
        limit = rng.choice((-1, 0, 13, 60, 1000, 10**6, 10**9, rng.randint(0, 10**5)))
        assert log.slice(first, last, limit) == model.slice(first, last, limit)
        assert log.size_from(first) == len(log.slice(first, log.last_index, 1 << 40)[0])
        _, kind, payload = model.entries[first - model.base - 1]
        assert (log.kind(first), log.payload(first)) == (kind, payload)


def step(log: Any, model: Model, rng: random.Random, sizes: tuple[int, ...]) -> None:
    what = rng.randrange(6)
    if what == 0:
        ((term, kind, payload),) = entries = random_entries(rng, model.terms[-1] or 1, 1, sizes)
        assert log.append(term, kind, payload) == model.last + 1
        model.extend(entries)
    elif what in (1, 2):
        count = rng.randint(0, 8)
        entries = random_entries(rng, model.terms[-1] or 1, count, sizes)
        assert log.extend(model.last + 1, encoded(entries)) == model.last + count
        model.extend(entries)
    elif what == 3:
        first = rng.randint(model.base - 3, model.last + 2)
        entries = model.entries[max(first - model.base - 1, 0) :][: rng.randint(0, 9)]
        for _ in range(model.base + 1 - first):
            entries.insert(0, (1, 0, b"compacted"))
        before = min(max(first + len(entries) - 1, model.base), model.last)
        term = model.terms[before - model.base] + rng.randint(0, 2)
        entries += random_entries(rng, max(term, 1), 3, sizes)
        assert log.conflict(first, encoded(entries)) == model.conflict(first, entries)
    elif what == 4 and model.entries:
        index = rng.randint(max(model.base + 1, model.last - 6), model.last + 1)
        log.truncate(index)
        model.truncate(index)
    elif what == 5:
        index = rng.randint(model.base, min(model.last, model.base + 12))
        log.compact(index)
        model.compact(index)


@pytest.mark.parametrize("seed", range(40))
def test_against_a_list(twin: Any, seed: int) -> None:
    rng = random.Random(seed)
    sizes = rng.choice(((0, 1, 50), (0, 100, 1000, 30_000), (5, CHUNK_BYTES - 13, 200_000)))
    base, base_term = rng.choice(((0, 0), (100, 7), (2**60, 2**40)))
    log, model = twin.log.EntryLog(base, base_term), Model(base, base_term)
    for _ in range(60 if sizes[-1] > 10_000 else 300):
        step(log, model, rng, sizes)
        check(log, model, rng)


def test_encode_entry(twin: Any) -> None:
    assert twin.log.encode_entry(2**64 - 1, 1, b"abc") == encoded([(2**64 - 1, 1, b"abc")])
    assert len(twin.log.encode_entry(1, 0, b"")) == twin.log.ENTRY_HEADER_BYTES
    for term, kind in ((0, 0), (-1, 0), (2**64, 0), (1, 99), (1, -1), (1, 256), (1, 2**70)):
        for make in (twin.log.encode_entry, twin.log.EntryLog().append):
            message = f"no entry can have term {term}, kind {kind} and 3 bytes"
            with pytest.raises(ValueError, match=message):
                make(term, kind, b"abc")


def test_a_log_begins_empty(twin: Any) -> None:
    log = twin.log.EntryLog()
    assert (log.base_index, log.base_term, log.first_index) == (0, 0, 1)
    assert (log.last_index, log.last_term, log.size_bytes) == (0, 0, 0)
    assert log.term(0) == 0
    for base, term in ((-1, 0), (2**62, 0), (0, -1), (0, 2**64)):
        with pytest.raises(ValueError, match="no log can have base"):
            twin.log.EntryLog(base, term)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(twin: Any, kind: Any) -> None:
    log = twin.log.EntryLog()
    blob = encoded([(1, 0, b"b"), (2, 1, b"cc")])
    assert log.append(1, 0, kind(b"a")) == 1
    assert log.extend(2, kind(blob)) == 3
    assert log.conflict(2, kind(blob)) == 4
    assert log.skip(2, kind(blob), 2) == blob
    assert log.skip(2, kind(blob), 3) == encoded([(2, 1, b"cc")])
    assert twin.log.check_entries(kind(blob)) == 2
    assert twin.log.encode_entry(1, 0, kind(b"a")) + blob == log.slice(1, 3, 100)[0]


MALFORMED = {
    "entry at offset 14: 12 bytes of its header": encoded([(1, 0, b"x")]) + bytes(12),
    "entry at offset 0: 1 bytes of its header": b"x",
    "entry at offset 14: unknown kind 99": encoded([(1, 0, b"x"), (1, 99, b"")]),
    "entry at offset 0: unknown kind 255": encoded([(1, 255, b"")]),
    "entry at offset 0: term 0": encoded([(0, 0, b"x")]),
    "entry at offset 14: term 0": encoded([(5, 0, b"x"), (0, 0, b"")]),
    "entry at offset 14: term 4 follows term 5": encoded([(5, 0, b"x"), (4, 0, b"")]),
    "entry at offset 13: payload of 9 bytes, 8 are left": encoded([(1, 0, b""), (1, 0, b"x" * 9)])[
        :-1
    ],
    f"entry at offset 0: payload of {2**32 - 1} bytes, 3 are left": b"\xff" * 4
    + encoded([(1, 0, b"abc")])[4:],
}


@pytest.mark.parametrize(("message", "blob"), MALFORMED.items())
def test_malformed_entries_change_nothing(twin: Any, message: str, blob: bytes) -> None:
    log = twin.log.EntryLog()
    log.append(1, 0, b"before")
    for call in (
        lambda: twin.log.check_entries(blob),
        lambda: log.extend(2, blob),
        lambda: log.conflict(2, blob),
        lambda: log.skip(2, blob, 3),
    ):
        with pytest.raises(ProtocolError, match=f"^{message}$"):
            call()
        assert (log.last_index, log.size_bytes, log.payload(1)) == (1, 19, b"before")


def test_terms_never_fall(twin: Any) -> None:
    log = twin.log.EntryLog(10, 5)
    with pytest.raises(InvariantViolation, match="term 4 after 5"):
        log.append(4, 0, b"")
    older = encoded([(4, 0, b"")])
    with pytest.raises(ProtocolError, match="entry 11: term 4 follows term 5"):
        log.extend(11, older)
    with pytest.raises(ProtocolError, match="entry 11: term 4 follows term 5"):
        log.conflict(11, older)
    with pytest.raises(ProtocolError, match="entry 11: term 4 follows term 5"):
        log.conflict(10, older + older)
    assert log.last_index == 10
    assert log.append(5, 0, b"") == 11


def test_entries_are_consecutive(twin: Any) -> None:
    log = twin.log.EntryLog(10, 5)
    for first in (10, 12, -1, 2**70):
        with pytest.raises(InvariantViolation, match=f"{first} after 10"):
            log.extend(first, encoded([(5, 0, b"")]))
    assert log.last_index == 10


def test_what_is_not_there(twin: Any) -> None:
    log = twin.log.EntryLog(10, 5)
    log.append(6, 0, b"x")
    gone = "entry {} is gone from memory, the base is 10"
    beyond = "entry {} is beyond the last one, 11"
    for index in (9, 0, -(2**70)):
        for call in (log.term, log.payload, log.kind, lambda i: log.slice(i, 11, 0)):
            with pytest.raises(LogCompacted, match=gone.format(index)):
                call(index)
    for call in (log.payload, log.kind, lambda i: log.slice(i, 11, 0)):
        with pytest.raises(LogCompacted, match=gone.format(10)):
            call(10)
    for index in (12, 2**70):
        for call in (log.term, log.payload, log.kind, lambda i: log.slice(11, i, 0)):
            with pytest.raises(IndexError, match=beyond.format(index)):
                call(index)
    assert log.slice(12, 11, 100) == (b"", 11)


def test_what_cannot_be_dropped(twin: Any) -> None:
    log = twin.log.EntryLog(10, 5)
    log.append(6, 0, b"x")
    for index in (10, 9, -(2**70)):
        with pytest.raises(InvariantViolation, match=f"truncation at {index}, the base is 10"):
            log.truncate(index)
        log.compact(index)
    for index in (12, 2**70):
        with pytest.raises(InvariantViolation, match=f"{index}, the last entry is 11"):
            log.compact(index)
        log.truncate(index)
    assert (log.base_index, log.last_index) == (10, 11)
    log.compact(11)
    assert (log.base_index, log.base_term, log.size_bytes) == (11, 6, 0)


def test_skip(twin: Any) -> None:
    log = twin.log.EntryLog()
    blob = encoded([(1, 0, b"a"), (1, 0, b"bb"), (2, 0, b"ccc")])
    assert log.skip(5, blob, 7) == encoded([(2, 0, b"ccc")])
    assert log.skip(5, blob, 8) == b""
    assert log.skip(5, blob, 3) == blob
    with pytest.raises(IndexError, match="entry 9 is beyond the last one, 7"):
        log.skip(5, blob, 9)


def test_a_limit_gives_at_least_one_entry(twin: Any) -> None:
    log = twin.log.EntryLog()
    for _ in range(5):
        log.append(1, 0, bytes(87))
    assert [log.slice(1, 5, limit)[1] for limit in (0, 99, 100, 199, 200, 400, 499, 500)] == [
        *(1, 1, 1, 1, 2, 4, 4, 5)
    ]


def test_a_lagging_log_searches_by_term(twin: Any) -> None:
    log = twin.log.EntryLog(10, 4)
    log.extend(11, encoded([(4, 0, b""), (6, 0, b""), (6, 0, b""), (9, 0, b"")]))
    assert log.find_conflict_by_term(14, 9) == (14, 9)
    assert log.find_conflict_by_term(14, 8) == (13, 6)
    assert log.find_conflict_by_term(12, 8) == (12, 6)
    assert log.find_conflict_by_term(14, 5) == (11, 4)
    assert log.find_conflict_by_term(14, 3) == (9, 0)
    assert log.find_conflict_by_term(8, 6) == (8, 0)
    assert log.find_conflict_by_term(2**70, 2**70) == (14, 9)
    assert log.find_conflict_by_term(14, -(2**70)) == (9, 0)


def test_compaction_and_truncation_give_memory_back(twin: Any) -> None:
    log = twin.log.EntryLog()
    empty = sys.getsizeof(log)
    blob = encoded([(1, 0, bytes(100))] * 64)
    for _ in range(600):
        log.extend(log.last_index + 1, blob)
    size = log.size_bytes
    full = sys.getsizeof(log)
    assert size < full < 1.5 * size
    log.compact(log.last_index // 2)
    assert sys.getsizeof(log) < 0.6 * full
    log.truncate(log.base_index + 65)
    assert sys.getsizeof(log) < 3 * CHUNK_BYTES
    log.compact(log.base_index + 1)
    assert sys.getsizeof(log) < 2 * CHUNK_BYTES
    assert log.slice(log.first_index, log.last_index, size) == (blob[113:], log.last_index)
    log.compact(log.last_index)
    assert sys.getsizeof(log) < empty + 4096


def test_a_log_that_moves_on_stays_small(twin: Any) -> None:
    log = twin.log.EntryLog()
    blob = encoded([(1, 0, bytes(100))] * 64)
    for _ in range(2000):
        log.extend(log.last_index + 1, blob)
        if log.last_index > 256:
            log.compact(log.last_index - 256)
    assert sys.getsizeof(log) < 4 * CHUNK_BYTES
    assert log.slice(log.last_index - 63, log.last_index, 10**6) == (blob, log.last_index)
