"""Elections, agreement and restarts: the scenarios of MIT 6.824's Raft labs.

They are told and asserted as there, on whole nodes; sizes and times are in
proportion. What always has to hold (one leader per term, the same entries in
the same order everywhere) is checked all the time by the simulator itself.
"""

from __future__ import annotations

import pytest

from eraft import limits
from eraft.raft.kinds import COMMANDS
from eraft.types import MessageKind
from tests.sim.scene import GID, Scene, reliable, reordering, unreliable

ELECTION_S = limits.ELECTION_TICKS * limits.TICK_S
REQUESTS = (MessageKind.PRE_VOTE, MessageKind.VOTE, MessageKind.APPEND, MessageKind.HEARTBEAT)


def requests(scene: Scene) -> int:
    """Messages that ask for something, of both groups of the cluster."""
    return sum(scene.world.checks.sent[int(kind)] for kind in REQUESTS)


# Elections


def test_initial_election() -> None:
    scene = Scene()
    assert scene.leader
    term = scene.term
    assert term >= 1
    assert {scene.replica(node_id).raft.term for node_id in scene.world.ids} == {term}
    scene.run(4 * ELECTION_S)
    assert scene.term == term, "without faults nobody campaigns"


def test_reelection() -> None:
    scene = Scene()
    first = scene.leader
    scene.cut_off(first)
    second = scene.leads_among(scene.others(first))
    term = scene.term
    scene.join(first)
    scene.run(2 * ELECTION_S)
    assert scene.leader == second and scene.term == term, "who comes back does not disturb"
    (third,) = scene.others(first, second)
    scene.cut_off(second, third)
    scene.until(lambda: scene.leader == 0, 4 * ELECTION_S)
    scene.run(4 * ELECTION_S)
    assert scene.leader == 0, "without a quorum nobody leads"
    scene.join(third)
    scene.world.network.cut(first, second)
    scene.world.network.cut(second, third)
    assert scene.leads_among((first, third))
    scene.join(second)
    scene.agree()


def test_many_elections() -> None:
    scene = Scene(nodes=7)
    for _ in range(10):
        away = scene.dice.sample(scene.world.ids, 3)
        scene.cut_off(*away)
        scene.leads_among(scene.others(*away))
        scene.join(*away)
    scene.agree()


# Agreement


def test_basic_agreement() -> None:
    scene = Scene()
    scene.agree()
    last = scene.replica(scene.leader).raft.last_index
    scene.run(1)
    assert scene.replica(scene.leader).raft.commit == last, "nothing commits by itself"
    for number in range(1, 4):
        scene.agree()
        for node_id in scene.world.ids:
            assert scene.replica(node_id).raft.commit == last + number


def test_each_command_is_sent_to_each_peer_once() -> None:
    scene = Scene()
    scene.agree()
    size, count = 5000, 10
    before = scene.world.network.sent_bytes
    conversation = scene.world.connect(scene.leader)
    for number in range(count):
        conversation.send(f"SET big{number} " + "x" * size)
        scene.until(lambda wanted=number + 1: conversation.received.count(b"+OK") == wanted)
    scene.agree()
    assert scene.world.network.sent_bytes - before <= 3 * count * size + 50_000


def test_agreement_without_one_follower() -> None:
    scene = Scene()
    scene.agree()
    leader = scene.leader
    away = scene.others(leader)[0]
    scene.cut_off(away)
    scene.agree(4, scene.others(away))
    scene.run(2 * ELECTION_S)
    scene.agree(2, scene.others(away))
    scene.join(away)
    scene.agree(2)


def test_no_agreement_without_a_quorum() -> None:
    scene = Scene(nodes=5, clients=2)
    scene.agree()
    leader = scene.leader
    commit = scene.replica(leader).raft.commit
    away = scene.others(leader)[:3]
    scene.cut_off(*away)
    lost = scene.ask(leader, [("APPEND", scene.key)], client=1)
    scene.run(2 * ELECTION_S)
    for node_id in scene.world.ids:
        assert scene.replica(node_id).raft.commit <= commit
    scene.join(*away)
    scene.agree()
    log = scene.replica(scene.leader).raft.log
    kinds = [log.kind(index) for index in range(commit + 1, log.last_index + 1)]
    assert kinds.count(COMMANDS) in (1, 2), "the lost write is there once, or not at all"
    scene.agree()
    scene.until(lambda: not lost.waiting)
    scene.reckon()


def test_concurrent_starts() -> None:
    scene = Scene(clients=5)
    leader, term = scene.leader, scene.term
    for client in range(5):
        scene.ask(leader, [("APPEND", scene.key)], client)
    scene.until(lambda: not any(script.waiting for script in scene.clients))
    assert scene.term == term
    assert [script.executed for script in scene.clients] == [1] * 5
    scene.reckon()


def test_a_leader_rejoins_with_entries_that_were_never_committed() -> None:
    scene = Scene(clients=2)
    scene.agree()
    first = scene.leader
    scene.cut_off(first)
    scene.ask(first, [("APPEND", scene.key)] * 3, client=1)
    second = scene.leads_among(scene.others(first))
    scene.agree(1, scene.others(first))
    scene.cut_off(second)
    scene.join(first)
    scene.world.network.cut(first, second)
    scene.agree(1, scene.others(second), 20)
    scene.join(second)
    scene.agree()
    scene.reckon()


def test_long_divergent_logs_are_repaired_fast() -> None:
    scene = Scene(nodes=5, clients=2)
    scene.agree()
    first = scene.leader
    one, *rest = scene.others(first)
    scene.part(first, one)
    for _ in range(50):
        scene.ask(first, [("APPEND", scene.key)], client=1)
    scene.leads_among(rest)
    scene.agree(50, rest)
    second = scene.leader
    (third, fourth) = [it for it in rest if it != second]
    scene.part(second, third)
    scene.world.network.cut(fourth, first)
    for _ in range(50):
        scene.ask(second, [("APPEND", scene.key)], client=1)
    scene.run(ELECTION_S / 2)
    before = scene.world.checks.sent[int(MessageKind.APPEND)]
    scene.world.heal()
    scene.crash(second)
    scene.part(first, one, fourth)
    scene.agree(1, (first, one, fourth), 20)
    scene.restart(second)
    scene.world.heal()
    scene.agree(1)
    assert scene.world.checks.sent[int(MessageKind.APPEND)] - before < 120, "not one by one"
    scene.reckon()


def test_messages_are_few() -> None:
    scene = Scene()
    scene.agree()
    leader = scene.leader
    before = requests(scene)
    conversation = scene.world.connect(leader)
    count = 10
    conversation.send(*(f"SET key{number} 1" for number in range(count)))
    scene.until(lambda: conversation.received.count(b"+OK") == count)
    assert requests(scene) - before <= (count + 1 + 3) * 3
    before = requests(scene)
    scene.run(1)
    # Two groups, two followers each, a heartbeat every two ticks.
    assert requests(scene) - before <= 2 * 2 * 10 + 4
    before = requests(scene)
    scene.crash(leader)
    scene.leads_among(scene.others(leader))
    assert requests(scene) - before <= 2 * 30


# Restarts


def test_all_restart_then_each_leader_then_each_follower() -> None:
    scene = Scene()
    scene.agree()
    scene.crash(*scene.world.ids)
    scene.restart(*scene.world.ids)
    scene.agree()
    for _ in range(2):
        leader = scene.leader
        scene.crash(leader)
        scene.agree(1, scene.others(leader))
        scene.restart(leader)
        scene.agree()
    away = scene.others(scene.leader)[0]
    scene.crash(away)
    scene.agree(2, scene.others(away))
    scene.restart(away)
    scene.agree()


def test_more_restarts_in_turn() -> None:
    scene = Scene(nodes=5)
    for _ in range(4):
        scene.agree()
        leader = scene.leader
        one, two, three, four = scene.others(leader)
        scene.crash(one, two)
        scene.agree(1, (leader, three, four))
        scene.crash(leader, three, four)
        scene.restart(one, two)
        scene.run(ELECTION_S)
        scene.restart(three)
        scene.agree(1, (one, two, three), 20)
        scene.restart(leader, four)
    scene.agree()
    scene.reckon()


def test_a_cut_off_leader_and_a_crashed_follower() -> None:
    scene = Scene()
    scene.agree()
    leader = scene.leader
    one, two = scene.others(leader)
    scene.cut_off(two)
    scene.agree(1, (leader, one))
    scene.crash(leader, one)
    scene.join(two)
    scene.restart(leader)
    scene.agree(1, (leader, two), 20)
    scene.restart(one)
    scene.agree()


# Figure 8 of the Raft paper


@pytest.mark.parametrize("network", [reliable, unreliable, reordering])
def test_figure_8(network: object) -> None:
    """Leaders go at random moments, often with what only they have; few nodes are up."""
    scene = Scene(nodes=5, seed=8, clients=3)
    scene.world.conditions = network()  # type: ignore[operator]
    by_crash = network is reliable
    away: set[int] = set()
    for turn in range(100):
        for client in range(3):
            if scene.clients[client].waiting:
                scene.clients[client].leave("does not wait")
            nodes = sorted(scene.world.nodes)
            scene.ask(scene.leader or nodes[0], [("APPEND", scene.key)], client)
        # Mostly a short time: the entry is on few disks when its leader goes.
        scene.run(0.01 * scene.dice.randint(1, 5) if scene.dice.random() < 0.9 else 0.3)
        leader = scene.leader
        if leader and leader not in away and scene.dice.random() < 0.5:
            away.add(leader)
            (scene.crash if by_crash else scene.cut_off)(leader)
        if len(away) > 2 or turn % 10 == 9:
            back = scene.dice.choice(sorted(away)) if away else 0
            if back:
                away.discard(back)
                (scene.restart if by_crash else scene.join)(back)
                for other in away if not by_crash else ():
                    scene.cut_off(other)
    scene.reckon()


# Unreliable networks


def test_concurrent_commands_over_an_unreliable_network() -> None:
    scene = Scene(nodes=5, clients=5, conditions=reliable())
    scene.world.conditions = unreliable()
    for _ in range(40):
        for client in range(5):
            if not scene.clients[client].waiting:
                scene.clients[client].send([("APPEND", scene.key)])
        scene.run(0.1)
    scene.reckon()
    assert sum(script.executed for script in scene.clients) > 100


@pytest.mark.parametrize("network", [reliable, unreliable])
def test_churn(network: object) -> None:
    """Every write that was acknowledged meanwhile is there in the end."""
    scene = Scene(nodes=5, seed=5, clients=3)
    scene.world.conditions = network()  # type: ignore[operator]
    for _ in range(20):
        one = scene.dice.choice(scene.world.ids)
        match scene.dice.randrange(5):
            case 0:
                scene.cut_off(one)
            case 1 | 2:
                scene.join(one)
            case 3:
                scene.crash(one)
            case _:
                scene.restart(*scene.world.ids)
        for _ in range(7):
            for script in scene.clients:
                if not script.waiting and scene.world.nodes:
                    script.send([("APPEND", scene.key)])
            scene.run(0.1)
            for script in scene.clients:
                if script.waiting and scene.dice.random() < 0.1:
                    script.leave("does not wait")
    scene.reckon()
    assert sum(script.executed for script in scene.clients) > 20


def test_the_scenes_are_about_a_group_on_every_node() -> None:
    scene = Scene(nodes=5)
    assert all(GID in node.replicas for node in scene.world.nodes.values())
