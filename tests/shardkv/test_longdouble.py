"""The arithmetic of INCRBYFLOAT against exact rationals."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eraft.shardkv import longdouble


def exact(number: longdouble.Number) -> Fraction:
    return Fraction(number[0]) * Fraction(2) ** number[1]


def read(text: str) -> Fraction:
    number = longdouble.parse(text.encode())
    assert number is not None
    return exact(number)


fractions = st.builds(
    Fraction,
    st.integers(min_value=-(10**24), max_value=10**24),
    st.sampled_from([10**n for n in range(25)]),
)


def decimal_text(value: Fraction) -> str:
    scaled = abs(value) * 10**24
    assert scaled.denominator == 1
    digits = str(scaled.numerator).rjust(25, "0")
    return f"{'-' if value < 0 else ''}{digits[:-24]}.{digits[-24:]}"


@given(fractions)
def test_reading_rounds_to_the_nearest(value: Fraction) -> None:
    got = read(decimal_text(value))
    if not value:
        assert got == 0
        return
    last_place = Fraction(2) ** (math.frexp(value)[1] - 64)
    assert abs(got - value) <= last_place / 2
    assert (got / last_place).denominator == 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_exact(value: float) -> None:
    assert read(repr(Fraction(value).numerator)) == Fraction(value).numerator or abs(value) > 2**64
    assert read(value.hex()) == Fraction(value)


@given(st.integers(min_value=-(2**62), max_value=2**62), st.integers(-(2**62), 2**62))
def test_integers_are_exact(a: int, b: int) -> None:
    total = longdouble.add((a, 0), (b, 0))
    assert total is not None
    assert longdouble.to_text(total) == b"%d" % (a + b)


@given(fractions, fractions)
def test_adding_rounds_once(a: Fraction, b: Fraction) -> None:
    x, y = (longdouble.parse(decimal_text(value).encode()) for value in (a, b))
    assert x is not None
    assert y is not None
    total = longdouble.add(x, y)
    assert total is not None
    wanted = exact(x) + exact(y)
    if not wanted:
        assert exact(total) == 0
        return
    assert abs(exact(total) - wanted) <= abs(wanted) / 2**64
    assert total == longdouble.add(y, x)


@given(fractions)
def test_the_text_has_17_decimals(value: Fraction) -> None:
    number = longdouble.parse(decimal_text(value).encode())
    assert number is not None
    text = longdouble.to_text(number).decode()
    assert abs(Fraction(text) - exact(number)) <= Fraction(1, 2 * 10**17)
    assert text not in ("-0", "")
    assert "." not in text or not text.endswith(("0", "."))


def test_ties_go_to_even() -> None:
    assert read(str(2**64 + 1)) == 2**64
    assert read(str(2**64 + 3)) == 2**64 + 4
    assert read(f"{2**64 + 1}.0000000000000000000000000001") == 2**64 + 2


def test_the_largest_and_the_smallest() -> None:
    largest = (2**64 - 1) << (16384 - 64)
    text = longdouble.to_text((2**64 - 1, 16384 - 64))
    assert len(text) == 4933
    assert longdouble.parse(text) == (2**64 - 1, 16384 - 64)
    assert longdouble.add((2**64 - 1, 16384 - 64), (2**64 - 1, 16384 - 64)) is None
    assert longdouble.parse(b"1.19e4932") is None
    assert read("1.18e4932") <= largest
    assert longdouble.parse(b"3.7e-4951") == (1, -16445)
    assert longdouble.parse(b"1.8e-4951") is None
    assert longdouble.parse(b"0x1p-16446") is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1 ", " 1", "+", "-", ".", "e5", "1e", "1e+", "1_0", "0x", "0x.", "0x1p", "0xg"),
        *("nan", "NAN(1)", "--1", "+-1", "1.2.3", "1e5.0", "1e99999999999999999999", "0x1p9999999"),
        *("infin", "infinityx", "1\0", "\u0661", "1e-99999", "-1e5000", "x" * 10),
    ],
)
def test_no_number(text: str) -> None:
    assert longdouble.parse(text.encode()) is None


@pytest.mark.parametrize("text", ["inf", "-Infinity", "+INF"])
def test_infinity_is_a_number_that_cannot_be_added(text: str) -> None:
    number = longdouble.parse(text.encode())
    assert number is not None
    assert longdouble.add(number, (1, 0)) is None
    assert longdouble.add((1, 0), number) is None


def test_the_longest_text() -> None:
    assert longdouble.parse(b"0." + b"1" * 5117) == longdouble.parse(b"0." + b"1" * 60)
    assert longdouble.parse(b"0." + b"1" * 5118) is None
