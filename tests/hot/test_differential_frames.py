"""Compiled and pure peer frames agree, on nonsense too."""

import struct
from typing import Any
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from eraft._core import frames as compiled
from eraft._pure import frames as pure
from eraft.types import Message
from tests.hot.differential import outcome, thorough

u64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.sampled_from([-1, 2**64]))
wire_u64 = st.integers(0, 2**64 - 1)
messages = st.builds(
    Message,
    st.one_of(st.integers(1, 8), st.sampled_from([-1, 0, 9, 255, 256])),
    st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([-1, 2**32])),
    *[u64] * 8,
    st.booleans(),
    st.binary(max_size=20),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A RAFT body, now and then damaged, cut or with something behind it."""
    good = st.builds(
        Message, st.integers(1, 8), st.integers(0, 99), *[wire_u64] * 8, st.booleans(), st.binary()
    )
    frame = pure.encode_messages(draw(wire_u64), draw(st.lists(good, max_size=4)))
    body = bytearray(frame[9:])
    match draw(st.integers(0, 3)):
        case 1:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
        case 2:
            del body[draw(st.integers(0, len(body))) :]
        case 3:
            body += draw(st.binary(max_size=80))
    return bytes(body)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames in pieces, most of them well-formed."""
    stream = bytearray()
    for kind, body in draw(st.lists(st.tuples(st.integers(0, 8), st.binary(max_size=60)))):
        payload = bytes([kind or 1]) + body
        stream += struct.pack("<II", len(payload), crc32(payload)) + payload
    if stream and draw(st.booleans()):
        stream[draw(st.integers(0, len(stream) - 1))] ^= draw(st.integers(0, 255))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [
        bytes(stream[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]


@thorough
@given(u64, st.lists(messages, max_size=5))
def test_encode_messages(version: int, batch: list[Message]) -> None:
    assert outcome(compiled.encode_messages, version, batch) == outcome(
        pure.encode_messages, version, batch
    )


@thorough
@given(bodies(), st.binary(max_size=100))
def test_decode_messages(body: bytes, noise: bytes) -> None:
    for data in (body, noise):
        assert outcome(compiled.decode_messages, data) == outcome(pure.decode_messages, data)


@thorough
@given(st.one_of(st.integers(-1, 9), st.sampled_from([256, 2**70])), st.binary())
def test_encode_frame(kind: int, body: bytes) -> None:
    assert outcome(compiled.encode_frame, kind, body) == outcome(pure.encode_frame, kind, body)


@thorough
@given(streams(), st.sampled_from([0, 10, 61, 2**31, 2**80]))
def test_reader(pieces: list[bytes], limit: int) -> None:
    readers: list[Any] = [compiled.FrameReader(limit), pure.FrameReader(limit)]
    for piece in [*pieces, b"", b"x" * 9]:
        ours, theirs = (outcome(reader.feed, piece) for reader in readers)
        assert ours == theirs
