"""A row that changes behind a replica's back, in the database of a real node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eraft._impl import batch
from eraft.storage import rows as layout
from eraft.storage.state import RocksStore
from tests.cli.local import eraft, wait_until
from tests.cluster.nodes import FLAGS, Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One of its own: what is quarantined stays so."""
    cluster = Cluster(tmp_path / "c")
    try:
        result = cluster.start("--nodes", 3, "--groups", 1, *FLAGS, "--check-ticks", 10)
        assert result.returncode == 0, result.stderr
        yield cluster
    finally:
        cluster.end()


def change_row(path: str, key: bytes, value: bytes) -> None:
    """Give a key another value in the database of a node that is stopped."""
    store = RocksStore(path)
    start = layout.PREFIX_BYTES + len(batch.data_key(b"", b""))
    scan = store.scan(layout.prefix(1, 0), b"\xff" * layout.PREFIX_BYTES)
    found = [it for it, _ in scan if it[4] == layout.DATA and it[start:] == key]
    assert len(found) == 1
    store.write([(found[0], batch.encode_row(1, 0, value))])
    store.close()


def test_the_replica_with_the_changed_row_is_quarantined(cluster: Cluster) -> None:
    with cluster.client() as client:
        assert client.set("row", "right")
    cluster.wait_equal()
    cluster.do("stop")
    change_row(f"{cluster.node('n1')['data_dir']}/state", b"row", b"wrong")
    cluster.do("start")
    with cluster.client("n2") as client:
        assert client.append("row", "+") == len("right+")  # of the leader, whoever that is
        wait_until(lambda: cluster.groups("n1")[1]["role"] == "quarantined", "n1 is quarantined")
        why = cluster.groups("n1")[1]["quarantined"]
        assert (
            f"!! group 1 on node 1 IS QUARANTINED: {why}"
            in eraft("status", "--dir", cluster.directory).stdout
        )
        cluster.do("kill", "n1")
        cluster.do("restart", "n1")
        assert cluster.groups("n1")[1]["quarantined"] == why
        assert cluster.log("n1").count(f"QUARANTINED: group 1, replica 4: {why}") == 2
        assert client.append("row", "+") == len("right++")
        assert client.get("row") == "right++"
    assert {name: cluster.groups(name)[1]["quarantined"] for name in ("n2", "n3")} == {
        "n2": None,
        "n3": None,
    }
