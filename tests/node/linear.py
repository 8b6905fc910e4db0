"""Whether the history of one key is linearizable (Herlihy and Wing; the search is Wing and Gong's).

An operation takes effect at one moment between its call and its return.
One whose outcome is unknown may take effect at any moment after its call, or
never. Operations of one connection take effect in the order of their places.
Every value that is written to a text ends in `>`, and no two are the same;
a number is only incremented. What APPEND answers is not looked at: so a write
of unknown outcome whose value nobody saw can be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

STATES_LIMIT = 100_000

State = bytes | None


@dataclass(slots=True)
class Operation:
    """One command on the key; `returned` is infinite and `result` None while it is unknown.

    The result of a GET is empty where there is no such key, else = and the value,
    that of a GETRANGE (of all) always = and the value.
    """

    name: str
    value: bytes
    called: float
    connection: int
    place: int
    returned: float = inf
    result: Any = None

    @property
    def known(self) -> bool:
        return self.returned < inf


def execute(operation: Operation, state: State) -> tuple[Any, State]:
    """The reply of the command to a key with this value (None: no such key), and its new value."""
    match operation.name:
        case "SET":
            return "OK", operation.value
        case "GET":
            return (b"" if state is None else b"=" + state), state
        case "GETRANGE":
            return b"=" + (state or b""), state
        case "APPEND":
            return operation.result, (state or b"") + operation.value
        case "INCR":
            number = int(state or b"0") + 1
            return number, b"%d" % number
    raise AssertionError(operation.name)


def explain(history: list[Operation]) -> str:
    """Empty if the history is linearizable, else what it is.

    AssertionError if that takes more than STATES_LIMIT states to find out: a
    checker that gives up has not passed.
    """
    search = _Search(history)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if done & search.wanted == search.wanted:
            return ""
        if (done, state) in seen:
            continue
        seen.add((done, state))
        assert len(seen) < STATES_LIMIT, "the checker gave up"
        stack += search.after(done, state)
    return "\n".join(str(it) for it in search.operations)


class _Search:
    def __init__(self, history: list[Operation]) -> None:
        reads = [it for it in history if it.known and it.name in ("GET", "GETRANGE")]
        seen = b"".join(it.result for it in reads)
        used = [
            it for it in history if it.known or it.name == "INCR" or (it.value and it.value in seen)
        ]
        self.operations = sorted(used, key=lambda it: it.called)
        numbered = list(enumerate(self.operations))
        self.wanted = sum(1 << number for number, it in numbered if it.known)
        self._before = [
            sum(
                1 << number
                for number, it in numbered
                if it.connection == operation.connection and it.place < operation.place
            )
            for operation in self.operations
        ]
        writers = {it.value: 1 << number for number, it in numbered if it.value}
        self._texts = [
            (1 << number, it.result[1:], writers.get(it.result[1 : it.result.find(b">") + 1], 0))
            for number, it in numbered
            if it.known and it.name in ("GET", "GETRANGE") and b">" in it.result
        ]
        self._empty = sum(1 << number for number, it in numbered if it.result in (b"", b"="))
        self._numbers = [
            (1 << number, it.result - 1)
            for number, it in numbered
            if it.known and it.name == "INCR"
        ]

    def after(self, done: int, state: State) -> list[tuple[int, State]]:
        """What can come next: an operation that was called before any other has returned."""
        operations = self.operations
        open_numbers = [number for number in range(len(operations)) if not done >> number & 1]
        first_return = min(operations[number].returned for number in open_numbers)
        found = []
        for number in open_numbers:
            operation = operations[number]
            if operation.called > first_return:
                break
            missing = self._before[number] & ~done
            if missing & self.wanted:
                continue
            result, after = execute(operation, state)
            if operation.known and result != operation.result:
                continue
            step = done | missing | 1 << number
            if operation.known and after == state and not missing:
                return [(step, after)]  # a read that fits can as well come now
            if self._hopeful(step, after):
                found.append((-operation.returned, step, after))
        # What returned first is tried first, so it comes last; what is unknown only where it helps.
        return [(step, after) for _, step, after in sorted(found, key=lambda it: it[0])]

    def _hopeful(self, done: int, state: State) -> bool:
        """False if something that is still to be read has gone for good."""
        if self._empty & ~done and state is not None:
            return False
        for bit, text, writer in self._texts:
            if not done & bit and done & writer and not text.startswith(state or b""):
                return False
        if self._numbers:
            number = int(state or b"0")
            return all(done & bit or number <= least for bit, least in self._numbers)
        return True
