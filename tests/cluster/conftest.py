"""One cluster for all tests of this directory, two protocols, and single nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import FLAGS, Cluster, Node


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("shared") / "c")
    try:
        result = cluster.start("--nodes", 3, "--groups", 2, "--replicas", 3, *FLAGS)
        assert result.returncode == 0, result.stderr
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def cluster(made: Cluster) -> Iterator[Cluster]:
    """The cluster of 3 nodes and 2 groups, whole before and after the test."""
    made.mend()
    yield made
    made.mend()


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Any]:
    """redis-py's cluster client, in both protocols; the cluster is empty."""
    with cluster.client(protocol=request.param) as client:
        client.flushall()
        yield client


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes nodes, not formatted yet, and ends them."""
    nodes: list[Node] = []

    def make(name: str = "n1", *flags: object, directory: Path = tmp_path) -> Node:
        node = Node(directory / name, *flags)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.end()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that owns all buckets; the tests of a module share it."""
    node = Node(tmp_path_factory.mktemp("opened") / "n1").format()
    try:
        node.start().open()
        yield node
    finally:
        node.end()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A formatted node that does not run."""
    return make_node().format()
