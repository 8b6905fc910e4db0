"""The version chain: every version stays readable, and updates carry it to other nodes."""

from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft import limits
from eraft.errors import InvariantViolation, ProtocolError
from eraft.metaserver.chain import VersionChain, check_row, check_rows, follow
from eraft.metaserver.founding import founding_table
from eraft.metaserver.parts import Group
from eraft.metaserver.table import ConfigTable
from eraft.storage.state import ReplicaRows
from eraft.types import BUCKETS, NodeAddress, ReplicaAddress
from tests.metaserver.conftest import FOUNDING, content, new_rows


def history(versions: int, seed: int = 1) -> list[ConfigTable]:
    """A table and its changes: nodes come and move, groups come, buckets wander, groups go."""
    random = Random(seed)
    table = FOUNDING
    found = [table]
    for version in range(1, versions):
        table = replace(_changed(table, random), version=version)
        found.append(table)
    return found


def _changed(table: ConfigTable, random: Random) -> ConfigTable:
    gids = [gid for gid in table.groups if gid != 0]
    choice = random.randrange(4)
    if choice == 0 or not gids:
        gid, replica_id = len(table.groups), table.next_replica_id
        groups = {**table.groups, gid: Group.founded(1, (ReplicaAddress(replica_id, 1, ""),))}
        return replace(table, groups=groups, next_replica_id=replica_id + 1)
    if choice == 1:
        node_id, port = random.randrange(1, 9), random.randrange(1, 65536)
        node = NodeAddress(node_id, "s", f"h:{port}", f"h:{port}", "")
        return replace(table, nodes=dict(sorted({**table.nodes, node_id: node}.items())))
    owners = table.owners()
    start = random.randrange(BUCKETS)
    end = random.randrange(start, BUCKETS)
    owners[start : end + 1] = [random.choice(gids)] * (end - start + 1)
    return replace(table, opened=True).with_owners(owners)


HISTORY = history(3 * limits.TABLE_FULL_EVERY + 10)


def filled(rows: ReplicaRows, tables: list[ConfigTable]) -> VersionChain:
    chain = VersionChain(rows)
    before: ConfigTable | None = None
    for table in tables:
        chain.append(table, before)
        before = table
    return chain


def test_every_version_is_readable() -> None:
    rows = new_rows()
    chain = filled(rows, HISTORY)
    for state in (chain, _read_again(rows)):
        assert state.newest == len(HISTORY) - 1
        assert state.latest() == HISTORY[-1]
        assert [state.at(version) for version in range(len(HISTORY))] == HISTORY
        assert state.at(len(HISTORY)) is None


def _read_again(rows: ReplicaRows) -> VersionChain:
    rows.write()
    return VersionChain(ReplicaRows(rows.store, rows.generation))


def test_most_versions_are_differences() -> None:
    rows = new_rows()
    filled(rows, HISTORY)
    full = [table.version for table in HISTORY if rows.get(_version_key(rows, table))[:1] == b"F"]
    assert full == [0, 64, 128, 192]


def _version_key(rows: ReplicaRows, table: ConfigTable) -> bytes:
    return rows.data_prefix + b"v" + table.version.to_bytes(8, "big")


def test_a_chain_may_begin_anew_at_a_later_version(rows: ReplicaRows) -> None:
    chain = filled(rows, HISTORY[:5])
    chain.append(HISTORY[70], None)
    for version in range(71, 140):
        chain.append(HISTORY[version], HISTORY[version - 1])
    assert [chain.at(version) for version in range(5)] == HISTORY[:5]
    assert [chain.at(version) for version in range(5, 70)] == [None] * 65
    assert [chain.at(version) for version in range(70, 140)] == HISTORY[70:140]
    assert chain.latest() == HISTORY[139]


def test_an_empty_chain(rows: ReplicaRows) -> None:
    chain = VersionChain(rows)
    assert (chain.newest, chain.latest(), chain.at(0), chain.update(0)) == (None, None, None, None)


def test_versions_follow_each_other(rows: ReplicaRows) -> None:
    chain = filled(rows, HISTORY[:3])
    stored = content(rows)
    for table, before in [
        (HISTORY[4], HISTORY[3]),
        (HISTORY[4], HISTORY[2]),
        (HISTORY[2], HISTORY[1]),
        (HISTORY[2], None),
        (HISTORY[1], None),
    ]:
        with pytest.raises(InvariantViolation, match="version chain: "):
            chain.append(table, before)
    assert content(rows) == stored


@settings(max_examples=15, deadline=None)
@given(st.integers(0, len(HISTORY) - 1), st.integers(0, len(HISTORY) - 1))
def test_an_update_brings_a_node_to_the_newest_version(newest: int, since: int) -> None:
    chain = filled(new_rows(), HISTORY[: newest + 1])
    update = chain.update(since)
    if since >= newest:
        assert update is None
        return
    own = filled(new_rows(), HISTORY[: since + 1])
    for table, before in follow(HISTORY[since], update):
        own.append(table, before)
    assert own.latest() == HISTORY[newest]
    if since and newest - since <= limits.TABLE_UPDATE_DIFFS:
        assert [own.at(version) for version in range(newest + 1)] == HISTORY[: newest + 1]
    else:
        assert orjson.loads(update)["diffs"] == []


def test_an_update_from_a_chain_with_a_gap_is_a_full_copy(rows: ReplicaRows) -> None:
    chain = filled(rows, HISTORY[:5])
    chain.append(HISTORY[70], None)
    assert follow(HISTORY[2], chain.update(2)) == [(HISTORY[70], None)]
    chain.append(HISTORY[71], HISTORY[70])
    assert follow(HISTORY[70], chain.update(70)) == [(HISTORY[71], HISTORY[70])]


def test_a_node_that_knows_only_its_founding_list_gets_a_full_copy(rows: ReplicaRows) -> None:
    """It may have listed other members of the metaserver than the cluster was founded with."""
    other = founding_table({9: "10.0.0.9:7001"})
    update = filled(rows, HISTORY[:3]).update(0)
    assert update is not None
    assert follow(other, update) == [(HISTORY[2], None)]


def test_a_large_update_is_a_full_copy(rows: ReplicaRows, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = filled(rows, HISTORY[:60])
    assert orjson.loads(chain.update(1))["table"] is None
    monkeypatch.setattr(limits, "TABLE_UPDATE_BYTES", 2000)
    assert follow(HISTORY[1], chain.update(1)) == [(HISTORY[59], None)]


def test_updates_that_cross_are_harmless(rows: ReplicaRows) -> None:
    chain = filled(rows, HISTORY[:100])
    differences, full = chain.update(90), chain.update(1)
    assert follow(HISTORY[99], differences) == []
    assert follow(HISTORY[95], differences) == [
        (HISTORY[version], HISTORY[version - 1]) for version in range(96, 100)
    ]
    assert follow(HISTORY[99], full) == []
    assert follow(HISTORY[120], full) == []


def test_an_update_from_the_future_is_refused(rows: ReplicaRows) -> None:
    update = filled(rows, HISTORY[:10]).update(5)
    with pytest.raises(ProtocolError, match="does not apply to version 3"):
        follow(HISTORY[3], update)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "table update: not JSON"),
        (b"[]", "table update: must be an object"),
        (b"{}", "table update: no field 'table'"),
        (b'{"table":null,"diffs":{}}', "diffs: must be an array"),
        (b'{"table":null,"diffs":[1]}', "difference: must be an object"),
        (b'{"table":[],"diffs":[]}', "config table: must be an object"),
        (b'{"table":null,"diffs":[' + b"0," * 64 + b"0]}", "65 elements, at most 64"),
    ],
)
def test_a_hostile_update_is_refused(body: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError) as error:
        follow(FOUNDING, body)
    assert complaint in str(error.value)


def test_rows_of_a_snapshot_that_nobody_can_read() -> None:
    rows = new_rows()
    filled(rows, HISTORY[:3])
    for key, row in content(rows):
        check_row(key[4:], row)
    for key, row in [
        (b"\x01version", b"\0" * 7),
        (b"\x03v" + bytes(8), b"F{}"),
        (b"\x03v" + bytes(8), b"D[]"),
        (b"\x03v" + bytes(8), b""),
    ]:
        with pytest.raises(ProtocolError):
            check_row(key, row)


NOT_TO_GO_ON_FROM = {
    "has no metaserver": replace(HISTORY[5], groups={}, buckets=(), opened=False),
    f"version {1 << 62}": replace(HISTORY[5], version=1 << 62),
    f"next replica id {1 << 62}": replace(HISTORY[5], next_replica_id=1 << 62),
}
"""Tables that are well-formed, but after which the next change would break a node."""


@pytest.mark.parametrize("why", NOT_TO_GO_ON_FROM)
def test_a_newest_version_that_nobody_can_go_on_from_is_refused(why: str) -> None:
    table = NOT_TO_GO_ON_FROM[why]
    update = orjson.dumps({"table": table.to_dict(), "diffs": []})
    with pytest.raises(ProtocolError, match=why):
        follow(HISTORY[1], update)
    rows = new_rows()
    filled(rows, [table])
    with pytest.raises(ProtocolError, match=why):
        check_rows(rows)


@pytest.mark.parametrize("named", [1, 7])
def test_rows_whose_newest_version_is_another_one_are_refused(named: int) -> None:
    rows = new_rows()
    check_rows(rows)
    filled(rows, HISTORY[:6])
    check_rows(rows)
    rows.put(rows.data_prefix + b"v" + named.to_bytes(8, "big"), b"F" + HISTORY[5].to_json())
    rows.set_meta(b"version", named.to_bytes(8, "big"))
    with pytest.raises(ProtocolError, match=f"the newest version, {named}, is not there"):
        check_rows(rows)
