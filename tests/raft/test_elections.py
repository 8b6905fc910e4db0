"""Elections as a group sees them: the 2A scenarios of MIT 6.824 and what pre-vote adds."""

import pytest

from eraft.raft import Role
from tests.raft.network import Faults, Network


def terms(net: Network) -> set[int]:
    return {host.group.term for host in net.hosts.values() if host.group is not None}


def roles(net: Network) -> list[Role | None]:
    return [host.role for host in net.hosts.values()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_initial_election(size: int) -> None:
    net = Network(size, seed=size)
    leader = net.leader()
    assert roles(net).count(Role.LEADER) == 1
    net.run(1)
    before = terms(net)
    assert len(before) == 1
    assert min(before) >= 1
    net.run(200)
    assert terms(net) == before, "without faults nobody starts a new term"
    assert net.leaders() == [leader]


def test_reelection() -> None:
    net = Network(3, seed=1)
    first = net.leader()
    net.isolate(first.replica_id)
    second = net.leader()
    assert second is not first
    term = second.group.term  # type: ignore[union-attr]
    net.heal()
    net.run(50)
    assert net.leader() is second
    assert terms(net) == {term}, "the old leader does not disturb when it is back"
    # Without a quorum nobody leads: the leader notices that it hears nobody.
    net.partition()
    net.run(40)
    assert net.leaders() == []
    net.partition([1, 2])
    assert net.leader().replica_id in (1, 2)
    net.heal()
    net.leader()


def test_many_elections() -> None:
    net = Network(7, seed=2)
    net.leader()
    for _ in range(10):
        net.isolate(*net.rng.sample(list(net.hosts), k=3))
        net.leader()
        net.heal()
        net.leader()


def test_an_isolated_replica_makes_no_terms() -> None:
    """Pre-vote: it cannot win, so it does not try, and comes back in the group's term."""
    net = Network(3, seed=3)
    leader = net.leader()
    lonely = next(i for i in net.hosts if i != leader.replica_id)
    before = terms(net)
    net.isolate(lonely)
    net.run(300)
    assert net.hosts[lonely].role is Role.PRE_CANDIDATE
    assert terms(net) == before
    net.heal()
    net.run(30)
    assert net.leader() is leader
    assert terms(net) == before


def test_a_replica_that_lost_the_way_from_the_leader_does_not_depose_it() -> None:
    """Leader stickiness: a one-way cut makes a candidate, but the others hear the leader."""
    net = Network(3, seed=4)
    leader = net.leader()
    deaf = next(i for i in net.hosts if i != leader.replica_id)
    before = terms(net)
    net.cut = {(leader.replica_id, deaf)}
    net.run(300)
    assert net.leaders() == [leader]
    assert terms(net) == before


def test_a_vote_is_refused_while_the_leader_is_heard() -> None:
    """Also a real vote, of a candidate that came into a higher term before it was cut off."""
    net = Network(3, seed=5)
    leader = net.leader()
    other = next(host for host in net.hosts.values() if host is not leader)
    net.run(5)
    before = leader.group.term  # type: ignore[union-attr]
    net.isolate(other.replica_id)
    net.run(60)
    # As if old answers had won it the pre-vote.
    group = other.group
    assert group is not None
    other.call(group._become_candidate)
    net.run(1)
    third = 6 - leader.replica_id - other.replica_id
    net.heal()
    net.cut = {
        (other.replica_id, leader.replica_id),
        (leader.replica_id, other.replica_id),
    }
    net.run(60)
    assert net.hosts[third].group.term == before  # type: ignore[union-attr]
    assert net.leaders() == [leader]
    # The leader's own messages find it in a newer term; then there is a new election.
    net.heal()
    net.run(60)
    assert len(terms(net)) == 1
    assert min(terms(net)) > before
    net.agree(3)


def test_a_leader_without_a_quorum_steps_down_within_two_election_timeouts() -> None:
    net = Network(5, seed=6)
    leader = net.leader()
    net.partition([leader.replica_id, leader.replica_id % 5 + 1])
    net.run(20)
    assert leader.role is not Role.LEADER
    assert leader.told[-1] != "leader"


def test_a_leader_that_is_heard_but_hears_nobody_steps_down() -> None:
    """A one-way cut towards the leader: its heartbeats must not hold the group for ever."""
    net = Network(3, seed=7)
    leader = net.leader()
    net.cut = {(i, leader.replica_id) for i in net.hosts if i != leader.replica_id}
    net.run(20)
    assert leader.role is not Role.LEADER
    assert net.leader() is not leader


def test_a_replica_that_may_not_campaign_never_leads() -> None:
    """A stalled disk: the host tells the leader to step down and not to stand again."""
    net = Network(3, seed=8)
    slow = net.leader()
    assert slow.group is not None
    slow.group.may_campaign = False
    slow.call(slow.group.step_down, "disk stalls")
    assert slow.role is Role.FOLLOWER
    net.agree(3)
    for _ in range(5):
        leader = net.leader()
        assert leader is not slow
        leader.call(leader.group.step_down, "again")  # type: ignore[union-attr]
        net.run(40)
        assert slow.told[-1] == "follower"
    slow.group.may_campaign = True
    net.isolate(*[i for i in net.hosts if i != slow.replica_id])
    net.run(60)
    assert slow.role is Role.PRE_CANDIDATE


def test_a_stalled_disk_behind_live_heartbeats() -> None:
    """Writes of one leader stop: once it steps down the others go on without it."""
    net = Network(3, seed=9)
    stalled = net.leader()
    net.agree(3)
    stalled.stalled_until = net.now + 400
    # Replication goes past its disk: the others are a quorum without it.
    net.agree(2)
    assert stalled.role is Role.LEADER
    assert stalled.group is not None
    assert stalled.group.durable_index < stalled.group.commit
    assert stalled.group.applied == stalled.group.durable_index
    stalled.group.may_campaign = False
    stalled.call(stalled.group.step_down, "disk stalls")
    net.agree(2)
    assert net.leaders()[-1] is not stalled
    net.run(400)
    net.agree(3)


@pytest.mark.parametrize("seed", range(5))
def test_elections_end_on_a_bad_network(seed: int) -> None:
    net = Network(5, seed, Faults(drop=0.1, delay=(0.0, 0.5), late=0.1))
    for _ in range(5):
        net.leader(ticks=600)
        net.isolate(*net.rng.sample(list(net.hosts), k=2))
        net.leader(ticks=600)
        net.heal()


def test_count_of_messages() -> None:
    """MIT 6.824 Count: an election and an idle group cost little."""
    net = Network(3, seed=10)
    net.leader()
    assert net.messages <= 30
    net.run(20)
    before = net.messages
    net.run(20)  # one second
    assert net.messages - before <= 60
