"""The keys of one replica as commands see them: live ones only, with their expiry."""

from collections.abc import Sequence
from typing import TypeAlias

from eraft._impl import batch
from eraft.errors import EraftError
from eraft.storage import rows as layout
from eraft.storage.state import ReplicaRows

Reply: TypeAlias = bytes | int | list["Reply"] | None
"""What a command answers: a `resp` reply value."""
Found: TypeAlias = tuple[int, int, bytes] | None
"""Version, deadline (0 for none) and value of a key, None if there is no such key."""


class ClockBehind(EraftError):
    """An answer depends on a key that is due by the wall clock, not yet by the log's.

    The log's clock has to pass first (an entry with `_TICK`): a key once seen
    expired must not be there again.
    """


class View:
    """Looks keys up as of a clock; a key whose deadline has come does not exist.

    Rows have the keys that `batch.data_key` makes.
    """

    __slots__ = ("_rows", "clock_ms", "now_ms", "prefix")

    def __init__(self, rows: ReplicaRows, clock_ms: int, wall_ms: int) -> None:
        self._rows = rows
        self.prefix = rows.data_prefix
        self.clock_ms = clock_ms
        """What the log says the time is."""
        self.now_ms = max(clock_ms, wall_ms)
        """What times to live count from."""

    def find(self, row_key: bytes) -> Found:
        """Return what is at a row key.

        Raises:
            ClockBehind: see there; never where the wall clock does not lead.
        """
        row = self._rows.get(row_key)
        return None if row is None else self._live(batch.decode_row(row))

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a client's key; raises as `find`."""
        found = self.find(batch.data_key(self.prefix, key))
        return None if found is None else found[2]

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of clients' keys; raises as `find`."""
        prefix = self.prefix
        values: list[bytes | None] = []
        for row in self._rows.get_many([batch.data_key(prefix, key) for key in keys]):
            found = None if row is None else self._live(batch.decode_row(row))
            values.append(None if found is None else found[2])
        return values

    def _live(self, found: tuple[int, int, bytes]) -> Found:
        deadline_ms = found[1]
        if deadline_ms and deadline_ms <= self.now_ms:
            if deadline_ms > self.clock_ms:
                raise ClockBehind(f"due at {deadline_ms}, the log's clock is {self.clock_ms}")
            return None
        return found


class Data(View):
    """The keys at apply: a view by the log's clock alone that can also write.

    A deadline in a row comes with a hint in the order of the deadlines. A hint
    may outlive its row or the row's deadline; it proves nothing.
    """

    __slots__ = ("next_deadline_ms", "version")

    def __init__(self, rows: ReplicaRows) -> None:
        super().__init__(rows, 0, 0)
        self.version = 0
        """Log index of the entry that is being applied."""
        self.next_deadline_ms = 0
        """No hint is due before this time."""

    def begin(self, index: int, clock_ms: int) -> None:
        """Begin to apply the entry at `index`."""
        self.version = index
        self.clock_ms = self.now_ms = clock_ms

    def put(
        self, row_key: bytes, value: bytes, deadline_ms: int = 0, old_deadline_ms: int = 0
    ) -> None:
        """Set a key; `old_deadline_ms` is the one it had, if the caller knows."""
        rows = self._rows
        rows.put(row_key, batch.encode_row(self.version, deadline_ms, value))
        if deadline_ms == old_deadline_ms:
            return
        if old_deadline_ms:
            rows.delete(layout.expiry_key(rows.generation, old_deadline_ms, row_key))
        if deadline_ms:
            rows.put(layout.expiry_key(rows.generation, deadline_ms, row_key), b"")
            self.next_deadline_ms = min(self.next_deadline_ms, deadline_ms)

    def remove(self, row_key: bytes, deadline_ms: int) -> None:
        """Delete a key that has this deadline (0 for none)."""
        rows = self._rows
        rows.delete(row_key)
        if deadline_ms:
            rows.delete(layout.expiry_key(rows.generation, deadline_ms, row_key))
