"""Other replicas for a group: what the table wants, what is under way, and what is refused."""

import pytest

from eraft import limits
from eraft.metaserver.operations import Forget, Join, Replicas, Settle
from eraft.metaserver.parts import Group
from eraft.types import ReplicaAddress
from tests.metaserver.conftest import register
from tests.metaserver.test_machine import Metaserver


def replica(replica_id: int, node_id: int) -> ReplicaAddress:
    return ReplicaAddress(replica_id, node_id, f"store-{node_id}")


@pytest.fixture
def meta() -> Metaserver:
    """Five nodes; group 1 has replicas 4 to 6 on nodes 1 to 3."""
    found = Metaserver()
    for node_id in range(1, 6):
        found.request(register(node_id))
    found.request(Join(1, (1, 2, 3)))
    return found


def test_a_replica_is_replaced_and_the_old_one_forgotten_once_it_is_out(meta: Metaserver) -> None:
    assert meta.request(Replicas(1, (4,), (3,))) == {
        "version": 7,
        "gid": 1,
        "joining": [7],
        "leaving": [6],
    }
    assert meta.table.groups[1] == Group(
        weight=1,
        replicas=(replica(4, 1), replica(5, 2), replica(7, 4)),
        founders=(4, 5, 6),
        joining=(7,),
        leaving=(replica(6, 3),),
    )
    assert meta.table.next_replica_id == 8
    assert meta.table.hosted(4, "store-4") == [(1, replica(7, 4))]
    assert meta.table.hosted(3, "store-3") == [(0, replica(3, 3))]
    assert not meta.table.removed(1, 6)
    assert meta.request(Settle(1, (7,), ())) == {"version": 8}
    assert meta.request(Settle(1, (), (6,))) == {"version": 9}
    assert meta.table.removed(1, 6)
    group = meta.table.groups[1]
    assert (group.joining, group.leaving, group.changing) == ((), (), False)
    assert group.founders == (4, 5, 6)


def test_a_report_that_comes_late_or_twice_changes_nothing(meta: Metaserver) -> None:
    meta.request(Replicas(1, (4,), (3,)))
    meta.request(Settle(1, (7,), (6,)))
    meta.request(Replicas(1, (5,), (4,)))
    before = meta.table
    assert meta.request(Settle(1, (7,), (6,))) == {"version": before.version}
    assert meta.table is before
    assert meta.request(Settle(9, (7,), (6,))) == "there is no group 9"


def test_the_metaservers_own_members_change_too(meta: Metaserver) -> None:
    reply = meta.request(Replicas(0, (4,), (2,)))
    assert (reply["joining"], reply["leaving"]) == ([7], [2])
    assert meta.table.groups[0].node_ids == (1, 3, 2, 4)


def test_a_node_in_both_lists_gets_a_new_replica(meta: Metaserver) -> None:
    meta.request(Replicas(1, (3,), (3,)))
    group = meta.table.groups[1]
    assert group.replicas == (replica(4, 1), replica(5, 2), replica(7, 3))
    assert group.leaving == (replica(6, 3),)
    assert group.node_ids == (1, 2, 3)


@pytest.mark.parametrize(
    ("operation", "complaint"),
    [
        (Replicas(7, (4,), ()), "there is no group 7"),
        (Replicas(1, (9,), ()), "group 1: node 9 has not registered"),
        (Replicas(1, (3,), ()), "group 1: it has a replica on node 3 already"),
        (Replicas(1, (), (4,)), "group 1: it has no replica on node 4"),
        (Replicas(1, (), (1, 2, 3)), "group 1: it would have no replica left"),
    ],
)
def test_what_is_refused(meta: Metaserver, operation: Replicas, complaint: str) -> None:
    before = meta.table
    assert meta.request(operation) == complaint
    assert meta.table is before


def test_not_more_replicas_than_the_limits(
    meta: Metaserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GROUP_REPLICAS", 4)
    assert "would have 5 replicas, at most 4" in meta.request(Replicas(1, (4, 5), ()))
    monkeypatch.setattr(limits, "GROUP_LEAVING", 1)
    assert "wait until they have" in meta.request(Replicas(1, (4, 5), (1, 2)))


def test_while_a_group_changes_no_other_voter_leaves(meta: Metaserver) -> None:
    meta.request(Replicas(1, (4,), (3,)))
    assert meta.request(Replicas(1, (), (2,))) == (
        "group 1: it is changing already (replica 7 is joining, replica 6 on node 3 is leaving): "
        "no other voter can leave now"
    )
    assert meta.request(Replicas(1, (3,), ()))["joining"] == [8]


def test_a_replica_that_cannot_join_is_replaced_by_another(meta: Metaserver) -> None:
    """The new node dies before it has caught up."""
    meta.request(Replicas(1, (4,), (3,)))
    assert meta.request(Replicas(1, (5,), (4,)))["leaving"] == [7]
    group = meta.table.groups[1]
    assert group.joining == (8,)
    assert [it.replica_id for it in group.leaving] == [6, 7]
    meta.request(Settle(1, (8,), (6, 7)))
    assert meta.table.groups[1].replicas == (replica(4, 1), replica(5, 2), replica(8, 5))
    assert not meta.table.groups[1].changing


def test_a_node_is_removed_once_no_group_needs_it(meta: Metaserver) -> None:
    assert meta.request(Forget(3)) == "node 3 still has replicas of group 0, 1"
    meta.request(Replicas(1, (4,), (3,)))
    meta.request(Settle(1, (7,), (6,)))
    meta.request(Replicas(0, (4,), (3,)))
    assert meta.request(Forget(3)) == "node 3 still has replicas of group 0"
    meta.request(Settle(0, (8,), (3,)))
    reply = meta.request(Forget(3))
    assert reply == {"version": meta.table.version}
    assert 3 not in meta.table.nodes
    assert meta.table.removed_nodes == (3,)
    assert meta.request(Forget(3)) == reply
    assert meta.request(Forget(9)) == "there is no node 9"
    assert meta.request(register(3)) == (
        "node 3 was removed from the cluster: its node id is not used again"
    )
    assert meta.request(register(3, "fresh")) == (
        "node 3 was removed from the cluster: its node id is not used again"
    )


def test_not_more_removed_nodes_than_the_limit(
    meta: Metaserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TABLE_REMOVED_NODES", 1)
    meta.request(Forget(5))
    assert meta.request(Forget(4)) == "no more than 1 nodes can be removed"


def test_a_member_that_never_registered_can_be_replaced() -> None:
    meta = Metaserver()
    for node_id in (1, 2, 4):
        meta.request(register(node_id))
    meta.request(Replicas(0, (4,), (3,)))
    meta.request(register(3))
    assert meta.table.groups[0].leaving == (ReplicaAddress(3, 3, "store-3"),)
