"""Commands on all keys of a node: SCAN, KEYS, DBSIZE, RANDOMKEY and the keys of one slot.

Each is a generator that yields after a few dozen rows, so that the host can do
something else, and returns the reply. It walks over the buckets that the given
groups own, in the order of the buckets, whichever group owns them. Inside a
bucket keys come in the order of their hash; a place in the key space is the
number `bucket << 32 | crc32(key)`, which is also SCAN's cursor: it means the
same to every node. Keys that are due by the log's clock do not count.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from eraft import limits
from eraft.shardkv import ownership
from eraft.shardkv.data import Reply
from eraft.shardkv.machine import ShardMachine
from eraft.shardkv.patterns import compile_pattern
from eraft.shardkv.syntax import REPLY_TOO_LARGE, ScanOptions, parse_int, parse_scan
from eraft.storage import rows as layout
from eraft.types import BUCKETS

Walk: TypeAlias = Generator[Any, None, Reply]

_HASH_BITS: Final = 32
_LAST_PLACE: Final = BUCKETS << _HASH_BITS
_PLACE = slice(layout.PREFIX_BYTES, layout.PREFIX_BYTES + 6)
_PLACE_BYTES = 6
_KEY = slice(_PLACE.stop, None)
_DEADLINE = slice(9, 17)
"""Of a DATA row: after flags and version."""
_NO_DEADLINE = bytes(8)
_ROWS_PER_SLICE = 64


def walk(args: list[bytes], shards: Sequence[ShardMachine], chance: int) -> Walk:
    """Begin a command that admission returned.

    Args:
        args: The command, of `Kind.KEYSPACE` and without the flag `write`.
        shards: The groups whose keys are the node's; no bucket is owned by two of them.
        chance: A random number below 2**64; only RANDOMKEY uses it.
    """
    return _WALKS[args[0]](args, _Space(shards), chance)


def count(shards: Sequence[ShardMachine]) -> Generator[int, None, int]:
    """Count the keys of these groups, as DBSIZE does; yield how many it has so far."""
    return _count(_Space(shards).keys())


class _Run(NamedTuple):
    """Neighbouring buckets of one group, as a range of places."""

    start: int
    end: int
    shard: ShardMachine


class _Space:
    """The keys of several groups in the order of their places."""

    def __init__(self, shards: Sequence[ShardMachine]) -> None:
        runs = [
            _Run(first << _HASH_BITS, (last + 1) << _HASH_BITS, shard)
            for shard in shards
            for first, last in ownership.owned_runs(shard.states)
        ]
        self.runs = sorted(runs, key=lambda run: run.start)

    def keys(self, start: int = 0, end: int = _LAST_PLACE) -> Iterator[tuple[int, bytes] | None]:
        """Yield place and name of each key with start <= place < end; None to take a breath."""
        for run in self.runs:
            if run.start < end and run.end > start:
                yield from _scan(run.shard, max(run.start, start), min(run.end, end))


def _scan(shard: ShardMachine, start: int, end: int) -> Iterator[tuple[int, bytes] | None]:
    rows = shard.rows
    prefix = rows.data_prefix
    clock = shard.clock_ms.to_bytes(8, "big")
    scan = rows.scan(
        prefix + start.to_bytes(_PLACE_BYTES, "big"), prefix + end.to_bytes(_PLACE_BYTES, "big")
    )
    try:
        for count, (row_key, row) in enumerate(scan, start=1):
            deadline = row[_DEADLINE]
            if deadline == _NO_DEADLINE or deadline > clock:
                yield int.from_bytes(row_key[_PLACE], "big"), row_key[_KEY]
            if count % _ROWS_PER_SLICE == 0:
                yield None
    finally:
        scan.close()
    yield None


def _dbsize(args: list[bytes], space: _Space, chance: int) -> Walk:
    """DBSIZE."""
    return (yield from _count(space.keys()))


def _count_keys_in_slot(args: list[bytes], space: _Space, chance: int) -> Walk:
    """CLUSTER COUNTKEYSINSLOT slot."""
    return (yield from _count(space.keys(*_bucket_places(args[2]))))


def _count(keys: Iterator[tuple[int, bytes] | None]) -> Generator[int, None, int]:
    found = 0
    for item in keys:
        if item is None:
            yield found
        else:
            found += 1
    return found


def _keys(args: list[bytes], space: _Space, chance: int) -> Walk:
    """KEYS pattern."""
    return (yield from _collect(space.keys(), compile_pattern(args[1]), None))


def _get_keys_in_slot(args: list[bytes], space: _Space, chance: int) -> Walk:
    """CLUSTER GETKEYSINSLOT slot count."""
    keys = space.keys(*_bucket_places(args[2]))
    return (yield from _collect(keys, compile_pattern(b"*"), parse_int(args[3])))


def _collect(
    keys: Iterator[tuple[int, bytes] | None],
    matches: Callable[[bytes], bool],
    limit: int | None,
) -> Walk:
    found: list[Reply] = []
    size_bytes = 0
    for item in keys:
        if limit is not None and len(found) >= limit:
            break
        if item is None:
            yield
        elif matches(item[1]):
            found.append(item[1])
            size_bytes += len(item[1])
            if size_bytes > limits.CLIENT_OUTPUT_BYTES:
                return REPLY_TOO_LARGE
    return found


def _scan_keys(args: list[bytes], space: _Space, chance: int) -> Walk:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type].

    The cursor is the place of the next key. Keys of equal hashes go out together.
    """
    options = parse_scan(args)
    if not isinstance(options, ScanOptions):
        return options
    matches = compile_pattern(options.pattern)
    found: list[Reply] = []
    seen = size_bytes = last_place = 0
    for item in space.keys(options.cursor):
        if item is None:
            yield
            continue
        place, key = item
        if seen >= options.count and place != last_place:
            return [b"%d" % place, found]
        seen += 1
        last_place = place
        if options.strings and matches(key):
            found.append(key)
            size_bytes += len(key)
            if size_bytes > limits.CLIENT_OUTPUT_BYTES:
                return REPLY_TOO_LARGE
    return [b"0", found]


def _randomkey(args: list[bytes], space: _Space, chance: int) -> Walk:
    """RANDOMKEY: the first key from a random place of a random bucket on, cyclically."""
    bucket_number, place_hash = divmod(chance, 1 << _HASH_BITS)
    owned = sum((run.end - run.start) >> _HASH_BITS for run in space.runs)
    if not owned:
        return None
    bucket_number %= owned
    start = 0
    for run in space.runs:
        buckets = (run.end - run.start) >> _HASH_BITS
        if bucket_number < buckets:
            start = run.start + (bucket_number << _HASH_BITS) + place_hash
            break
        bucket_number -= buckets
    for keys in (space.keys(start), space.keys(0, start)):
        for item in keys:
            if item is not None:
                return item[1]
            yield
    return None


def _bucket_places(slot: bytes) -> tuple[int, int]:
    bucket = parse_int(slot) or 0
    return bucket << _HASH_BITS, (bucket + 1) << _HASH_BITS


_WALKS: Final[dict[bytes, Callable[[list[bytes], _Space, int], Walk]]] = {
    b"CLUSTER|COUNTKEYSINSLOT": _count_keys_in_slot,
    b"CLUSTER|GETKEYSINSLOT": _get_keys_in_slot,
    b"DBSIZE": _dbsize,
    b"KEYS": _keys,
    b"RANDOMKEY": _randomkey,
    b"SCAN": _scan_keys,
}
