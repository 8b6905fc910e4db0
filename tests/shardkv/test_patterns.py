"""Patterns: table of Redis's reading, an independent matcher, and no blow-up."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eraft import limits
from eraft.shardkv.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"*", [b"", b"a", b"\n", b"\xff"], []),
        (b"**", [b"a"], [b""]),
        (b"", [b""], [b"a"]),
        (b"a", [b"a"], [b"", b"b", b"aa", b"a\n"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo", b"heello"]),
        (b"h*llo", [b"hllo", b"heeeello", b"hllollo"], [b"hell", b"ahllo"]),
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo", b"hllo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello", b"hllo"]),
        (b"h[a-b]llo", [b"hallo", b"hbllo"], [b"hcllo", b"h-llo"]),
        (b"[b-a]", [b"a", b"b"], [b"c"]),
        (b"[a-]", [b"a", b"]", b"^"], [b"b", b"-"]),
        (b"[a-", [b"a", b"-"], [b"b", b"]"]),
        (b"[-a]", [b"-", b"a"], [b"b"]),
        (b"[]a", [], [b"a", b"]a", b""]),
        (b"[^]", [b"a", b"]"], [b"", b"aa"]),
        (b"[ab", [b"a", b"b"], [b"ab", b"["]),
        (b"[", [], [b"[", b""]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"[\\", [b"\\"], [b"["]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"(.+)|$", [b"(.+)|$"], [b"a", b""]),
        (b"a*b*c", [b"abc", b"aXbYc", b"abcbc"], [b"acb", b"abcd"]),
    ],
)
def test_patterns(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    matches = compile_pattern(pattern)
    assert [key for key in matching if not matches(key)] == []
    assert [key for key in others if matches(key)] == []


def naive(pattern: bytes, key: bytes) -> bool:
    """Patterns of letters, `?` and `*`, by trying everything."""
    if not pattern or not key:
        return not pattern.strip(b"*") and not key
    if pattern[:1] == b"*":
        return naive(pattern[1:], key) or naive(pattern, key[1:])
    return pattern[:1] in (b"?", key[:1]) and naive(pattern[1:], key[1:])


@given(
    st.lists(st.sampled_from([b"a", b"b", b"?", b"*"]), max_size=8).map(b"".join),
    st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=10).map(b"".join),
)
def test_a_star_matches_whatever_it_can(pattern: bytes, key: bytes) -> None:
    assert compile_pattern(pattern)(key) is naive(pattern, key)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_no_pattern_fails(pattern: bytes, key: bytes) -> None:
    assert compile_pattern(pattern)(key) in (True, False)


@given(st.binary(min_size=1, max_size=30))
def test_escaped_text_matches_itself(key: bytes) -> None:
    pattern = re.sub(rb"([*?\[\\])", rb"\\\1", key)
    assert compile_pattern(pattern)(key)
    assert not compile_pattern(pattern)(key + b"x")


def test_hostile_patterns_stay_cheap() -> None:
    """A matcher that tries every length of every star would not end within years."""
    started = time.process_time()
    matches = compile_pattern(b"*a" * (limits.PATTERN_SIZE_BYTES // 2) + b"b")
    assert not matches(b"a" * 4096)
    assert time.process_time() - started < 2
