"""Compiled and pure nodes share a cluster, and each goes on from what the other has written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import eraft
from tests.cluster.nodes import Cluster

MIXED = {"n1": "python", "n2": "cython", "n3": "python"}
OTHER = {"python": "cython", "cython": "python"}
VALUES = {f"size{size}": "x" * size for size in (0, 1, 100, 5_000, 70_000, 1_500_000)}


@pytest.fixture
def mixed(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for name in cluster.names():
        cluster.do("restart", name, ERAFT_IMPL=eraft.IMPL)


def run_as(cluster: Cluster, impls: dict[str, str]) -> None:
    """Kill every node and start it as the given implementation."""
    for name in cluster.names():
        cluster.do("kill", name)
    for name, impl in impls.items():
        # Alone it cannot serve, and `restart` waits for no more than that it answers.
        cluster.do("restart", name, ERAFT_IMPL=impl)
    assert {name: cluster.node_status(name)["impl"] for name in impls} == impls
    for gid in (1, 2):
        cluster.wait_for_leader(gid)


def write(cluster: Cluster, mark: str) -> dict[str, str]:
    expected = {f"{mark}{n}": f"{mark}-{n}" for n in range(200)}
    expected |= {mark + key: value for key, value in VALUES.items()}
    with cluster.client() as client:
        pipeline = client.pipeline(transaction=False)
        for key, value in expected.items():
            pipeline.set(key, value)
        assert all(pipeline.execute())
        for n in range(20):
            assert client.incr(f"{mark}count{n}") == 1
            assert client.append(f"{mark}{n}", "+") == len(f"{mark}-{n}+")
            expected[f"{mark}count{n}"] = "1"
            expected[f"{mark}{n}"] += "+"
    return expected


def test_nodes_of_both_implementations_are_interchangeable(mixed: Cluster) -> None:
    cluster = mixed
    with cluster.client() as client:
        client.flushall()
    run_as(cluster, MIXED)
    expected = write(cluster, "mixed")
    run_as(cluster, {name: OTHER[impl] for name, impl in MIXED.items()})
    expected |= write(cluster, "other")
    cluster.wait_equal()
    with cluster.client() as client:
        pipeline = client.pipeline(transaction=False)
        for key in expected:
            pipeline.get(key)
        assert dict(zip(expected, pipeline.execute(), strict=True)) == expected
        assert client.dbsize(target_nodes="primaries") == len(expected)
    assert {cluster.keys(name) for name in cluster.names()} == {len(expected)}
