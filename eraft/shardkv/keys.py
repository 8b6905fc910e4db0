"""Commands on keys whatever their value: existence, deletion, expiry."""

from eraft._impl import batch, resp
from eraft.shardkv.data import Data, Reply, View
from eraft.shardkv.syntax import ExpireOptions, TimeUnit, parse_expire

_STRING = resp.Simple(b"string")
_NONE = resp.Simple(b"none")
_NO_KEY = -2
_NO_DEADLINE = -1


# Reads


def exists(view: View, args: list[bytes]) -> Reply:
    """EXISTS key [key ...], TOUCH key [key ...]: a key counts as often as it is named."""
    prefix = view.prefix
    return sum(view.find(batch.data_key(prefix, key)) is not None for key in args[1:])


def type_(view: View, args: list[bytes]) -> Reply:
    """TYPE key."""
    return _NONE if view.value(args[1]) is None else _STRING


def ttl(view: View, args: list[bytes]) -> Reply:
    """TTL key: in seconds, rounded."""
    return _remaining(view, args[1], view.now_ms, 1000)


def pttl(view: View, args: list[bytes]) -> Reply:
    """PTTL key: in milliseconds."""
    return _remaining(view, args[1], view.now_ms, 1)


def expiretime(view: View, args: list[bytes]) -> Reply:
    """EXPIRETIME key: Unix time in seconds, rounded."""
    return _remaining(view, args[1], 0, 1000)


def pexpiretime(view: View, args: list[bytes]) -> Reply:
    """PEXPIRETIME key: Unix time in milliseconds."""
    return _remaining(view, args[1], 0, 1)


def _remaining(view: View, key: bytes, since_ms: int, scale: int) -> Reply:
    found = view.find(batch.data_key(view.prefix, key))
    if found is None:
        return _NO_KEY
    deadline_ms = found[1]
    if not deadline_ms:
        return _NO_DEADLINE
    return (deadline_ms - since_ms + scale // 2) // scale


# Writes


def delete(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """DEL key [key ...], UNLINK key [key ...]."""
    count = 0
    prefix = data.prefix
    for place in range(1, len(args)):
        if place > 1:
            row_key = batch.data_key(prefix, args[place])
        found = data.find(row_key)
        if found is not None:
            data.remove(row_key, found[1])
            count += 1
    return count


def expire(
    data: Data, args: list[bytes], row_key: bytes, *, unit: TimeUnit, command: bytes
) -> Reply:
    """EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT key time [NX|XX|GT|LT]."""
    options = parse_expire(args)
    if not isinstance(options, ExpireOptions):
        return options
    deadline_ms = unit.any_deadline(args[2], data.clock_ms, command)
    if not isinstance(deadline_ms, int):
        return deadline_ms
    found = data.find(row_key)
    if found is None or not _holds(options, deadline_ms, found[1]):
        return 0
    if deadline_ms <= data.clock_ms:
        data.remove(row_key, found[1])
    else:
        data.put(row_key, found[2], deadline_ms, found[1])
    return 1


def _holds(options: ExpireOptions, deadline_ms: int, old_deadline_ms: int) -> bool:
    """A key without a deadline counts as one that never comes."""
    if not old_deadline_ms:
        return not options.xx and not options.gt
    return not (
        options.nx
        or (options.gt and deadline_ms <= old_deadline_ms)
        or (options.lt and deadline_ms >= old_deadline_ms)
    )


def persist(data: Data, args: list[bytes], row_key: bytes) -> Reply:
    """PERSIST key."""
    found = data.find(row_key)
    if found is None or not found[1]:
        return 0
    data.put(row_key, found[2], 0, found[1])
    return 1
