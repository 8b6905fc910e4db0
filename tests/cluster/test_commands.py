"""Every command through stock redis-py against two groups, in both protocols."""

import time

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from tests.cluster.nodes import Cluster, Wire, command

HOUR_MS = 3_600_000


def now_ms():
    return time.time_ns() // 1_000_000


def primaries(client):
    return client.get_primaries()


def test_strings(client):
    assert client.set("a", "1")
    assert client.get("a") == "1"
    assert client.get("nothing") is None
    assert client.append("a", "23") == 3
    assert client.strlen("a") == 3
    assert client.getrange("a", 1, -1) == "23"
    assert client.setrange("a", 1, "xx") == 3
    assert client.get("a") == "1xx"
    assert client.getset("a", "new") == "1xx"
    assert client.getdel("a") == "new"
    assert client.exists("a") == 0
    assert client.setnx("a", "first")
    assert not client.setnx("a", "second")
    assert client.mset({"{t}1": "x", "{t}2": "y"})
    assert client.mget("{t}1", "{t}2", "{t}3") == ["x", "y", None]
    assert client.msetnx({"{t}2": "z", "{t}3": "z"}) == 0
    assert client.msetnx({"{t}3": "z", "{t}4": "z"}) == 1
    assert client.mget("{t}2", "{t}3", "{t}4") == ["y", "z", "z"]


def test_numbers(client):
    assert client.incr("n") == 1
    assert client.incrby("n", 41) == 42
    assert client.decr("n") == 41
    assert client.decrby("n", 1) == 40
    assert client.incrbyfloat("n", "0.5") == 40.5
    with pytest.raises(ResponseError, match="value is not an integer or out of range"):
        client.incr("n")
    assert client.set("n", 2**63 - 1)
    with pytest.raises(ResponseError, match="increment or decrement would overflow"):
        client.incr("n")


def test_the_options_of_set(client):
    assert client.set("a", "1", nx=True)
    assert client.set("a", "2", nx=True) is None
    assert client.set("a", "3", xx=True, get=True) == "1"
    assert client.set("b", "1", xx=True) is None
    assert client.set("a", "4", ex=3600)
    assert 0 < client.pttl("a") <= HOUR_MS
    assert client.set("a", "5", keepttl=True)
    assert client.ttl("a") in (3599, 3600)
    assert client.set("a", "6")
    assert client.ttl("a") == -1
    at_ms = now_ms() + HOUR_MS
    assert client.set("a", "7", pxat=at_ms)
    assert client.pexpiretime("a") == at_ms
    assert client.set("a", "8", exat=at_ms // 1000)
    assert client.expiretime("a") == at_ms // 1000
    assert client.set("a", "9", px=HOUR_MS)
    assert 0 < client.pttl("a") <= HOUR_MS
    assert client.set("a", "10", get=True) == "9"


def test_keys_and_their_deadlines(client):
    assert client.execute_command("SETEX", "a", 3600, "x")
    assert client.execute_command("PSETEX", "b", HOUR_MS, "x")
    assert client.ttl("a") in (3599, 3600)
    assert client.persist("a")
    assert client.ttl("a") == -1
    assert client.ttl("nothing") == -2
    assert client.expire("a", 3600)
    assert not client.expire("a", 7200, nx=True)
    assert client.expire("a", 7200, gt=True)
    assert client.pexpire("a", HOUR_MS)
    at_ms = now_ms() + HOUR_MS
    assert client.expireat("a", at_ms // 1000)
    assert client.expiretime("a") == at_ms // 1000
    assert client.pexpireat("a", at_ms)
    assert client.pexpiretime("a") == at_ms
    assert client.getex("a", persist=True) == "x"
    assert client.pttl("a") == -1
    assert client.getex("a", ex=3600) == "x"
    assert client.ttl("a") in (3599, 3600)
    assert client.type("a") == "string"
    assert client.type("nothing") == "none"
    assert client.touch("a") == 1
    assert client.exists("a", "nothing", "b") == 2
    assert client.unlink("a") == 1
    assert client.delete("b", "nothing") == 1
    assert client.expire("a", 0) is False


def test_a_key_is_gone_for_good_at_its_deadline(client):
    """Seen expired by a read, on its own connection and on others, it never comes back."""
    with Wire(_owner(client, "soon")) as wire:
        wire.send(command("SET", "soon", "x", "PX", 120) + command("GET", "soon"))
        assert [wire.line() for _ in range(3)] == [b"+OK\r\n", b"$1\r\n", b"x\r\n"]
        deadline_s = time.monotonic() + 10
        while (answer := wire.ask("GET", "soon")) != b"$-1\r\n":
            assert answer == b"$1\r\n"
            assert wire.line() == b"x\r\n"
            assert time.monotonic() < deadline_s
        assert wire.ask("TTL", "soon") == b":-2\r\n"
        assert wire.ask("EXISTS", "soon") == b":0\r\n"
        assert wire.ask("SET", "soon", "y", "XX") == b"$-1\r\n"
    assert client.get("soon") is None


def test_keys_expire_though_nobody_asks_for_them(cluster: Cluster, client):
    for n in range(100):
        client.set(f"soon{n}", "x", px=30)
    client.set("stays", "x")

    deadline_s = time.monotonic() + 20
    while (keys := [cluster.keys(name) for name in cluster.names()]) != [1, 1, 1]:
        assert time.monotonic() < deadline_s, keys
    assert client.dbsize(target_nodes="primaries") == 1


def test_the_whole_key_space(client):
    expected = {f"key{n}" for n in range(1000)}
    pipeline = client.pipeline(transaction=False)
    for key in expected:
        pipeline.set(key, "x")
    assert pipeline.execute() == [True] * 1000
    assert client.dbsize(target_nodes="primaries") == 1000
    assert set(client.scan_iter(count=100)) == expected
    assert set(client.scan_iter(match="key1??", count=500)) == {f"key{n}" for n in range(100, 200)}
    found = client.keys("*", target_nodes=primaries(client))
    assert set(found) == expected
    assert len(found) == 1000
    assert client.randomkey() in expected
    slot = client.cluster_keyslot("key7")
    in_slot = client.cluster_get_keys_in_slot(slot, 100)
    assert "key7" in in_slot
    assert set(in_slot) == {key for key in expected if client.keyslot(key) == slot}
    assert client.cluster_countkeysinslot(slot) == len(in_slot)
    counted = {slot: client.cluster_countkeysinslot(slot) for slot in map(client.keyslot, expected)}
    assert sum(counted.values()) == 1000
    assert client.flushdb()
    assert client.dbsize(target_nodes="primaries") == 0
    client.set("a", "x")
    assert client.flushall()
    assert list(client.scan_iter()) == []
    assert client.randomkey() is None


def test_a_pipeline_over_both_groups_answers_in_order(client):
    pipeline = client.pipeline(transaction=False)
    for n in range(100):
        pipeline.set(f"k{n}", n).incr(f"k{n}").get(f"k{n}").strlen(f"k{n}")
    replies = pipeline.execute()
    for n in range(100):
        assert replies[4 * n : 4 * n + 4] == [True, n + 1, str(n + 1), len(str(n + 1))]


def test_binary_keys_and_values(cluster: Cluster):
    value = bytes(range(256)) * 5000
    with cluster.client(decode_responses=False, protocol=3) as client:
        for key in (b"\0\r\n\xff", b"{\xfe}\xfd", b""):
            assert client.set(key, value)
            assert client.get(key) == value
            assert client.getrange(key, 255, 256) == b"\xff\0"


def test_keys_of_several_buckets_are_refused(client):
    with pytest.raises(ResponseError, match="^Keys in request don't hash to the same slot$"):
        client.execute_command("MGET", "a", "b", target_nodes=client.get_node_from_key("a"))


def test_local_commands(cluster: Cluster, client):
    node = primaries(client)[0]
    assert client.ping()
    assert client.echo("hello", target_nodes=node) == "hello"
    assert client.client_id(target_nodes=node) > 0
    assert client.client_setname("me", target_nodes=node)
    assert client.client_getname(target_nodes=node) == "me"
    assert any(it["name"] == "me" for it in client.client_list(target_nodes=node))
    assert client.client_info(target_nodes=node)["name"] == "me"
    assert client.config_get("save", target_nodes=node) == {"save": ""}
    assert abs(client.time(target_nodes=node)[0] - time.time()) < 10
    info = client.info(target_nodes=node)
    assert (info["redis_mode"], info["cluster_enabled"], info["loading"]) == ("cluster", 1, 0)
    known = client.command(target_nodes=node)
    assert "get" in known
    assert client.command_count(target_nodes=node) == len(known)
    assert client.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]
    assert client.client_kill_filter(_id=2**40, target_nodes=node) == 0


def test_the_cluster_describes_itself(cluster: Cluster, client):
    addresses = {node["client"] for node in cluster.file()["nodes"]}
    info = client.cluster_info(target_nodes=primaries(client)[0])
    assert (info["cluster_state"], info["cluster_slots_ok"]) == ("ok", "16384")
    assert (info["cluster_known_nodes"], info["cluster_size"]) in (("3", "2"), ("3", "1"))
    nodes = client.cluster_nodes()
    assert set(nodes) == addresses
    masters = {it for it, node in nodes.items() if "master" in node["flags"]}
    assert masters == {cluster.node(cluster.leader(gid))["client"] for gid in (1, 2)}
    covered = [
        slot
        for node in nodes.values()
        for low, high in node["slots"]
        for slot in range(int(low), int(high) + 1)
    ]
    assert sorted(covered) == list(range(16384))
    by_slots = client.cluster_slots()
    assert sum(high - low + 1 for low, high in by_slots) == 16384
    assert {"{}:{}".format(*it["primary"][:2]) for it in by_slots.values()} == masters
    ids = {node["node_id"] for node in nodes.values()}
    for node in client.get_nodes():
        assert client.cluster_myid(target_node=node) in ids
    assert client.cluster_keyslot("{a}b") == client.cluster_keyslot("a")
    for shard in client.cluster_shards():
        assert {f"{it['ip']}:{it['port']}" for it in shard["nodes"]} <= addresses
        assert [it["role"] for it in shard["nodes"]].count("master") == 1
    for node_id in ids:
        assert set(client.cluster_replicas(node_id)) <= addresses


def test_readonly_readwrite_asking(cluster: Cluster):
    slot = key_slot(b"a")
    leader = cluster.wait_for_leader(1 if slot < 8192 else 2)
    moved = f"-MOVED {slot} {cluster.node(leader)['client']}\r\n".encode()
    with cluster.wire(leader) as wire:
        assert wire.ask("SET", "a", "1") == b"+OK\r\n"
    for name in cluster.names():
        with cluster.wire(name) as wire:
            for word in ("READONLY", "ASKING", "READWRITE"):
                assert wire.ask(word) == b"+OK\r\n"
                assert wire.ask("SET", "a", "1") == (b"+OK\r\n" if name == leader else moved)
                served = name == leader or word in ("READONLY", "ASKING")
                assert wire.ask("STRLEN", "a") == (b":1\r\n" if served else moved)


def test_quit_select_reset_and_inline(cluster: Cluster):
    with cluster.wire() as wire:
        wire.send(b"PING\r\nECHO 'a b'\r\n")
        assert [wire.line() for _ in range(3)] == [b"+PONG\r\n", b"$3\r\n", b"a b\r\n"]
        assert wire.ask("SELECT", 0) == b"+OK\r\n"
        assert wire.ask("SELECT", 1) == b"-ERR SELECT is not allowed in cluster mode\r\n"
        assert wire.ask("RESET") == b"+RESET\r\n"
        wire.send(command("QUIT") + command("PING"))
        assert wire.rest() == b"+OK\r\n"


def _owner(client, key):
    node = client.get_node_from_key(key)
    return f"{node.host}:{node.port}"
