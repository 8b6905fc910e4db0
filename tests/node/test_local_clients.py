"""Real clients against nodes that have nothing but their local commands."""

import asyncio
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster

from eraft import limits
from eraft._impl import resp
from eraft.metaserver.parts import BucketRange, Group
from eraft.metaserver.table import ConfigTable
from eraft.node import local
from eraft.shardkv.cluster import node_name
from eraft.shardkv.specs import COMMANDS
from eraft.types import BUCKETS, NodeAddress, ReplicaAddress

from .local_context import Context, execute

NODES = (1, 2, 3)
HEADS = {1: 1, 2: 2, 3: 1}
"""Which node leads each group; all groups are on all nodes."""


class Connection(asyncio.Protocol):
    """Feeds what a client sends to the parser and executes what comes out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._parser = resp.Parser(
            resp.CommandTable({}, {}),
            bytearray(BUCKETS),
            [None],
            limits.VALUE_SIZE_BYTES,
            limits.COMMAND_SIZE_BYTES,
            limits.COMMAND_ARGS,
            limits.INLINE_SIZE_BYTES,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._session = self._context.connect("client:1")

    def data_received(self, data: bytes) -> None:
        items = self._parser.feed_and_parse(data, False)
        while items:
            for kind, args, _ in items:
                assert kind == resp.COMMAND
                self._answer(args)
            items = self._parser.parse(False)

    def _answer(self, args: list[bytes]) -> None:
        reply = 0 if args == [b"DBSIZE"] else execute(self._context, self._session, args)
        if reply is not local.SILENT:
            self._transport.write(resp.encode([reply], 0, 1, self._session.protocol))
        if self._session.closing:
            self._transport.close()


class Cluster:
    """Three nodes on loopback ports, served by a thread with its own event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._servers: list[asyncio.Server] = []
        self.contexts: dict[int, Context] = {}
        self.ports: dict[int, int] = {}
        self._call(self._open())

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _open(self) -> None:
        for node_id in NODES:
            server = await self._loop.create_server(self._accept(node_id), "127.0.0.1", 0)
            self.ports[node_id] = server.sockets[0].getsockname()[1]
            self._servers.append(server)
        for node_id in NODES:
            context = Context(node_id, self._table())
            context.port = self.ports[node_id]
            for gid, head in HEADS.items():
                context.router.note_lead(gid, 2, head, 1000.0)
            self.contexts[node_id] = context

    def _accept(self, node_id: int) -> Callable[[], Connection]:
        return lambda: Connection(self.contexts[node_id])

    def _table(self) -> ConfigTable:
        bounds = (0, 5461, 10923, BUCKETS)
        return ConfigTable(
            version=7,
            opened=True,
            next_replica_id=100,
            buckets=tuple(BucketRange(bounds[g - 1], bounds[g] - 1, g) for g in HEADS),
            groups={
                gid: Group.founded(
                    1, tuple(ReplicaAddress(10 * gid + n, n, f"s{n}") for n in NODES)
                )
                for gid in HEADS
            },
            nodes={
                n: NodeAddress(n, f"s{n}", f"127.0.0.1:{port}", f"127.0.0.1:{20000 + n}", "")
                for n, port in self.ports.items()
            },
        )

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=[2, 3])
def client(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """A stock cluster client, started from the node that leads nothing."""
    made = RedisCluster(host="127.0.0.1", port=cluster.ports[3], protocol=request.param)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=[2, 3])
def node(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A stock client of node 1."""
    with redis.Redis(port=cluster.ports[1], protocol=request.param, decode_responses=True) as made:
        yield made


def test_redis_py_learns_the_cluster(cluster: Cluster, client: RedisCluster) -> None:
    ports = cluster.ports
    assert {item.port for item in client.get_primaries()} == {ports[1], ports[2]}
    assert {item.port for item in client.get_replicas()} == {ports[3]}
    for bucket, node_id in ((0, 1), (5460, 1), (5461, 2), (10922, 2), (10923, 1), (16383, 1)):
        found = client.nodes_manager.get_node_from_slot(bucket)
        assert found is not None
        assert found.port == ports[node_id]
    assert client.ping(target_nodes=RedisCluster.ALL_NODES)
    assert client.cluster_keyslot("foo") == 12182


def test_redis_py_reads_the_cluster_commands(cluster: Cluster, client: RedisCluster) -> None:
    nodes = client.cluster_nodes()
    assert len(nodes) == 3
    mine = nodes[f"127.0.0.1:{cluster.ports[2]}"]
    assert mine["node_id"] == node_name("demo", 2)
    assert mine["slots"] == [["5461", "10922"]]
    follower = nodes[f"127.0.0.1:{cluster.ports[3]}"]
    assert (follower["master_id"], follower["slots"]) == (node_name("demo", 1), [])
    shards = client.cluster_shards()
    assert len(shards) == 3
    assert client.cluster_info()["cluster_state"] == "ok"
    assert len(client.cluster_slots()) == 3
    assert client.cluster_myid(client.get_primaries()[0])


def test_redis_py_knows_all_commands(node: redis.Redis) -> None:
    found = node.command()
    assert set(found) == {name.decode().lower() for name in COMMANDS}
    assert found["mset"]["step_count"] == 2
    assert set(found["get"]["flags"]) == {"readonly", "fast"}
    assert node.command_count() == len(COMMANDS)
    assert sorted(node.command_list()) == sorted(found)
    assert node.command_getkeys("MSET", "a", "1", "b", "2") == ["a", "b"]
    assert "get" in node.execute_command("COMMAND DOCS")


def test_redis_py_reads_the_other_commands(cluster: Cluster, node: redis.Redis) -> None:
    info = node.info()
    assert info["redis_mode"] == "cluster"
    assert info["tcp_port"] == cluster.ports[1]
    assert info["role"] == "master"
    assert info["db0"] == {"keys": 10, "expires": 3, "avg_ttl": 0}
    assert node.info("commandstats")["cmdstat_get"] == {"calls": 5}
    assert node.config_get("save", "max*") == {"save": "", "maxmemory": "0"}
    assert node.client_setname("me")
    assert node.client_getname() == "me"
    mine = node.client_info()
    assert mine["name"] == "me"
    assert mine["lib-name"].startswith("redis-py")
    assert mine["id"] == node.client_id()
    assert str(mine["id"]) in {item["id"] for item in node.client_list()}
    assert node.client_kill_filter(_type="normal", skipme=True) >= 0
    assert node.readonly()
    assert node.readwrite()
    assert node.time() == (1_700_000_000, 123000)
    assert node.echo("x") == "x"
    with pytest.raises(redis.ResponseError, match="not allowed in cluster mode"):
        node.execute_command("SELECT", 1)


# redis-cli


def redis_cli(cluster: Cluster, *args: str) -> str:
    binary = shutil.which("redis-cli")
    if binary is None:
        pytest.skip("redis-cli is not installed")
    command = [binary, *(arg.format(port=cluster.ports[1]) for arg in args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli(cluster: Cluster, protocol: str) -> None:
    def ask(*args: str) -> str:
        return redis_cli(cluster, "-p", "{port}", protocol, *args)

    lines = ask("CLUSTER", "NODES").strip().splitlines()
    assert [line.split()[0] for line in lines] == [node_name("demo", n) for n in NODES]
    assert "cluster_state:ok" in ask("CLUSTER", "INFO")
    assert ask("CLUSTER", "KEYSLOT", "foo").strip() == "12182"
    assert "# Eraft" in ask("INFO")
    assert "summary" in ask("COMMAND", "DOCS", "get")


@pytest.mark.parametrize("command", ["check", "info"])
def test_redis_cli_checks_the_cluster(cluster: Cluster, command: str) -> None:
    text = redis_cli(cluster, "--cluster", command, "127.0.0.1:{port}")
    assert re.search(r"10922 slots \| 1 slaves", text), text
    assert re.search(r"5462 slots \| 0 slaves", text), text
    if command == "check":
        assert "[OK] All nodes agree about slots configuration." in text
        assert "[OK] All 16384 slots covered." in text
    assert "ERR" not in text
    assert "WARNING" not in text
