"""A node with somebody else's state machine in this process, alone in its cluster."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from eraft import limits
from eraft.cli import admin
from eraft.cli.cluster_file import choose_base_port
from eraft.errors import ConfigError, NotApplied, NotLeader, OutcomeUnknown
from eraft.host import Host, NodeOptions
from eraft.storage.directory import format_directory
from tests.cli.local import SEGMENT_SIZE_BYTES, WAIT_S

GID = 1


class Words:
    """Keeps what it is told, in order; some words make it misbehave."""

    def __init__(self, gid, rows):
        self.gid = gid
        self.count = int(rows.meta(b"count") or 0)

    def apply(self, rows, index, term, payload, replies):
        if payload == b"fail":
            raise ZeroDivisionError
        rows.put(rows.data_prefix + b"%08d" % self.count, payload)
        self.count += 1
        rows.set_meta(b"count", b"%d" % self.count)
        if replies is not None:
            replies.extend([self.count] * (2 if payload == b"twice" else 1))

    def words(self, rows):
        prefix = rows.data_prefix
        return [rows.get(prefix + b"%08d" % place) for place in range(self.count)]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeOptions:
    """Alone the node hears of itself soon."""
    monkeypatch.setattr(limits, "LEADS_INTERVAL_S", 0.05)
    base = choose_base_port(1)
    client, peer, admin_port = (f"127.0.0.1:{base + n}" for n in range(3))
    data_dir = str(tmp_path / "n1")
    format_directory(data_dir, "test", 1, {1: peer}, segment_size_bytes=SEGMENT_SIZE_BYTES)
    return NodeOptions(
        data_dir=data_dir,
        client=client,
        peer=peer,
        admin=admin_port,
        segment_size_bytes=SEGMENT_SIZE_BYTES,
    )


@contextlib.asynccontextmanager
async def serving(options):
    """A host that leads its group."""
    async with asyncio.timeout(WAIT_S), Host(options, Words) as host:
        while host.leader(GID) is None:
            with contextlib.suppress(admin.Refused):
                await asyncio.to_thread(admin.ask, options.admin, "META", "JOIN", GID, 1)
            await asyncio.sleep(0.01)
        yield host


def test_what_is_proposed_is_answered_and_read(options):
    async def run():
        async with serving(options) as host:
            assert host.leader(GID) == host.address
            assert host.address.client == options.client
            assert await host.propose(GID, b"one") == 1
            assert await asyncio.gather(*(host.propose(GID, b"more") for _ in range(100))) == [
                *range(2, 102)
            ]
            assert await host.read(GID, Words.words) == [b"one"] + [b"more"] * 100

    uvloop.run(run())


def test_a_restart_makes_the_machine_from_its_rows(options):
    async def run(words):
        async with serving(options) as host:
            assert await host.read(GID, lambda machine, rows: machine.count) == len(words)
            assert await host.read(GID, Words.words) == words
            return await host.propose(GID, b"again")

    assert uvloop.run(run([])) == 1
    assert uvloop.run(run([b"again"])) == 2


def test_a_plain_asyncio_loop_will_do(options):
    async def run():
        async with serving(options) as host:
            return await host.propose(GID, b"one")

    assert asyncio.run(run()) == 1


def test_what_a_read_raises_comes_out(options):
    async def run():
        async with serving(options) as host:
            with pytest.raises(KeyError):
                await host.read(GID, lambda machine, rows: {}["absent"])
            return await host.propose(GID, b"one")

    assert uvloop.run(run()) == 1


def test_impossible_requests_are_refused(options):
    async def run():
        async with serving(options) as host:
            with pytest.raises(ValueError, match="the limit is"):
                await host.propose(GID, bytes(limits.HOSTED_PAYLOAD_BYTES + 1))
            for call in (host.propose(0, b"one"), host.read(0, Words.words)):
                with pytest.raises(ValueError, match="metaserver"):
                    await call
            for call in (host.propose(9, b"one"), host.read(9, Words.words)):
                with pytest.raises(NotLeader, match="group 9") as refused:
                    await call
                assert refused.value.leader == ""
            assert not host._waiting

    uvloop.run(run())


def test_the_largest_payload_is_taken(options):
    async def run():
        async with serving(options) as host:
            await host.propose(GID, bytes(limits.HOSTED_PAYLOAD_BYTES))
            return await host.read(GID, lambda machine, rows: len(machine.words(rows)[0]))

    assert uvloop.run(run()) == limits.HOSTED_PAYLOAD_BYTES


def test_without_room_on_the_disk_nothing_is_proposed(options):
    async def run():
        async with serving(options) as host:
            host._server.node.free_disk(0)
            with pytest.raises(NotApplied, match="free disk space"):
                await host.propose(GID, b"one")
            return await host.read(GID, Words.words)

    assert uvloop.run(run()) == []


def test_who_stops_waiting_disturbs_nobody(options):
    async def run():
        async with serving(options) as host:
            task = asyncio.create_task(host.propose(GID, b"one"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await host.propose(GID, b"two")
            assert await host.read(GID, Words.words) == [b"one", b"two"]

    uvloop.run(run())


@pytest.mark.parametrize(("payload", "why"), [(b"fail", "ZeroDivisionError"), (b"twice", "reply")])
def test_a_machine_that_breaks_its_contract_stops_the_node(options, caplog, payload, why):
    async def run():
        async with serving(options) as host:
            with pytest.raises(OutcomeUnknown, match="stopped"):
                await host.propose(GID, payload)
            assert await host.stopped() == 1
            with pytest.raises(NotApplied, match="stopped"):
                await host.propose(GID, b"one")
            with pytest.raises(NotApplied, match="stopped"):
                await host.read(GID, Words.words)

    uvloop.run(run())
    assert why in caplog.text


def test_a_node_that_cannot_start_says_why_and_leaves_its_directory(options):
    async def run():
        async with serving(options) as host, contextlib.AsyncExitStack() as stack:
            with pytest.raises(ConfigError, match="in use"):
                await stack.enter_async_context(Host(options, Words))
            return await host.propose(GID, b"one")

    assert uvloop.run(run()) == 1
    assert uvloop.run(run()) == 2


@pytest.mark.parametrize("client", ["127.0.0.1:0", "nowhere", ":6379"])
def test_an_address_that_others_cannot_use_is_refused(options, client):
    async def run():
        async with Host(replace(options, client=client), Words):
            raise AssertionError("it started")

    with pytest.raises(ConfigError, match="client address"):
        uvloop.run(run())


def test_whoever_greets_is_dialled_at_once(options, monkeypatch, caplog):
    """A node that was away hears the others as soon as they hear it."""
    for name in ("DIAL_FIRST_DELAY_S", "DIAL_LAST_DELAY_S"):
        monkeypatch.setattr(limits, name, 3600.0)
    base = choose_base_port(1)
    peers = {1: options.peer, 2: f"127.0.0.1:{base + 1}"}
    second = replace(
        options,
        data_dir=options.data_dir.replace("n1", "n2"),
        client=f"127.0.0.1:{base}",
        peer=peers[2],
        admin=f"127.0.0.1:{base + 2}",
    )
    shutil.rmtree(options.data_dir)
    for node_id, it in ((1, options), (2, second)):
        format_directory(it.data_dir, "test", node_id, peers, segment_size_bytes=SEGMENT_SIZE_BYTES)

    async def run():
        async with asyncio.timeout(WAIT_S), Host(options, Words):
            while "node 2 cannot be reached" not in caplog.text:
                await asyncio.sleep(0.01)
            async with Host(second, Words):
                while True:
                    with contextlib.suppress(admin.Refused):
                        return await asyncio.to_thread(admin.ask, second.admin, "META", "QUERY")

    assert uvloop.run(run())["nodes"]
