"""The client protocol: the parser of requests, which admits plain ones right away.

Requests are read as Redis 7.0 reads them (RESP arrays and inline commands),
with its words for what is malformed. Where Redis judges a line too long by
how its bytes happened to arrive, the limit holds here for the line itself.
Replies are written by `reply`, plain writes gathered by `lane`.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any, Final, TypeAlias
from zlib import crc32

from eraft import limits
from eraft._pure import inline
from eraft._pure.hashing import bucket_of
from eraft._pure.lane import Lane
from eraft._pure.reply import OK, Reply, ReplyError, Simple, Verbatim, encode
from eraft.errors import Overloaded
from eraft.types import BUCKETS

__all__ = [
    "BROKEN",
    "COMMAND",
    "ERROR",
    "IMPL",
    "LANE_FULL",
    "NEED_DATA",
    "OK",
    "READS",
    "READS_FIRST",
    "WRITES",
    "CommandTable",
    "Lane",
    "Parser",
    "Reply",
    "ReplyError",
    "Simple",
    "Verbatim",
    "encode",
]

IMPL: Final = "python"

# Why parsing stopped.
NEED_DATA: Final = 0
COMMAND: Final = 1
READS_FIRST: Final = 2
LANE_FULL: Final = 3
BROKEN: Final = 4

# Kinds of items; COMMAND is also one.
WRITES: Final = 5
READS: Final = 6
ERROR: Final = 7

Item: TypeAlias = tuple[int, Any, Any]

_ROW_KEY = struct.Struct(">HI")
_PLAIN_NAMES = 64
_PLAIN_ARGS = 8
_LINE_LIMIT_MIN_BYTES = 64
_NAME = re.compile(rb"[A-Z][A-Z0-9_.]{0,31}")

_HEAD = re.compile(rb"(\*[1-9]\r\n\$\d\d?\r\n[A-Za-z0-9_.]+\r\n)\$(0|[1-9]\d{0,9})\r\n")
_NEXT = re.compile(rb"\r\n\$(0|[1-9]\d{0,9})\r\n")
_LENGTH = re.compile(rb"\$(0|[1-9]\d{0,9})\r\n")
_COUNT = re.compile(rb"\*(0|-?[1-9]\d{0,18})")
_BULK = re.compile(rb"\$(0|[1-9]\d{0,18})")
_INT64_MIN = -(2**63)
_ASTERISK = ord("*")
_DOLLAR = ord("$")


class CommandTable:
    """What the parser must know of plain commands: one key, at argument 1, and no options.

    Args:
        plain_writes: upper-case name -> exact number of arguments with the name.
        plain_reads: the same, of reads that are answered with the row's value.

    Raises:
        ValueError: more than 64 names, a name in both, fewer than 2 or more than
            8 arguments, or a name that is not upper-case letters and digits.
    """

    def __init__(self, plain_writes: Mapping[bytes, int], plain_reads: Mapping[bytes, int]) -> None:
        self.names: dict[bytes, tuple[bool, int]] = {}
        self.heads: dict[bytes, tuple[bool, int]] = {}
        for is_write, names in ((True, plain_writes), (False, plain_reads)):
            for name, args in names.items():
                if not _NAME.fullmatch(name):
                    raise ValueError(f"plain command {name!r}: not an upper-case name")
                if not 2 <= args <= _PLAIN_ARGS:
                    raise ValueError(f"plain command {name!r}: {args} arguments, not 2 to 8")
                if name in self.names:
                    raise ValueError(f"plain command {name!r}: a write and a read")
                if len(self.names) == _PLAIN_NAMES:
                    raise ValueError(f"more than {_PLAIN_NAMES} plain commands")
                self.names[name] = is_write, args
                self.heads[b"*%d\r\n$%d\r\n%b\r\n" % (args, len(name), name)] = is_write, args


class Parser:
    """Reads one connection's commands and admits the plain ones.

    A plain command whose bucket has a lane in `admit` is not handed out as a
    command: a write is appended to the lane, of a read only the row key is kept.

    Args:
        admit: one byte for each bucket: 0, or k for `lanes[k]`. Shared with the
            owner, who may change it and `lanes` between calls.
        value_limit_bytes: the largest argument.
        command_limit_bytes: the largest command, as it is sent.
        args_limit: the most arguments, with the name.
        inline_limit_bytes: the longest line, at least 64.
    """

    def __init__(
        self,
        table: CommandTable,
        admit: bytearray,
        lanes: list[Lane | None],
        value_limit_bytes: int,
        command_limit_bytes: int,
        args_limit: int,
        inline_limit_bytes: int,
    ) -> None:
        if len(admit) != BUCKETS:
            raise ValueError(f"admit has {len(admit)} bytes, not one for each of {BUCKETS} buckets")
        if inline_limit_bytes < _LINE_LIMIT_MIN_BYTES:
            raise ValueError(f"a line of {inline_limit_bytes} bytes holds no command")
        self.fast = True
        """False: every command is handed out."""
        self.stopped = NEED_DATA
        """Why the last call ended: NEED_DATA, COMMAND (its last item; go on with `parse`),
        READS_FIRST (a plain write comes next, but reads are unanswered), LANE_FULL (likewise,
        but its lane is full), BROKEN (its last item is an error; nothing more will come)."""
        self._table = table
        self._admit = admit
        self._lanes = lanes
        self._value_limit_bytes = value_limit_bytes
        self._command_limit_bytes = command_limit_bytes
        self._args_limit = args_limit
        self._inline_limit_bytes = inline_limit_bytes
        self._pending = bytearray()
        self._reads_first = False
        self._items: list[Item] = []
        self._run_k = 0
        self._run_count = 0
        self._reset()

    def _reset(self) -> None:
        """At the start of a command."""
        self._args: list[bytes] = []
        self._missing = 0
        self._bulk = -1
        self._taken_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes of commands that are incomplete or not yet parsed."""
        return self._taken_bytes + len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes for a later `parse`."""
        if self.stopped != BROKEN:
            self._pending += data

    def feed_and_parse(
        self, data: bytes | bytearray | memoryview, reads_pending: bool
    ) -> list[Item]:
        """Take bytes and parse; complete commands are not copied first. See `parse`."""
        if self._pending or self.stopped == BROKEN:
            self.feed(data)
            return self.parse(reads_pending)
        if not isinstance(data, bytes):
            data = bytes(data)
        place = self._parse(data, reads_pending)
        if place < len(data) and self.stopped != BROKEN:
            self._pending += memoryview(data)[place:]
        return self._take_items()

    def parse(self, reads_pending: bool) -> list[Item]:
        """Parse on, up to the end of the data or to what has to be handled first (`stopped`).

        Items, in the order of the commands:
            (WRITES, k, count): so many plain writes were added to `lanes[k]`.
            (READS, k, row_keys): plain reads of rows of the group of `lanes[k]`.
            (COMMAND, args, 0): any other command, as sent; always the last.
            (ERROR, ReplyError, 0): malformed; always the last, the connection has to end.

        Args:
            reads_pending: reads of this connection are unanswered, so that plain
                writes have to wait (READS_FIRST).
        """
        if self.stopped == BROKEN:
            return []
        place = self._parse(self._pending, reads_pending)
        if place == len(self._pending) or self.stopped == BROKEN:
            self._pending = bytearray()
        else:
            del self._pending[:place]
        return self._take_items()

    def _take_items(self) -> list[Item]:
        items, self._items = self._items, []
        return items

    def _parse(self, data: bytes | bytearray, reads_pending: bool) -> int:
        """Fill `_items`; return how much of `data` is done with."""
        self._reads_first = reads_pending
        self.stopped = NEED_DATA
        place = 0
        while True:
            if not self._args and not self._missing:
                if self.fast:
                    place = self._plain_run(data, place)
                if self.stopped or place == len(data):
                    break
                begun = self._begin(data, place)
                if begun < 0:
                    break
                place = begun
            if self._missing:
                place = self._arguments(data, place)
                if self._missing:
                    break
            if self._args and not self._hand_out():
                break
        self._end_run()
        if self.stopped == BROKEN:
            self._reset()
        return place

    def _plain_run(self, data: bytes | bytearray, place: int) -> int:
        """Admit plain commands while they are complete and canonical; return where that ends.

        What is not so, or not within the limits, is left to the general way.
        """
        heads = self._table.heads
        limit_bytes = min(self._value_limit_bytes, self._command_limit_bytes)
        match_head, match_next = _HEAD.match, _NEXT.match
        while match := match_head(data, place):
            head, size = match.groups()
            plain = heads.get(head) or heads.get(head := head.upper())
            if plain is None:
                break
            is_write, args = plain
            start = match.end()
            end = start + int(size)
            key = bytes(data[start:end])
            for _ in range(args - 2):
                match = match_next(data, end)
                if match is None:
                    return place
                end = match.end() + int(match[1])
            stop = end + 2
            if data[end:stop] != b"\r\n" or stop - place > limit_bytes:
                break
            if not is_write:
                if not self._read(key):
                    break
            elif not self._write(key, head, data[start - len(size) - 3 : stop]):
                break
            place = stop
        return place

    def _lane_of(self, key: bytes) -> tuple[int, int, Lane | None]:
        """Return bucket, ordinal of its lane, and the lane; None if it has to be handed out."""
        bucket = bucket_of(key)
        k = self._admit[bucket]
        if 0 < k < len(self._lanes) and len(key) <= limits.KEY_SIZE_BYTES:
            return bucket, k, self._lanes[k]
        return bucket, k, None

    def _write(self, key: bytes, head: bytes, rest: bytes | bytearray) -> bool:
        """Append a plain write to its lane, if it has one and it may be done now."""
        _, k, lane = self._lane_of(key)
        if lane is None:
            return False
        if self._reads_first:
            self.stopped = READS_FIRST
            return False
        if lane.full:
            self.stopped = LANE_FULL
            return False
        try:
            lane.append(head + rest)
        except Overloaded:
            return False
        if k != self._run_k:
            self._end_run()
            self._run_k = k
        self._run_count += 1
        return True

    def _end_run(self) -> None:
        if self._run_count:
            self._items.append((WRITES, self._run_k, self._run_count))
        self._run_k = self._run_count = 0

    def _read(self, key: bytes) -> bool:
        """Note the row key of a plain read, if its bucket has a lane."""
        bucket, k, lane = self._lane_of(key)
        if lane is None:
            return False
        self._end_run()
        self._reads_first = True
        row_key = b"".join((lane.prefix, _ROW_KEY.pack(bucket, crc32(key)), key))
        items = self._items
        if items and items[-1][0] == READS and items[-1][1] == k:
            items[-1][2].append(row_key)
        else:
            items.append((READS, k, [row_key]))
        return True

    def _hand_out(self) -> bool:
        """Admit the command in `_args` or make it an item; tell whether to go on."""
        args = self._args
        name = args[0].upper()
        is_write, count = self._table.names.get(name, (False, 0)) if self.fast else (False, 0)
        admitted = False
        if len(args) == count:
            if is_write:
                head = b"*%d\r\n$%d\r\n%b\r\n" % (count, len(name), name)
                rest = b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args[1:]])
                admitted = self._write(args[1], head, rest)
                if self.stopped:
                    return False
            else:
                admitted = self._read(args[1])
        if not admitted:
            self._end_run()
            self._items.append((COMMAND, args, 0))
            self.stopped = COMMAND
        self._reset()
        return admitted

    def _begin(self, data: bytes | bytearray, place: int) -> int:
        """Read the first line of a command; return where it ends, -1 if that cannot be."""
        if data[place] != _ASTERISK:
            return self._inline(data, place)
        end = self._line_end(data, place, b"\r", b"too big mbulk count string")
        if end < 0 or end + 1 == len(data):
            return -1
        match = _COUNT.fullmatch(data, place, end)
        count = int(match[1]) if match else _INT64_MIN - 1
        if not _INT64_MIN <= count <= self._args_limit:
            return self._fail(b"invalid multibulk length")
        if count > 0:
            self._missing = count
            self._taken_bytes = end + 2 - place
        return end + 2

    def _inline(self, data: bytes | bytearray, place: int) -> int:
        end = self._line_end(data, place, b"\n", b"too big inline request")
        if end < 0:
            return -1
        line = bytes(data[place:end])
        args = inline.split(line.removesuffix(b"\r"))
        if args is None:
            return self._fail(b"unbalanced quotes in request")
        if args:
            self._args = args
            self._taken_bytes = end + 1 - place
        return end + 1

    def _arguments(self, data: bytes | bytearray, place: int) -> int:
        """Take arguments while they are complete; return where that ends."""
        start = place
        args, size = self._args, self._bulk
        while self._missing:
            if size < 0:
                match = _LENGTH.match(data, place)
                if match:
                    size, end = int(match[1]), match.end()
                else:
                    size, end = self._odd_length(data, place)
                if size < 0:
                    break
                if size > self._value_limit_bytes:
                    self._fail(b"invalid bulk length")
                    break
                if self._taken_bytes + end - start + size + 2 > self._command_limit_bytes:
                    self._fail(b"command too large (limit %d bytes)" % self._command_limit_bytes)
                    break
                place = end
            end = place + size
            if end + 2 > len(data):
                break
            args.append(bytes(data[place:end]))
            size = -1
            self._missing -= 1
            place = end + 2
        self._bulk = size
        self._taken_bytes += place - start
        return place

    def _odd_length(self, data: bytes | bytearray, place: int) -> tuple[int, int]:
        """Read the line before an argument that is incomplete, malformed or odd.

        Return the argument's size and where the line ends; -1 for both if that cannot be.
        """
        end = self._line_end(data, place, b"\r", b"too big bulk count string")
        if end >= 0 and end + 1 < len(data):
            if data[place] != _DOLLAR:
                self._fail(b"expected '$', got '%c'" % data[place])
            elif match := _BULK.fullmatch(data, place, end):
                return int(match[1]), end + 2
            else:
                self._fail(b"invalid bulk length")
        return -1, -1

    def _line_end(self, data: bytes | bytearray, place: int, mark: bytes, too_big: bytes) -> int:
        """Return where the line's end mark is, -1 if it is not there (yet)."""
        limit = place + self._inline_limit_bytes + 1
        end = data.find(mark, place, limit)
        if end >= 0 and data.find(b"\0", place, end) < 0:
            return end
        # Redis looks for the mark in a C string: behind a NUL it is never found.
        if len(data) >= limit:
            self._fail(too_big)
        return -1

    def _fail(self, what: bytes) -> int:
        self._end_run()
        self._items.append((ERROR, ReplyError(b"ERR Protocol error: " + what), 0))
        self.stopped = BROKEN
        return -1
