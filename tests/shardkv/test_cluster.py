"""The cluster as clients see it: the formats, and one role for each node."""

import re
from dataclasses import dataclass, field, replace

import pytest

from eraft._impl import resp
from eraft.metaserver.parts import BucketRange, Group
from eraft.metaserver.table import ConfigTable
from eraft.shardkv.cluster import ClusterView, info_lines, node_name
from eraft.shardkv.router import Router
from eraft.types import BUCKETS, NodeAddress, ReplicaAddress

LAST = BUCKETS - 1
WALL_MS = 1_700_000_000_123
ME = 1


@dataclass
class Machine:
    states: bytearray = field(default_factory=lambda: bytearray(BUCKETS))


@dataclass
class LocalReplica:
    gid: int
    serving: bool = True
    machine: Machine = field(default_factory=Machine)


def table(homes: dict[int, tuple[int, ...]], *buckets: tuple[int, int, int]) -> ConfigTable:
    """Nodes 1 to 4, with groups on these nodes and these buckets."""
    return ConfigTable(
        version=5,
        opened=bool(buckets),
        next_replica_id=1000,
        buckets=tuple(BucketRange(*item) for item in buckets),
        groups={
            gid: Group.founded(1, tuple(ReplicaAddress(10 * gid + n, n, f"s{n}") for n in nodes))
            for gid, nodes in homes.items()
        },
        nodes={
            n: NodeAddress(n, f"s{n}", f"10.0.0.{n}:700{n}", f"10.0.0.{n}:1700{n}", "")
            for n in range(1, 5)
        },
    )


def view(known: ConfigTable, leads: dict[int, int], down: tuple[int, ...] = ()) -> ClusterView:
    router = Router(ME)
    router.set_table(known)
    for gid, node_id in leads.items():
        router.note_lead(gid, 1, node_id, 100.0)
        if node_id == ME:
            router.groups[gid] = LocalReplica(gid)
    for node_id in down:
        router.link_down(node_id)
    return ClusterView(router, "demo", 100.0, WALL_MS)


TWO_OF_ALL = {1: (1, 2, 3), 2: (1, 2, 3)}
HALVES = ((0, 8191, 1), (8192, LAST, 2))


def name(node_id: int) -> bytes:
    return node_name("demo", node_id).encode()


def node(node_id: int) -> list[object]:
    return [b"10.0.0.%d" % node_id, 7000 + node_id, name(node_id), {}]


def test_names_are_40_digits_and_always_the_same() -> None:
    names = {node_name(cluster, n) for cluster in ("a", "b") for n in (1, 2, 11)}
    assert len(names) == 6
    assert all(re.fullmatch("[0-9a-f]{40}", one) for one in names)
    assert node_name("demo", 1) == "7596ce2aecba4f8ab01a3202aa4eb3a22376a1a9"


# CLUSTER SLOTS


def test_slots_name_the_leader_first_and_no_master_as_a_replica() -> None:
    shown = view(table(TWO_OF_ALL, *HALVES), {1: 2, 2: 1})
    assert shown.slots() == [[0, 8191, node(2), node(3)], [8192, LAST, node(1), node(3)]]


def test_slots_in_both_protocols() -> None:
    shown = view(table({1: (2,)}, (0, 0, 1)), {1: 2})
    common = b"*3\r\n:0\r\n:0\r\n*4\r\n$8\r\n10.0.0.2\r\n:7002\r\n$40\r\n%b\r\n" % name(2)
    assert resp.encode([shown.slots()], 0, 1, 2) == b"*1\r\n" + common + b"*0\r\n"
    assert resp.encode([shown.slots()], 0, 1, 3) == b"*1\r\n" + common + b"%0\r\n"


def test_slots_without_a_leader_name_the_last_one_or_the_first_replica() -> None:
    known = table(TWO_OF_ALL, *HALVES)
    router = Router(ME)
    router.set_table(known)
    router.note_lead(1, 1, 3, 0.0)
    shown = ClusterView(router, "demo", 1000.0, WALL_MS)
    assert shown.slots() == [[0, 8191, node(3), node(2)], [8192, LAST, node(1), node(2)]]


def test_slots_name_a_node_that_can_be_reached_first() -> None:
    shown = view(table(TWO_OF_ALL, *HALVES), {1: 3}, down=(3,))
    assert shown.slots() == [[0, 8191, node(2), node(3)], [8192, LAST, node(1), node(3)]]


def test_nodes_that_clients_cannot_reach_are_not_listed() -> None:
    known = table(TWO_OF_ALL, *HALVES)
    hidden = {**known.nodes, 3: replace(known.nodes[3], client="")}
    shown = view(replace(known, nodes=hidden), {1: 3, 2: 2})
    assert shown.slots() == [[0, 8191, node(1)], [8192, LAST, node(2)]]
    none = {n: replace(item, client="") for n, item in known.nodes.items()}
    assert view(replace(known, nodes=none), {1: 3, 2: 2}).slots() == []


def test_before_the_opening() -> None:
    shown = view(table(TWO_OF_ALL), {1: 1})
    assert shown.slots() == []
    assert shown.shards() == []
    assert shown.role == "replica"
    assert shown.info().startswith(b"cluster_state:fail\r\ncluster_slots_assigned:0\r\n")


# CLUSTER SHARDS


def test_shards() -> None:
    split = ((0, 99, 1), (100, 8191, 2), (8192, LAST, 1))
    shown = view(table(TWO_OF_ALL, *split), {1: 2, 2: 2}, down=(3,)).shards()
    assert [shard[b"slots"] for shard in shown] == [[0, 99, 8192, LAST], [100, 8191]]
    assert shown[0][b"nodes"] == shown[1][b"nodes"]
    first, second, third = shown[0][b"nodes"]
    assert first == {
        b"id": name(2),
        b"port": 7002,
        b"ip": b"10.0.0.2",
        b"endpoint": b"10.0.0.2",
        b"role": b"master",
        b"replication-offset": 0,
        b"health": b"online",
    }
    assert (second[b"id"], second[b"role"], second[b"health"]) == (name(1), b"replica", b"online")
    assert (third[b"id"], third[b"role"], third[b"health"]) == (name(3), b"replica", b"failed")


# CLUSTER NODES


def test_nodes() -> None:
    split = ((0, 99, 1), (100, 100, 2), (101, LAST, 1))
    lines = view(table(TWO_OF_ALL, *split), {1: 1, 2: 2}, down=(3,)).nodes()
    assert lines.endswith(b"\n")
    assert lines.decode().splitlines() == [
        f"{node_name('demo', 1)} 10.0.0.1:7001@17001 myself,master - 0 {WALL_MS} 5 connected"
        " 0-99 101-16383",
        f"{node_name('demo', 2)} 10.0.0.2:7002@17002 master - 0 {WALL_MS} 5 connected 100",
        f"{node_name('demo', 3)} 10.0.0.3:7003@17003 slave,fail? {node_name('demo', 1)} 0 0 5"
        " disconnected",
        f"{node_name('demo', 4)} 10.0.0.4:7004@17004 slave {node_name('demo', 1)} 0 {WALL_MS} 5"
        " connected",
    ]


def test_nodes_have_a_line_for_this_node_before_it_is_registered() -> None:
    shown = ClusterView(Router(ME), "demo", 1.0, WALL_MS)
    assert shown.nodes() == b"%b :0@0 myself,slave - 0 %d 0 connected\n" % (name(1), WALL_MS)


def test_every_node_has_one_role_in_every_view() -> None:
    homes = {1: (1, 2, 3), 2: (2, 3, 4), 3: (3, 4, 1), 4: (4, 1, 2)}
    known = table(homes, (0, 9, 1), (10, 19, 2), (20, 29, 3))  # group 4 owns nothing
    shown = view(known, {1: 1, 2: 3, 3: 1, 4: 4})
    masters = {name(1), name(3)}
    listed = {}
    for _, _, head, *others in shown.slots():
        assert listed.setdefault(head[2], "master") == "master"
        assert all(listed.setdefault(item[2], "slave") == "slave" for item in others)
    assert {key for key, role in listed.items() if role == "master"} == masters
    for shard in shown.shards():
        roles = {item[b"id"]: item[b"role"] for item in shard[b"nodes"]}
        assert all((role == b"master") == (key in masters) for key, role in roles.items())
    for line in shown.nodes().splitlines():
        key, _, flags, master, *_ = line.split()
        assert (b"master" in flags) == (key in masters)
        assert (b"slave" in flags) == (key not in masters)
        assert (master in masters) == (key not in masters)


def test_replicas_and_links() -> None:
    known = table(TWO_OF_ALL, *HALVES)
    registered = {n: item for n, item in known.nodes.items() if n < 4}
    shown = view(replace(known, nodes=registered), {1: 1, 2: 1})
    found = shown.replicas(node_name("demo", 1))
    assert found is not None
    assert [line.split()[0] for line in found] == [name(2), name(3)]
    assert shown.replicas(node_name("demo", 2)) == []
    assert shown.replicas("x") is None
    assert [link[b"node"] for link in view(known, {}, down=(3,)).links()] == [name(2), name(4)]


# CLUSTER INFO


def fields(text: bytes) -> dict[str, str]:
    return dict(line.split(":") for line in text.decode().removesuffix("\r\n").split("\r\n"))


def test_info_of_a_whole_cluster() -> None:
    assert fields(view(table(TWO_OF_ALL, *HALVES), {1: 2, 2: 1}).info()) == {
        "cluster_state": "ok",
        "cluster_slots_assigned": "16384",
        "cluster_slots_ok": "16384",
        "cluster_slots_pfail": "0",
        "cluster_slots_fail": "0",
        "cluster_known_nodes": "4",
        "cluster_size": "2",
        "cluster_current_epoch": "5",
        "cluster_my_epoch": "5",
    }


@pytest.mark.parametrize(
    ("buckets", "leads", "down", "ok"),
    [
        (HALVES, {1: 2}, (), 8192),
        (HALVES, {1: 2, 2: 3}, (3,), 8192),
        (((0, LAST - 1, 1),), {1: 2}, (), LAST),
        (HALVES, {}, (), 0),
    ],
)
def test_info_of_a_cluster_that_is_not_whole(
    buckets: tuple[tuple[int, int, int], ...],
    leads: dict[int, int],
    down: tuple[int, ...],
    ok: int,
) -> None:
    found = fields(view(table(TWO_OF_ALL, *buckets), leads, down).info())
    assert found["cluster_state"] == "fail"
    assert found["cluster_slots_ok"] == str(ok)
    assert int(found["cluster_slots_ok"]) + int(found["cluster_slots_pfail"]) == int(
        found["cluster_slots_assigned"]
    )


def test_info_lines() -> None:
    assert info_lines({"a": 1, "b": "x"}) == b"a:1\r\nb:x\r\n"
    assert info_lines({}) == b""
