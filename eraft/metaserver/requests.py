"""The replies to the last requests, by request id."""

import struct
from hashlib import blake2b
from typing import Any

import orjson

from eraft import limits
from eraft.errors import ProtocolError
from eraft.metaserver import operations
from eraft.metaserver.operations import Operation
from eraft.storage import rows as layout
from eraft.storage.state import ReplicaRows

_COUNT = b"requests"
_REPLY = b"r"
_PLACE = b"p"
_U64 = struct.Struct(">Q")
_DIGEST_BYTES = 16


class RequestLog:
    """Remembers limits.META_REQUESTS_REMEMBERED replies; the rows are all its state.

    META row `requests` counts what was ever remembered (u64). The DATA row of
    r and a request id is the operation's digest and the reply; that of p and
    count mod limit is the request id that took this place, and gives it up to
    the one that comes a whole round later.
    """

    def __init__(self, rows: ReplicaRows) -> None:
        self._rows = rows

    def find(self, request_id: str, operation: Operation) -> dict[str, Any] | str | None:
        """The reply given before, None to a new request.

        An error text if the request id came with another operation before.
        """
        row = self._rows.get(self._key(_REPLY, request_id.encode()))
        if row is None:
            return None
        if row[:_DIGEST_BYTES] != _digest(operation):
            return f"request id {request_id} was used for another request"
        reply: dict[str, Any] | str = orjson.loads(row[_DIGEST_BYTES:])
        return reply

    def remember(self, request_id: str, operation: Operation, reply: dict[str, Any] | str) -> None:
        """Keep the reply of a request that `find` does not know, forget the oldest one."""
        row = self._rows.meta(_COUNT)
        count = 0 if row is None else _U64.unpack(row)[0]
        place = self._key(_PLACE, _U64.pack(count % limits.META_REQUESTS_REMEMBERED))
        oldest = self._rows.get(place)
        if oldest is not None:
            self._rows.delete(self._key(_REPLY, oldest))
        name = request_id.encode()
        self._rows.put(place, name)
        self._rows.put(self._key(_REPLY, name), _digest(operation) + orjson.dumps(reply))
        self._rows.set_meta(_COUNT, _U64.pack(count + 1))

    def _key(self, kind: bytes, name: bytes) -> bytes:
        return self._rows.data_prefix + kind + name


def check_row(key: bytes, row: bytes) -> None:
    """Raise ProtocolError if a row of the log, its key from the kind on, cannot be read."""
    try:
        if key == bytes((layout.META,)) + _COUNT:
            if _U64.unpack(row)[0] >= limits.COUNT_LIMIT:
                raise ProtocolError("request log: more requests than there can have been")
        elif key[:2] == bytes((layout.DATA,)) + _REPLY:
            orjson.loads(row[_DIGEST_BYTES:])
    except (struct.error, orjson.JSONDecodeError) as error:
        raise ProtocolError(f"request log: {error}") from None


def _digest(operation: Operation) -> bytes:
    return blake2b(operations.encode("", operation), digest_size=_DIGEST_BYTES).digest()
