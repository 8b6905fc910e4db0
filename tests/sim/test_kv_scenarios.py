"""Clients of a replicated store: the scenarios of MIT 6.824's key/value and configuration labs.

They are told and asserted as there; sizes and times are in proportion. An
append whose outcome is unknown is not sent again, so it may be there once or
not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson
import pytest

from tests.linear.checker import explain_all
from tests.sim.check_commits import VALUE
from tests.sim.clients import Script
from tests.sim.conditions import Conditions
from tests.sim.opening import opened
from tests.sim.scene import SMALL_LOG, SMALL_LOG_LIMIT_BYTES, Scene, reliable, unreliable
from tests.sim.world import World

ROUNDS = 3
ROUND_S = 4.0


def appends_in_order(scene: Scene, key: bytes) -> None:
    """Of each client every acknowledged append is there once, the unknown ones at most once,

    and all of them in the order in which the client sent them.
    """
    history = scene.histories.of_key[key]
    last = max((it for it in history if it.name == "GETRANGE"), key=lambda it: it.called)
    assert isinstance(last.result, bytes)
    found = VALUE.findall(last.result)
    assert b"".join(found) == last.result
    assert len(set(found)) == len(found), "an append is there twice"
    known = {it.value for it in history if it.name == "APPEND" and it.known}
    assert known <= set(found), "an acknowledged append is missing"
    for client in range(1, len(scene.clients) + 1):
        numbers = [
            int(it[it.index(b".") + 1 : -1]) for it in found if it.startswith(b"<%d." % client)
        ]
        assert numbers == sorted(numbers), "the order of a client is not kept"


def keep_busy(scene: Scene, script: Script, random_keys: bool) -> None:
    """Appends and reads, one after the other, on the one key or on any."""
    if script.waiting:
        if scene.dice.random() < 0.005:
            script.leave("does not wait")
        return
    key = scene.dice.choice(scene.histories.texts) if random_keys else scene.key
    name = scene.dice.choice(("APPEND", "APPEND", "GET"))
    if random_keys:
        name = scene.dice.choice(("SET", "APPEND", "GET"))
    script.send([(name, key)])


def generic(
    *,
    clients: int,
    nodes: int = 5,
    lossy: bool = False,
    crash: bool = False,
    partitions: bool = False,
    random_keys: bool = False,
    compacting: bool = False,
    seed: int = 1,
) -> Scene:
    """Rounds of load with trouble, each with a quiet end in which everything has to be right."""
    sizes = SMALL_LOG if compacting else {}
    quiet, loud = reliable(**sizes), (unreliable if lossy else reliable)(**sizes)
    scene = Scene(nodes, seed, clients, quiet)
    generations = [scene.generation(node_id) for node_id in scene.world.ids]
    for _ in range(ROUNDS):
        scene.world.conditions = loud
        next_s = 0.0
        end_s = scene.world.now_s + ROUND_S
        majority = scene.world.ids
        while scene.world.now_s < end_s:
            if partitions and scene.world.now_s > next_s:
                next_s = scene.world.now_s + 0.8 + 0.2 * scene.dice.random()
                part = [it for it in scene.world.ids if scene.dice.random() < 0.5]
                scene.part(*part)
                majority = max(part, scene.others(*part), key=len)
            for script in scene.clients:
                keep_busy(scene, script, random_keys)
            scene.run(0.05)
        if compacting:
            scene.compact(majority)
        scene.world.conditions = quiet
        scene.world.heal()
        if crash:
            scene.crash(*scene.world.ids)
            scene.restart(*scene.world.ids)
        scene.until(lambda: not any(script.waiting for script in scene.clients), 15)
        scene.agree(1, seconds=20)
        scene.execute([("GETRANGE", scene.key)], 20)
        if not random_keys:
            appends_in_order(scene, scene.key)
        if compacting:
            assert scene.log_bytes() <= SMALL_LOG_LIMIT_BYTES
    scene.reckon()
    if compacting and partitions:
        assert [scene.generation(node_id) for node_id in scene.world.ids] != generations
    assert sum(script.executed for script in scene.clients) > 10 * clients
    return scene


@pytest.mark.parametrize("trouble", ["", "crash", "partitions"])
def test_one_client(trouble: str) -> None:
    generic(clients=1, **dict.fromkeys(trouble.split(), True))


@pytest.mark.parametrize(
    "trouble",
    [
        "",
        "lossy",
        "partitions",
        "crash",
        "lossy crash",
        "partitions crash",
        "lossy partitions crash",
    ],
)
def test_several_clients(trouble: str) -> None:
    generic(clients=5, **dict.fromkeys(trouble.split(), True))


@pytest.mark.parametrize(
    ("clients", "trouble"),
    [
        (1, "crash"),
        (10, "crash"),
        (5, "lossy"),
        (5, "partitions"),
        (5, "lossy crash"),
        (5, "lossy partitions crash"),
    ],
)
def test_small_logs(clients: int, trouble: str) -> None:
    generic(clients=clients, compacting=True, **dict.fromkeys(trouble.split(), True))


@pytest.mark.parametrize("compacting", [False, True])
def test_many_clients_many_nodes_any_key_all_trouble(compacting: bool) -> None:
    generic(
        clients=15,
        nodes=7,
        lossy=True,
        crash=True,
        partitions=True,
        random_keys=True,
        compacting=compacting,
    )


@pytest.mark.parametrize("compacting", [False, True])
def test_a_thousand_appends_take_less_than_33_ms_each(compacting: bool) -> None:
    conditions = reliable(**(SMALL_LOG if compacting else {}))
    conditions.disk_us = (500, 3_000)
    scene, count = Scene(conditions=conditions), 1000
    script = scene.clients[0]
    script.go_to(scene.leader)
    started_s = scene.world.now_s
    while script.executed < count:
        if not script.waiting:
            script.send([("APPEND", scene.key)])
        scene.world.run_for(1_000)
    assert (scene.world.now_s - started_s) / count < 0.033
    assert bool(scene.compacted(scene.leader)) == compacting


def test_one_key_over_an_unreliable_network() -> None:
    scene = Scene(clients=5)
    scene.world.conditions = unreliable()
    for _ in range(10):
        for script in scene.clients:
            scene.until(lambda it=script: not it.waiting)
            script.send([("APPEND", scene.key)])
    scene.until(lambda: not any(script.waiting for script in scene.clients))
    scene.reckon()
    scene.execute([("GETRANGE", scene.key)])
    appends_in_order(scene, scene.key)


def test_one_partition() -> None:
    """The majority goes on; what a minority is asked waits, fails for certain, and works later."""
    scene = Scene(nodes=5, clients=3)
    scene.agree()
    leader = scene.leader
    one, *majority = scene.others(leader)
    scene.part(leader, one)
    scene.leads_among(majority)
    scene.execute([("SET", scene.key)], client=0)
    write = scene.ask(leader, [("SET", scene.key)], client=1)
    read = scene.ask(one, [("GET", scene.key)], client=2)
    scene.run(1)
    assert not write.executed and not read.executed, "no quorum, no answer"
    scene.execute([("GET", scene.key), ("SET", scene.key)], client=0)
    scene.world.heal()
    for client in (1, 2):
        scene.until(lambda it=scene.clients[client]: not it.waiting, 3)
        scene.execute([("SET" if client == 1 else "GET", scene.key)], 3, client)
    scene.execute([("GET", scene.key)], client=0)
    scene.reckon()


# Old configurations


def versions(world: World, node_id: int, newest: int) -> list[object]:
    """Every version of the config table, as one node tells it."""
    answers = [world.meta(node_id, "QUERY", str(version)) for version in range(1, newest + 1)]
    return [orjson.loads(answer[answer.index(b"\n") + 1 :]) for answer in answers]


def test_old_configurations_stay_as_they_were_whoever_is_down() -> None:
    world = opened(groups=4, conditions=Conditions())
    newest = world.nodes[1].table.version
    assert newest > 5
    expected = versions(world, 1, newest)
    assert all(re.search(r"version", str(it)) for it in expected)
    for away in world.ids:
        world.crash(away)
        world.until(lambda: world.leader(0) != 0)
        for node_id in world.nodes:
            assert versions(world, node_id, newest) == expected
        world.start(away)
        world.until(lambda: world.ready(0))


def test_the_checker_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene with a wrong answer does not pass."""
    scene = Scene()
    scene.execute([("SET", scene.key), ("GET", scene.key)])
    last: Callable[[], object] = lambda: scene.histories.of_key[scene.key][-1]  # noqa: E731
    monkeypatch.setattr(last(), "result", b"something else")
    assert explain_all(scene.histories.of_key)
