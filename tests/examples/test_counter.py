"""The replicated counter as real processes."""

from __future__ import annotations

import signal
import threading

from tests.cli.local import wait_until
from tests.examples.cluster import IDS, wait_equal


class Adder:
    """A client that adds one after the other, follows the leader, and keeps count."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.acknowledged = 0
        self.unknown = 0
        self.stopping = False
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()

    def _run(self):
        clients = {self.cluster.client[it].encode(): it for it in IDS}
        node_id = 1
        while not self.stopping:
            kind, _, rest = self.cluster.ask(node_id, b"add hits 1").partition(b" ")
            if kind == b"value":
                self.acknowledged += 1
            elif kind == b"leader" and rest in clients:
                node_id = clients[rest]
            elif kind in (b"leader", b"retry"):
                node_id = node_id % len(IDS) + 1
            else:  # no answer, or one that says so
                assert kind in (b"unknown", b"")
                self.unknown += 1
                node_id = node_id % len(IDS) + 1

    def add(self, count):
        goal = self.acknowledged + count
        wait_until(lambda: self.acknowledged >= goal, f"{count} more are acknowledged")


def value(cluster, node_id):
    """A linearizable read; any node answers it, as soon as there is a leader."""
    answers = []

    def answered():
        answers.append(cluster.ask(node_id, b"get hits"))
        return answers[-1].startswith(b"value ")

    wait_until(answered, f"node {node_id} answers a read")
    return int(answers[-1].split()[1])


def test_what_is_acknowledged_survives_leaders_that_are_killed(example):
    cluster = example("counter.py")
    with Adder(cluster) as adder:
        adder.add(50)
        for _ in range(2):
            leader = cluster.leader()
            cluster.stop(leader)
            adder.add(50)
            cluster.spawn(leader)
            adder.add(50)
    found = {node_id: value(cluster, node_id) for node_id in IDS}
    assert len(set(found.values())) == 1, found
    assert adder.acknowledged <= found[1] <= adder.acknowledged + adder.unknown


def test_all_nodes_are_killed_and_nothing_is_lost(example):
    cluster = example("counter.py")
    with Adder(cluster) as adder:
        adder.add(100)
    for node_id in IDS:
        cluster.stop(node_id)
    for node_id in IDS:
        cluster.spawn(node_id)
    assert adder.acknowledged <= value(cluster, 2) <= adder.acknowledged + adder.unknown
    wait_equal(cluster)


def test_a_follower_names_the_leader_and_answers_reads(example):
    cluster = example("counter.py")
    leader = cluster.leader()
    follower = next(it for it in IDS if it != leader)
    assert cluster.ask(leader, b"add hits 41") == b"value 41"
    wait_until(
        lambda: (
            cluster.ask(follower, b"add hits 1") == b"leader " + cluster.client[leader].encode()
        ),
        "the follower names the leader",
    )
    assert value(cluster, follower) == 41


def test_a_clean_stop_hands_over_and_ends_with_status_zero(example):
    cluster = example("counter.py")
    leader = cluster.leader()
    assert cluster.ask(leader, b"add hits 1") == b"value 1"
    assert cluster.stop(leader, signal.SIGTERM) == 0
    assert "handing over" in cluster.log(leader)
    assert "Traceback" not in cluster.log(leader)
    assert value(cluster, cluster.another_leader(leader)) == 1


def test_what_is_no_request_is_told_so(example):
    cluster = example("counter.py")
    leader = cluster.leader()
    for line in (b"", b"add", b"add hits many", b"add hits %d" % 2**64, b"nonsense hits 1"):
        assert cluster.ask(leader, line).startswith(b"error "), line
    assert cluster.ask(leader, b"get hits") == b"value 0"
