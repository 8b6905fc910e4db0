"""Commands that treat a value as a number."""

from eraft._impl import resp
from eraft.shardkv import longdouble
from eraft.shardkv.data import Data, Reply
from eraft.shardkv.syntax import INT64_MAX, INT64_MIN, NOT_A_FLOAT, NOT_AN_INTEGER, parse_int

_OVERFLOW = resp.ReplyError(b"ERR increment or decrement would overflow")
_NOT_FINITE = resp.ReplyError(b"ERR increment would produce NaN or Infinity")


def incr(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """INCR key."""
    return _add(data, row_key, 1)


def decr(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """DECR key."""
    return _add(data, row_key, -1)


def incrby(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """INCRBY key increment."""
    amount = parse_int(args[2])
    return NOT_AN_INTEGER if amount is None else _add(data, row_key, amount)


def decrby(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """DECRBY key decrement."""
    amount = parse_int(args[2])
    return NOT_AN_INTEGER if amount is None else _add(data, row_key, -amount)


def _add(data: Data, row_key: bytes, amount: int) -> Reply:
    found = data.find(row_key)
    if found is None:
        data.put(row_key, b"%d" % amount)
        return amount
    _, deadline_ms, value = found
    number = parse_int(value)
    if number is None:
        return NOT_AN_INTEGER
    number += amount
    if not INT64_MIN <= number <= INT64_MAX:
        return _OVERFLOW
    data.put(row_key, b"%d" % number, deadline_ms, deadline_ms)
    return number


def incrbyfloat(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """INCRBYFLOAT key increment."""
    found = data.find(row_key)
    deadline_ms, value = (0, b"0") if found is None else found[1:]
    number, amount = longdouble.parse(value), longdouble.parse(args[2])
    if number is None or amount is None:
        return NOT_A_FLOAT
    total = longdouble.add(number, amount)
    if total is None:
        return _NOT_FINITE
    text = longdouble.to_text(total)
    data.put(row_key, text, deadline_ms, deadline_ms)
    return text
