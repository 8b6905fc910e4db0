"""Reply values, and how they are written in RESP2 and RESP3.

| value | RESP2 | RESP3 |
|-|-|-|
| Simple, ReplyError | `+`, `-` | `+`, `-` |
| bytes | `$` | `$` |
| Verbatim | `$` | `=`, marked as plain text |
| int | `:` | `:` |
| None | `$-1` | `_` |
| list, tuple | `*` | `*` |
| dict | `*`, names and values in turn | `%` |
| bool | `:1`, `:0` | `#t`, `#f` |
| float | `$` | `,` |
"""

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

__all__ = ["IMPL", "OK", "Reply", "ReplyError", "Simple", "Verbatim", "encode", "encode_null"]

IMPL: Final = "python"


class Simple(bytes):
    """A simple string reply; without line breaks."""

    __slots__ = ()


class ReplyError(bytes):
    """An error reply: code and text. Line breaks in it are sent as blanks."""

    __slots__ = ()


class Verbatim(bytes):
    """Text for people, of any number of lines."""

    __slots__ = ()


Reply: TypeAlias = Any
"""One of the table above; containers hold more of them."""

OK: Final = Simple(b"OK")

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
_OK_LINE = b"+OK\r\n"
_NULLS = {2: b"$-1\r\n", 3: b"_\r\n"}
_BOOLS = {2: (b":0\r\n", b":1\r\n"), 3: (b"#f\r\n", b"#t\r\n")}


def encode(replies: Sequence[Reply], start: int, stop: int, protocol: int) -> bytes:
    """Return `replies[start:stop]` as they are sent in RESP2 or RESP3.

    Raises:
        TypeError: a value that is no reply.
        ValueError: a range outside the replies, or an unknown protocol.
    """
    if not 0 <= start <= stop <= len(replies):
        raise ValueError(f"replies {start} to {stop} of {len(replies)}")
    encode_null(protocol)
    if stop - start == 1:
        reply = replies[start]
        return _OK_LINE if reply is OK else _encode(reply, protocol)
    return b"".join(
        [_OK_LINE if reply is OK else _encode(reply, protocol) for reply in replies[start:stop]]
    )


def encode_null(protocol: int) -> bytes:
    """Return the null of the protocol; ValueError if there is no such protocol."""
    null = _NULLS.get(protocol)
    if null is None:
        raise ValueError(f"protocol {protocol}: must be 2 or 3")
    return null


def _encode(reply: Reply, protocol: int) -> bytes:
    if type(reply) is bytes:
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if type(reply) is int:
        return b":%d\r\n" % reply
    if reply is None:
        return _NULLS[protocol]
    if isinstance(reply, Simple):
        return b"+%b\r\n" % reply
    if isinstance(reply, ReplyError):
        return b"-%b\r\n" % reply.translate(_ONE_LINE)
    if isinstance(reply, (list, tuple)):
        parts = [b"*%d\r\n" % len(reply), *[_encode(item, protocol) for item in reply]]
        return b"".join(parts)
    if isinstance(reply, dict):
        return _encode_map(reply, protocol)
    if isinstance(reply, bool):
        return _BOOLS[protocol][reply]
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, float):
        text = _float_text(reply)
        return b",%b\r\n" % text if protocol == 3 else _encode(text, protocol)
    if isinstance(reply, Verbatim) and protocol == 3:
        return b"=%d\r\ntxt:%b\r\n" % (len(reply) + 4, reply)
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    raise TypeError(f"not a reply: {type(reply).__name__}")


def _encode_map(reply: dict[Reply, Reply], protocol: int) -> bytes:
    head = b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % (2 * len(reply))
    parts = [head]
    for name, value in reply.items():
        parts += (_encode(name, protocol), _encode(value, protocol))
    return b"".join(parts)


def _float_text(number: float) -> bytes:
    """17 significant digits, as Redis 7.0 writes a double."""
    return b"nan" if math.isnan(number) else b"%.17g" % number
