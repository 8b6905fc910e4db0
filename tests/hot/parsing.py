"""A parser with two lanes, and what to feed it with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BUCKETS = 16384
PREFIXES = (b"\0\0\0\1\3", b"\0\0\0\2\3")
VALUE_BYTES = 1024 * 1024
COMMAND_BYTES = 4 * VALUE_BYTES
ARGS = 128 * 1024
LINE_BYTES = 64 * 1024
TIMESTAMP_BYTES = 8

PLAIN_WRITES = {b"SET": 3, b"INCR": 2, b"DEL": 2, b"SETNX": 3}
PLAIN_READS = {b"GET": 2}


def command(*args: bytes) -> bytes:
    """In canonical form, but for the name's case."""
    bulks = b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)
    return b"*%d\r\n%b" % (len(args), bulks)


@dataclass
class Connection:
    """One connection to a node that leads two groups: even buckets to lane 1, odd ones to 2."""

    resp: Any
    value_bytes: int = VALUE_BYTES
    command_bytes: int = COMMAND_BYTES
    args: int = ARGS
    line_bytes: int = LINE_BYTES
    lane_bytes: int = 1 << 20
    admit: bytearray = field(default_factory=lambda: bytearray(b"\1\2") * (BUCKETS // 2))

    def __post_init__(self) -> None:
        self.lanes = [None, *(self.resp.Lane(prefix, self.lane_bytes) for prefix in PREFIXES)]
        self.parser = self.resp.Parser(
            self.resp.CommandTable(PLAIN_WRITES, PLAIN_READS),
            self.admit,
            self.lanes,
            self.value_bytes,
            self.command_bytes,
            self.args,
            self.line_bytes,
        )

    def parse(self, data: Any, reads_pending: bool = False) -> list[tuple[Any, ...]]:
        """Items of one call, their kinds by name."""
        return self.named(self.parser.feed_and_parse(data, reads_pending))

    def go_on(self, reads_pending: bool = False) -> list[tuple[Any, ...]]:
        return self.named(self.parser.parse(reads_pending))

    def parse_all(self, pieces: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """All items that the pieces give when each stop is handled at once."""
        found = []
        for piece in pieces:
            items = self.parse(piece)
            while items or self.parser.stopped in (self.resp.READS_FIRST, self.resp.LANE_FULL):
                found += items
                if self.parser.stopped == self.resp.LANE_FULL:
                    found += [("entry", self.lanes[k].take(0)) for k in (1, 2)]
                items = self.go_on()
        return found

    def named(self, items: list[tuple[int, Any, Any]]) -> list[tuple[Any, ...]]:
        names = {getattr(self.resp, name): name for name in ("WRITES", "READS", "COMMAND", "ERROR")}
        return [(names[kind], subject, detail) for kind, subject, detail in items]

    @property
    def stopped(self) -> str:
        names = ("NEED_DATA", "COMMAND", "READS_FIRST", "LANE_FULL", "BROKEN")
        return {getattr(self.resp, name): name for name in names}[self.parser.stopped]

    def gathered(self, k: int) -> bytes:
        """Empty a lane; return its commands."""
        taken: bytes = self.lanes[k].take(0)
        return taken[TIMESTAMP_BYTES:]


def merged(items: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The items with runs that only the pieces of the input divided put together."""
    found: list[tuple[Any, ...]] = []
    for item in items:
        if found and item[0] in ("WRITES", "READS") and found[-1][:2] == item[:2]:
            found[-1] = (*item[:2], found[-1][2] + item[2])
        else:
            found.append(item)
    return found
