"""Nodes of a real cluster are added, removed and replaced while clients write."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from redis.exceptions import RedisError

from eraft.cli import admin, processes
from tests.cli.local import WAIT_S, wait_until
from tests.cluster.damage import durable_byte, flipped
from tests.cluster.nodes import FLAGS, Cluster


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own: 3 nodes, 2 groups."""
    cluster = Cluster(tmp_path / "c")
    try:
        cluster.do("start", "--nodes", 3, "--groups", 2, "--replicas", 3, *FLAGS)
        yield cluster
    finally:
        cluster.end()


class Load:
    """A client that writes key after key until it is stopped, and remembers what was confirmed."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.confirmed: list[int] = []
        self._client = cluster.client(name)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        wait_until(lambda: len(self.confirmed) > 200, "writes are confirmed")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            try:
                self._client.set(f"key-{number}", number)
            except (RedisError, OSError):
                continue
            self.confirmed.append(number)

    def wait_more(self) -> None:
        count = len(self.confirmed)
        wait_until(lambda: len(self.confirmed) > count + 100, "more writes are confirmed")


def check(cluster: Cluster, name: str, load: Load) -> None:
    """Nothing that was confirmed is lost."""
    with cluster.client(name) as client:
        for number in load.confirmed:
            assert client.get(f"key-{number}") == str(number)


def homes(cluster: Cluster, name: str) -> dict[int, set[int]]:
    table = admin.ask(cluster.node(name)["admin"], "META", "QUERY")
    for group in table["groups"].values():
        assert not group["joining"] and not group["leaving"]
    return {
        int(gid): {replica["node_id"] for replica in group["replicas"]}
        for gid, group in table["groups"].items()
    }


def result_of(cluster: Cluster, *words: object) -> Any:
    found = cluster.cluster(*words, "--json")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_a_killed_and_wiped_node_is_replaced_under_load(own: Cluster) -> None:
    victim = own.leader(1)
    victim_id = int(victim[1:])
    asked = next(name for name in own.names() if name != victim)
    with Load(own, asked) as load:
        own.do("kill", victim)
        shutil.rmtree(own.node(victim)["data_dir"])
        found = result_of(own, "replace-node", victim)
        assert found["replaced"] == victim and found["by"] == "n4" and found["node_id"] == 4
        load.wait_more()
    rest = {1, 2, 3, 4} - {victim_id}
    assert homes(own, asked) == {0: rest, 1: rest, 2: rest}
    assert own.names() == [f"n{it}" for it in sorted(rest)]
    assert set(own.file()["metaserver"]) == set(own.names())
    own.wait_equal()
    check(own, asked, load)
    # The new node counts: with another one gone it is needed for a majority.
    own.do("kill", asked)
    left = next(name for name in own.names() if name not in (asked, "n4"))
    wait_until(lambda: own.leader(1) and own.leader(2), "both groups have leaders")
    check(own, left, load)
    own.do("restart", asked)


def test_a_quarantined_node_is_replaced_by_one_command(own: Cluster) -> None:
    with Load(own, "n1") as load:
        own.do("kill", "n2")
        data_dir = Path(own.node("n2")["data_dir"])
        path, offset = durable_byte(data_dir, Random(7))
        with flipped(path, offset):
            own.do("restart", "n2")
            assert own.node_status("n2")["quarantined"]
            result_of(own, "replace-node", "n2")
        load.wait_more()
    assert homes(own, "n1") == {gid: {1, 3, 4} for gid in (0, 1, 2)}
    own.wait_equal()
    check(own, "n1", load)


def test_a_node_with_a_corrupt_database_says_so_and_is_replaced(own: Cluster) -> None:
    victim = own.node("n2")
    with Load(own, "n1") as load:
        processes.send(victim["pid"], signal.SIGTERM)  # it flushes, so there are files
        assert processes.wait_gone(victim["pid"], WAIT_S)
        tables = list(Path(victim["data_dir"], "state").glob("*.sst"))
        assert tables
        for table in tables:
            with table.open("r+b") as file:
                file.write(bytes(64))
        refused = own.cluster("restart", "n2")
        assert refused.returncode == 1
        assert f"{victim['data_dir']}/state: cannot read: Corruption" in refused.stderr
        result_of(own, "replace-node", "n2")
        load.wait_more()
    assert homes(own, "n1") == {gid: {1, 3, 4} for gid in (0, 1, 2)}
    own.wait_equal()
    check(own, "n1", load)


def test_nodes_are_added_and_removed(own: Cluster) -> None:
    first = own.node("n1")
    with Load(own, "n1") as load:
        found = result_of(own, "add-node", "--group", 1, "--group", 0)
        assert found["added"] == "n4"
        assert homes(own, "n1") == {0: {1, 2, 3, 4}, 1: {1, 2, 3, 4}, 2: {1, 2, 3}}
        out = own.cluster("remove-node", "n1")
        assert out.returncode == 0, out.stderr
        assert "group 2: its replica moves from node 1 to node 4" in out.stdout
        assert "node 1 is out of the config table" in out.stdout
        load.wait_more()
    assert homes(own, "n2") == {gid: {2, 3, 4} for gid in (0, 1, 2)}
    assert own.names() == ["n2", "n3", "n4"]
    check(own, "n3", load)
    log = own.directory / "again.log"
    own.serve(first["command"], log)
    said = "refuses this one: 'node 1 was removed from the cluster'"
    wait_until(lambda: said in log.read_text(), f"it hears {said!r}")


def test_what_is_refused(own: Cluster) -> None:
    own.do("kill", "n2")
    refused = own.cluster("remove-node", "n3")
    assert refused.returncode == 1
    assert "group 0 would lose its quorum" in refused.stderr
    taken = own.cluster("replace-node", "n2", "--with", "n3")
    assert taken.returncode == 1
    assert "node 3 has a replica of group 0 already" in taken.stderr
    dead = own.cluster("replace-node", "n3", "--with", "n2")
    assert "n2 does not serve; start it first" in dead.stderr
    unknown = own.cluster("replace-node", "n9")
    assert unknown.returncode == 2
    assert "there is no node 'n9'" in unknown.stderr
    nowhere = own.cluster("add-node", "--group", 1, "--group", 7)
    assert nowhere.returncode == 1
    assert "there is no group 7" in nowhere.stderr
    own.do("kill", "n3")
    hopeless = own.cluster("replace-node", "n3", "--timeout-s", 2)
    assert hopeless.returncode == 1
    assert own.names() == ["n1", "n2", "n3"]
    own.do("start")
