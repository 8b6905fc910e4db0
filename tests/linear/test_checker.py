"""The checker of histories against brute force and against what is known of single histories."""

from itertools import combinations, permutations
from math import inf
from random import Random
from time import perf_counter

import pytest

from tests.linear.checker import BLIND, Operation, State, Undecided, execute, explain, explain_all


def operations(*rows: tuple[str, bytes, float, float, object]) -> list[Operation]:
    return [Operation(*row) for row in rows]


@pytest.mark.parametrize(
    ("linearizable", "history"),
    [
        (True, operations(("SET", b"a", 0, 1, "OK"), ("GET", b"", 2, 3, b"a"))),
        (False, operations(("SET", b"a", 0, 1, "OK"), ("GET", b"", 2, 3, None))),
        (True, operations(("SET", b"a", 0, 3, "OK"), ("GET", b"", 1, 2, None))),
        (True, operations(("SET", b"a", 0, inf, None), ("GET", b"", 5, 6, b"a"))),
        (
            False,
            operations(
                ("SET", b"a", 0, inf, None), ("GET", b"", 5, 6, b"a"), ("GET", b"", 7, 8, None)
            ),
        ),
        (True, operations(("INCR", b"", 0, inf, None), ("INCR", b"", 5, 6, 1))),
        (True, operations(("INCR", b"", 0, inf, None), ("INCR", b"", 5, 6, 2))),
        (False, operations(("INCR", b"", 0, 1, 1), ("INCR", b"", 2, 3, 1))),
        (False, operations(("APPEND", b"ab", 0, 1, 2), ("GET", b"", 2, 3, b"abab"))),
        # Nobody read it, but there was something to delete.
        (True, operations(("SET", b"a", 0, inf, None), ("DEL", b"", 2, 3, 1))),
        (False, operations(("GET", b"", 0, 1, b"never written"))),
        (
            True,
            operations(("SET", b"a", 0, 1, "OK"), ("DEL", b"", 2, 3, 1), ("GET", b"", 4, 5, None)),
        ),
        (False, operations(("SET", b"a", 0, 1, "OK"), ("DEL", b"", 2, 3, 0))),
        (True, operations(("SET", b"a", 0, 1, "OK"), ("GETSET", b"b", 2, 3, b"a"))),
    ],
)
def test_it_knows(linearizable: bool, history: list[Operation]) -> None:
    assert (explain(history) == "") is linearizable


def test_the_order_of_a_connection_is_kept() -> None:
    history = [
        Operation("SET", b"a", 0, 5, "OK", connection=1, place=1),
        Operation("GET", b"", 0, 5, None, connection=1, place=2),
    ]
    assert explain(history)
    history[0].connection = 2
    assert not explain(history)


def test_a_write_of_unknown_outcome_does_not_overtake_its_connection() -> None:
    history = [
        Operation("SET", b"a", 0, connection=1, place=1),
        Operation("SET", b"b", 0, 5, "OK", connection=1, place=2),
        Operation("GET", b"", 6, 7, b"a"),
    ]
    assert explain(history)
    history[0].connection = 2
    assert not explain(history)


def test_the_first_key_that_is_wrong_is_named() -> None:
    right = operations(("GET", b"", 0, 1, None))
    wrong = operations(("GET", b"", 0, 1, b"x"))
    assert explain_all({b"k": right}) == ""
    assert "b'wrong'" in explain_all({b"k": right, b"wrong": wrong})


def test_to_give_up_is_not_to_pass() -> None:
    history = [Operation("SET", b"<%d>" % number, 0, 10, "OK") for number in range(12)]
    history.append(Operation("DEL", b"", 20, 21, 0))
    with pytest.raises(Undecided):
        explain(history, limit=500)


def brute_force(history: list[Operation]) -> bool:
    """Every order of every choice of the unknown ones."""
    known = [it for it in history if it.known]
    unknown = [it for it in history if not it.known]
    return any(
        fits(order)
        for count in range(len(unknown) + 1)
        for chosen in combinations(unknown, count)
        for order in permutations([*known, *chosen])
    )


def fits(order: tuple[Operation, ...]) -> bool:
    state: State = None
    for place, it in enumerate(order):
        for later in order[place + 1 :]:
            if later.returned < it.called:
                return False
            if later.connection == it.connection != 0 and later.place < it.place:
                return False
        result, state = execute(it.name, it.value, state)
        if it.known and it.name not in BLIND and result != it.result:
            return False
    return True


def random_history(random: Random, names: tuple[str, ...], size: int) -> list[Operation]:
    """Each operation takes effect at a moment of its own; then some of it is falsified."""
    history, moments = [], []
    for number in range(size):
        called = random.randrange(20)
        moment = called + random.random() * 6
        name = random.choice(names)
        value = b"<%d>" % number if name in ("SET", "APPEND", "GETSET") else b""
        it = Operation(name, value, called, moment + random.randrange(6))
        if random.random() < 0.4:
            it.connection, it.place = random.choice((1, 2)), called * 100 + number
        history.append(it)
        moments.append((moment, number))
    state: State = None
    for _, number in sorted(moments):
        it = history[number]
        if random.random() < 0.3 and it.name not in ("GET", "GETRANGE"):
            it.returned = inf
            if random.random() < 0.5:
                continue
        it.result, state = execute(it.name, it.value, state)
        if not it.known:
            it.result = None
    reads = [it for it in history if it.known and it.name == "GET"]
    if len(reads) > 1 and random.random() < 0.8:
        one, other = random.sample(reads, 2)
        one.result, other.result = other.result, one.result
    return history


@pytest.mark.parametrize(
    "names",
    [
        ("SET", "GET", "GET"),
        ("SET", "APPEND", "GET", "GETRANGE"),
        ("INCR", "GET"),
        ("SET", "APPEND", "GETSET", "DEL", "GET"),
    ],
)
def test_against_brute_force(names: tuple[str, ...]) -> None:
    random = Random(repr(names))
    verdicts = []
    for _ in range(1000):
        history = random_history(random, names, random.choice((3, 4, 5, 5, 6)))
        verdicts.append(brute_force(history))
        assert (explain(history) == "") is verdicts[-1], history
    assert 50 < sum(verdicts) < 950, "both verdicts have to be common to show anything"


def test_long_histories_with_many_unknown_operations_are_decided_fast() -> None:
    """Sixteen clients, one operation in twenty without an answer, half of these executed."""
    random = Random(3)
    for names in (("SET", "GET"), ("SET", "APPEND", "GET"), ("INCR", "GET")):
        history: list[Operation] = []
        moments = []
        free = [0.0] * 16
        for number in range(4000):
            client = min(range(16), key=lambda it: free[it])
            name = random.choice(names)
            called = free[client] + random.random()
            moment = called + random.random() * 3
            free[client] = moment + random.random() * 3
            value = b"<%d>" % number if name in ("SET", "APPEND") else b""
            history.append(Operation(name, value, called, free[client]))
            moments.append((moment, number))
        state: State = None
        for _, number in sorted(moments):
            it = history[number]
            if random.random() < 0.05 and it.name != "GET":
                it.returned = inf
                if random.random() < 0.5:
                    continue
            it.result, state = execute(it.name, it.value, state)
        started_s = perf_counter()
        assert explain(history) == ""
        assert perf_counter() - started_s < 20
        last = max((it for it in history if it.name == "GET"), key=lambda it: it.called)
        last.result = next(it.result for it in history if it.name == "GET" and it.result)
        assert explain(history)
