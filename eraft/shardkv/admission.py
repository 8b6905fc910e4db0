"""Before a command is routed: is there such a command, is it well-formed, which bucket is it of.

Only well-formed commands reach the log. Errors that depend on values are
replies at apply, and so are those that depend on the entry's time. Every
error has Redis's words.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from eraft import limits
from eraft._impl import hashing, resp
from eraft.errors import RequestError
from eraft.shardkv import longdouble
from eraft.shardkv.specs import COMMANDS, CommandSpec, Kind
from eraft.shardkv.syntax import (
    EX,
    EXAT,
    INT64_MIN,
    NOT_A_FLOAT,
    NOT_AN_INTEGER,
    OFFSET_OUT_OF_RANGE,
    PX,
    PXAT,
    SYNTAX_ERROR,
    VALUE_TOO_LARGE,
    GetexOptions,
    SetOptions,
    TimeUnit,
    parse_expire,
    parse_getex,
    parse_int,
    parse_scan,
    parse_set,
    printable,
)
from eraft.types import BUCKETS

_SHOWN_CHARS = 128
_CROSSSLOT = resp.ReplyError(b"CROSSSLOT Keys in request don't hash to the same slot")
_KEY_TOO_LARGE = resp.ReplyError(
    b"ERR key exceeds maximum allowed size (%d)" % limits.KEY_SIZE_BYTES
)
_PATTERN_TOO_LARGE = resp.ReplyError(
    b"ERR pattern exceeds maximum allowed size (%d)" % limits.PATTERN_SIZE_BYTES
)
_DECREMENT_OVERFLOW = resp.ReplyError(b"ERR decrement would overflow")
_INVALID_SLOT = resp.ReplyError(b"ERR Invalid slot")
_INVALID_SLOT_OR_COUNT = resp.ReplyError(b"ERR Invalid slot or number of keys")


class CommandError(RequestError):
    """A command that is refused as it stands; `reply` says why, in Redis's words."""

    def __init__(self, reply: resp.ReplyError) -> None:
        super().__init__(reply.decode("utf-8", "backslashreplace"))
        self.reply = reply


def lookup(args: list[bytes]) -> CommandSpec:
    """Return the specification of the command or, in a container, of its subcommand.

    Args:
        args: The command as sent, at least its name.

    Raises:
        CommandError: there is no such (sub)command, or its number of arguments is wrong.
    """
    spec = COMMANDS.get(args[0].upper())
    if spec is None:
        raise CommandError(_unknown(args))
    if spec.subcommands and len(args) > 1:
        wanted = spec.name + b"|" + args[1].upper()
        for subcommand in spec.subcommands:
            if subcommand.name == wanted:
                spec = subcommand
                break
        else:
            text = printable(args[1], _SHOWN_CHARS)
            raise CommandError(
                resp.ReplyError(b"ERR unknown subcommand '%b'. Try %b HELP." % (text, spec.name))
            )
    if not spec.accepts(len(args)):
        raise CommandError(_wrong_arity(spec.name))
    return spec


def admit(spec: CommandSpec, args: list[bytes]) -> list[bytes]:
    """Check a command that `lookup` found, and return it as it goes to the log or is executed.

    The name of the result is in upper case. It may be another: FLUSHDB does
    what FLUSHALL does, and a subcommand on the key space has its full name.

    Raises:
        CommandError: it is not well-formed or too large, or its keys are in several buckets.
    """
    if spec.first_key:
        _check_keys(keys_of(spec, args))
        if spec.kind is Kind.WRITE and max(map(len, args)) > limits.VALUE_SIZE_BYTES:
            raise CommandError(VALUE_TOO_LARGE)
    check = _CHECKS.get(spec.name)
    if check is not None:
        error = check(args)
        if error is not None:
            raise CommandError(error)
    if spec.name in (b"FLUSHALL", b"FLUSHDB"):
        return [b"FLUSHALL"]
    return args if args[0] == spec.name else [spec.name, *args[1:]]


def keys_of(spec: CommandSpec, args: list[bytes]) -> list[bytes]:
    """Return the keys of a command, in order, as often as they are named."""
    if not spec.first_key:
        return []
    last_key = spec.last_key if spec.last_key >= 0 else len(args) + spec.last_key
    return args[spec.first_key : last_key + 1 : spec.key_step]


def bucket_of_command(spec: CommandSpec, args: list[bytes]) -> int:
    """Return the bucket of the keys of an admitted command that has any."""
    return hashing.bucket_of(args[spec.first_key])


def _unknown(args: list[bytes]) -> resp.ReplyError:
    shown = b""
    for arg in args[1:]:
        if len(shown) >= _SHOWN_CHARS:
            break
        shown += b"'%b' " % printable(arg, _SHOWN_CHARS - len(shown))
    name = printable(args[0], _SHOWN_CHARS)
    return resp.ReplyError(
        b"ERR unknown command '%b', with args beginning with: %b" % (name, shown)
    )


def _wrong_arity(name: bytes) -> resp.ReplyError:
    return resp.ReplyError(b"ERR wrong number of arguments for '%b' command" % name.lower())


def _check_keys(keys: list[bytes]) -> None:
    if max(map(len, keys)) > limits.KEY_SIZE_BYTES:
        raise CommandError(_KEY_TOO_LARGE)
    if len(keys) > 1:
        buckets = hashing.buckets_of(keys)
        if buckets.count(buckets[0]) != len(buckets):
            raise CommandError(_CROSSSLOT)


# Each returns what is wrong with the arguments, or None.

_Check: TypeAlias = Callable[[list[bytes]], resp.ReplyError | None]


def _check_set(args: list[bytes]) -> resp.ReplyError | None:
    options = parse_set(args)
    if not isinstance(options, SetOptions):
        return options
    if options.unit is None:
        return None
    return _error_in(options.unit.deadline(options.time, 0, b"set"))


def _check_getex(args: list[bytes]) -> resp.ReplyError | None:
    """The time itself is looked at only if the key exists, so at apply."""
    options = parse_getex(args)
    return None if isinstance(options, GetexOptions) else options


def _check_time(unit: TimeUnit, command: bytes) -> _Check:
    return lambda args: _error_in(unit.deadline(args[2], 0, command))


def _check_expire(unit: TimeUnit, command: bytes) -> _Check:
    def check(args: list[bytes]) -> resp.ReplyError | None:
        options = parse_expire(args)
        if isinstance(options, resp.ReplyError):
            return options
        return _error_in(unit.any_deadline(args[2], 0, command))

    return check


def _error_in(outcome: int | resp.ReplyError) -> resp.ReplyError | None:
    return None if isinstance(outcome, int) else outcome


def _check_pairs(args: list[bytes]) -> resp.ReplyError | None:
    return None if len(args) % 2 else _wrong_arity(args[0])


def _check_integers(*places: int) -> _Check:
    def check(args: list[bytes]) -> resp.ReplyError | None:
        if any(parse_int(args[place]) is None for place in places):
            return NOT_AN_INTEGER
        return None

    return check


def _check_decrby(args: list[bytes]) -> resp.ReplyError | None:
    amount = parse_int(args[2])
    if amount is None:
        return NOT_AN_INTEGER
    return _DECREMENT_OVERFLOW if amount == INT64_MIN else None


def _check_incrbyfloat(args: list[bytes]) -> resp.ReplyError | None:
    return NOT_A_FLOAT if longdouble.parse(args[2]) is None else None


def _check_setrange(args: list[bytes]) -> resp.ReplyError | None:
    offset = parse_int(args[2])
    if offset is None:
        return NOT_AN_INTEGER
    return OFFSET_OUT_OF_RANGE if offset < 0 else None


def _check_flush(args: list[bytes]) -> resp.ReplyError | None:
    if len(args) == 1 or (len(args) == 2 and args[1].upper() in (b"ASYNC", b"SYNC")):
        return None
    return SYNTAX_ERROR


def _check_scan(args: list[bytes]) -> resp.ReplyError | None:
    options = parse_scan(args)
    if isinstance(options, resp.ReplyError):
        return options
    return _check_pattern(options.pattern)


def _check_keys_pattern(args: list[bytes]) -> resp.ReplyError | None:
    return _check_pattern(args[1])


def _check_pattern(pattern: bytes) -> resp.ReplyError | None:
    return _PATTERN_TOO_LARGE if len(pattern) > limits.PATTERN_SIZE_BYTES else None


def _check_slot(args: list[bytes]) -> resp.ReplyError | None:
    slot = parse_int(args[2])
    if slot is None:
        return NOT_AN_INTEGER
    return None if 0 <= slot < BUCKETS else _INVALID_SLOT


def _check_slot_and_count(args: list[bytes]) -> resp.ReplyError | None:
    slot, count = parse_int(args[2]), parse_int(args[3])
    if slot is None or count is None:
        return NOT_AN_INTEGER
    return None if 0 <= slot < BUCKETS and count >= 0 else _INVALID_SLOT_OR_COUNT


_CHECKS: Final[dict[bytes, _Check]] = {
    b"CLUSTER|COUNTKEYSINSLOT": _check_slot,
    b"CLUSTER|GETKEYSINSLOT": _check_slot_and_count,
    b"DECRBY": _check_decrby,
    b"EXPIRE": _check_expire(EX, b"expire"),
    b"EXPIREAT": _check_expire(EXAT, b"expireat"),
    b"FLUSHALL": _check_flush,
    b"FLUSHDB": _check_flush,
    b"GETEX": _check_getex,
    b"GETRANGE": _check_integers(2, 3),
    b"INCRBY": _check_integers(2),
    b"INCRBYFLOAT": _check_incrbyfloat,
    b"KEYS": _check_keys_pattern,
    b"MSET": _check_pairs,
    b"MSETNX": _check_pairs,
    b"PEXPIRE": _check_expire(PX, b"pexpire"),
    b"PEXPIREAT": _check_expire(PXAT, b"pexpireat"),
    b"PSETEX": _check_time(PX, b"psetex"),
    b"SCAN": _check_scan,
    b"SET": _check_set,
    b"SETEX": _check_time(EX, b"setex"),
    b"SETRANGE": _check_setrange,
}
