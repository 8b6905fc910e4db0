"""Strict readers of JSON that came from a peer, a disk or a client.

Each takes the value and `where` it stood, and raises ProtocolError that says
both. Unknown fields are refused too: a table that was read and written again
must be the same table on every node.
"""

import re
from collections.abc import Collection
from typing import Any

import orjson

from eraft import limits
from eraft.errors import ProtocolError

_NAME = re.compile(r"[0-9A-Za-z_.:-]*")
_HOST = re.compile(r"[0-9A-Za-z_.-]+|\[[0-9A-Fa-f:.]+\]")

U32 = 2**32 - 1
U63 = 2**63 - 1


def document(body: bytes | bytearray | memoryview, what: str) -> object:
    """The JSON document in `body`, at most limits.TABLE_SIZE_BYTES long."""
    if len(body) > limits.TABLE_SIZE_BYTES:
        raise ProtocolError(f"{what}: {len(body)} bytes, at most {limits.TABLE_SIZE_BYTES}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"{what}: not JSON: {error}") from error


def record(value: object, where: str, fields: Collection[str]) -> dict[str, Any]:
    """A JSON object with exactly these fields."""
    found = mapping(value, where)
    for name in fields:
        if name not in found:
            raise ProtocolError(f"{where}: no field {name!r}")
    for name in found:
        if name not in fields:
            raise ProtocolError(f"{where}: unknown field {short(name)}")
    return found


def mapping(value: object, where: str) -> dict[str, Any]:
    """A JSON object of any fields."""
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: must be an object, not {short(value)}")
    return value


def sequence(value: object, where: str, most: int) -> list[Any]:
    """A JSON array of at most `most` elements."""
    if not isinstance(value, list):
        raise ProtocolError(f"{where}: must be an array, not {short(value)}")
    if len(value) > most:
        raise ProtocolError(f"{where}: {len(value)} elements, at most {most}")
    return value


def integer(value: object, where: str, least: int, most: int) -> int:
    """A JSON number without a fraction, from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(f"{where}: must be a whole number, not {short(value)}")
    if not least <= value <= most:
        raise ProtocolError(f"{where}: must be from {least} to {most}, not {short(value)}")
    return value


def number_key(text: str, where: str, least: int, most: int) -> int:
    """A number that is a field's name, in its only form (no sign, no leading zero)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and str(int(text)) == text):
        raise ProtocolError(f"{where}: must be a whole number, not {short(text)}")
    return integer(int(text), where, least, most)


def boolean(value: object, where: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ProtocolError(f"{where}: must be true or false, not {short(value)}")
    return value


def name(value: object, where: str, least: int = 0) -> str:
    """An identifier: `least` to limits.NAME_CHARS letters, digits and _.:-"""
    if not isinstance(value, str):
        raise ProtocolError(f"{where}: must be a string, not {short(value)}")
    if not least <= len(value) <= limits.NAME_CHARS:
        raise ProtocolError(
            f"{where}: must have {least} to {limits.NAME_CHARS} characters, not {len(value)}"
        )
    if not _NAME.fullmatch(value):
        raise ProtocolError(f"{where}: only letters, digits and _.:- may stand in {short(value)}")
    return value


def address(value: object, where: str, optional: bool = False) -> str:
    """A host:port that another node can connect to; "" too if `optional`."""
    if optional and value == "":
        return ""
    if not isinstance(value, str):
        raise ProtocolError(f"{where}: must be a string, not {short(value)}")
    host, _, port = value.rpartition(":")
    good_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not good_port or len(host) > limits.HOST_CHARS or not _HOST.fullmatch(host):
        raise ProtocolError(f"{where}: must be host:port, not {short(value)}")
    return value


def short(value: object) -> str:
    """A value as an error message shows it: on one line, cut at 60 characters."""
    if isinstance(value, dict | list):  # repr() of a deep one would exhaust the stack
        return "an object" if isinstance(value, dict) else "an array"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
