"""Commands on string values, but for the numbers among them."""

from eraft import limits
from eraft._impl import batch, resp
from eraft.shardkv.data import Data, Found, Reply, View
from eraft.shardkv.syntax import (
    NOT_AN_INTEGER,
    REPLY_TOO_LARGE,
    VALUE_TOO_LARGE,
    Condition,
    SetOptions,
    TimeUnit,
    parse_getex,
    parse_int,
    parse_set,
)

_ROWS_PER_FETCH = 16
"""Values read at a time: few enough that the largest ones fit in memory."""


# Reads


def get(view: View, args: list[bytes]) -> Reply:
    """GET key."""
    return view.value(args[1])


def mget(view: View, args: list[bytes]) -> Reply:
    """MGET key [key ...]."""
    values: list[Reply] = []
    size_bytes = 0
    for start in range(1, len(args), _ROWS_PER_FETCH):
        fetched = view.values(args[start : start + _ROWS_PER_FETCH])
        size_bytes += sum(len(value) for value in fetched if value is not None)
        if size_bytes > limits.CLIENT_OUTPUT_BYTES:
            return REPLY_TOO_LARGE
        values += fetched
    return values


def strlen(view: View, args: list[bytes]) -> Reply:
    """STRLEN key."""
    return len(view.value(args[1]) or b"")


def getrange(view: View, args: list[bytes]) -> Reply:
    """GETRANGE key start end; both inclusive, negative ones count from the end."""
    start, end = parse_int(args[2]), parse_int(args[3])
    if start is None or end is None:
        return NOT_AN_INTEGER
    value = view.value(args[1]) or b""
    if start < 0 and end < 0 and start > end:
        return b""
    size = len(value)
    start = max(start + size, 0) if start < 0 else start
    end = max(end + size, 0) if end < 0 else end
    return value[start : end + 1]


# Writes


def set_(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """SET key value [NX|XX|IFEQ v|IFNE v] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]."""
    if len(args) == 3:
        data.put(row_key, args[2])
        return resp.OK
    options = parse_set(args)
    if not isinstance(options, SetOptions):
        return options
    deadline_ms = 0
    if options.unit is not None:
        deadline = options.unit.deadline(options.time, data.clock_ms, b"set")
        if not isinstance(deadline, int):
            return deadline
        deadline_ms = deadline
    found = data.find(row_key)
    old_value = None if found is None else found[2]
    if not _holds(options, old_value):
        return old_value if options.get else None
    if options.keep_ttl and found is not None:
        deadline_ms = found[1]
    _store(data, row_key, args[2], deadline_ms, found)
    return old_value if options.get else resp.OK


def _holds(options: SetOptions, value: bytes | None) -> bool:
    match options.condition:
        case Condition.ALWAYS:
            return True
        case Condition.NX:
            return value is None
        case Condition.XX:
            return value is not None
        case Condition.IFEQ:
            return value == options.compared
        case Condition.IFNE:
            return value != options.compared


def _store(data: Data, row_key: bytes, value: bytes, deadline_ms: int, found: Found) -> None:
    """Set a key in place of what was found there; one whose time has passed is not there."""
    old_deadline_ms = 0 if found is None else found[1]
    if not deadline_ms or deadline_ms > data.clock_ms:
        data.put(row_key, value, deadline_ms, old_deadline_ms)
    elif found is not None:
        data.remove(row_key, old_deadline_ms)


def setex(
    data: Data, args: list[bytes], row_key: bytes, *, unit: TimeUnit, command: bytes
) -> Reply:
    """SETEX key seconds value, PSETEX key milliseconds value."""
    deadline_ms = unit.deadline(args[2], data.clock_ms, command)
    if not isinstance(deadline_ms, int):
        return deadline_ms
    _store(data, row_key, args[3], deadline_ms, data.find(row_key))
    return resp.OK


def setnx(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """SETNX key value."""
    if data.find(row_key) is not None:
        return 0
    data.put(row_key, args[2])
    return 1


def getset(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """GETSET key value."""
    found = data.find(row_key)
    _store(data, row_key, args[2], 0, found)
    return None if found is None else found[2]


def getdel(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """GETDEL key."""
    found = data.find(row_key)
    if found is None:
        return None
    data.remove(row_key, found[1])
    return found[2]


def getex(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]."""
    options = parse_getex(args)
    if isinstance(options, bytes):
        return options
    found = data.find(row_key)
    if found is None:
        return None
    _, old_deadline_ms, value = found
    if options.unit is not None:
        deadline_ms = options.unit.deadline(options.time, data.clock_ms, b"getex")
        if not isinstance(deadline_ms, int):
            return deadline_ms
        _store(data, row_key, value, deadline_ms, found)
    elif options.persist and old_deadline_ms:
        data.put(row_key, value, 0, old_deadline_ms)
    return value


def mset(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """MSET key value [key value ...]."""
    prefix = data.prefix
    for place in range(1, len(args) - 1, 2):
        data.put(batch.data_key(prefix, args[place]), args[place + 1])
    return resp.OK


def msetnx(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """MSETNX key value [key value ...]: all or nothing."""
    prefix = data.prefix
    for key in args[1::2]:
        if data.find(batch.data_key(prefix, key)) is not None:
            return 0
    mset(data, args, row_key)
    return 1


def append(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """APPEND key value."""
    found = data.find(row_key)
    if found is None:
        data.put(row_key, args[2])
        return len(args[2])
    _, deadline_ms, value = found
    size_bytes = len(value) + len(args[2])
    if size_bytes > limits.VALUE_SIZE_BYTES:
        return VALUE_TOO_LARGE
    data.put(row_key, value + args[2], deadline_ms, deadline_ms)
    return size_bytes


def setrange(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """SETRANGE key offset value: zeros fill a gap."""
    offset, patch = parse_int(args[2]), args[3]
    if offset is None or offset < 0:
        return NOT_AN_INTEGER
    found = data.find(row_key)
    deadline_ms, value = (0, b"") if found is None else found[1:]
    if not patch:
        return len(value)
    end = offset + len(patch)
    if end > limits.VALUE_SIZE_BYTES:
        return VALUE_TOO_LARGE
    value = value[:offset].ljust(offset, b"\0") + patch + value[end:]
    data.put(row_key, value, deadline_ms, deadline_ms)
    return len(value)
