"""Splitting a line that a person typed into arguments, as Redis does it."""

import re
from typing import Final

__all__ = ["IMPL", "split"]

IMPL: Final = "python"

_BLANK = re.compile(rb"[ \t\n\v\f\r]*")
# One piece of an argument: bare bytes, "quoted" with escapes, or 'quoted' with \' only.
# Outside of quotes, \v and \f belong to the argument; only before it they are blanks.
_PIECE = re.compile(
    rb"""(?P<bare>[^ \t\n\r"']+)"""
    rb"""|"(?P<double>(?:[^"\\]|\\.)*)"(?=[ \t\n\v\f\r]|\Z)"""
    rb"""|'(?P<single>(?:[^'\\]|\\'|\\(?!'))*)'(?=[ \t\n\v\f\r]|\Z)""",
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split(line: bytes) -> list[bytes] | None:
    """Return the arguments of `line` (without its end); None if a quote is not balanced.

    The rules of `sdssplitargs` in Redis: a closing quote must be followed by a
    blank or the end; `\\n \\r \\t \\b \\a \\xHH` mean what they say between double
    quotes, any other escaped byte itself.
    """
    args = []
    place = 0
    while (place := _after_blanks(line, place)) < len(line):
        pieces = []
        while place < len(line) and line[place] not in b" \t\n\r":
            match = _PIECE.match(line, place)
            if match is None:
                return None
            place = match.end()
            if match["bare"] is not None:
                pieces.append(match["bare"])
            elif match["double"] is not None:
                pieces.append(_ESCAPE.sub(_unescape, match["double"]))
                break
            else:
                pieces.append(match["single"].replace(b"\\'", b"'"))
                break
        args.append(b"".join(pieces))
    return args


def _after_blanks(line: bytes, place: int) -> int:
    match = _BLANK.match(line, place)
    assert match is not None
    return match.end()


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes.fromhex(match[1].decode("ascii"))
    return _NAMED.get(match[2], match[2])
