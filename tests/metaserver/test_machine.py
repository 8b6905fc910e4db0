"""The metaserver's state machine: what each request does, once, and the same everywhere."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft import limits
from eraft.errors import ProtocolError
from eraft.metaserver.machine import MetaMachine
from eraft.metaserver.operations import (
    Forget,
    Join,
    Open,
    Operation,
    Query,
    Register,
    Replicas,
    Settle,
    decode,
    encode,
)
from eraft.metaserver.parts import BucketRange, Group
from eraft.metaserver.requests import check_row
from eraft.metaserver.table import ConfigTable, check
from eraft.storage.state import ReplicaRows
from eraft.types import NodeAddress, ReplicaAddress
from tests.metaserver.conftest import FOUNDING, content, new_rows, register, requests


class Metaserver:
    """A machine with its rows, and requests one after the other."""

    def __init__(self) -> None:
        self.machine = MetaMachine(FOUNDING)
        self.rows = new_rows()
        self.index = 0

    @property
    def table(self) -> ConfigTable:
        return self.machine.table(self.rows)

    def apply(self, payload: bytes) -> Any:
        self.index += 1
        replies: list[Any] = []
        self.machine.apply(self.rows, self.index, 1, payload, replies)
        assert len(replies) == 1
        return replies[0]

    def request(self, operation: Operation, request_id: str | None = None) -> Any:
        return self.apply(encode(request_id or f"own-{self.index}", operation))


@pytest.fixture
def meta() -> Metaserver:
    found = Metaserver()
    for node_id in (1, 2, 3):
        found.request(register(node_id))
    return found


def test_a_founding_member_registers_and_binds_its_replica() -> None:
    meta = Metaserver()
    assert meta.table == FOUNDING
    assert meta.request(register(2)) == {"version": 1}
    assert meta.table.nodes[2] == NodeAddress(
        2, "store-2", "10.0.0.2:7000", "10.0.0.2:7001", "10.0.0.2:7002"
    )
    assert meta.table.groups[0] == Group.founded(
        1, (ReplicaAddress(1, 1), ReplicaAddress(2, 2, "store-2"), ReplicaAddress(3, 3))
    )
    assert meta.table.hosted(2, "store-2") == [(0, ReplicaAddress(2, 2, "store-2"))]


def test_registering_again_changes_nothing_unless_an_address_did(meta: Metaserver) -> None:
    assert meta.table.version == 3
    assert meta.request(register(1)) == {"version": 3}
    assert meta.request(register(4)) == {"version": 4}
    assert meta.request(register(4, port=8000)) == {"version": 5}
    assert meta.table.nodes[4].admin == "10.0.0.4:8002"
    assert meta.request(register(4, port=8000)) == {"version": 5}


def test_a_wiped_node_is_refused(meta: Metaserver) -> None:
    before = meta.table
    reply = meta.request(register(2, "other"))
    assert "node 2 is registered with store store-2, not other" in reply
    assert meta.table is before


def test_join_issues_replica_ids_that_were_never_used(meta: Metaserver) -> None:
    assert meta.request(Join(1, (1, 2, 3))) == {"version": 4, "gid": 1, "replicas": [4, 5, 6]}
    assert meta.request(Join(7, (3, 1), 5)) == {"version": 5, "gid": 7, "replicas": [7, 8]}
    assert meta.table.groups[7] == Group.founded(
        5, (ReplicaAddress(7, 3, "store-3"), ReplicaAddress(8, 1, "store-1"))
    )
    assert meta.table.next_replica_id == 9
    assert meta.table.ranges() == ()


def test_join_refuses(meta: Metaserver) -> None:
    meta.request(Join(1, (1, 2, 3)))
    assert meta.request(Join(1, (1,))) == "group 1 has already joined"
    assert meta.request(Join(2, (1, 4))) == "node 4 has not registered"
    assert Metaserver().request(Join(1, (1,))) == "node 1 has not registered"
    assert meta.table.version == 4
    form = {"request_id": "a", "op": "join", "gid": 0, "nodes": [1], "weight": 1}
    assert "gid: must be from 1" in meta.apply(orjson.dumps(form))


def test_open_splits_all_buckets_once(meta: Metaserver) -> None:
    assert "no group has joined" in meta.request(Open())
    meta.request(Join(1, (1, 2, 3), 3))
    meta.request(Join(2, (1, 2, 3)))
    assert meta.request(Open()) == {"version": 6, "buckets": {"1": 12288, "2": 4096}}
    assert meta.table.opened
    assert meta.table.ranges() == (BucketRange(0, 12287, 1), BucketRange(12288, 16383, 2))
    assert meta.request(Open()) == "the cluster is already open"


def test_a_group_that_joins_late_starts_empty_and_is_told_so(meta: Metaserver) -> None:
    meta.request(Join(1, (1, 2, 3)))
    meta.request(Open())
    reply = meta.request(Join(2, (1, 2, 3)))
    assert reply["version"] == 6
    assert "group 2 stays empty" in reply["note"]
    assert meta.table.bucket_count(2) == 0


def test_the_same_request_id_again_gets_the_same_reply(meta: Metaserver) -> None:
    first = meta.request(Join(1, (1, 2)), "j")
    meta.request(Open(), "o")
    stored = content(meta.rows)
    assert meta.request(Join(1, (1, 2)), "j") == first
    assert meta.request(Open(), "o")["version"] == 5
    reply = meta.request(Join(1, (1, 3)), "j")
    assert reply == "request id j was used for another request"
    assert content(meta.rows) == stored


def test_a_second_copy_of_a_refused_request_is_refused(meta: Metaserver) -> None:
    """Its asker was told so already, whatever would be possible by now."""
    assert meta.request(Join(1, (4,)), "j") == "node 4 has not registered"
    meta.request(register(4))
    assert meta.request(Join(1, (4,)), "j") == "node 4 has not registered"
    assert meta.request(Join(1, (4,)), "k") == {"version": 5, "gid": 1, "replicas": [4]}


def test_only_the_last_requests_are_remembered(
    meta: Metaserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "META_REQUESTS_REMEMBERED", 4)
    meta.request(Join(1, (1,)), "j")
    for port in range(1, 4):
        meta.request(register(4, port=8000 + port), f"r{port}")
    assert meta.request(Join(1, (1,)), "j") == {"version": 4, "gid": 1, "replicas": [4]}
    meta.request(register(4, port=9000), "r4")
    assert meta.request(Join(1, (1,)), "j") == "group 1 has already joined"
    assert meta.request(register(4, port=8002), "r2") == {"version": 6}


def test_query_shows_every_version(meta: Metaserver) -> None:
    meta.request(Join(1, (1, 2, 3)))
    for operation in (Query(), Query(4)):
        assert meta.machine.query(meta.rows, operation) == meta.table.to_dict()
        assert meta.request(operation) == meta.table.to_dict()
    assert meta.request(Query(0)) == FOUNDING.to_dict()
    assert set(meta.request(Query(3))["groups"]) == {"0"}
    assert meta.request(Query(5)) == "no version 5: the newest is 4"
    assert Metaserver().request(Query(0)) == FOUNDING.to_dict()
    assert Metaserver().request(Query(1)) == "no version 1: the newest is 0"


@pytest.mark.parametrize("row", [None, b"D{}", b"F{}"])
def test_a_version_that_a_snapshot_left_out_is_an_error(
    meta: Metaserver, row: bytes | None
) -> None:
    key = meta.rows.data_prefix + b"v" + (1).to_bytes(8, "big")
    if row is None:
        meta.rows.delete(key)
    else:
        meta.rows.put(key, row)
    assert isinstance(meta.machine.query(meta.rows, Query(1)), str)
    assert meta.machine.query(meta.rows, Query()) == meta.machine.table(meta.rows).to_dict()


def test_a_count_of_requests_that_cannot_be_is_refused() -> None:
    key = b"\x01requests"
    check_row(key, ((1 << 62) - 1).to_bytes(8, "big"))
    for row in (b"\xff" * 8, b"\0" * 7):
        with pytest.raises(ProtocolError, match="request log"):
            check_row(key, row)


@settings(max_examples=60, deadline=None)
@given(requests(), st.data())
def test_replay_and_retries_give_identical_rows(
    run: list[tuple[str, Operation]], data: st.DataObject
) -> None:
    """A replica that restarts anywhere, and one that sees retries, end with the same rows."""
    one, other = Metaserver(), Metaserver()
    for request_id, operation in run:
        payload = encode(request_id, operation)
        before = one.table
        reply = one.apply(payload)
        if data.draw(st.booleans(), label="restart"):
            other.machine = MetaMachine(FOUNDING)
        assert other.apply(payload) == reply
        after = one.table
        assert after.version == before.version + (after is not before)
        check(after)
        _never_reused(before, after)
        if isinstance(reply, str):
            assert after is before
        elif data.draw(st.booleans(), label="retry"):
            assert one.apply(payload) == reply
            assert one.table is after
    assert content(one.rows) == content(other.rows)
    versions = [one.machine.query(one.rows, Query(it)) for it in range(one.table.version + 1)]
    assert [found["version"] for found in versions] == list(range(one.table.version + 1))
    assert versions[0] == FOUNDING.to_dict()


def _never_reused(before: ConfigTable, after: ConfigTable) -> None:
    for gid, group in after.groups.items():
        known = before.groups[gid].members if gid in before.groups else ()
        for replica in group.members:
            of_old = any(replica.replica_id == it.replica_id for it in known)
            assert of_old or replica.replica_id >= before.next_replica_id
    assert {*before.removed_nodes} <= {*after.removed_nodes}


def test_no_more_nodes_and_groups_than_the_limits(
    meta: Metaserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TABLE_NODES", 4)
    monkeypatch.setattr(limits, "TABLE_GROUPS", 2)
    meta.request(register(4))
    assert meta.request(register(5)) == "no more than 4 nodes can register"
    meta.request(Join(1, (1,)))
    assert meta.request(Join(2, (1,))) == "no more than 2 groups can join"
    assert meta.table.version == 5


@pytest.mark.parametrize(
    "operation",
    [
        Register(4, "s", "a:1", "b:2", "[::1]:3"),
        Join(1, (1, 2, 3), 9),
        Open(),
        Replicas(0, (4,), (1, 2)),
        Settle(1, (7,), (4, 5)),
        Forget(3),
        Query(),
        Query(12),
    ],
)
def test_a_request_survives_its_json(operation: Operation) -> None:
    assert decode(encode("id-1", operation)) == ("id-1", operation)


GOOD = orjson.loads(encode("id", Join(1, (1, 2, 3))))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"request_id": ""}, "request_id: must have 1 to 64 characters"),
        ({"request_id": None}, "request_id: must be a string"),
        ({"request_id": "a b"}, "request_id: only letters"),
        ({"request_id": "a" * 65}, "request_id: must have 1 to 64 characters"),
        ({"op": "leave"}, "unknown op 'leave'"),
        ({"op": ["join"]}, "unknown op an array"),
        ({"op": "open"}, "open: unknown field 'gid'"),
        ({"op": "register"}, "register: no field 'node_id'"),
        ({"op": "replicas"}, "replicas: no field 'add'"),
        ({"op": "settle"}, "settle: no field 'joined'"),
        ({"op": "forget"}, "forget: no field 'node_id'"),
        ({"gid": 2**32}, "gid: must be from 1 to 4294967295"),
        ({"nodes": []}, "0 nodes, must be 1 to 7"),
        ({"nodes": [1] * 8}, "nodes: 8 elements, at most 7"),
        ({"nodes": [1, 2, 1]}, "node 1 is named twice"),
        ({"nodes": [True]}, "join: nodes: must be a whole number"),
        ({"weight": 0}, "weight: must be from 1"),
        ({"more": "x" * limits.META_REQUEST_BYTES}, "at most 65536"),
    ],
)
def test_a_hostile_request_is_refused_and_changes_nothing(
    meta: Metaserver, change: dict[str, Any], complaint: str
) -> None:
    payload = orjson.dumps({**GOOD, **change})
    with pytest.raises(ProtocolError) as error:
        decode(payload)
    assert complaint in str(error.value)
    stored = content(meta.rows)
    assert complaint in meta.apply(payload)
    assert content(meta.rows) == stored


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: orjson.dumps(text)))
def test_noise_is_answered_with_an_error(payload: bytes) -> None:
    meta = Metaserver()
    assert isinstance(meta.apply(payload), str)
    assert content(meta.rows) == []


def test_a_follower_answers_nobody(rows: ReplicaRows) -> None:
    machine = MetaMachine(FOUNDING)
    machine.apply(rows, 1, 1, encode("a", register(1)), None)
    assert machine.table(rows).version == 1
    assert machine.table(rows) == replace(machine.table(rows))
