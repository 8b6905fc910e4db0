"""The replicated lock service as real processes."""

from __future__ import annotations

import json

from tests.cli.local import wait_until
from tests.examples.cluster import IDS


def ask(cluster, node_id, **request):
    return json.loads(cluster.ask(node_id, json.dumps(request).encode()) or "{}")


def acquire(cluster, owner, ttl_ms=60_000, lock="door"):
    """Ask until somebody answers, which is safe; who holds the lock now."""
    answers = []

    def answered():
        for node_id in IDS:
            answers.append(
                ask(cluster, node_id, do="acquire", lock=lock, owner=owner, ttl_ms=ttl_ms)
            )
            if "held" in answers[-1]:
                return True
        return False

    wait_until(answered, f"{owner} is answered")
    return answers[-1]["held"]


def release(cluster, owner, lock="door"):
    """Ask until somebody answers that nobody has the lock."""
    wait_until(
        lambda: any(
            ask(cluster, it, do="release", lock=lock, owner=owner) == {"held": None} for it in IDS
        ),
        f"{owner} gives the lock back",
    )


def test_one_holds_the_lock_and_leaders_that_die_do_not_change_that(example):
    cluster = example("locks.py")
    held = acquire(cluster, "ann")
    assert held["owner"] == "ann"
    assert acquire(cluster, "bob") == held
    leader = cluster.leader()
    cluster.stop(leader)
    assert acquire(cluster, "bob") == held
    assert acquire(cluster, "ann")["token"] == held["token"]  # extended, still the same holder
    cluster.spawn(leader)
    read = []
    wait_until(
        lambda: read.append(ask(cluster, leader, do="holder", lock="door")) or "held" in read[-1],
        "the node that was killed answers reads",
    )
    assert read[-1]["held"]["token"] == held["token"]


def test_tokens_never_go_back(example):
    cluster = example("locks.py")
    tokens = []
    for turn in range(6):
        owner = f"owner {turn}"
        held = acquire(cluster, owner)
        assert held["owner"] == owner
        tokens.append(held["token"])
        if turn in (1, 3):
            leader = cluster.leader()
            cluster.stop(leader)
            cluster.another_leader(leader)
            cluster.spawn(leader)
        release(cluster, owner)
    assert tokens == sorted(set(tokens))


def test_a_lock_whose_time_is_over_goes_to_who_asks_next(example):
    cluster = example("locks.py")
    first = acquire(cluster, "ann", ttl_ms=1)
    taken = []
    wait_until(
        lambda: taken.append(acquire(cluster, "bob")) or taken[-1]["owner"] == "bob",
        "the lock passes on",
    )
    assert taken[-1]["token"] > first["token"]


def test_what_apply_could_not_execute_is_refused_before_the_log(example):
    cluster = example("locks.py")
    leader = cluster.leader()
    bad = [
        b"[]",
        b"{",
        b'{"do": "acquire", "lock": 1, "owner": "ann", "ttl_ms": 1}',
        b'{"do": "acquire", "lock": "\\ud800", "owner": "ann", "ttl_ms": 1}',
        b'{"do": "acquire", "lock": "door", "owner": "ann", "ttl_ms": 1e400}',
        b'{"do": "holder", "lock": "\\ud800"}',
    ]
    for line in bad:
        assert "error" in json.loads(cluster.ask(leader, line)), line
    assert ask(cluster, leader, do="holder", lock="door") == {"held": None}
