"""Plain data that several layers share."""

from eraft.types import split_address


def test_split_address() -> None:
    assert split_address("a.b:80") == ("a.b", 80)
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("") == ("", 0)
