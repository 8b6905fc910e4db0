"""Agreement and what survives crashes: the 2B and 2C scenarios of MIT 6.824, in ticks."""

import pytest

from eraft.raft import Role
from tests.raft.host import Host
from tests.raft.network import Faults, Network

UNRELIABLE = Faults(drop=0.1, delay=(0.0, 0.5))
REORDERING = Faults(drop=0.1, delay=(0.0, 0.5), late=0.6, late_delay=40.0)


def propose(net: Network, count: int, host: Host | None = None) -> list[bytes]:
    host = host or net.leader()
    payloads = [net.payload() for _ in range(count)]
    for payload in payloads:
        host.propose(payload)
    return payloads


def log_of(host: Host) -> list[bytes]:
    return [payload for _, _, payload in host.disk.log]


def check_equal(net: Network) -> None:
    """All replicas have applied the same, up to the same place."""
    net.run(60)
    groups = [host.group for host in net.hosts.values() if host.group is not None]
    assert len({group.applied for group in groups}) == 1
    assert groups[0].applied == len(net.oracle.committed)


def test_basic_agree() -> None:
    net = Network(5, seed=1)
    leader = net.leader()
    net.run(5)
    assert len(net.oracle.committed) == 1, "only the empty entry that begins the term"
    for index in (2, 3, 4):
        payload = net.payload()
        assert leader.propose(payload) == index
        net.run(10)
        assert net.applied(payload) == 5


def test_bytes_sent_once() -> None:
    """Each command goes to each peer once (RPCBytes)."""
    net = Network(3, seed=2)
    leader = net.leader()
    net.run(5)
    before = net.entry_bytes
    for _ in range(10):
        leader.propose(net.payload() + bytes(5000))
        net.run(0.2)
    net.run(20)
    assert len(net.oracle.committed) == 11
    assert net.entry_bytes - before <= 2 * 10 * 5100


def test_fail_agree() -> None:
    net = Network(3, seed=3)
    leader = net.leader()
    net.agree(3)
    net.isolate(leader.replica_id % 3 + 1)
    for _ in range(4):
        net.agree(2)
    net.run(40)
    net.agree(2)
    net.heal()
    net.agree(3)
    check_equal(net)


def test_fail_no_agree() -> None:
    net = Network(5, seed=4)
    leader = net.leader()
    net.agree(5)
    others = [i for i in net.hosts if i != leader.replica_id][:3]
    net.isolate(*others)
    [payload] = propose(net, 1, leader)
    net.run(60)
    assert net.applied(payload) == 0
    net.heal()
    net.agree(5)
    check_equal(net)


def test_concurrent_starts() -> None:
    net = Network(3, seed=5)
    payloads = propose(net, 5)
    net.run(10)
    assert [net.applied(payload) for payload in payloads] == [3] * 5
    assert len(net.oracle.leaders) == 1


def test_rejoin() -> None:
    net = Network(3, seed=6)
    net.agree(3)
    first = net.leader()
    net.isolate(first.replica_id)
    lost = propose(net, 3, first)
    net.agree(2)
    second = net.leader()
    net.isolate(second.replica_id)
    net.cut = {(a, b) for a, b in net.cut if second.replica_id in (a, b)}
    net.agree(2)
    net.heal()
    net.agree(3)
    check_equal(net)
    assert not any(payload in log_of(host) for payload in lost for host in net.hosts.values())
    assert net.oracle.denied >= set(lost), "their clients were told so"


@pytest.mark.parametrize("compact", [False, True])
def test_backup_is_fast(compact: bool) -> None:
    """Divergent logs of 50 entries on both sides are repaired without going one by one."""
    net = Network(5, seed=7, tail_bytes=100 if compact else 1 << 20)
    leader = net.leader()
    net.agree(5)
    partner = leader.replica_id % 5 + 1
    small = [leader.replica_id, partner]
    large = [i for i in net.hosts if i not in small]
    net.partition(small)
    net.cut |= {(a, b) for a in large for b in large if a != b}
    propose(net, 50, leader)
    net.run(40)
    net.partition(large)
    net.agree(3)
    propose(net, 50)
    net.run(20)
    middle = net.leaders()[-1]
    spare = next(i for i in large if i != middle.replica_id)
    net.isolate(spare)
    net.cut |= {(a, b) for a in small for b in net.hosts if a != b}
    net.cut |= {(b, a) for a, b in net.cut}
    propose(net, 50, middle)
    net.run(60)
    net.partition([*small, spare])
    net.agree(3)
    propose(net, 50)
    net.run(20)
    before = net.messages
    net.heal()
    end = net.now
    net.agree(5)
    assert net.now - end < 60
    assert net.messages - before < 150
    check_equal(net)


def test_count_of_messages_for_agreement() -> None:
    net = Network(3, seed=8)
    leader = net.leader()
    net.run(5)
    before = net.messages
    for _ in range(10):
        propose(net, 1, leader)
        net.run(0.1)
    net.run(3)
    assert len(net.oracle.committed) == 11
    assert net.messages - before <= (10 + 1 + 3) * 3


@pytest.mark.parametrize("seed", range(3))
def test_persist_1(seed: int) -> None:
    """All restart, then the leader, then a follower: agreement goes on."""
    net = Network(3, seed=10 + seed)
    net.agree(3)
    for host in net.hosts.values():
        host.crash()
    for host in net.hosts.values():
        host.start()
    net.agree(3)
    leader = net.leader()
    leader.crash()
    leader.start()
    net.agree(3)
    leader = net.leader()
    leader.crash()
    net.agree(2)
    leader.start()
    net.agree(3)
    follower = next(host for host in net.hosts.values() if host is not net.leader())
    follower.crash()
    net.agree(2)
    follower.start()
    net.agree(3)
    check_equal(net)


@pytest.mark.parametrize("seed", range(3))
def test_persist_2(seed: int) -> None:
    """Rotating crashes and cuts; each time another three of five have to agree."""
    net = Network(5, seed=20 + seed)
    for _ in range(5):
        net.agree(5)
        first = net.leader().replica_id
        ring = [(first + n - 1) % 5 + 1 for n in range(5)]
        for i in ring[1:3]:
            net.hosts[i].crash()
        net.agree(3)
        for i in (ring[0], *ring[3:]):
            net.hosts[i].crash()
        for i in ring[1:3]:
            net.hosts[i].start()
        net.run(30)
        net.hosts[ring[3]].start()
        net.agree(3)
        for i in (ring[0], ring[4]):
            net.hosts[i].start()
    check_equal(net)


@pytest.mark.parametrize("seed", range(3))
def test_persist_3(seed: int) -> None:
    """A partitioned leader and a crashed follower."""
    net = Network(3, seed=30 + seed)
    net.agree(3)
    leader = net.leader()
    other, third = (host for host in net.hosts.values() if host is not leader)
    net.isolate(third.replica_id)
    net.agree(2)
    leader.crash()
    other.crash()
    net.heal()
    leader.start()
    net.agree(2)
    other.start()
    net.agree(3)
    check_equal(net)


def elect(net: Network, leader_id: int, *voters: int) -> Host:
    """Nobody but `leader_id` stands, and only `voters` reach it and each other."""
    net.partition([leader_id, *voters])
    for host in net.hosts.values():
        if host.group is not None:
            host.group.may_campaign = host.replica_id == leader_id
    net.run_until(lambda: net.hosts[leader_id].role is Role.LEADER, 60, "the leader")
    return net.hosts[leader_id]


def test_figure_8_step_by_step() -> None:
    """Paper, figure 8 (c) and (d): an old entry on a majority is not committed, and is replaced."""
    net = Network(5, seed=80, append_limit_bytes=1, appends_in_flight=1)
    # (a) Replica 1 leads and gets an entry to replica 2 only.
    first = elect(net, 1, 2, 3, 4, 5)
    net.run(5)
    net.partition([1, 2])
    [old] = propose(net, 1, first)
    net.run(5)
    assert [i for i in net.hosts if old in log_of(net.hosts[i])] == [1, 2]
    # (b) Replica 5 leads a later term, but nobody hears of it.
    first.crash()
    fifth = elect(net, 5, 3, 4)
    net.partition()
    net.run(5)
    assert net.hosts[5].disk.last_index == net.hosts[3].disk.last_index + 1
    fifth.crash()
    # (c) Replica 1 leads again. Its old entry comes to replica 3, its new first entry does not.
    first.start()
    elect(net, 1, 2, 3)
    net.run_until(lambda: old in log_of(net.hosts[3]), 60, "the old entry")
    assert net.hosts[3].disk.log[-1][2] == old
    net.cut = {(1, 3)}
    net.run(5)
    assert first.role is Role.LEADER
    assert net.applied(old) == 0, "three of five have it, and yet it is not committed"
    first.crash()
    # (d) Replica 5 wins with the newer log and replaces it.
    fifth.start()
    elect(net, 5, 3, 4)
    net.run(20)
    assert old not in log_of(net.hosts[3])
    net.heal()
    first.start()
    for host in net.hosts.values():
        assert host.group is not None
        host.group.may_campaign = True
    net.agree(5)
    check_equal(net)


def figure_8(net: Network, rounds: int, depart: str) -> None:
    """The leader goes just after it got a command, again and again (paper, figure 8)."""
    rng = net.rng
    for _ in range(rounds):
        leaders = net.leaders()
        for host in leaders:
            if host.role is Role.LEADER:
                propose(net, 1, host)
        net.run(rng.uniform(0, 10) if rng.random() < 0.1 else rng.uniform(0, 1))
        if leaders and rng.random() < 0.5:
            if depart == "crash":
                leaders[-1].crash()
            else:
                i = leaders[-1].replica_id
                net.cut |= {(i, b) for b in net.hosts if b != i}
                net.cut |= {(b, i) for b in net.hosts if b != i}
        while len(net.connected()) < 3:
            down = [host for host in net.hosts.values() if host.group is None]
            if down:
                rng.choice(down).start()
            else:
                i = rng.choice([i for i in net.hosts if any(i == a for a, _ in net.cut)])
                net.cut = {(a, b) for a, b in net.cut if i not in (a, b)}


def check_figure_8(net: Network) -> None:
    net.heal()
    net.faults = Faults()
    for host in net.hosts.values():
        if host.group is None:
            host.start()
    net.agree(5)
    check_equal(net)
    assert len(net.oracle.leaders) > 3


@pytest.mark.parametrize("seed", range(6))
def test_figure_8(seed: int) -> None:
    """One entry at a time, so that what a leader inherits arrives before its own first entry."""
    net = Network(
        5, 40 + seed, election_ticks=4, heartbeat_ticks=1, append_limit_bytes=1, appends_in_flight=1
    )
    figure_8(net, 300, "crash")
    check_figure_8(net)


@pytest.mark.parametrize("seed", range(3))
def test_figure_8_unreliable(seed: int) -> None:
    net = Network(5, 50 + seed, UNRELIABLE, election_ticks=4, heartbeat_ticks=1)
    figure_8(net, 150, "cut")
    net.faults = REORDERING
    figure_8(net, 150, "cut")
    check_figure_8(net)


def test_unreliable_agree() -> None:
    net = Network(5, 60, UNRELIABLE)
    accepted = 0
    for _ in range(50):
        leader = net.leader()
        accepted += len(propose(net, 4, leader))
        net.run(1)
    net.faults = Faults()
    net.agree(5)
    check_equal(net)
    assert accepted == 200
    if len(net.oracle.leaders) == 1:
        assert len(net.oracle.executed) >= 200


@pytest.mark.parametrize("faults", [Faults(), UNRELIABLE], ids=["reliable", "unreliable"])
def test_churn(faults: Faults) -> None:
    """Random cuts, crashes and starts; what was seen committed is in every final log."""
    net = Network(5, 70, faults)
    rng = net.rng
    for _ in range(20):
        for host in net.leaders():
            if host.role is Role.LEADER:
                propose(net, 3, host)
        if rng.random() < 0.2:
            net.isolate(rng.randint(1, 5))
        host = net.hosts[rng.randint(1, 5)]
        if host.group is None:
            host.start()
        elif rng.random() < 0.4 and len(net.connected()) > 3:
            host.crash()
        if rng.random() < 0.5:
            net.heal()
        net.run(rng.uniform(5, 15))
    seen = set(net.oracle.executed)
    net.heal()
    net.faults = Faults()
    for host in net.hosts.values():
        if host.group is None:
            host.start()
    net.agree(5)
    check_equal(net)
    for host in net.hosts.values():
        assert seen <= set(log_of(host))
