"""Replicas whose states come apart: noticed, the right one quarantined, and it stays so."""

from __future__ import annotations

import pytest

from eraft import limits
from eraft._impl import batch, frames
from eraft.errors import Diverged, ProtocolError
from eraft.node import status
from eraft.node.divergence import Check, DigestChecks, Report, Verdict
from eraft.types import ConfState
from tests.sim.conditions import Conditions
from tests.sim.opening import opened
from tests.sim.world import World

OK = b"+OK\r\n"
CHECK_TICKS = 5


@pytest.fixture
def world() -> World:
    world = opened(groups=2, conditions=Conditions(check_ticks=CHECK_TICKS))
    client = world.connect(world.leader(1))
    client.send("SET {a} 1", "SET {b} 1")
    world.settle()
    return world


def group_of(world: World, key: bytes) -> int:
    row_key = batch.data_key(b"", key)
    return world.nodes[1].table.owners()[int.from_bytes(row_key[:2], "big")]


def plant(world: World, node_id: int, key: bytes, value: bytes) -> int:
    """Change a row of one replica behind its back, then let an apply read it; its group."""
    gid = group_of(world, key)
    world.checks.diverged.add(node_id)
    rows = world.nodes[node_id].replicas[gid].rows
    rows.rows[batch.data_key(rows.data_prefix, key)] = batch.encode_row(1, 0, value)
    return gid


def append(world: World, gid: int, key: bytes) -> None:
    client = world.connect(world.leader(gid))
    client.send(b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n$1\r\nx\r\n" % (len(key), key))
    world.settle()


def quarantined(world: World, gid: int) -> list[int]:
    return [node_id for node_id, node in world.nodes.items() if gid in node.quarantines]


def writes_go_on(world: World, gid: int, key: bytes) -> None:
    world.until(lambda: world.ready(gid), 100)
    client = world.connect(world.leader(gid))
    client.send(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$1\r\ny\r\n" % (len(key), key))
    world.until(lambda: bool(client.received), 60)
    assert client.received == OK


@pytest.mark.parametrize("leads", [False, True])
def test_the_one_that_differs_is_quarantined_for_good(world: World, leads: bool) -> None:
    gid = group_of(world, b"a")
    leader = world.leader(gid)
    victim = next(node_id for node_id in world.ids if (node_id == leader) is leads)
    plant(world, victim, b"a", b"wrong")
    append(world, gid, b"a")
    world.until(lambda: bool(quarantined(world, gid)), 30)
    writes_go_on(world, gid, b"a")
    node = world.nodes[victim]
    assert quarantined(world, gid) == [victim]
    assert gid not in node.replicas and 3 - gid in node.replicas
    shown = next(it for it in status.status(node, {})["groups"] if it["gid"] == gid)
    assert shown["role"] == "quarantined"
    assert "the majority of the group has" in shown["quarantined"]

    before = (node.quarantines[gid].hard_state, shown["quarantined"])
    world.crash(victim)
    world.start(victim)
    writes_go_on(world, gid, b"a")
    world.tick(10 * CHECK_TICKS)
    node = world.nodes[victim]
    assert quarantined(world, gid) == [victim]
    assert (node.quarantines[gid].hard_state, node.quarantines[gid].quarantined) == before
    assert world.leader(gid) != victim and world.ready(3 - gid)

    others = [node_id for node_id in world.ids if node_id != victim]
    world.crash(others[0])  # what is left is no majority: its vote must not make one
    world.tick(100)
    assert world.leader(gid) == 0
    world.start(others[0])
    writes_go_on(world, gid, b"a")


def test_what_waits_at_a_leader_that_is_quarantined_is_answered(world: World) -> None:
    gid = group_of(world, b"a")
    leader = world.leader(gid)
    plant(world, leader, b"a", b"wrong")
    append(world, gid, b"a")
    world.conditions.network_us = (3_000, 3_000)
    reader = world.connect(leader)
    while not quarantined(world, gid):
        reader.received = b""
        reader.send("APPEND a 2", "GET a")
        world.run_for(1_000)
    world.until(lambda: reader.received.count(b"\r\n") >= 2, 100)
    assert quarantined(world, gid) == [leader]


def test_three_states_stop_the_group_and_no_other(world: World) -> None:
    for node_id in world.ids:
        gid = plant(world, node_id, b"a", b"wrong %d" % node_id)
    append(world, gid, b"a")
    world.until(lambda: quarantined(world, gid) == world.ids, 30)
    client = world.connect(1)
    client.send("SET a 1")
    world.until(lambda: bool(client.received), 100)
    assert client.received == b"-CLUSTERDOWN The cluster is down\r\n"
    for node_id in world.ids:
        assert "has a majority" in world.nodes[node_id].quarantines[gid].quarantined
        world.crash(node_id)
    for node_id in world.ids:
        world.start(node_id)
    world.until(lambda: world.ready(3 - gid))
    world.tick(100)
    assert world.leader(gid) == 0 and quarantined(world, gid) == world.ids


@pytest.mark.parametrize("returns", [True, False])
def test_of_two_the_third_decides_if_it_comes_in_time(world: World, returns: bool) -> None:
    gid = group_of(world, b"a")
    leader = world.leader(gid)
    victim, away = (node_id for node_id in world.ids if node_id != leader)
    world.crash(away)
    plant(world, victim, b"a", b"wrong")
    append(world, gid, b"a")
    world.tick(CHECK_TICKS + 2)
    assert not quarantined(world, gid)
    if returns:
        world.start(away)
        world.until(lambda: bool(quarantined(world, gid)), 60)
        writes_go_on(world, gid, b"a")
        assert quarantined(world, gid) == [victim]
    else:
        world.checks.diverged.add(leader)
        world.tick((limits.DIGEST_DISPUTES + 1) * CHECK_TICKS)
        assert quarantined(world, gid) == sorted({leader, victim})


def test_one_that_was_away_is_compared_when_it_is_back(world: World) -> None:
    gid = group_of(world, b"a")
    victim = next(node_id for node_id in world.ids if node_id != world.leader(gid))
    world.isolate(victim)
    plant(world, victim, b"a", b"wrong")
    append(world, gid, b"a")
    world.tick(5 * CHECK_TICKS)
    assert not quarantined(world, gid)
    world.heal()
    world.until(lambda: bool(quarantined(world, gid)), 100)
    assert quarantined(world, gid) == [victim]


def test_a_restart_between_note_and_verdict_is_only_a_delay(world: World) -> None:
    gid = group_of(world, b"a")
    victim = next(node_id for node_id in world.ids if node_id != world.leader(gid))
    plant(world, victim, b"a", b"wrong")
    append(world, gid, b"a")
    world.conditions.network_us = (3_000, 3_000)
    noted = world.nodes[victim].replicas[gid].checks.noted.index
    while world.nodes[victim].replicas[gid].checks.noted.index == noted:
        world.run_for(1_000)
    node = world.nodes[victim]
    node.writing.write_all()  # what the check was about is not applied again
    node.store.flush()
    world.crash(victim)
    world.start(victim)
    assert not quarantined(world, gid)
    world.until(lambda: bool(quarantined(world, gid)), 60)
    writes_go_on(world, gid, b"a")
    assert quarantined(world, gid) == [victim]


def test_the_metaservers_group_is_checked_too(world: World) -> None:
    leader = world.leader(0)
    world.checks.diverged.add(leader)
    world.nodes[leader].replicas[0].rows.digest ^= 1
    assert world.meta(leader, "JOIN", "9", "1", "2", "3").startswith(b"$")
    world.until(lambda: bool(quarantined(world, 0)), 60)
    world.until(lambda: world.ready(0), 100)
    assert quarantined(world, 0) == [leader]
    assert world.meta(leader, "JOIN", "10", "1", "2", "3").startswith(b"$")


def test_a_quiet_group_is_checked_less_often_once_all_were_compared(world: World) -> None:
    gid = group_of(world, b"a")
    world.tick(4 * CHECK_TICKS)
    leader = world.nodes[world.leader(gid)].replicas[gid]
    before = leader.applied
    world.tick(4 * CHECK_TICKS)
    assert leader.applied == before
    world.tick(limits.CHECK_QUIET_INTERVALS * CHECK_TICKS)
    assert leader.applied == before + 1
    world.crash(next(node_id for node_id in world.ids if node_id != world.leader(gid)))
    append(world, gid, b"a")
    before = leader.applied
    world.tick(4 * CHECK_TICKS + 4)
    assert leader.applied - before in (4, 5)


def test_reports_of_strangers_are_refused(world: World) -> None:
    gid = group_of(world, b"a")
    node = world.nodes[world.leader(gid)]
    stranger, other = (node_id for node_id in world.ids if node_id != node.identity.node_id)
    replica = node.replicas[gid]
    theirs = next(it for it, home in replica.members.homes.items() if home == other)
    for report in (Report(gid, theirs, 9, 9), Report(gid, 999, 9, 9), Report(77, theirs, 9, 9)):
        node.inbound.take(stranger, frames.DIGEST, report.encode())
    assert node.context.counters["messages_refused"] == 3
    for size in (0, 23, 25):
        with pytest.raises(ProtocolError, match=f"report of {size} bytes instead of 24"):
            Report.decode(b"\0" * size)


# One replica's part, without a cluster

CONF = ConfState((1, 2, 3))


def checks(replica_id: int = 1, noted: int = 10, digest: int = 7) -> DigestChecks:
    found = DigestChecks(4, replica_id, CHECK_TICKS)
    found.applied(noted, Check(Verdict.NONE, 0, 0).encode(), digest)
    assert due(found, 1, CONF, noted) is None
    return found


def due(found: DigestChecks, term: int, conf: ConfState, applied: int) -> bytes | None:
    """What a leader proposes at a tick."""
    return found.next_check(term, conf, applied) if found.due(term) else None


def verdict(payload: bytes | None) -> Check | None:
    return None if payload is None else Check.decode(payload)


def test_one_check_is_under_way_and_the_next_tells_what_came_of_it() -> None:
    found = checks()
    found.reported(Report(4, 2, 10, 7))
    for _ in range(CHECK_TICKS - 1):
        found.tick()
        assert due(found, 1, CONF, 11) is None
    found.tick()
    assert verdict(due(found, 1, CONF, 11)) == Check(Verdict.AGREED, 10, 7)
    for _ in range(3 * CHECK_TICKS):
        found.tick()
        assert due(found, 1, CONF, 11) is None
    assert verdict(due(found, 2, CONF, 11)) == Check(Verdict.AGREED, 10, 7)  # it led another term


@pytest.mark.parametrize(
    ("reported", "conf", "expected"),
    [
        ({2: 7, 3: 8}, CONF, Check(Verdict.AGREED, 10, 7)),
        ({2: 8, 3: 8}, CONF, Check(Verdict.AGREED, 10, 8)),
        ({2: 8}, CONF, None),
        ({2: 8, 3: 9}, CONF, Check(Verdict.NO_MAJORITY, 10, 0)),
        ({2: 7, 3: 8}, ConfState((1, 2), learners=(3,)), Check(Verdict.AGREED, 10, 7)),
        ({2: 8, 3: 7}, ConfState((1, 2), learners=(3,)), Check(Verdict.NO_MAJORITY, 10, 0)),
        ({2: 8, 3: 8, 4: 7}, ConfState((1, 2, 3, 4, 5)), None),
        ({2: 8, 3: 9, 4: 6}, ConfState((1, 2, 3, 4, 5)), Check(Verdict.NO_MAJORITY, 10, 0)),
        (
            {2: 7, 3: 8, 4: 8},
            ConfState((1, 2, 3), outgoing=(2, 3, 4)),
            Check(Verdict.NO_MAJORITY, 10, 0),
        ),
    ],
)
def test_a_difference_is_told_at_once(
    reported: dict[int, int], conf: ConfState, expected: Check | None
) -> None:
    found = checks()
    for replica_id, digest in reported.items():
        found.reported(Report(4, replica_id, 10, digest))
    assert verdict(due(found, 1, conf, 10)) == expected


def test_reports_of_other_checks_do_not_count() -> None:
    found = checks()
    found.reported(Report(4, 2, 12, 8))  # it has applied the next one already
    found.reported(Report(4, 2, 10, 7))
    found.reported(Report(4, 3, 9, 8))
    assert due(found, 1, CONF, 10) is None
    found.applied(12, Check(Verdict.NONE, 10, 0).encode(), 7)
    found.reported(Report(4, 3, 12, 7))
    assert verdict(due(found, 1, CONF, 12)) == Check(Verdict.AGREED, 12, 7)


@pytest.mark.parametrize(
    ("check", "fails"),
    [
        (Check(Verdict.NONE, 10, 8), False),
        (Check(Verdict.AGREED, 10, 7), False),
        (Check(Verdict.AGREED, 10, 8), True),
        (Check(Verdict.AGREED, 9, 8), False),
        (Check(Verdict.NO_MAJORITY, 10, 7), True),
        (Check(Verdict.NO_MAJORITY, 9, 7), True),
    ],
)
def test_what_a_verdict_does_to_a_replica(check: Check, fails: bool) -> None:
    found = checks()
    if fails:
        with pytest.raises(Diverged, match=f"entry {check.index}"):
            found.applied(12, check.encode(), 7)
        assert found.noted == Report(4, 1, 10, 7)
    else:
        assert found.applied(12, check.encode(), 7) == Report(4, 1, 12, 7)


@pytest.mark.parametrize("payload", [b"", b"\0" * 12, b"\3" + b"\0" * 12, b"\0" * 14])
def test_a_check_that_no_leader_made(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="check entry"):
        checks().applied(12, payload, 7)


def test_reports_come_back() -> None:
    report = Report(2**32 - 1, 2**64 - 1, 5, 2**32 - 1)
    assert Report.decode(report.encode()) == report


def test_what_former_members_reported_is_forgotten() -> None:
    found = checks()
    found.reported(Report(4, 2, 10, 7))
    found.reported(Report(4, 3, 10, 7))
    found.keep({1, 3})
    assert set(found._reports) == {1, 3}
