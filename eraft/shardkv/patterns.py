"""The patterns of KEYS and SCAN MATCH: `*`, `?`, `[a-c^]` and `\\`, exactly as Redis reads them.

A pattern becomes a regular expression. What stands between two stars is
sought once, at its first place, and never again (an atomic group), so that a
hostile pattern cannot make matching exponential.
"""

import re
from collections.abc import Callable

_STAR = b"*"
_EVERY_BYTE = frozenset(range(256))


def compile_pattern(pattern: bytes) -> Callable[[bytes], bool]:
    """Return the function that tells whether a key matches."""
    if pattern == _STAR:
        return _always
    segments = _segments(pattern)
    parts = [segments[0]]
    parts += [b"(?>.*?" + segment + b")" for segment in segments[1:-1] if segment]
    if len(segments) > 1:
        parts.append(b".*" + segments[-1])
    fullmatch = re.compile(b"".join(parts), re.DOTALL).fullmatch
    # Redis looks at nothing when the key is empty, a star included.
    matches_empty = not pattern

    def matches(key: bytes) -> bool:
        return fullmatch(key) is not None if key else matches_empty

    return matches


def _always(key: bytes) -> bool:
    return True


def _segments(pattern: bytes) -> list[bytes]:
    """Return the regular expressions of what stands before, between and after the stars."""
    segments = [b""]
    place, size = 0, len(pattern)
    while place < size:
        char = pattern[place : place + 1]
        place += 1
        if char == _STAR:
            segments.append(b"")
            continue
        if char == b"?":
            element = b"."
        elif char == b"[":
            chosen, place = _class(pattern, place)
            element = _class_expression(chosen)
        else:
            if char == b"\\" and place < size:
                char = pattern[place : place + 1]
                place += 1
            element = re.escape(char)
        segments[-1] += element
    return segments


def _class(pattern: bytes, place: int) -> tuple[frozenset[int], int]:
    """Read a class after its bracket; return its bytes and the place after it.

    One that never ends ends with the pattern. A range takes whatever follows
    its dash for its end, a closing bracket too.
    """
    size = len(pattern)
    inverted = pattern[place : place + 1] == b"^"
    place += inverted
    chosen: set[int] = set()
    while place < size:
        rest = size - place
        char = pattern[place]
        if char == ord("\\") and rest >= 2:
            chosen.add(pattern[place + 1])
            place += 2
        elif char == ord("]"):
            place += 1
            break
        elif rest >= 3 and pattern[place + 1] == ord("-"):
            low, high = sorted((char, pattern[place + 2]))
            chosen.update(range(low, high + 1))
            place += 3
        else:
            chosen.add(char)
            place += 1
    return (_EVERY_BYTE - chosen if inverted else frozenset(chosen)), place


def _class_expression(chosen: frozenset[int]) -> bytes:
    """Return the class as ranges: the complement of a small one must not cost 255 elements."""
    if not chosen:
        return b"(?!)"
    parts = []
    start = None
    for char in range(257):
        if char in chosen:
            start = char if start is None else start
        elif start is not None:
            parts.append(b"\\x%02x-\\x%02x" % (start, char - 1))
            start = None
    return b"[" + b"".join(parts) + b"]"
