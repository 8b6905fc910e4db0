"""Compiled and pure parser, replies and line splitting agree, on nonsense too."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eraft._core import inline as compiled_inline
from eraft._core import resp as compiled
from eraft._pure import inline as pure_inline
from eraft._pure import resp as pure
from tests.hot.differential import outcome, thorough
from tests.hot.parsing import Connection, command

LIMITS: dict[str, Any] = {
    "value_bytes": 200,
    "command_bytes": 420,
    "args": 12,
    "line_bytes": 64,
    "lane_bytes": 300,
}

names = st.sampled_from([b"SET", b"set", b"Get", b"GET", b"INCR", b"DEL", b"PING", b"SETX", b""])
args = st.one_of(
    st.sampled_from([b"a", b"b", b"{a}x", b"", b"\r\n", b"*3\r\n$3\r\nSET\r\n", b"\0", b"x" * 150]),
    st.binary(max_size=12),
)
numbers = st.one_of(
    st.integers(-2, 14).map(lambda number: b"%d" % number),
    st.sampled_from(
        [
            b"",
            b"01",
            b"+1",
            b"-0",
            b"200",
            b"201",
            b"2147483648",
            b"999999999999999999",
            b"9223372036854775807",
            b"9223372036854775808",
            b"-9223372036854775808",
            b"-9223372036854775809",
            b"1" * 70,
        ]
    ),
)
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\rx", b"\n", b"\0\r\n", b""])
commands = st.builds(lambda name, rest: command(name, *rest), names, st.lists(args, max_size=4))
plain = st.one_of(
    st.builds(lambda key, value: command(b"SET", key, value), args, args),
    st.builds(lambda key: command(b"GET", key), args),
)
lines = st.builds(
    lambda name, words, end: name + b" " + b" ".join(words) + end,
    names,
    st.lists(st.sampled_from([b"a", b"b", b'"a b"', b"'x'", b'"', b"'", b"\\x41", b'"\\x41\\n"'])),
    ends,
)
headers = st.builds(
    lambda mark, number, end: mark + number + end,
    st.sampled_from([b"*", b"$", b"x"]),
    numbers,
    ends,
)
fragments = st.one_of(plain, plain, commands, lines, headers, ends, st.binary(max_size=40))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A connection's bytes, cut anywhere."""
    data = b"".join(draw(st.lists(fragments, max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


steps = st.one_of(
    st.tuples(st.just("parse"), st.booleans()),
    st.tuples(st.just("take"), st.integers(1, 2)),
    st.tuples(st.just("fast"), st.booleans()),
    st.tuples(st.just("admit"), st.integers(0, 3)),
    st.tuples(st.just("feed"), st.binary(max_size=9)),
)


def state(connection: Connection) -> Any:
    parser = connection.parser
    lanes = [(lane.count, lane.size_bytes, lane.full) for lane in connection.lanes[1:]]
    return connection.stopped, parser.buffered_bytes, lanes


def act(connection: Connection, step: tuple[Any, ...]) -> Any:
    match step:
        case "data", data, reads_pending:
            return connection.parse(data, reads_pending), state(connection)
        case "parse", reads_pending:
            return connection.go_on(reads_pending), state(connection)
        case "take", k:
            return connection.lanes[k].take(k)
        case "fast", fast:
            connection.parser.fast = fast
        case "admit", k:
            connection.admit[:] = bytes([k, 2]) * (len(connection.admit) // 2)
        case "feed", data:
            connection.parser.feed(data)
    return state(connection)


@thorough
@given(streams(), st.data())
def test_any_stream(pieces: list[bytes], data: st.DataObject) -> None:
    ours, theirs = Connection(compiled, **LIMITS), Connection(pure, **LIMITS)
    script: list[tuple[Any, ...]] = []
    for piece in pieces:
        script.append(("data", piece, data.draw(st.booleans())))
        script += data.draw(st.lists(steps, max_size=3))
    script += [("take", 1), ("take", 2), ("parse", False), ("take", 1), ("take", 2)]
    for step in script:
        assert act(ours, step) == act(theirs, step), step


@thorough
@given(st.lists(plain, max_size=20), st.integers(1, 40))
def test_plain_commands_in_equal_pieces(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    ours, theirs = Connection(compiled, **LIMITS), Connection(pure, **LIMITS)
    assert ours.parse_all(pieces) == theirs.parse_all(pieces)
    assert state(ours) == state(theirs)
    assert [lane.take(1) for lane in ours.lanes[1:]] == [lane.take(1) for lane in theirs.lanes[1:]]


quoting = st.lists(st.sampled_from([bytes([byte]) for byte in b"\"'\\ \t\v\f\n\rxabnrt4gF\xff"]))


@thorough
@given(st.one_of(quoting.map(b"".join), st.binary().map(lambda line: line.replace(b"\0", b""))))
def test_lines(line: bytes) -> None:
    assert compiled_inline.split(line) == pure_inline.split(line)


MARKED = {"Simple": st.binary(max_size=9), "ReplyError": st.binary(max_size=9)}
MARKED["Verbatim"] = MARKED["Simple"]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.binary(),
    st.text(max_size=1),
    *(st.tuples(st.just(name), text) for name, text in MARKED.items()),
    st.just(("OK",)),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.one_of(st.binary(max_size=3), st.integers()), inner)
    ),
    max_leaves=20,
)


def built(resp: Any, value: Any) -> Any:
    """The value with the marked ones as this implementation's own classes."""
    if isinstance(value, list):
        return [built(resp, item) for item in value]
    if isinstance(value, dict):
        return {name: built(resp, item) for name, item in value.items()}
    if isinstance(value, tuple):
        return resp.OK if value == ("OK",) else getattr(resp, value[0])(value[1])
    return value


@thorough
@given(st.lists(values, max_size=6), st.integers(-1, 7), st.integers(-1, 7), st.integers(1, 4))
def test_replies(replies: list[Any], start: int, stop: int, protocol: int) -> None:
    ours = outcome(compiled.encode, built(compiled, replies), start, stop, protocol)
    assert ours == outcome(pure.encode, built(pure, replies), start, stop, protocol)


@thorough
@given(
    st.lists(st.lists(st.one_of(args, st.sampled_from([b"set", b"_Tick"])), max_size=5)),
    st.integers(0, 2**64 - 1),
)
def test_lanes(batch: list[list[bytes]], ts_ms: int) -> None:
    ours, theirs = compiled.Lane(b"\0\0\0\1\3", 100), pure.Lane(b"\0\0\0\1\3", 100)
    for one in batch:
        assert outcome(ours.add, one) == outcome(theirs.add, one)
        assert (ours.count, ours.size_bytes, ours.full) == (
            theirs.count,
            theirs.size_bytes,
            theirs.full,
        )
    assert ours.take(ts_ms) == theirs.take(ts_ms)
