"""A node that was away while the logs of the others were compacted, as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eraft.cli.demo_writer import Writer
from tests.cli.local import wait_until
from tests.cluster.nodes import FLAGS, Cluster

VALUE = "v" * 50_000
RETENTION_BYTES = 1024 * 1024
TAIL_BYTES = 256 * 1024


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One of its own, with logs that keep little."""
    cluster = Cluster(tmp_path / "c")
    flags = ("--log-retention-bytes", RETENTION_BYTES, "--log-tail-bytes", TAIL_BYTES)
    try:
        result = cluster.start("--nodes", 3, "--groups", 1, *FLAGS, *flags)
        assert result.returncode == 0, result.stderr
        yield cluster
    finally:
        cluster.end()


def test_it_catches_up_by_snapshot_while_others_read_and_write(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader(1)
    victim = next(name for name in cluster.names() if name != leader)
    cluster.do("kill", victim)
    with cluster.client(leader) as client:
        for number in range(400):
            assert client.set(f"large:{number % 100}", f"{number}{VALUE}")
        keys = (f"small:{number}" for number in range(10**9))
        writer = Writer("writer", cluster.node(leader)["client"], keys)
        writer.start()
        try:
            cluster.do("restart", victim)
            for number in range(300, 400):
                assert client.get(f"large:{number % 100}") == f"{number}{VALUE}"
            wait_until(
                lambda: "gets a snapshot as of entry" in cluster.log(leader), "a snapshot is made"
            )
            wait_until(
                lambda: "has its snapshot" in cluster.log(leader), "the snapshot is installed"
            )
        finally:
            writer.stop()
        assert writer.failure == "" and not writer.unknown
        cluster.wait_equal()
        assert cluster.keys(victim) == cluster.keys(leader) == 100 + len(writer.acknowledged)
        # It is as good as the others: with it alone the leader goes on, and it survives a kill.
        other = next(name for name in cluster.names() if name not in (leader, victim))
        cluster.do("kill", other)
        assert client.set("after", "1")
        cluster.do("kill", victim)
        cluster.do("restart", victim)
        assert client.set("after", "2")
        cluster.do("restart", other)
        cluster.wait_equal()
