"""Peer frames: the format byte by byte, and what arrives broken or hostile."""

import random
import struct
import sys
from dataclasses import fields, replace
from typing import Any
from zlib import crc32

import pytest

from eraft.errors import ChecksumMismatch, FrameTooLarge, ProtocolError
from eraft.types import Message, MessageKind

LIMIT_BYTES = 1 << 20
MESSAGES = [
    Message(MessageKind.APPEND, 1, 2, 3, 4, 5, 6, 7, 8, 9, False, b"some entries"),
    Message(MessageKind.APPEND_REPLY, 2**32 - 1, *[2**64 - 1] * 8, True),
    Message(MessageKind.HEARTBEAT, 0, 1, 2, 3),
]


def sealed(payload: bytes) -> bytes:
    """A frame around any bytes, by the format's definition."""
    return struct.pack("<II", len(payload), crc32(payload)) + payload


def body_of(message: Message) -> bytes:
    return (
        bytes([message.kind, message.reject])
        + message.gid.to_bytes(4, "little")
        + b"".join(
            number.to_bytes(8, "little")
            for number in (
                *(message.sender, message.to, message.term, message.index),
                *(message.log_term, message.commit, message.context, message.hint),
            )
        )
        + len(message.entries).to_bytes(4, "little")
        + message.entries
    )


def raft_body(version: int, messages: list[Message]) -> bytes:
    return struct.pack("<QI", version, len(messages)) + b"".join(map(body_of, messages))


@pytest.mark.parametrize("kind", range(1, 9))
@pytest.mark.parametrize("size", [0, 1, 15, 16, 100, 8190, 8191, 8192, 100_000])
def test_encode_frame(twin: Any, kind: int, size: int) -> None:
    body = random.Random(size).randbytes(size)
    frame = twin.frames.encode_frame(kind, body)
    assert frame == sealed(bytes([kind]) + body)
    assert twin.frames.FrameReader(LIMIT_BYTES).feed(frame) == [(kind, body)]


def test_encode_messages(twin: Any) -> None:
    for messages in ([], MESSAGES[:1], MESSAGES):
        body = raft_body(2**64 - 1, messages)
        frame = twin.frames.encode_messages(2**64 - 1, messages)
        assert frame == sealed(bytes([twin.frames.RAFT]) + body)
        assert twin.frames.decode_messages(body) == (2**64 - 1, messages)
    assert len(body_of(MESSAGES[2])) == twin.frames.MESSAGE_HEADER_BYTES


def test_every_field_has_its_place(twin: Any) -> None:
    for position, field in enumerate(fields(Message)):
        values: dict[str, Any] = {"kind": 8, "reject": True, "entries": b"e" * 9}
        base = Message(1, 0, 0, 0, 0)
        message = replace(base, **{field.name: values.get(field.name, 1000 + position)})
        _, (decoded,) = twin.frames.decode_messages(raft_body(0, [message]))
        assert decoded == message
        assert type(decoded.reject) is bool
        assert twin.frames.encode_messages(0, [message])[8 + 13 :] == body_of(message)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(twin: Any, kind: Any) -> None:
    frame = twin.frames.encode_messages(7, MESSAGES)
    others = [replace(message, entries=kind(message.entries)) for message in MESSAGES]
    assert twin.frames.encode_messages(7, others) == frame
    assert twin.frames.encode_messages(7, tuple(MESSAGES)) == frame
    assert twin.frames.encode_frame(2, kind(frame[9:])) == frame
    reader = twin.frames.FrameReader(LIMIT_BYTES)
    assert reader.feed(kind(frame[:20])) == []
    ((_, body),) = reader.feed(kind(frame[20:]))
    assert type(body) is bytes
    version, messages = twin.frames.decode_messages(kind(body))
    assert (version, messages) == (7, MESSAGES)
    assert all(type(message.entries) is bytes for message in messages)


def test_what_cannot_be_encoded(twin: Any) -> None:
    for kind in (0, 99, -1, 256, 2**70):
        with pytest.raises(ValueError, match=f"unknown frame kind {kind}"):
            twin.frames.encode_frame(kind, b"")
    for version in (-1, 2**64):
        with pytest.raises(ValueError, match=f"table version {version} does not fit its field"):
            twin.frames.encode_messages(version, [])
    message = MESSAGES[0]
    numbers = ("sender", "to", "term", "index", "log_term", "commit", "context", "hint")
    wrong = [(name, value) for name in numbers for value in (-1, 2**64, None)]
    wrong += [("kind", -1), ("kind", 256), ("gid", -1), ("gid", 2**32), ("reject", 256)]
    for name, value in wrong:
        bad = replace(message, **{name: value})
        text = f"group {bad.gid} from {bad.sender} to {bad.to} does not fit its field"
        with pytest.raises(ValueError, match=text):
            twin.frames.encode_messages(1, [message, bad])


def test_decoded_messages_are_ordinary(twin: Any) -> None:
    _, (message,) = twin.frames.decode_messages(raft_body(1, MESSAGES[:1]))
    message.term = 99
    assert replace(message, term=4) == MESSAGES[0]
    assert "entries=b'some entries'" in repr(message)


def damaged(message: Message, offset: int, value: int) -> bytes:
    body = bytearray(raft_body(1, [MESSAGES[2], message]))
    body[12 + 74 + offset] = value
    return bytes(body)


MALFORMED = {
    "RAFT body of 0 bytes, it takes at least 12": b"",
    "RAFT body of 11 bytes, it takes at least 12": bytes(11),
    "RAFT body of 13 bytes announces 1 messages": b"\1" * 8 + b"\1\0\0\0" + b"x",
    f"RAFT body of 86 bytes announces {2**32 - 1} messages": bytes(8) + b"\xff" * 4 + bytes(74),
    "RAFT body: 3 bytes after the last message": raft_body(1, MESSAGES) + b"abc",
    "message at offset 12: unknown kind 0": bytes(8) + b"\1\0\0\0" + bytes(74),
    "message at offset 86: unknown kind 99": damaged(MESSAGES[2], 0, 99),
    "message at offset 86: reject is 2": damaged(MESSAGES[2], 1, 2),
    "message at offset 86: 12 bytes of entries, 11 are left": damaged(MESSAGES[0], 0, 5)[:-1],
    "message at offset 86: 4278190092 bytes of entries, 12 are left": damaged(
        MESSAGES[0], 73, 0xFF
    ),
    "message at offset 234: 73 bytes of its header": raft_body(
        1, [MESSAGES[2], replace(MESSAGES[2], entries=bytes(74)), MESSAGES[2]]
    )[:-1],
}


@pytest.mark.parametrize(("message", "body"), MALFORMED.items())
def test_malformed_messages(twin: Any, message: str, body: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"^{message}$"):
        twin.frames.decode_messages(body)


@pytest.mark.parametrize("seed", range(5))
def test_frames_arrive_in_any_pieces(twin: Any, seed: int) -> None:
    rng = random.Random(seed)
    sent = [(rng.randint(1, 7), rng.randbytes(rng.choice((0, 1, 9, 500)))) for _ in range(100)]
    stream = b"".join(twin.frames.encode_frame(kind, body) for kind, body in sent)
    for most in (1, 8, 40, 3000):
        reader = twin.frames.FrameReader(LIMIT_BYTES)
        idle = sys.getsizeof(reader)
        received = []
        offset = 0
        while offset < len(stream):
            size = rng.randint(1, most)
            received += reader.feed(stream[offset : offset + size])
            offset += size
        assert received == sent
        assert sys.getsizeof(reader) < idle + 64
        assert reader.feed(b"") == []


@pytest.mark.parametrize(
    ("error", "message", "stream"),
    [
        (FrameTooLarge, "frame of 101 bytes, the limit is 100", struct.pack("<II", 101, 0)),
        (FrameTooLarge, f"frame of {2**32 - 1} bytes, the limit is 100", b"\xff" * 8),
        (ProtocolError, "frame of 0 bytes", bytes(8)),
        (ProtocolError, r"unknown frame kind 99 \(frame of 1 bytes\)", sealed(b"\x63")),
        (ProtocolError, r"unknown frame kind 0 \(frame of 3 bytes\)", sealed(b"\0ab")),
        (
            ChecksumMismatch,
            "frame of 2 bytes: checksum 0x.{8} instead of 0x00000007",
            struct.pack("<II", 2, 7) + b"\1a",
        ),
    ],
)
def test_a_broken_reader_stays_broken(
    twin: Any, error: type[Exception], message: str, stream: bytes
) -> None:
    good = twin.frames.encode_frame(twin.frames.LEADS, b"good")
    for pieces in ([good + stream], [good, stream], [good[:9], good[9:] + stream[:5], stream[5:]]):
        reader = twin.frames.FrameReader(100)
        with pytest.raises(error, match=f"^{message}$"):
            for piece in pieces:
                reader.feed(piece)
        for piece in (good, b""):
            with pytest.raises(error, match=f"^{message}$"):
                reader.feed(piece)


def test_the_limit_itself_is_allowed(twin: Any) -> None:
    frame = twin.frames.encode_frame(1, bytes(99))
    assert twin.frames.FrameReader(100).feed(frame) == [(1, bytes(99))]


def test_no_flipped_bit_goes_unnoticed(twin: Any) -> None:
    frame = twin.frames.encode_messages(3, MESSAGES)
    for bit in range(8 * len(frame)):
        bad = bytearray(frame)
        bad[bit // 8] ^= 1 << bit % 8
        reader = twin.frames.FrameReader(LIMIT_BYTES)
        try:
            assert reader.feed(bad) == []  # a longer length: the rest has not arrived
            assert bit < 32
        except ProtocolError:
            pass


def test_an_announced_frame_costs_what_has_arrived(twin: Any) -> None:
    reader = twin.frames.FrameReader(64 << 20)
    idle = sys.getsizeof(reader)
    assert reader.feed(struct.pack("<II", 48 << 20, 0)) == []
    assert sys.getsizeof(reader) < idle + 100
    for arrived in range(1000, 200_000, 1000):
        assert reader.feed(bytes(1000)) == []
        assert sys.getsizeof(reader) < idle + 2 * arrived + 100


def test_a_large_frame_in_pieces(twin: Any) -> None:
    body = random.Random(1).randbytes(3 << 20)
    frame = twin.frames.encode_frame(2, body)
    reader = twin.frames.FrameReader(4 << 20)
    received = []
    for offset in range(0, len(frame), 65536):
        received += reader.feed(frame[offset : offset + 65536])
    assert received == [(2, body)]
