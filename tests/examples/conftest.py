from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples.cluster import Example


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[str], Example]]:
    """Starts three processes of a program of `examples/`."""
    started: list[Example] = []

    def start(program: str) -> Example:
        cluster = Example(tmp_path, program)
        started.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in started:
        cluster.end()
