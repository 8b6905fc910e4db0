"""redis-cli and redis-benchmark, as they come with Debian, against the cluster."""

import shutil
import subprocess

import pytest

from tests.cluster.nodes import Cluster

CLI = shutil.which("redis-cli")
BENCHMARK = shutil.which("redis-benchmark")
needs_cli = pytest.mark.skipif(CLI is None, reason="redis-cli is not installed")
needs_benchmark = pytest.mark.skipif(BENCHMARK is None, reason="redis-benchmark is not installed")


def run(*words, **options):
    command = [str(word) for word in words]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def port(cluster: Cluster, name="n1"):
    return cluster.node(name)["client"].rpartition(":")[2]


@needs_cli
@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli_follows_the_cluster(cluster: Cluster, protocol):
    keys = [f"cli{n}" for n in range(20)]
    for name in cluster.names():
        script = "".join(f"set {key} {name}-{key}\nget {key}\n" for key in keys)
        out = run(CLI, protocol, "-c", "-p", port(cluster, name), input=script)
        lines = [line for line in out.splitlines() if not line.startswith("-> Redirected")]
        assert lines == [line for key in keys for line in ("OK", f"{name}-{key}")]


@needs_cli
def test_redis_cli_checks_the_cluster(cluster: Cluster):
    with cluster.client() as client:
        client.flushall()
        for n in range(50):
            client.set(f"key{n}", n)
    where = cluster.node("n1")["client"]
    out = run(CLI, "--cluster", "check", where)
    assert "[OK] All nodes agree about slots configuration." in out
    assert "[OK] All 16384 slots covered." in out
    assert "[OK] 50 keys in" in run(CLI, "--cluster", "info", where)


@needs_cli
def test_redis_cli_sees_errors_word_for_word(cluster: Cluster):
    out = run(CLI, "-p", port(cluster), input="get\nfoo bar\nset a b c\ncluster foo\nhello 9\n")
    assert out.splitlines() == [
        "ERR wrong number of arguments for 'get' command",
        "",
        "ERR unknown command 'foo', with args beginning with: 'bar' ",
        "",
        "ERR syntax error",
        "",
        "ERR unknown subcommand 'foo'. Try CLUSTER HELP.",
        "",
        "NOPROTO unsupported protocol version",
        "",
    ]


@needs_benchmark
def test_redis_benchmark_loads_the_cluster(cluster: Cluster):
    masters = {cluster.wait_for_leader(gid) for gid in (1, 2)}
    words = ["-c", 50, "-P", 16, "-n", 20000, "-r", 1000, "-t", "set,get", "--csv"]
    if len(masters) > 1:  # it calls a cluster of one master invalid
        words.append("--cluster")
    with cluster.client() as client:
        client.flushall()
        out = run(BENCHMARK, "-p", port(cluster, masters.pop()), *words)
        rows = [line.split(",") for line in out.splitlines() if line.startswith(('"SET"', '"GET"'))]
        assert [row[0] for row in rows] == ['"SET"', '"GET"']
        assert all(float(row[1].strip('"')) > 0 for row in rows)
        assert client.dbsize(target_nodes="primaries") >= 990  # of 1000 keys, each drawn 20 times
