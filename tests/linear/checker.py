"""Whether the history of one key is linearizable (Herlihy and Wing 1990).

The search is that of Wing and Gong with Lowe's memory of what was tried. An
operation takes effect at one moment between its call and its return. One
whose outcome is unknown may take effect at any moment after its call, or
never. Operations of one connection take effect in the order of their places.

It is fast where every written value is another one and none begins with
another one (end them with a separator); a number should only be incremented.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

STATES_LIMIT = 200_000

State = bytes | None
"""The value of the key, None while there is none."""


class Undecided(AssertionError):
    """The search took too long. A checker that gives up has not passed."""


@dataclass(slots=True)
class Operation:
    """One command on the key, and what was answered.

    Times are of one clock, whichever. `returned` is infinite while the
    outcome is unknown; what certainly was not executed does not belong into a
    history. `result` is bytes or None of GET and GETSET, bytes of GETRANGE (of
    all), an int of INCR and DEL. Those of SET and APPEND are not looked at:
    lengths would make writes that nobody reads hard to order.

    Operations with the same `connection`, if it is not 0, were sent one after
    the other (`place`) on one connection, without waiting for answers.
    """

    name: str
    value: bytes
    called: float
    returned: float = inf
    result: Any = None
    connection: int = 0
    place: int = 0

    @property
    def known(self) -> bool:
        """Whether it is known that it took effect."""
        return self.returned < inf


READS = ("GET", "GETRANGE")
BLIND = ("SET", "APPEND")


def execute(name: str, value: bytes, state: State) -> tuple[Any, State]:
    """The result of the command on a key with this value, and its new value."""
    match name:
        case "SET":
            return None, value
        case "GET":
            return state, state
        case "GETRANGE":
            return state or b"", state
        case "APPEND":
            return None, (state or b"") + value
        case "GETSET":
            return state, value
        case "INCR":
            number = int(state or b"0") + 1
            return number, b"%d" % number
        case "DEL":
            return int(state is not None), None
    raise ValueError(f"the checker does not know {name}")


def explain(history: Iterable[Operation], initial: State = None, limit: int = STATES_LIMIT) -> str:
    """Empty if the history of a key, which had the value `initial`, is linearizable.

    Else a text that shows how far it is. Raises `Undecided` if that takes
    more than `limit` states to find out.
    """
    operations = list(history)
    likely = _without_unseen(operations)
    found = _Search(likely, initial).run(limit)
    if found and len(likely) < len(operations):
        found = _Search(operations, initial).run(limit)
    return found


def explain_all(histories: Mapping[bytes, Iterable[Operation]]) -> str:
    """Empty if the history of every key is linearizable, else the first one that is not."""
    for key, history in histories.items():
        found = explain(history)
        if found:
            return f"the history of {key!r} is not linearizable:\n{found}"
    return ""


def _without_unseen(operations: list[Operation]) -> list[Operation]:
    """Leave out the writes of unknown outcome whose value nobody saw: most can be done without."""
    seen = b"\n".join(it.result for it in operations if it.known and isinstance(it.result, bytes))
    return [it for it in operations if it.known or not it.value or it.value in seen]


class _Values:
    """The values that are written, none of which should begin with another one."""

    def __init__(self, values: Iterable[bytes]) -> None:
        self._values: set[bytes] = set()
        self._twice: set[bytes] = set()
        for value in values:
            (self._twice if value in self._values else self._values).add(value)
        self._sizes = sorted({len(value) for value in self._values})

    def first_of(self, text: State) -> bytes:
        """The value that the text begins with; empty if it is not clear."""
        found = [
            text[:size]
            for size in self._sizes
            if text is not None and len(text) >= size and text[:size] in self._values
        ]
        return found[0] if len(found) == 1 and found[0] not in self._twice else b""

    def parts_of(self, text: bytes) -> list[bytes]:
        """The values that the text consists of; none if it is not clear."""
        parts: list[bytes] = []
        place = 0
        while place < len(text):
            part = self.first_of(text[place : place + self._sizes[-1]]) if self._sizes else b""
            if not part:
                return []
            parts.append(part)
            place += len(part)
        return parts


Step = tuple[int, int, int, State]
"""Where a search is: known operations that took effect, unknown ones, value."""


class _Search:
    """Depth first over (which operations took effect, value of the key).

    The known operations, in the order of their calls, that took effect are
    all below `low`, and beyond it those of a mask; of the others a mask tells
    which took effect, or cannot any more.
    """

    def __init__(self, history: list[Operation], initial: State) -> None:
        self.initial = initial
        self.known = sorted((it for it in history if it.known), key=lambda it: it.called)
        self.unknown = sorted(
            (it for it in history if not it.known and it.name not in READS),
            key=lambda it: it.called,
        )
        self._known_before: dict[int, int] = {}
        self._unknown_before: dict[int, int] = {}
        self._order_connections()
        self._find_hopes()

    def _order_connections(self) -> None:
        """What of its connection precedes each operation: the last known, all of the unknown."""
        connections: dict[int, list[tuple[int, Operation, int]]] = {}
        for operations in (self.known, self.unknown):
            for number, it in enumerate(operations):
                if it.connection:
                    connections.setdefault(it.connection, []).append((it.place, it, number))
        for members in connections.values():
            last, mask = -1, 0
            for _, it, number in sorted(members, key=lambda member: member[0]):
                self._known_before[id(it)] = last
                self._unknown_before[id(it)] = mask
                if it.known:
                    last = number
                else:
                    mask |= 1 << number

    def _find_hopes(self) -> None:
        """Which reads can tell early that a search has gone wrong.

        A value that was read is those of a few writes, one after the other.
        From the first of them until that read, the key can only be a part of it.
        """
        names = {it.name for it in self.known + self.unknown}
        values = _Values(it.value for it in self.known + self.unknown if it.value)
        self._reading: dict[bytes, list[tuple[int, bytes]]] = {}
        self._empty: list[int] = []
        self._numbers: dict[int, list[int]] = {}
        for number, it in enumerate(self.known):
            if names <= {"INCR", "GET"}:
                if it.name == "INCR" or (it.result or b"0").isdigit():
                    least = it.result - 1 if it.name == "INCR" else int(it.result or b"0")
                    self._numbers.setdefault(least, []).append(number)
            elif it.name in READS and not it.result:
                if "DEL" not in names:
                    self._empty.append(number)
            elif it.name in READS and "INCR" not in names:
                for value in values.parts_of(it.result):
                    self._reading.setdefault(value, []).append((number, it.result))
        self._values = values

    def run(self, limit: int) -> str:
        """Empty if there is an order, else the furthest that was found."""
        start = (0, 0, 0, self.initial)
        stack = [start]
        seen = {start}
        furthest = start
        while stack:
            place = stack.pop()
            if place[0] == len(self.known):
                return ""
            if place[0] > furthest[0]:
                furthest = place
            for following in self._after(*place):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
            if len(seen) > limit:
                raise Undecided(f"no answer after {limit} states\n{self._show(furthest)}")
        return self._show(furthest)

    def _after(self, low: int, mask: int, gone: int, state: State) -> list[Step]:
        """What can come next: an operation that was called before any other has returned."""
        known = self.known
        first_return = inf
        found = []
        for number in range(low, len(known)):
            it = known[number]
            if it.called > first_return:
                break
            if mask >> (number - low) & 1:
                continue
            first_return = min(first_return, it.returned)
            before = self._known_before.get(id(it), -1)
            if before >= low and not mask >> (before - low) & 1:
                continue
            result, after = execute(it.name, it.value, state)
            if it.name not in BLIND and result != it.result:
                continue
            missing = self._unknown_before.get(id(it), 0) & ~gone
            step = self._step(low, mask | 1 << (number - low), gone | missing, after)
            if after == state and not missing:
                return [step]  # a read that fits can as well come now
            if after == state or self._hopeful(state, it.value, step):
                found.append((-it.returned, step))
        for number, it in enumerate(self.unknown):
            if it.called > first_return:
                break
            before = self._known_before.get(id(it), -1)
            if gone >> number & 1 or (before >= low and not mask >> (before - low) & 1):
                continue
            after = execute(it.name, it.value, state)[1]
            missing = self._unknown_before.get(id(it), 0)
            step = (low, mask, gone | missing | 1 << number, after)
            if after != state and self._hopeful(state, it.value, step):
                found.append((-inf, step))
        # What returned first is tried first, so it comes last.
        return [step for _, step in sorted(found, key=lambda it: it[0])]

    @staticmethod
    def _step(low: int, mask: int, gone: int, state: State) -> Step:
        while mask & 1:
            mask >>= 1
            low += 1
        return low, mask, gone, state

    def _hopeful(self, before: State, value: bytes, step: Step) -> bool:
        """False if something that is still to be read has gone for good by writing `value`."""
        low, mask, _, state = step

        def done(number: int) -> bool:
            return number < low or bool(mask >> (number - low) & 1)

        if before is None and not all(done(number) for number in self._empty):
            return False
        if self._numbers:
            return all(done(number) for number in self._numbers.get(int(before or b"0"), ()))
        for part in (value, self._values.first_of(before)):
            for number, text in self._reading.get(part, ()):
                if not done(number) and (state is None or not text.startswith(state)):
                    return False
        return True

    def _show(self, place: Step) -> str:
        """The operations around where the search came to its end."""
        low, mask, gone, state = place
        lines = [f"  the furthest order that was found leaves the value {state!r}, before"]
        lines += [
            f"  {self.known[number]}"
            for number in range(low, min(len(self.known), low + 30))
            if not mask >> (number - low) & 1
        ]
        lines += [
            f"  {it} of unknown outcome"
            for number, it in enumerate(self.unknown)
            if not gone >> number & 1
        ][:20]
        return "\n".join(lines)
