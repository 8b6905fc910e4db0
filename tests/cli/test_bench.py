"""`eraft bench`: what it sends, how it follows a cluster, what it refuses to measure."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable

import pytest
import uvloop

from eraft._impl import TRACED, hashing
from eraft.cli.bench import OPERATIONS, describe, is_here, measurable
from eraft.cli.load import Latencies, Loader, Outcome, Topology, Workload, reply_end
from eraft.errors import ConfigError, EraftError
from tests.cli.local import SEGMENT_SIZE_BYTES, Local, eraft

measures = pytest.mark.skipif(TRACED, reason="traced: refused, as test_a_traced_build tells")

KEYS = [b"key:%d" % n for n in range(200)]


def load(topology: Topology, workload: Workload, requests: int, **how: int) -> Outcome:
    loader = Loader(
        topology,
        workload,
        range(len(workload.heads)),
        how.get("clients", 4),
        how.get("pipeline", 4),
        requests,
        None,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(loader.run())
    assert loader.share_done == 1.0
    assert outcome.finished + outcome.errors.total() == requests
    return outcome


def writes(value: bytes) -> Workload:
    return Workload.make("set", b"SET", KEYS, value)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    local = Local(tmp_path_factory.mktemp("bench"))
    try:
        result = local.start("--segment-size-bytes", SEGMENT_SIZE_BYTES)
        assert result.returncode == 0, result.stderr
        yield local
    finally:
        local.end()


@measures
def test_a_run_reports_every_operation(local, tmp_path):
    path = tmp_path / "figures.json"
    every = ",".join(OPERATIONS)
    words = ("--ops", every, "--requests", 300, "--clients", 8, "--keys", 50, "--json", path)
    result = eraft("bench", "--dir", local.directory, *words)
    assert result.returncode == 0, result.stderr
    report = json.loads(path.read_bytes())
    assert [row["op"] for row in report["operations"]] == list(OPERATIONS)
    for row in report["operations"]:
        assert row["operations"] == 300
        assert row["errors"] == {}
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p999_ms"]
        assert row["nodes_cpu_us_per_op"] >= 0
        assert row["ops_per_s"] > 0
        assert f"\n{row['op']} " in result.stdout
    assert "3 nodes" in result.stdout


@measures
def test_a_run_of_some_seconds_ends(local):
    where = local.node("n2")["admin"]
    result = eraft("bench", "--node", where, "--seconds", "0.3", "--ops", "get", "--pipeline", 16)
    assert result.returncode == 0, result.stderr
    assert "\nget " in result.stdout


@measures
def test_another_implementation_is_refused(local):
    impl = local.status()["nodes"][0]["impl"]
    other = "python" if impl == "cython" else "cython"
    result = eraft("bench", "--dir", local.directory, "--impl", other, "--requests", 1)
    assert result.returncode == 2
    assert f"runs the implementation {impl}, not {other}" in result.stderr
    assert result.stdout == ""


def test_redirections_are_followed_to_every_key(local):
    report = local.status()
    leaders = {group["leader"] for group in report["groups"] if group["gid"]}
    follower = next(node for node in report["nodes"] if node["node_id"] not in leaders)
    value = b"%d" % random.Random(7).randrange(10**9)
    topology = Topology([follower["client"]])  # not learnt: it thinks this node owns everything
    outcome = load(topology, writes(value), len(KEYS))
    assert (outcome.finished, dict(outcome.errors)) == (len(KEYS), {})
    assert outcome.retries > 0
    learnt = Topology([follower["client"]])
    learnt.learn()
    assert load(learnt, Workload.make("get", b"GET", KEYS, None), 2 * len(KEYS)).retries == 0
    for key in KEYS:
        bucket = hashing.bucket_of(key)
        assert topology.owners[bucket] == learnt.owners[bucket]


def test_a_command_names_its_key_and_the_value_all_share():
    workload = Workload.make("set", b"SET", [b"a", b"key:12"], b"v" * 11)
    sent = [head + workload.tail for head in workload.heads]
    assert sent == [
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$11\r\n" + b"v" * 11 + b"\r\n",
        b"*3\r\n$3\r\nSET\r\n$6\r\nkey:12\r\n$11\r\n" + b"v" * 11 + b"\r\n",
    ]
    assert workload.buckets == [hashing.bucket_of(b"a"), hashing.bucket_of(b"key:12")]
    assert Workload.make("get", b"GET", [b"a"], None).heads == [b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"]


@pytest.mark.parametrize(
    "reply", [b"+OK\r\n", b"-ERR x\r\n", b":12\r\n", b"$-1\r\n", b"_\r\n", b"$4\r\n\r\n\r\n\r\n"]
)
def test_the_end_of_a_reply(reply):
    for size in range(len(reply)):
        assert reply_end(b"+before\r\n" + reply[:size], 9) == 0
    assert reply_end(b"+before\r\n" + reply + b"+after\r\n", 9) == 9 + len(reply)


@pytest.mark.parametrize("reply", [b"*1\r\n", b"HTTP/1.1\r\n", b"$x\r\n", b"\r\n"])
def test_what_no_operation_is_answered_with(reply):
    with pytest.raises((ValueError, IndexError)):
        reply_end(reply, 0)


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        (b"-TIMEOUT outcome unknown\r\n", {"TIMEOUT outcome unknown": 1}),
        (b"-MOVED 99999 a:1\r\n", {"MOVED 99999 a:1": 1}),
        (b"-\r\n", {"": 1}),
        (b"HTTP/1.1 400 Bad Request\r\n", {"{where}: connection lost, outcome unknown": 1}),
        (b"$100\r\nhalf", {"{where}: connection lost, outcome unknown": 1}),
        (b"+OK\r\n", {}),
    ],
)
def test_replies_that_end_a_command(
    answering: Callable[[bytes], str], answer: bytes, errors: dict[str, int]
):
    where = answering(answer)
    outcome = load(Topology([where]), writes(b"v"), 1, clients=1, pipeline=1)
    assert dict(outcome.errors) == {
        text.format(where=where): count for text, count in errors.items()
    }
    assert outcome.retries == 0


def test_a_refused_command_is_tried_again(answering: Callable[[bytes], str], monkeypatch):
    monkeypatch.setattr("eraft.cli.load.GIVE_UP_S", 0.1)
    where = answering(b"-TRYAGAIN not now\r\n")
    outcome = load(Topology([where]), writes(b"v"), 1, clients=1, pipeline=1)
    # The next attempt either gets the same answer or finds the connection closed.
    assert outcome.retries >= 1
    assert outcome.errors.total() == 1


def test_a_node_that_is_not_there_is_given_up(monkeypatch):
    monkeypatch.setattr("eraft.cli.load.GIVE_UP_S", 0.1)
    outcome = load(Topology(["127.0.0.1:1"]), writes(b"v"), 3, clients=2, pipeline=2)
    assert outcome.finished == 0
    assert outcome.errors.total() == 3
    with pytest.raises(EraftError):
        Topology(["127.0.0.1:1"]).learn()


def test_percentiles_are_those_of_the_sorted_latencies():
    chance = random.Random(3)
    seen = [chance.expovariate(100) for _ in range(5000)] + [2.5, 3600.0]
    latencies = Latencies()
    for value_s in seen:
        latencies.add(value_s)
    seen.sort()
    found = latencies.percentiles_s((0.5, 0.99, 0.999))
    for fraction, value_s in zip((0.5, 0.99, 0.999), found, strict=True):
        exact_s = seen[max(0, -int(-fraction * len(seen) // 1) - 1)]
        assert value_s == pytest.approx(exact_s, abs=2e-6)
    assert latencies.percentiles_s((1.0,)) == [pytest.approx(59.999)]
    assert Latencies().percentiles_s((0.5, 0.99)) == [0.0, 0.0]


def test_a_traced_build_is_refused():
    good = {"node_id": 1, "traced": False, "impl": "cython"}
    assert measurable([good], "cython") == [good]
    with pytest.raises(ConfigError, match="node 2 runs a build with line tracing"):
        measurable([good, {"node_id": 2, "traced": True, "impl": "cython"}], None)


def test_errors_are_part_of_the_report():
    row = {
        "op": "set",
        "operations": 10,
        "ops_per_s": 5.0,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "p999_ms": 3.0,
        "nodes_cpu_us_per_op": None,
        "bench_cpu_share": 0.99,
        "retries": 4,
        "errors": {"TIMEOUT outcome unknown": 2},
    }
    head = dict.fromkeys(("nodes", "impl", "clients", "pipeline", "keys", "value_bytes"), 1)
    text = "\n".join(describe({**head, "operations": [row]}))
    assert "set: ERROR 2 x TIMEOUT outcome unknown" in text
    assert "the cluster may do more" in text
    assert "not all nodes run on this machine" in text


def test_addresses_of_this_machine():
    assert is_here("127.0.0.1")
    assert not is_here("192.0.2.1")  # TEST-NET-1, nobody's


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--ops", "set,fly"), "there is no operation 'fly'"),
        (("--clients", "0"), "0 is not a positive number"),
        (("--requests", "5", "--seconds", "5"), "not allowed with"),
        (("--keys", "10000001"), "--keys 10000001: at most"),
        (("--value-bytes", "99999999"), "--value-bytes 99999999: at most"),
    ],
)
def test_wrong_usage(cli, words, complaint):
    result = cli("bench", "--node", "127.0.0.1:1", *words)
    assert result.status == 2
    assert complaint in result.err
