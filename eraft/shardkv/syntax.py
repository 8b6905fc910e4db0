"""What commands have in common in their arguments: integers, times, options, and the errors.

The same functions check a command before it is logged and read it again at
apply: the log holds commands as they were sent, under their upper-case name.
Each returns what it read, or a `ReplyError` in Redis's words.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from eraft import limits
from eraft._impl import resp

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
_INT64_CHARS = 20

SYNTAX_ERROR: Final = resp.ReplyError(b"ERR syntax error")
NOT_AN_INTEGER: Final = resp.ReplyError(b"ERR value is not an integer or out of range")
NOT_A_FLOAT: Final = resp.ReplyError(b"ERR value is not a valid float")
OFFSET_OUT_OF_RANGE: Final = resp.ReplyError(b"ERR offset is out of range")
VALUE_TOO_LARGE: Final = resp.ReplyError(
    b"ERR string exceeds maximum allowed size (proto-max-bulk-len)"
)
REPLY_TOO_LARGE: Final = resp.ReplyError(
    b"ERR the reply exceeds %d bytes" % limits.CLIENT_OUTPUT_BYTES
)
_NX_WITH_OTHERS = resp.ReplyError(
    b"ERR NX and XX, GT or LT options at the same time are not compatible"
)
_INVALID_CURSOR = resp.ReplyError(b"ERR invalid cursor")
_GT_WITH_LT = resp.ReplyError(b"ERR GT and LT options at the same time are not compatible")


def parse_int(text: bytes) -> int | None:
    """Read a 64-bit integer as strictly as Redis: only its shortest form; None if it is not."""
    if len(text) > _INT64_CHARS:
        return None
    try:
        value = int(text)
    except ValueError:
        return None
    if b"%d" % value != text or not INT64_MIN <= value <= INT64_MAX:
        return None
    return value


def invalid_expire_time(command: bytes) -> resp.ReplyError:
    """Return the error for a time to live that `command` (in lower case) cannot take."""
    return resp.ReplyError(b"ERR invalid expire time in '%b' command" % command)


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """How a command or an option of it gives the time when a key expires."""

    scale: int
    """Milliseconds in the unit."""
    relative: bool

    def deadline(self, text: bytes, ts_ms: int, command: bytes) -> int | resp.ReplyError:
        """Return the Unix time in ms, a positive one, for options of SET and the like."""
        amount = parse_int(text)
        if amount is None:
            return NOT_AN_INTEGER
        deadline_ms = amount * self.scale + (ts_ms if self.relative else 0)
        if amount <= 0 or deadline_ms > INT64_MAX:
            return invalid_expire_time(command)
        return deadline_ms

    def any_deadline(self, text: bytes, ts_ms: int, command: bytes) -> int | resp.ReplyError:
        """Return the Unix time in ms for EXPIRE and the like: past and negative ones too."""
        amount = parse_int(text)
        if amount is None:
            return NOT_AN_INTEGER
        scaled_ms = amount * self.scale
        deadline_ms = scaled_ms + (ts_ms if self.relative else 0)
        if scaled_ms < INT64_MIN or scaled_ms > INT64_MAX or deadline_ms > INT64_MAX:
            return invalid_expire_time(command)
        return deadline_ms


EX: Final = TimeUnit(1000, relative=True)
PX: Final = TimeUnit(1, relative=True)
EXAT: Final = TimeUnit(1000, relative=False)
PXAT: Final = TimeUnit(1, relative=False)

_TIME_OPTIONS = {b"EX": EX, b"PX": PX, b"EXAT": EXAT, b"PXAT": PXAT}


class Condition(Enum):
    """When SET takes effect."""

    ALWAYS = b""
    NX = b"NX"
    XX = b"XX"
    IFEQ = b"IFEQ"
    IFNE = b"IFNE"


_CONDITIONS = {member.value: member for member in (Condition.NX, Condition.XX)}
_COMPARISONS = {member.value: member for member in (Condition.IFEQ, Condition.IFNE)}


@dataclass(slots=True)
class TimeOption:
    """One of EX, PX, EXAT and PXAT with its number, if there is one."""

    unit: TimeUnit | None = None
    time: bytes = b""

    def take(self, unit: TimeUnit, time: bytes) -> bool:
        """Note a time; False after one in another unit. Of one unit the last one counts."""
        if self.unit is not None and self.unit is not unit:
            return False
        self.unit, self.time = unit, time
        return True


@dataclass(slots=True)
class SetOptions(TimeOption):
    """What follows key and value of SET."""

    condition: Condition = Condition.ALWAYS
    compared: bytes = b""
    """The value that IFEQ and IFNE compare the current one with."""
    get: bool = False
    keep_ttl: bool = False


def parse_set(args: list[bytes]) -> SetOptions | resp.ReplyError:
    """Read the options of SET. The conditions exclude each other, and so do the times."""
    options = SetOptions()
    count = len(args)
    place = 3
    while place < count:
        name = args[place].upper()
        place += 1
        unit = _TIME_OPTIONS.get(name)
        condition = _CONDITIONS.get(name)
        more = place < count
        if unit and more and not options.keep_ttl and options.take(unit, args[place]):
            place += 1
        elif condition is not None and options.condition in (Condition.ALWAYS, condition):
            options.condition = condition
        elif name == b"GET":
            options.get = True
        elif name == b"KEEPTTL" and options.unit is None:
            options.keep_ttl = True
        elif name in _COMPARISONS and more and options.condition is Condition.ALWAYS:
            options.condition, options.compared = _COMPARISONS[name], args[place]
            place += 1
        else:
            return SYNTAX_ERROR
    return options


@dataclass(slots=True)
class GetexOptions(TimeOption):
    """What follows the key of GETEX."""

    persist: bool = False


def parse_getex(args: list[bytes]) -> GetexOptions | resp.ReplyError:
    """Read the options of GETEX: PERSIST or one time."""
    options = GetexOptions()
    count = len(args)
    place = 2
    while place < count:
        name = args[place].upper()
        place += 1
        unit = _TIME_OPTIONS.get(name)
        more = place < count
        if unit and more and not options.persist and options.take(unit, args[place]):
            place += 1
        elif name == b"PERSIST" and options.unit is None:
            options.persist = True
        else:
            return SYNTAX_ERROR
    return options


@dataclass(slots=True)
class ExpireOptions:
    """When EXPIRE and the like take effect."""

    nx: bool = False
    xx: bool = False
    gt: bool = False
    lt: bool = False


def parse_expire(args: list[bytes]) -> ExpireOptions | resp.ReplyError:
    """Read what follows key and time of EXPIRE and the like."""
    options = ExpireOptions()
    for option in args[3:]:
        match option.upper():
            case b"NX":
                options.nx = True
            case b"XX":
                options.xx = True
            case b"GT":
                options.gt = True
            case b"LT":
                options.lt = True
            case _:
                return resp.ReplyError(b"ERR Unsupported option " + printable(option))
    if options.nx and (options.xx or options.gt or options.lt):
        return _NX_WITH_OTHERS
    if options.gt and options.lt:
        return _GT_WITH_LT
    return options


@dataclass(slots=True)
class ScanOptions:
    """The arguments of SCAN."""

    cursor: int
    count: int = 10
    pattern: bytes = b"*"
    strings: bool = True
    """Whether strings are wanted; no other type exists."""


def parse_scan(args: list[bytes]) -> ScanOptions | resp.ReplyError:
    """Read the arguments of SCAN; a count above the limit becomes the limit."""
    cursor = _parse_cursor(args[1])
    if cursor is None:
        return _INVALID_CURSOR
    options = ScanOptions(cursor)
    for place in range(2, len(args), 2):
        if place + 1 == len(args):
            return SYNTAX_ERROR
        name, value = args[place].upper(), args[place + 1]
        if name == b"COUNT":
            count = parse_int(value)
            if count is None:
                return NOT_AN_INTEGER
            if count < 1:
                return SYNTAX_ERROR
            options.count = min(count, limits.SCAN_COUNT)
        elif name == b"MATCH":
            options.pattern = value
        elif name == b"TYPE":
            options.strings = value.lower() == b"string"
        else:
            return SYNTAX_ERROR
    return options


def _parse_cursor(text: bytes) -> int | None:
    """Read a cursor as C's strtoul does: signs and leading zeros pass, and so does nothing."""
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    if not text:
        return 0
    if not digits.isdigit() or len(digits.lstrip(b"0")) > _INT64_CHARS:
        return None
    cursor = int(digits)
    if cursor >= 2**64:
        return None
    return -cursor % 2**64 if text[:1] == b"-" else cursor


def printable(text: bytes, limit: int = 128) -> bytes:
    """Return a client's text as an error shows it: up to a NUL, no line ends, cut off."""
    shown = text.split(b"\0", 1)[0][:limit]
    return shown.replace(b"\r", b" ").replace(b"\n", b" ")
