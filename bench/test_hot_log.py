"""The memory log, with batches of entries of one small command each."""

from typing import Any

import pytest

from bench.conftest import BATCH, Hot, Measure

PAYLOAD = bytes(8) + b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$64\r\n" + b"v" * 64 + b"\r\n"
BATCHES = 16


@pytest.fixture
def blob(hot: Hot) -> bytes:
    encoded: bytes = hot.log.encode_entry(3, 0, PAYLOAD) * BATCH
    return encoded


@pytest.fixture
def log(hot: Hot, blob: bytes) -> Any:
    entries = hot.log.EntryLog()
    for _ in range(BATCHES):
        entries.extend(entries.last_index + 1, blob)
    return entries


def test_append(log: Any, measure: Measure) -> None:
    def append() -> None:
        for _ in range(BATCH):
            log.append(3, 0, PAYLOAD)
        log.compact(log.base_index + BATCH)

    measure("log: append entries", append)
    assert log.last_index - log.base_index == BATCHES * BATCH


def test_extend(log: Any, measure: Measure, blob: bytes) -> None:
    def extend() -> None:
        log.compact(log.extend(log.last_index + 1, blob) - BATCHES * BATCH)

    measure("log: extend by a batch", extend)
    assert log.last_index - log.base_index == BATCHES * BATCH


def test_conflict(log: Any, measure: Measure, blob: bytes) -> None:
    assert measure("log: compare with a batch", log.conflict, 100, blob) == 100 + BATCH


def test_slice(log: Any, measure: Measure, blob: bytes) -> None:
    last = 100 + BATCH - 1
    assert measure("log: slice a batch", log.slice, 100, last, 1 << 20) == (blob, last)


def test_payload(log: Any, measure: Measure) -> None:
    def payloads() -> list[bytes]:
        return [log.payload(index) for index in range(100, 100 + BATCH)]

    assert measure("log: payloads to apply", payloads) == [PAYLOAD] * BATCH


def test_check(hot: Hot, measure: Measure, blob: bytes) -> None:
    assert measure("log: check a batch", hot.log.check_entries, blob) == BATCH
