"""Random histories: every fault at once, every safety property at every step, life after it.

`ERAFT_RAFT_SEEDS` sets how many seeds run (default 200), `ERAFT_RAFT_SEED` runs a single one.
"""

import os
from contextlib import suppress
from random import Random

import pytest

from eraft.errors import NotApplied, Overloaded, TransferUnderWay
from eraft.raft import Role
from eraft.raft.confchange import LEAVE_JOINT, Change, ChangeKind, ConfChange, Transition
from eraft.types import ConfState
from tests.raft.host import Host
from tests.raft.network import Faults, Network

SEEDS = int(os.environ.get("ERAFT_RAFT_SEEDS", "200"))
ONE = os.environ.get("ERAFT_RAFT_SEED")
CHUNKS = 10


def network_of(rng: Random) -> Network:
    """A group in a random environment, from good to dreadful."""
    bad = rng.random() < 0.7
    faults = Faults(
        drop=rng.choice([0.0, 0.02, 0.1, 0.25]) if bad else 0.0,
        duplicate=rng.choice([0.0, 0.05, 0.2]) if bad else 0.0,
        delay=rng.choice([(0.05, 0.15), (0.05, 2.0), (0.5, 4.0)]),
        late=rng.choice([0.0, 0.0, 0.05, 0.2]) if bad else 0.0,
        write=rng.choice([(0.0, 0.1), (0.1, 1.0), (0.5, 5.0)]),
        acknowledge=rng.choice([(0.0, 0.05), (0.0, 3.0)]),
    )
    return Network(
        rng.choice([1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 7]),
        rng.getrandbits(32),
        faults,
        election_ticks=rng.choice([4, 10]),
        heartbeat_ticks=rng.choice([1, 2]),
        append_limit_bytes=rng.choice([40, 200, 1 << 20]),
        appends_in_flight=rng.choice([1, 2, 2, 3]),
        bytes_in_flight=rng.choice([30, 1 << 20]),
        uncommitted_bytes=rng.choice([200, 1 << 20]),
        tail_bytes=rng.choice([100, 1000, 1 << 20]),
    )


def misfortune(net: Network, rng: Random) -> None:
    """One change of circumstances, often at the expense of a leader."""
    leaders = net.leaders()
    host = rng.choice(leaders if leaders and rng.random() < 0.5 else list(net.hosts.values()))
    group = host.group
    what = rng.randrange(16)
    if group is None:
        if what < 10:
            host.start()
    elif what < 3:
        host.crash()
    elif what < 5:
        ids = list(net.hosts)
        rng.shuffle(ids)
        split = rng.randint(1, len(ids))
        net.partition(ids[:split], ids[split:])
    elif what < 7:
        # A leader with a minority: what it appends now may be replaced.
        near = [host.replica_id, *rng.sample(list(net.hosts), k=(len(net.hosts) - 1) // 2)]
        net.partition(near, [i for i in net.hosts if i not in near])
    elif what == 7:
        others = [(a, b) for a in net.hosts for b in net.hosts if a != b]
        net.cut.update(rng.sample(others, k=min(len(others), rng.randint(0, 3))))
    elif what < 11:
        if rng.random() < 0.5:
            net.tell_unreachable()
        net.heal()
    elif what == 11:
        host.call(group.step_down, "told to")
    elif what == 12:
        host.call(group.campaign)
    elif what == 13:
        with suppress(NotApplied):
            host.transfer(rng.choice(list(net.hosts)))


def clients(net: Network, rng: Random) -> None:
    """Commands and reads for everybody who believes to lead, deposed or not."""
    for host in net.leaders():
        for _ in range(rng.choice([0, 0, 1, 2])):
            if host.role is Role.LEADER:
                with suppress(TransferUnderWay, Overloaded):
                    host.propose(net.payload())
        if host.role is Role.LEADER and rng.random() < 0.5:
            host.read()
    reader = rng.choice(list(net.hosts.values()))
    if reader.group is not None and reader.group.leader_id:
        reader.read()


def change_members(net: Network, rng: Random) -> None:
    """A random change by whoever believes to lead; now and then of a replica that is new."""

    if len(net.hosts) < 8 and rng.random() < 0.3:
        # Whose log begins later gets a snapshot anyway.
        net.add_host(rng.choice([net.founding, ConfState()]))
    for host in net.leaders():
        group = host.group
        assert group is not None
        ids = [i for i in net.hosts if i not in net.gone]
        changes = []
        for replica_id in rng.sample(ids, k=min(len(ids), rng.choice([1, 1, 2, 3]))):
            kinds = [ChangeKind.ADD_VOTER, ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER]
            if replica_id in group.conf.members and len(group.conf.members) > 2:
                kinds.append(ChangeKind.REMOVE)
            changes.append(Change(rng.choice(kinds), replica_id))
        if group.conf.outgoing and rng.random() < 0.8:
            changes = []
        with suppress(NotApplied):
            host.change(ConfChange(tuple(changes), rng.choice(list(Transition))))


def run(seed: int) -> Network:
    rng = Random(seed)
    net = network_of(rng)
    changing = rng.random() < 0.5
    net.compact_share = rng.choice([0.0, 0.1, 0.5])
    pace = rng.choice([3, 6, 12])
    for _ in range(rng.randint(15, 35)):
        end = net.now + rng.choice([0.3, 3, 10, 25, 40])
        while net.now < end:
            net.run(rng.uniform(0, pace))
            clients(net, rng)
            if changing and rng.random() < 0.3:
                change_members(net, rng)
        misfortune(net, rng)
    # Everybody is back and nothing is lost any more: the group has to work.
    net.heal()
    net.faults = Faults()
    for host in net.hosts.values():
        if host.group is None:
            host.start()
    leader = everybody_agrees(net)
    confirmed = net.oracle.reads_confirmed
    leader.read()
    net.run_until(lambda: net.oracle.reads_confirmed > confirmed, 60, "a read")
    net.run(2 * 10)  # until questions to a leader are answered or given up
    for replica_id, incarnation, ticket in net.oracle.asked:
        alive = net.hosts[replica_id].incarnation == incarnation
        assert not alive, f"read {ticket} of replica {replica_id} was neither confirmed nor lost"
    return net


def everybody_agrees(net: Network) -> Host:
    """A command is applied by every member, and nothing is joint for ever; the leader."""
    net.agree(1, ticks=400)
    net.run(60)
    group = net.leaders()[-1].group
    assert group is not None
    if group.conf.outgoing and not group.conf.auto_leave:
        net.leaders()[-1].change(LEAVE_JOINT)
    net.agree(1)
    conf = net.oracle.confs[max(net.oracle.confs)] if net.oracle.confs else group.conf
    assert not conf.outgoing, "joint for ever"
    net.agree(len(conf.members), ticks=400)
    return net.leaders()[-1]


@pytest.mark.parametrize("chunk", range(CHUNKS) if ONE is None else [0])
def test_random_histories(chunk: int) -> None:
    seeds = range(chunk, SEEDS, CHUNKS) if ONE is None else [int(ONE)]
    steps = reads = committed = restored = changes = joint = 0
    for seed in seeds:
        try:
            net = run(seed)
        except BaseException as error:
            error.add_note(f"ERAFT_RAFT_SEED={seed}")
            raise
        steps += net.oracle.steps
        reads += net.oracle.reads_confirmed
        committed += len(net.oracle.committed)
        restored += net.restored
        changes += len(net.oracle.confs)
        joint += sum(bool(conf.outgoing) for conf in net.oracle.confs.values())
    # A run in which nothing happened proves nothing.
    assert committed > 5 * len(seeds)
    assert reads >= len(seeds)
    assert steps > 100 * len(seeds)
    if len(seeds) >= 20:
        assert restored, "no snapshot was installed"
        assert changes >= len(seeds)
        assert joint >= len(seeds) // 5


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = run(3), run(3)
    assert first.messages == second.messages
    assert first.oracle.committed == second.oracle.committed
    assert first.oracle.entries == second.oracle.entries
