"""The config table as a value, its differences, and JSON that means harm."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft import limits
from eraft.errors import ConfigError, InvariantViolation, ProtocolError
from eraft.metaserver.diff import Diff
from eraft.metaserver.founding import founding_table
from eraft.metaserver.parts import UNOWNED, BucketRange, Group
from eraft.metaserver.table import ConfigTable
from eraft.storage.founding import founding_state
from eraft.types import BUCKETS, METASERVER_GID, NodeAddress, ReplicaAddress
from tests.metaserver.conftest import FOUNDING

_ports = st.integers(1, 65535)
_store_ids = st.text("0123456789abcdef", max_size=40)


@st.composite
def tables(draw: st.DrawFn, version: int = 0) -> ConfigTable:
    """Any table that keeps the rules."""
    node_ids = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True))
    nodes = {
        node_id: NodeAddress(
            node_id,
            draw(_store_ids),
            draw(st.one_of(st.just(""), _ports.map(lambda port: f"127.0.0.1:{port}"))),
            f"node-{node_id}.example:{draw(_ports)}",
            f"[::1]:{draw(_ports)}",
        )
        for node_id in sorted(node_ids)
    }
    replica_id = 1
    groups: dict[int, Group] = {}
    for gid in sorted(draw(st.sets(st.integers(1, 6), max_size=5)) | {METASERVER_GID}):
        members = draw(st.lists(st.sampled_from(node_ids), min_size=1, max_size=7, unique=True))
        replicas = []
        for node_id in members:
            replicas.append(ReplicaAddress(replica_id, node_id, nodes[node_id].store_id))
            replica_id += draw(st.integers(1, 3))
        leaving = []
        for node_id in draw(st.lists(st.sampled_from(node_ids), max_size=3)):
            leaving.append(ReplicaAddress(replica_id, node_id, nodes[node_id].store_id))
            replica_id += 1
        ids = [replica.replica_id for replica in replicas]
        groups[gid] = Group(
            draw(st.integers(1, 100)),
            tuple(replicas),
            tuple(draw(st.lists(st.integers(1, max(ids)), min_size=1, max_size=7, unique=True))),
            tuple(draw(st.lists(st.sampled_from(ids), max_size=3, unique=True))),
            tuple(leaving),
        )
    removed = tuple(sorted(draw(st.sets(st.integers(13, 20), max_size=3))))
    table = ConfigTable(
        version,
        draw(st.booleans()),
        replica_id,
        groups=groups,
        nodes=nodes,
        removed_nodes=removed,
    )
    if not table.opened:
        return table
    places = st.integers(1, BUCKETS - 1) | st.integers(1, 6)  # close ones too: single buckets
    cuts = sorted(draw(st.sets(places, max_size=12)))
    owners: list[int] = []
    for end in [*cuts, BUCKETS]:
        owners += [draw(st.sampled_from([UNOWNED, *groups]))] * (end - len(owners))
    return table.with_owners(owners)


@settings(deadline=None)
@given(tables())
def test_json_gives_the_same_table(table: ConfigTable) -> None:
    assert ConfigTable.from_json(table.to_json()) == table


@settings(deadline=None)
@given(tables())
def test_owner_agrees_with_the_ranges(table: ConfigTable) -> None:
    owners = table.owners()
    assert table.with_owners(owners) == table
    edges = {edge for start, end, _ in table.ranges() for edge in (start - 1, start, end, end + 1)}
    for bucket in sorted(edges | {0, BUCKETS - 1}):
        if 0 <= bucket < BUCKETS:
            assert table.owner(bucket) == owners[bucket]
    for gid in table.groups:
        if gid != METASERVER_GID:
            assert table.bucket_count(gid) == owners.count(gid)
            assert [item for item in table.ranges() if item.gid == gid] == [*table.ranges(gid)]


@settings(deadline=None)
@given(tables(4), tables(5))
def test_a_difference_makes_the_next_version(old: ConfigTable, new: ConfigTable) -> None:
    removed = tuple(sorted({*old.removed_nodes, *new.removed_nodes}))
    new = replace(new, removed_nodes=removed)
    diff = Diff.between(old, new)
    assert diff.apply(old) == new
    assert Diff.from_json(diff.to_json()) == diff
    if (old.groups, old.nodes, old.buckets) == (new.groups, new.nodes, new.buckets):
        assert not diff.groups and not diff.nodes and not diff.buckets


def test_a_difference_names_only_what_changed() -> None:
    table = replace(_opened(), version=9)
    owners = table.owners()
    owners[100:200] = [2] * 100
    owners[300] = UNOWNED
    diff = Diff.between(table, replace(table.with_owners(owners), version=10))
    assert diff == Diff(
        version=10,
        opened=True,
        next_replica_id=table.next_replica_id,
        buckets=(BucketRange(100, 199, 2), BucketRange(300, 300, UNOWNED)),
    )


def test_single_buckets_between_changed_ranges_keep_their_owner() -> None:
    table = _opened()
    changed = tuple(BucketRange(start, start + 1, 2) for start in range(0, 30, 3))
    diff = Diff(table.version + 1, True, table.next_replica_id, changed)
    assert diff.apply(table).owners() == ([2, 2, 1] * 10 + [1] * 8192)[:8192] + [2] * 8192
    diff = replace(diff, buckets=(BucketRange(1, 8190, 2),))
    assert diff.apply(table).owners() == [1] + [2] * 8190 + [1] + [2] * 8192


def test_a_difference_fits_one_version_only() -> None:
    table = replace(FOUNDING, version=3)
    diff = Diff.between(table, replace(table, version=4))
    for version in (2, 4):
        with pytest.raises(ProtocolError, match=f"does not apply to version {version}"):
            diff.apply(replace(table, version=version))
    with pytest.raises(InvariantViolation, match="each version follows"):
        Diff.between(table, replace(table, version=5))


def test_a_difference_cannot_break_the_rules_of_a_table() -> None:
    table = _opened()
    diff = Diff(
        version=table.version + 1,
        opened=True,
        next_replica_id=table.next_replica_id,
        groups={2: None},
    )
    with pytest.raises(ProtocolError, match="of unknown group 2"):
        diff.apply(table)


def test_hosted_asks_for_the_same_store() -> None:
    table = _opened()
    hosted = table.hosted(1, "s1")
    assert hosted == [(1, ReplicaAddress(4, 1, "s1")), (2, ReplicaAddress(5, 1, "s1"))]
    assert table.hosted(1, "wiped") == []
    assert table.hosted(9, "s1") == []


def test_which_replicas_are_gone_for_good() -> None:
    group = Group(1, (ReplicaAddress(6, 1, "s1"),), (4,), (6,), (ReplicaAddress(4, 2, "s2"),))
    table = replace(_opened(), next_replica_id=7, groups={**_opened().groups, 1: group})
    assert not table.removed(1, 6)
    assert not table.removed(1, 4)
    assert table.removed(1, 5)
    assert table.removed(9, 3)
    assert not table.removed(1, 7)
    assert group.node_ids == (2, 1)


def _opened() -> ConfigTable:
    nodes = dict(FOUNDING.nodes)
    nodes[1] = replace(nodes[1], store_id="s1")
    groups = {
        **FOUNDING.groups,
        1: Group.founded(1, (ReplicaAddress(4, 1, "s1"),)),
        2: Group.founded(1, (ReplicaAddress(5, 1, "s1"),)),
    }
    table = replace(FOUNDING, opened=True, next_replica_id=6, groups=groups, nodes=nodes)
    return table.with_owners([1] * 8192 + [2] * 8192)


def _set(form: Any, path: str, value: Any) -> None:
    *way, last = path.split("/")
    for step in way:
        form = form[int(step)] if isinstance(form, list) else form[step]
    if isinstance(form, list):
        form[int(last)] = value
    else:
        form[last] = value


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("version", -1, "version: must be from 0"),
        ("version", 2**63, "version: must be from 0"),
        ("version", True, "version: must be a whole number, not True"),
        ("version", 1.0, "version: must be a whole number, not 1.0"),
        ("version", "1", "version: must be a whole number, not '1'"),
        ("opened", 1, "opened: must be true or false, not 1"),
        ("opened", False, "buckets are owned, but it is not opened"),
        ("next_replica_id", 5, "group 2: replica id 5 was never issued"),
        ("surprise", 1, "unknown field 'surprise'"),
        ("nodes", [], "nodes: must be an object, not an array"),
        ("nodes/0", {}, "nodes: id: must be from 1"),
        ("nodes/01", {}, "nodes: id: must be a whole number, not '01'"),
        ("nodes/-1", {}, "nodes: id: must be a whole number, not '-1'"),
        ("nodes/²", {}, "nodes: id: must be a whole number, not '²'"),
        ("nodes/1/client", "10.0.0.1", "nodes: 1: client: must be host:port"),
        ("nodes/1/client", "10.0.0.1:0", "nodes: 1: client: must be host:port"),
        ("nodes/1/client", "a b:1", "nodes: 1: client: must be host:port"),
        ("nodes/1/client", "x\r\n-ERR:1", "nodes: 1: client: must be host:port"),
        ("nodes/1/client", "h" * 256 + ":1", "nodes: 1: client: must be host:port"),
        ("nodes/1/peer", "", "nodes: 1: peer: must be host:port"),
        ("nodes/1/store_id", "a/b", "store_id: only letters"),
        ("nodes/1/store_id", "a" * 65, "store_id: must have 0 to 64 characters"),
        ("nodes/1/store_id", None, "store_id: must be a string"),
        ("nodes/1/more", None, "nodes: 1: unknown field 'more'"),
        ("groups/4294967296", {}, "groups: id: must be from 0"),
        ("groups/1/weight", 0, "groups: 1: weight: must be from 1"),
        ("groups/1/replicas", [], "groups: 1: no replicas"),
        ("groups/1/replicas", [1] * 8, "groups: 1: replicas: 8 elements, at most 7"),
        ("groups/1/replicas/0/node_id", 9, "group 1: a replica on unknown node 9"),
        ("groups/1/replicas/0/replica_id", 1, "group 1: replica id 1 was never issued"),
        ("groups/0/replicas/0/node_id", 2, "group 0: two replicas on one node"),
        ("groups/2", None, "groups: 2: must be an object, not None"),
        ("groups/1/founders", [], "group 1: its founders were never issued"),
        ("groups/1/founders", [6], "group 1: its founders were never issued"),
        ("groups/1/founders", [0], "groups: 1: founders: id: must be from 1"),
        ("groups/1/joining", [5], "group 1: a replica is joining that is not wanted"),
        ("groups/1/joining", [1] * 8, "groups: 1: joining: 8 elements, at most 7"),
        ("groups/1/leaving", [1], "groups: 1: leaving: must be an object"),
        ("groups/1/leaving", [1] * 8, "groups: 1: leaving: 8 elements, at most 7"),
        ("removed_nodes", [1], "node 1 is removed and known"),
        ("removed_nodes", [9, 9], "removed_nodes: id: must be from 10"),
        ("buckets", {}, "buckets: must be an array, not an object"),
        ("buckets/0", [0, 1], "a range must be"),
        ("buckets/0/0", -1, "buckets: start: must be from 0"),
        ("buckets/0/1", 16384, "buckets: end: must be from 0 to 16383"),
        ("buckets/0/1", 8192, "buckets: start: must be from 8193"),
        ("buckets/1/1", 8191, "buckets: end: must be from 8192"),
        ("buckets/0/2", 0, "buckets 0-8191 of unknown group 0"),
        ("buckets/0/2", 3, "buckets 0-8191 of unknown group 3"),
        ("buckets/1/2", 1, "two neighbouring ranges of group 1 at 8192"),
    ],
)
def test_hostile_json_is_named(path: str, value: object, complaint: str) -> None:
    form = _opened().to_dict()
    assert ConfigTable.from_dict(form) == _opened()
    _set(form, path, value)
    with pytest.raises(ProtocolError) as error:
        ConfigTable.from_json(orjson.dumps(form))
    assert complaint in str(error.value)


@pytest.mark.parametrize("name", list(FOUNDING.to_dict()))
def test_a_missing_field_is_named(name: str) -> None:
    form = FOUNDING.to_dict()
    del form[name]
    with pytest.raises(ProtocolError, match=f"no field '{name}'"):
        ConfigTable.from_dict(form)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b'"' + b"x" * 1000 + b'"',
        b"NaN",
        b"[" * 100_000,
        b"[" * 1000 + b"]" * 1000,
        b'{"version":' + b"[" * 1000 + b"]" * 1000 + b"}",
        b" " * (limits.TABLE_SIZE_BYTES + 1),
    ],
)
def test_what_is_not_a_table_is_refused(body: bytes) -> None:
    for read in (ConfigTable.from_json, Diff.from_json):
        with pytest.raises(ProtocolError) as error:
            read(body)
        assert len(str(error.value)) < 300


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    form: Any = _opened().to_dict()
    spot: Any = form
    while True:
        keys = sorted(spot) if isinstance(spot, dict) else range(len(spot))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(spot[key], dict | list) or not spot[key] or data.draw(st.booleans()):
            spot[key] = data.draw(_json)
            break
        spot = spot[key]
    try:
        body = orjson.dumps(form)
    except orjson.JSONEncodeError:
        return
    try:
        table = ConfigTable.from_json(body)
    except ProtocolError:
        return
    assert ConfigTable.from_json(table.to_json()) == table


def test_the_founding_table_is_the_metaserver_and_nothing_else() -> None:
    table = founding_table({3: "c:3", 1: "a:1", 7: "b:2"})
    assert table == founding_table({1: "a:1", 7: "b:2", 3: "c:3"})
    assert table.version == 0
    assert table.groups == {
        0: Group.founded(1, (ReplicaAddress(1, 1), ReplicaAddress(2, 3), ReplicaAddress(3, 7)))
    }
    assert table.nodes[3] == NodeAddress(3, "", "", "c:3", "")
    assert table.next_replica_id == 4
    assert ConfigTable.from_json(table.to_json()) == table


def test_the_founding_table_and_the_founding_states_agree() -> None:
    """Each node makes them of its own list: its order must not matter."""
    table = founding_table({3: "c:3", 1: "a:1", 7: "b:2"})
    for founders in ([1, 3, 7], [7, 1, 3]):
        for replica in table.groups[METASERVER_GID].replicas:
            state = founding_state(replica.node_id, founders)
            assert state is not None
            assert state.replica_id == replica.replica_id
            assert {(it.replica_id, it.node_id) for it in state.members} == {(1, 1), (2, 3), (3, 7)}


@pytest.mark.parametrize("members", [{}, {0: "a:1"}, {1: "a"}, dict.fromkeys(range(1, 9), "a:1")])
def test_a_founding_list_must_make_sense(members: dict[int, str]) -> None:
    with pytest.raises(ConfigError, match="metaserver: "):
        founding_table(members)
