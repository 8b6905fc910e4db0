"""Logs that are compacted, and members that need a snapshot: the scenarios of MIT 6.824's labs.

They are told and asserted as there, on whole nodes; sizes and times are in
proportion. `test_kv_scenarios.py` has those that only add a small log to
clients and trouble.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eraft.storage import rows as layout
from tests.sim.conditions import Conditions
from tests.sim.scene import SMALL_LOG, SMALL_LOG_LIMIT_BYTES, Scene, reliable, unreliable

ROUNDS = 10


def state_bytes(scene: Scene, node_id: int) -> int:
    """What a snapshot of the group would have to carry."""
    rows = scene.replica(node_id).rows
    return sum(
        len(key) + len(row) for key, row in rows.scan(*layout.generation_range(rows.generation))
    )


# Raft


@pytest.mark.parametrize("network", [reliable, unreliable])
def test_logs_are_compacted_while_everybody_is_there(network: Callable[..., Conditions]) -> None:
    scene = Scene(conditions=reliable(**SMALL_LOG))
    scene.world.conditions = network(**SMALL_LOG)
    for _ in range(ROUNDS):
        scene.compact()
        scene.agree()
        assert scene.log_bytes() <= SMALL_LOG_LIMIT_BYTES
    scene.reckon()


@pytest.mark.parametrize("network", [reliable, unreliable])
@pytest.mark.parametrize("crash", [False, True])
def test_who_was_away_goes_on_from_a_snapshot(
    crash: bool, network: Callable[..., Conditions]
) -> None:
    """In every third round it is the leader that goes."""
    scene = Scene(conditions=reliable(**SMALL_LOG))
    scene.agree()
    scene.world.conditions = network(**SMALL_LOG)
    for number in range(ROUNDS):
        leader = scene.leads_among(scene.world.ids)
        victim = leader if number % 3 == 1 else scene.others(leader)[0]
        before = scene.generation(victim)
        (scene.crash if crash else scene.cut_off)(victim)
        scene.agree(1, scene.others(victim))
        scene.compact(scene.others(victim))
        assert scene.log_bytes() <= SMALL_LOG_LIMIT_BYTES
        (scene.restart if crash else scene.join)(victim)
        scene.agree()
        assert scene.generation(victim) != before, "it went on from a snapshot"
    scene.reckon()


def test_all_crash_again_and_again() -> None:
    scene = Scene(conditions=reliable(**SMALL_LOG))
    for _ in range(ROUNDS):
        scene.compact()
        scene.agree(scene.dice.randint(1, 10))
        last = scene.replica(scene.leader).applied
        scene.crash(*scene.world.ids)
        scene.restart(*scene.world.ids)
        scene.agree()
        assert all(scene.replica(node_id).applied > last for node_id in scene.world.ids)
    scene.reckon()


def test_little_is_written_between_two_crashes_of_all() -> None:
    """What the second one leaves is a short log on top of the state that the first one left."""
    scene = Scene(conditions=reliable(**SMALL_LOG))
    scene.compact()
    for _ in range(3):
        scene.agree()
        scene.crash(*scene.world.ids)
        scene.restart(*scene.world.ids)
    scene.agree()
    scene.reckon()


# Key/value store


def test_a_member_without_which_there_is_no_majority_gets_a_snapshot_first() -> None:
    scene = Scene(conditions=reliable(**SMALL_LOG))
    scene.agree()
    leader = scene.leader
    away, third = scene.others(leader)
    before, keys = scene.generation(away), scene.histories.texts
    scene.part(leader, third)
    scene.execute([("SET", key) for key in keys])
    scene.compact((leader, third))
    scene.execute([("SET", scene.key)])
    assert scene.log_bytes() <= SMALL_LOG_LIMIT_BYTES, "who is away does not keep the logs"
    scene.part(leader, away)
    scene.execute([("SET", key) for key in keys[:2]], 20)
    assert scene.generation(away) != before
    scene.execute([("GET", key) for key in keys])
    scene.world.heal()
    scene.execute([("SET", scene.key), *(("GET", key) for key in keys)])
    scene.reckon()


def test_neither_logs_nor_snapshots_grow_with_what_was_overwritten() -> None:
    scene = Scene(conditions=reliable(**SMALL_LOG))
    sizes_bytes = []
    for _ in range(8):
        scene.execute([("SET", scene.key)] * 100, 60)
        scene.agree()
        assert scene.log_bytes() <= SMALL_LOG_LIMIT_BYTES
        sizes_bytes += [state_bytes(scene, node_id) for node_id in scene.world.ids]
    assert max(sizes_bytes) - min(sizes_bytes) <= 500
    assert all(scene.compacted(node_id) > 700 for node_id in scene.world.ids)
    scene.reckon()
