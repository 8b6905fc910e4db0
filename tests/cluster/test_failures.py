"""What was acknowledged survives kills, stops and pauses, and nobody reads the past."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from redis.exceptions import RedisError

from eraft.cli import processes
from eraft.cli.demo_writer import Writer
from tests.cli.local import WAIT_S, wait_until
from tests.cluster.nodes import Cluster, Wire, command

WRITES = 60


@pytest.fixture
def writer(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Writer]:
    """A stock client that writes one key after the other; it is judged by `check`."""
    name = request.node.name
    keys = (f"{name}:{n}" for n in range(10**9))
    writer = Writer(name, cluster.node("n1")["client"], keys)
    writer.start()
    wait_until(lambda: len(writer.acknowledged) >= WRITES, "some writes are acknowledged")
    yield writer
    writer.stop()


def writes_go_on(writer: Writer) -> None:
    since_s = time.monotonic()
    wait_until(
        lambda: writer.since(since_s) >= WRITES or bool(writer.failure), "writes are acknowledged"
    )


def check(cluster: Cluster, writer: Writer) -> None:
    """Every acknowledged write is there, and what is not known is there or was not executed."""
    writer.stop()
    assert writer.failure == ""
    with cluster.client() as client:
        pipeline = client.pipeline(transaction=False)
        written = {**writer.acknowledged, **writer.unknown}
        for key in written:
            pipeline.get(key)
        found = dict(zip(written, pipeline.execute(), strict=True))
    assert {key: found[key] for key in writer.acknowledged} == writer.acknowledged
    for key, value in writer.unknown.items():
        assert found[key] in (value, None)
    assert len(writer.acknowledged) >= 2 * WRITES


def test_a_killed_leader_loses_nothing_and_catches_up(cluster: Cluster, writer: Writer) -> None:
    victim = cluster.wait_for_leader(1)
    cluster.do("kill", victim)
    killed_s = time.monotonic()
    writes_go_on(writer)
    assert cluster.wait_for_leader(1) != victim
    assert writer.gap_s(killed_s) < 10
    cluster.do("restart", victim)
    writes_go_on(writer)
    writer.stop()
    cluster.wait_equal()
    check(cluster, writer)


def test_all_nodes_killed_at_once_lose_nothing(cluster: Cluster, writer: Writer) -> None:
    for name in cluster.names():
        cluster.do("kill", name)
    cluster.do("start")
    writes_go_on(writer)
    check(cluster, writer)


def test_nodes_restarted_one_after_the_other_lose_nothing(cluster: Cluster, writer: Writer) -> None:
    """Each is stopped by SIGTERM, under load."""
    for name in cluster.names():
        start = len(cluster.log(name))
        cluster.do("restart", name)
        writes_go_on(writer)
        log = cluster.log(name)[start:]
        assert "stopping: SIGTERM" in log
        assert "Traceback" not in log
    check(cluster, writer)
    cluster.wait_equal()


def test_a_paused_leader_does_not_answer_from_the_past(cluster: Cluster, writer: Writer) -> None:
    """It is paused with reads under way, while others write through its successor."""
    with cluster.client() as client:
        victim = cluster.wait_for_leader(1)
        key = next(f"register{n}" for n in range(100) if client.keyslot(f"register{n}") < 8192)
        assert client.set(key, 0)
        history = History(cluster, victim, key)
        history.start()
        wait_until(lambda: history.written > 20, "the register is written")
        cluster.do("pause", victim)
        # These wait in the socket of the paused leader until it goes on.
        with cluster.wire("n1" if victim != "n1" else "n2") as other:
            assert other.ask("PING") == b"+PONG\r\n"
        late = [Wire(cluster.node(victim)["client"], WAIT_S) for _ in range(8)]
        for wire in late:
            wire.send(command("GET", key))
        at_pause = history.written
        wait_until(lambda: history.written > at_pause + 20, "another leader takes writes")
        least = history.written
        cluster.do("resume", victim)
        for wire in late:
            with wire:
                answer = wire.line()
                if answer.startswith(b"$"):
                    assert int(wire.line()) >= least
                else:
                    assert answer.startswith((b"-MOVED", b"-CLUSTERDOWN", b"-TRYAGAIN"))
        at_resume = history.written
        wait_until(lambda: history.written > at_resume + 20, "the register is written")
        history.stop()
        assert history.complaints == []
        assert int(client.get(key)) >= history.written
    writes_go_on(writer)
    check(cluster, writer)


class History:
    """One client counts a register up; others read it, at the leader of the start and by routing.

    A read must return at least what was acknowledged before it began, and at
    most what had been begun when it ended.
    """

    def __init__(self, cluster: Cluster, leader: str, key: str) -> None:
        self.written = 0
        self.complaints: list[str] = []
        self._begun = 0
        self._key = key
        self._cluster = cluster
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work, name), daemon=True)
            for work, name in (
                (self._write, "n1"),
                *((self._read, name) for name in cluster.names()),
                (self._read_at, leader),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()

    def _run(self, work, name: str) -> None:
        try:
            work(name)
        except Exception as error:
            self.complaints.append(f"{work.__name__}: {error!r}")

    def _write(self, name: str) -> None:
        with self._cluster.client(name, socket_timeout=3) as client:
            while not self._stopping.is_set():
                self._begun += 1
                try:
                    client.set(self._key, self._begun)
                except RedisError:
                    continue  # perhaps executed; the next value is larger
                self.written = self._begun

    def _read(self, name: str) -> None:
        with self._cluster.client(name, socket_timeout=3) as client:
            while not self._stopping.is_set():
                least = self.written
                try:
                    value = client.get(self._key)
                except RedisError:
                    continue
                self._judge(least, value)

    def _read_at(self, name: str) -> None:
        """Reads of a connection to the first leader that is never redirected."""
        with Wire(self._cluster.node(name)["client"], WAIT_S) as wire:
            while not self._stopping.is_set():
                least = self.written
                answer = wire.ask("GET", self._key)
                if answer.startswith(b"$"):
                    self._judge(least, wire.line())

    def _judge(self, least: int, value) -> None:
        if not least <= int(value) <= self._begun:
            self.complaints.append(f"read {value!r}, {least}..{self._begun} were possible")


def test_a_write_to_a_paused_leader_is_not_lost_silently(cluster: Cluster) -> None:
    """INCRs that reach a paused leader are each executed once, never, or of unknown outcome."""
    with cluster.client() as client:
        victim = cluster.wait_for_leader(2)
        key = next(f"count{n}" for n in range(100) if client.keyslot(f"count{n}") >= 8192)
        client.delete(key)
        pid = cluster.node(victim)["pid"]
        cluster.do("pause", victim)
        assert processes.state(pid, cluster.node(victim)["data_dir"]) == "paused"
        wires = [Wire(cluster.node(victim)["client"], WAIT_S) for _ in range(20)]
        for wire in wires:
            wire.send(command("INCR", key))
        wait_until(lambda: cluster.leader(2) != "", "another node leads")
        cluster.do("resume", victim)
        executed = unknown = 0
        for wire in wires:
            with wire:
                answer = wire.line()
                executed += answer.startswith(b":")
                unknown += answer.startswith(b"-TIMEOUT")
                assert answer.startswith(
                    (b":", b"-TIMEOUT", b"-MOVED", b"-CLUSTERDOWN", b"-TRYAGAIN")
                )
        cluster.wait_equal()
        assert executed <= int(client.get(key) or 0) <= executed + unknown
