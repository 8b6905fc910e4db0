"""Where the plain writes of all connections to one group become the next entry."""

import struct
from collections.abc import Sequence
from typing import Final

from eraft import limits
from eraft.errors import Overloaded

__all__ = ["IMPL", "Lane"]

IMPL: Final = "python"

_TIMESTAMP = struct.Struct("<Q")
_ROOM_BYTES = limits.ENTRY_SIZE_BYTES - _TIMESTAMP.size


class Lane:
    """Gathers the commands of the next entry of one group that this node leads.

    Args:
        prefix: what the DATA row keys of the group begin with here.
        limit_bytes: the size from which on the lane is `full`.
    """

    def __init__(self, prefix: bytes, limit_bytes: int) -> None:
        self.prefix = bytes(prefix)
        self.count = 0
        self.size_bytes = 0
        """Of the commands, without the timestamp."""
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []

    @property
    def full(self) -> bool:
        """Whether no plain write is added before the next `take`."""
        return self.size_bytes >= self._limit_bytes

    def add(self, args: Sequence[bytes]) -> None:
        """Append a command in canonical form, its name in upper case.

        Raises:
            Overloaded: an entry cannot hold it as well; nothing has changed.
            ValueError: no arguments.
        """
        if not args:
            raise ValueError("a command has at least a name")
        parts = [b"*%d\r\n" % len(args)]
        arg = args[0].upper()
        parts.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
        parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args[1:]]
        self.append(b"".join(parts))

    def append(self, command: bytes) -> None:
        """Append a command that is in canonical form; Overloaded as `add`."""
        size_bytes = self.size_bytes + len(command)
        if size_bytes > _ROOM_BYTES:
            raise Overloaded(
                f"a command of {len(command)} bytes does not fit an entry of"
                f" at most {limits.ENTRY_SIZE_BYTES} that has {self.size_bytes}"
            )
        self._parts.append(command)
        self.count += 1
        self.size_bytes = size_bytes

    def take(self, ts_ms: int) -> bytes:
        """Return the entry's payload, timestamped `ts_ms`; the lane is empty afterwards."""
        payload = b"".join((_TIMESTAMP.pack(ts_ms), *self._parts))
        self.clear()
        return payload

    def clear(self) -> None:
        """Forget all commands."""
        self._parts = []
        self.count = 0
        self.size_bytes = 0
