"""Routing decisions: by hand for each case, and at random for what must never happen."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eraft import limits
from eraft._impl import resp
from eraft.metaserver.parts import BucketRange, Group
from eraft.metaserver.table import ConfigTable
from eraft.shardkv.ownership import State
from eraft.shardkv.router import (
    CLUSTER_DOWN,
    NOT_SERVED,
    TRY_AGAIN,
    Decision,
    Hold,
    Moved,
    Refuse,
    Router,
    Serve,
)
from eraft.types import BUCKETS, NodeAddress, ReplicaAddress

ME = 1
LAST = BUCKETS - 1


@dataclass
class Machine:
    """Applied ownership as data."""

    states: bytearray = field(default_factory=lambda: bytearray(BUCKETS))

    def own(self, start: int, end: int, state: int = State.OWNED) -> None:
        self.states[start : end + 1] = bytes([state]) * (end - start + 1)


@dataclass
class LocalReplica:
    gid: int
    serving: bool = False
    following: bool = False
    machine: Machine = field(default_factory=Machine)


def table(
    buckets: tuple[tuple[int, int, int], ...] = ((0, 5460, 1), (5461, 10922, 2), (10923, LAST, 3)),
    unreachable: tuple[int, ...] = (),
) -> ConfigTable:
    """Nodes 1 to 4; group 1 on 1, 2, 3, group 2 on 2, 3, 1, group 3 on 2, 3, 4."""
    nodes = {
        n: NodeAddress(n, f"s{n}", "" if n in unreachable else f"h{n}:700{n}", f"h{n}:1", "")
        for n in range(1, 5)
    }
    homes = {1: (1, 2, 3), 2: (2, 3, 1), 3: (2, 3, 4)}
    groups = {
        gid: Group.founded(1, tuple(ReplicaAddress(10 * gid + n, n, f"s{n}") for n in homes[gid]))
        for gid in homes
    }
    return ConfigTable(
        version=5,
        opened=True,
        next_replica_id=100,
        buckets=tuple(BucketRange(*item) for item in buckets),
        groups=groups,
        nodes=nodes,
    )


@pytest.fixture
def router() -> Router:
    """Node 1 leads group 1 and owns its buckets, node 2 leads group 2, node 4 group 3."""
    made = Router(ME)
    made.set_table(table())
    mine = LocalReplica(1, serving=True)
    mine.machine.own(0, 5460)
    follows = LocalReplica(2)
    follows.machine.own(5461, 10922)
    made.groups = {1: mine, 2: follows}
    made.note_lead(1, 7, ME, 100.0)
    made.note_lead(2, 7, 2, 100.0)
    made.note_lead(3, 7, 4, 100.0)
    return made


def route(router: Router, bucket: int, now_s: float = 100.0, **how: bool) -> Decision:
    return router.route(
        bucket, now_s, write=how.get("write", True), readonly=how.get("readonly", False)
    )


def replica(router: Router, gid: int) -> LocalReplica:
    found = router.groups[gid]
    assert isinstance(found, LocalReplica)
    return found


def moved(bucket: int, node_id: int) -> Moved:
    return Moved(resp.ReplyError(b"MOVED %d h%d:700%d" % (bucket, node_id, node_id)))


HELD = Hold(CLUSTER_DOWN)


# Serving


@pytest.mark.parametrize("bucket", [0, 5460])
def test_a_leader_serves_what_it_owns(router: Router, bucket: int) -> None:
    assert route(router, bucket) == Serve(1)


def test_a_leader_serves_what_it_exports(router: Router) -> None:
    replica(router, 1).machine.own(9, 9, State.EXPORTING)
    assert route(router, 9) == Serve(1)


def test_a_leader_without_its_first_entry_holds(router: Router) -> None:
    replica(router, 1).serving = False
    assert route(router, 0) == HELD


def test_a_leader_that_has_not_taken_its_share_yet_holds(router: Router) -> None:
    replica(router, 1).machine.own(0, 5460, State.NONE)
    assert route(router, 0) == HELD


@pytest.mark.parametrize("owner", [0, 3])
def test_applied_ownership_outranks_an_old_table(router: Router, owner: int) -> None:
    buckets = ((0, 99, owner), (100, LAST, 1)) if owner else ((100, LAST, 1),)
    router.set_table(table(buckets))
    assert route(router, 50) == Serve(1)


def test_a_new_table_takes_effect_only_when_applied(router: Router) -> None:
    router.set_table(table(((0, LAST, 1),)))
    assert route(router, 16000) == HELD
    replica(router, 1).machine.own(16000, 16000)
    assert route(router, 16000) == Serve(1)


# Elsewhere


@pytest.mark.parametrize(("bucket", "node_id"), [(5461, 2), (10922, 2), (10923, 4), (LAST, 4)])
@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("readonly", [True, False])
def test_another_leader_is_named_with_the_true_slot(
    router: Router, bucket: int, node_id: int, write: bool, readonly: bool
) -> None:
    assert route(router, bucket, write=write, readonly=readonly) == moved(bucket, node_id)


def test_a_follower_serves_readers_that_allow_it(router: Router) -> None:
    replica(router, 2).following = True
    replica(router, 2).machine.own(5461, 10922)
    assert route(router, 6000, write=False, readonly=True) == Serve(2)
    assert route(router, 6000, write=True, readonly=True) == moved(6000, 2)
    assert route(router, 6000, write=False, readonly=False) == moved(6000, 2)
    replica(router, 2).following = False
    assert route(router, 6000, write=False, readonly=True) == moved(6000, 2)


def test_a_follower_names_the_leader_of_what_its_table_does_not_know_yet(router: Router) -> None:
    router.set_table(table(()))
    assert route(router, 6000) == moved(6000, 2)


def test_nobodys_bucket(router: Router) -> None:
    router.set_table(table(((0, 10, 1),)))
    assert route(router, 12000) == Refuse(NOT_SERVED)
    assert bytes(NOT_SERVED) == b"CLUSTERDOWN Hash slot not served"


def test_nothing_is_known() -> None:
    assert route(Router(ME), 0) == Refuse(NOT_SERVED)


def test_no_leader_known(router: Router) -> None:
    router.leads.clear()
    assert route(router, 6000) == HELD


def test_a_node_that_says_it_leads_no_more_is_not_named(router: Router) -> None:
    router.note_leads(2, [(9, 3)], 100.0)
    assert route(router, 6000) == HELD
    assert route(router, 11000) == moved(11000, 4)
    router.note_leads(2, [(2, 7)], 100.1)
    assert route(router, 6000, 100.1) == moved(6000, 2)


def test_a_lead_ages(router: Router) -> None:
    just, late = 100.0 + limits.LEAD_STALE_S, 100.01 + limits.LEAD_STALE_S
    assert route(router, 6000, just) == moved(6000, 2)
    assert route(router, 6000, late) == HELD
    router.note_lead(2, 7, 2, late)
    assert route(router, 6000, late) == moved(6000, 2)


def test_a_lead_across_a_broken_link(router: Router) -> None:
    router.link_down(2)
    assert route(router, 6000) == HELD
    assert not router.reachable(2)
    router.link_up(2)
    assert route(router, 6000) == moved(6000, 2)


def test_a_higher_term_wins(router: Router) -> None:
    router.note_lead(2, 8, 3, 100.0)
    assert route(router, 6000) == moved(6000, 3)


@pytest.mark.parametrize("term", [6, 7])
def test_a_claim_that_is_not_newer_is_ignored(router: Router, term: int) -> None:
    router.note_lead(2, term, 3, 101.0)
    assert route(router, 6000) == moved(6000, 2)
    assert router.leads[2].heard_s == 100.0


def test_an_old_claim_of_the_same_node_does_not_renew(router: Router) -> None:
    router.note_lead(2, 6, 2, 102.0)
    assert router.leads[2] == (7, 2, 100.0)


def test_never_moved_to_itself(router: Router) -> None:
    router.note_lead(2, 8, ME, 100.0)  # it leads, but has not applied its first entry
    assert route(router, 6000) == HELD


def test_never_moved_to_a_node_without_an_address_for_clients(router: Router) -> None:
    router.set_table(table(unreachable=(2,)))
    assert route(router, 6000) == HELD


def test_never_moved_to_an_unknown_node(router: Router) -> None:
    router.note_lead(2, 8, 99, 100.0)
    assert route(router, 6000) == HELD


def test_an_ipv6_address_has_no_brackets(router: Router) -> None:
    known = table()
    nodes = {**known.nodes, 2: replace(known.nodes[2], client="[fe80::1]:7002")}
    router.set_table(replace(known, nodes=nodes))
    assert route(router, 6000) == Moved(resp.ReplyError(b"MOVED 6000 fe80::1:7002"))


# Rejected at apply


def test_redirect(router: Router) -> None:
    assert router.redirect(6000) == resp.ReplyError(b"MOVED 6000 h2:7002")
    assert router.redirect(0) is TRY_AGAIN  # its own: it is not sent to itself
    router.link_down(2)
    assert router.redirect(6000) is TRY_AGAIN
    router.leads.clear()
    assert router.redirect(11000) is TRY_AGAIN
    router.set_table(table(()))
    assert router.redirect(6000) is NOT_SERVED


# Who leads


def test_leader(router: Router) -> None:
    assert router.leader(1, 100.0) == ME
    assert router.leader(2, 100.0) == 2
    assert router.leader(2, 200.0) == 0
    assert router.leader(9, 100.0) == 0
    assert router.leader(1, 200.0) == ME  # it serves: nobody has to tell it
    replica(router, 1).serving = False
    assert router.leader(1, 200.0) == 0


def test_head_is_the_last_known_leader(router: Router) -> None:
    assert [router.head(gid) for gid in (1, 2, 3)] == [1, 2, 4]
    router.note_lead(2, 8, 3, 50.0)
    assert router.head(2) == 3
    router.leads.clear()
    assert [router.head(gid) for gid in (1, 2, 3)] == [1, 2, 2]


def test_head_can_be_reached_if_any_other_node_can(router: Router) -> None:
    members = router.table.groups[2].node_ids
    leader, other = (node_id for node_id in members if node_id != ME)
    router.note_lead(2, 8, leader, 100.0)
    router.link_down(leader)
    assert router.head(2) == other
    router.link_down(other)
    assert router.head(2) == leader
    router.link_up(other)
    router.note_lead(2, 9, other, 100.0)
    assert router.head(2) == other


def test_head_is_a_member(router: Router) -> None:
    router.note_lead(3, 8, 1, 100.0)
    assert router.head(3) == 2


# Ownership


def test_claim_takes_what_the_opening_assigned(router: Router) -> None:
    machine = Machine()
    assert router.claim(1, machine) == [b"_OWN", b"1", b"0", b"5460"]
    machine.own(0, 5460)
    assert router.claim(1, machine) is None


def test_claim_leaves_what_the_group_ever_had(router: Router) -> None:
    router.set_table(table(((0, 9, 1), (20, 29, 1))))
    machine = Machine()
    machine.own(3, 3, State.GONE)
    machine.own(20, 28, State.FROZEN)
    assert router.claim(1, machine) == [b"_OWN", b"1", b"0", b"2", b"4", b"9", b"29", b"29"]
    assert router.claim(2, machine) is None
    assert router.claim(9, machine) is None


def test_admission_follows_ownership_and_leadership() -> None:
    admit = bytearray(BUCKETS)
    shared = memoryview(admit)  # as the parsers hold it: it cannot be resized
    first, second = LocalReplica(1, serving=True), LocalReplica(2, serving=True)
    first.machine.own(0, 10)
    first.machine.own(20, 20)
    first.machine.own(21, 21, State.EXPORTING)
    first.machine.own(22, 22, State.FROZEN)
    second.machine.own(LAST, LAST)
    Router.admit_table(admit, 1, first, True)
    Router.admit_table(admit, 255, second, True)
    assert bytes(shared) == b"\1" * 11 + bytes(9) + b"\1\1" + bytes(BUCKETS - 23) + b"\xff"

    first.machine.own(5, 10, State.GONE)
    Router.admit_table(admit, 1, first, True)
    assert bytes(shared) == b"\1" * 5 + bytes(15) + b"\1\1" + bytes(BUCKETS - 23) + b"\xff"

    first.serving = False
    Router.admit_table(admit, 1, first, True)
    assert bytes(shared) == bytes(BUCKETS - 1) + b"\xff"

    Router.admit_table(admit, 255, second, False)
    assert bytes(shared) == bytes(BUCKETS)


# What must never happen

GIDS = st.sampled_from([1, 2, 3])
NODES = st.integers(1, 5)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("lead"), GIDS, st.integers(1, 4), NODES),
        st.tuples(
            st.just("leads"), NODES, st.lists(st.tuples(GIDS, st.integers(1, 4)), max_size=3)
        ),
        st.tuples(st.just("down"), NODES),
        st.tuples(st.just("up"), NODES),
        st.tuples(st.just("later"), st.floats(0, 4)),
        st.tuples(st.just("own"), st.sampled_from([1, 2]), st.sampled_from(list(State))),
        st.tuples(st.just("serving"), st.sampled_from([1, 2]), st.booleans()),
        st.tuples(
            st.just("table"),
            st.sampled_from([(), ((0, LAST, 1),), ((0, 7, 2), (8, LAST, 3))]),
            st.lists(NODES, max_size=2).map(tuple),
        ),
    ),
    max_size=25,
)


@given(EVENTS, st.sampled_from([0, 7, 8, LAST]))
def test_whatever_happens(events: list[tuple[object, ...]], bucket: int) -> None:
    """Only a serving owner serves; nobody is sent to this node, a dead one or nowhere."""
    router, now_s = Router(ME), 0.0
    router.groups = {1: LocalReplica(1), 2: LocalReplica(2)}
    down: set[object] = set()
    for kind, *event in events:
        match kind, event:
            case "lead", [int(gid), int(term), int(node_id)]:
                router.note_lead(gid, term, node_id, now_s)
            case "leads", [int(node_id), list(leads)]:
                router.note_leads(node_id, leads, now_s)
            case "down", [int(node_id)]:
                router.link_down(node_id)
                down.add(node_id)
            case "up", [int(node_id)]:
                router.link_up(node_id)
                down.discard(node_id)
            case "later", [float(seconds)]:
                now_s += seconds
            case "own", [int(gid), int(state)]:
                replica(router, gid).machine.own(bucket, bucket, state)
            case "serving", [int(gid), bool(serving)]:
                replica(router, gid).serving = serving
            case "table", [tuple(buckets), tuple(unreachable)]:
                router.set_table(table(buckets, unreachable))
            case _:
                raise AssertionError(kind)
    decision = route(router, bucket, now_s)
    servers = {
        gid
        for gid in (1, 2)
        if replica(router, gid).serving
        and replica(router, gid).machine.states[bucket] in (State.OWNED, State.EXPORTING)
    }
    assert isinstance(decision, Serve) == bool(servers)
    match decision:
        case Serve(gid):
            assert gid in servers
        case Moved(reply):
            word, slot, address = bytes(reply).split()
            target = int(address.partition(b":")[0][1:])
            assert (word, int(slot)) == (b"MOVED", bucket)
            assert target != ME
            assert target not in down
            assert router.table.nodes[target].client == address.decode()
            newest = [lead for lead in router.leads.values() if lead.node_id == target]
            assert any(now_s - lead.heard_s <= limits.LEAD_STALE_S for lead in newest)
        case Hold(reply):
            assert reply is CLUSTER_DOWN
        case Refuse(reply):
            assert reply is NOT_SERVED
            assert router.table.owner(bucket) == 0
