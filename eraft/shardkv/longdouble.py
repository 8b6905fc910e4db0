"""The arithmetic of INCRBYFLOAT: x87 extended precision, as Redis has it on x86-64.

Redis adds with C's `long double` and prints 17 decimals. The result must be
the same on every replica whatever the machine, and equal to what Redis says,
so it is computed on integers: a number is (mantissa, exponent), its value
mantissa * 2**exponent with |mantissa| < 2**64, rounded to nearest, ties to
even (IEEE 754-2008, 4.3.1).
"""

from decimal import Decimal, InvalidOperation
from typing import TypeAlias

Number: TypeAlias = tuple[int, int]

_TEXT_LIMIT = 5 * 1024
_PRECISION_BITS = 64
_LEAST_EXPONENT = -16445
"""Of the smallest subnormal number."""
_TOP_EXPONENT = 16384
"""Every number is below 2 to this; as an exponent it means infinity."""
_DECIMALS = 17
_SCALE = 10**_DECIMALS
_DECIMAL_CHARS = frozenset(b"0123456789+-.eE")
_GREATEST_DIGITS = 4_940
"""A number with its first digit this many places from the point is out of range."""


def parse(text: bytes) -> Number | None:
    """Read a number as C's strtold does, all of `text`; None if it is none or out of range."""
    if not text or len(text) >= _TEXT_LIMIT:
        return None
    lower = text.lower()
    negative = lower[:1] == b"-"
    digits = lower[1:] if lower[:1] in (b"+", b"-") else lower
    if digits in (b"inf", b"infinity"):
        return (-1 if negative else 1, _TOP_EXPONENT)
    number = _parse_hex(digits[2:]) if digits[:2] == b"0x" else _parse_decimal(digits)
    if number is None:
        return None
    return (-number[0], number[1]) if negative else number


def add(a: Number, b: Number) -> Number | None:
    """Return a + b; None if that is not a finite number."""
    if a[1] == _TOP_EXPONENT or b[1] == _TOP_EXPONENT:
        return None
    exponent = min(a[1], b[1])
    total = (a[0] << (a[1] - exponent)) + (b[0] << (b[1] - exponent))
    rounded = _round(abs(total), exponent)
    if rounded is None:
        return None
    return (-rounded[0], rounded[1]) if total < 0 else rounded


def to_text(number: Number) -> bytes:
    """Return the number with up to 17 decimals and without needless zeros."""
    mantissa, exponent = abs(number[0]), number[1]
    if exponent >= 0:
        scaled = (mantissa << exponent) * _SCALE
    else:
        scaled = _shift_right(mantissa * _SCALE, -exponent)
    if scaled == 0:
        return b"0"
    whole, fraction = divmod(scaled, _SCALE)
    text = str(Decimal(whole))  # str(int) refuses the largest ones
    if fraction:
        text += f".{fraction:0{_DECIMALS}d}".rstrip("0")
    return (("-" if number[0] < 0 else "") + text).encode()


def _parse_decimal(digits: bytes) -> Number | None:
    if digits[:1] in (b"+", b"-") or not _DECIMAL_CHARS.issuperset(digits):
        return None
    try:
        value = Decimal(digits.decode())
    except InvalidOperation:
        return None
    if not value:
        return (0, 0)
    if abs(value.adjusted()) > _GREATEST_DIGITS + _PRECISION_BITS:
        return None
    numerator, denominator = value.as_integer_ratio()
    return _nearest(numerator, denominator)


def _parse_hex(digits: bytes) -> Number | None:
    """Read what follows 0x: hexadecimal digits with a point, p and a power of two."""
    mantissa_text, has_power, power_text = digits.partition(b"p")
    power = 0
    if has_power:
        unsigned = power_text[1:] if power_text[:1] in (b"+", b"-") else power_text
        if not unsigned.isdigit() or len(unsigned.lstrip(b"0")) > 6:
            return None
        power = int(power_text)
    whole, _, fraction = mantissa_text.partition(b".")
    try:
        mantissa = int((whole + fraction).decode(), 16) if whole + fraction else None
    except ValueError:
        return None
    if mantissa is None or not (whole + fraction).isalnum():
        return None
    if mantissa == 0:
        return (0, 0)
    exponent = power - 4 * len(fraction)
    if abs(mantissa.bit_length() + exponent) > 2 * _TOP_EXPONENT:
        return None
    rounded = _round(mantissa, exponent)
    return rounded if rounded is not None and rounded[0] else None


def _nearest(numerator: int, denominator: int) -> Number | None:
    """Return the number nearest to a positive ratio; None if it overflows or vanishes."""
    shift = _PRECISION_BITS + 2 - numerator.bit_length() + denominator.bit_length()
    if shift >= 0:
        quotient, rest = divmod(numerator << shift, denominator)
    else:
        quotient, rest = divmod(numerator, denominator << -shift)
    rounded = _round(quotient << 1 | (rest != 0), -shift - 1)
    return rounded if rounded is not None and rounded[0] else None


def _round(mantissa: int, exponent: int) -> Number | None:
    """Round a mantissa >= 0 to the precision; None if the number overflows."""
    excess = max(mantissa.bit_length() - _PRECISION_BITS, _LEAST_EXPONENT - exponent)
    if excess > 0:
        mantissa = _shift_right(mantissa, excess)
        exponent += excess
    if mantissa.bit_length() + exponent > _TOP_EXPONENT:
        return None
    return (mantissa, exponent) if mantissa else (0, 0)


def _shift_right(value: int, bits: int) -> int:
    """Divide by a power of two, to nearest, ties to even."""
    quotient = value >> bits
    rest = value - (quotient << bits)
    half = 1 << (bits - 1)
    if rest > half or (rest == half and quotient & 1):
        quotient += 1
    return quotient
