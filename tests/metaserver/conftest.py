"""Strategies and rows for the tests of the metaserver."""

import pytest
from hypothesis import strategies as st

from eraft.metaserver.founding import founding_table
from eraft.metaserver.operations import Forget, Join, Open, Operation, Register, Replicas, Settle
from eraft.storage import rows as layout
from eraft.storage.state import MemoryStore, ReplicaRows

FOUNDING = founding_table({1: "10.0.0.1:7001", 2: "10.0.0.2:7001", 3: "10.0.0.3:7001"})


def new_rows() -> ReplicaRows:
    """The rows of a replica that has applied nothing."""
    return ReplicaRows(MemoryStore(), 7)


def content(rows: ReplicaRows) -> list[tuple[bytes, bytes]]:
    """All rows of the generation, in order."""
    return list(rows.scan(*layout.generation_range(rows.generation)))


@pytest.fixture
def rows() -> ReplicaRows:
    return new_rows()


def register(node_id: int, store_id: str | None = None, port: int = 7000) -> Register:
    """A node's registration; the store id follows from the node id if not given."""
    host = f"10.0.0.{node_id}"
    store = f"store-{node_id}" if store_id is None else store_id
    return Register(node_id, store, f"{host}:{port}", f"{host}:{port + 1}", f"{host}:{port + 2}")


_node_ids = st.integers(1, 5)
operations = st.one_of(
    st.builds(
        register,
        _node_ids,
        st.sampled_from([None, None, None, "other"]),
        st.sampled_from([7000, 8000]),
    ),
    st.builds(
        Join,
        st.integers(1, 4),
        st.lists(_node_ids, min_size=1, max_size=3, unique=True).map(tuple),
        st.integers(1, 5),
    ),
    st.just(Open()),
    st.builds(
        Replicas,
        st.integers(0, 4),
        st.lists(_node_ids, max_size=2, unique=True).map(tuple),
        st.lists(_node_ids, min_size=1, max_size=2, unique=True).map(tuple),
    ),
    st.builds(
        Settle,
        st.integers(0, 4),
        st.lists(st.integers(1, 20), max_size=4, unique=True).map(tuple),
        st.lists(st.integers(1, 20), max_size=4, unique=True).map(tuple),
    ),
    st.builds(Forget, _node_ids),
)
"""Operations that meet each other often: few nodes, few groups."""


def requests(most: int = 60) -> st.SearchStrategy[list[tuple[str, Operation]]]:
    """Runs of requests whose ids repeat now and then."""
    ids = st.integers(0, most).map(lambda number: f"request-{number}")
    return st.lists(st.tuples(ids, operations), max_size=most)
