"""`eraft cluster`: real processes, started, killed, paused and found again."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

from eraft.cli import processes
from eraft.cli.cluster_file import choose_base_port
from tests.cli.local import SEGMENT_SIZE_BYTES, Local, answers, eraft, read_pid, wait_until

FLAGS = ("--segment-size-bytes", SEGMENT_SIZE_BYTES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    local = Local(tmp_path_factory.mktemp("cluster"))
    try:
        result = local.start(*FLAGS)
        assert result.returncode == 0, result.stderr
        yield local
    finally:
        local.end()


@pytest.fixture
def local(made):
    """The module's cluster with all its nodes running."""
    assert made.start().returncode == 0
    return made


@pytest.fixture
def client(local):
    host, port = local.node("n1")["client"].split(":")
    with RedisCluster(host=host, port=int(port), socket_timeout=5, decode_responses=True) as client:
        yield client


def test_start_returns_when_the_cluster_serves(local, client):
    report = local.status()
    assert report["opened"]
    assert sum(group["buckets"] or 0 for group in report["groups"]) == 16384
    assert {node["table_version"] for node in report["nodes"]} == {report["table_version"]}
    assert all(group["leader"] for group in report["groups"])
    for n in range(20):
        client.set(f"key{n}", n)
    assert [client.get(f"key{n}") for n in range(20)] == [str(n) for n in range(20)]


def test_the_file_tells_the_truth(local):
    stored = local.file()
    assert stored["metaserver"] == ["n1", "n2", "n3"]
    assert [group["gid"] for group in stored["groups"]] == [1, 2]
    for node in stored["nodes"]:
        assert node["state"] == "running"
        assert processes.state(node["pid"], node["data_dir"]) == "running"
        assert read_pid(node["data_dir"]) == node["pid"]
        assert os.getsid(node["pid"]) == node["pid"]
        for kind in ("client", "peer", "admin"):
            assert int(node[kind].rpartition(":")[2]) < 32768
        assert answers(node["client"])
        assert answers(node["admin"])


def test_starting_again_changes_nothing(local):
    before = local.file()
    result = local.start("--nodes", 3, *FLAGS)
    assert result.returncode == 0
    assert local.file() == before


def test_other_flags_are_refused(local):
    before = local.file()
    result = local.start("--nodes", 5)
    assert result.returncode == 2
    assert "--nodes 5: the cluster was made with 3" in result.stderr
    assert local.file() == before


def test_a_killed_node_is_gone_when_kill_returns(local):
    pid = local.node("n2")["pid"]
    result = local.cluster("kill", "n2")
    assert result.returncode == 0
    assert processes.wait_gone(pid, 0)
    assert (local.node("n2")["state"], local.node("n2")["pid"]) == ("stopped", None)
    down = [node["node_id"] for node in local.status()["nodes"] if "error" in node]
    assert down == [2]
    assert "DOWN" in local.cluster("status").stdout


def test_writes_go_on_without_a_node_and_it_catches_up(local, client):
    victim = local.status()["groups"][1]["leader"]
    local.cluster("kill", f"n{victim}")
    wait_until(
        lambda: all(group["leader"] for group in local.status()["groups"]),
        "all groups have leaders",
    )
    survivor = next(node for node in local.file()["nodes"] if node["id"] != victim)
    host, port = survivor["client"].split(":")
    with RedisCluster(host=host, port=int(port), socket_timeout=5) as other:
        for n in range(50):
            assert other.set(f"without{n}", n)
    result = local.cluster("restart", victim)
    assert result.returncode == 0, result.stderr
    assert answers(local.node(f"n{victim}")["client"])
    goal = {group["gid"]: group["commit"] for group in local.status()["groups"]}

    def caught_up() -> bool:
        own = next(node for node in local.status()["nodes"] if node["node_id"] == victim)
        return all(group["applied"] >= goal[group["gid"]] for group in own["groups"])

    wait_until(caught_up, f"node {victim} has applied {goal}")
    assert [client.get(f"without{n}") for n in range(50)] == [str(n) for n in range(50)]


def test_restart_of_a_running_node_stops_it_first(local):
    before = local.node("n1")["pid"]
    result = local.cluster("restart", "n1")
    assert result.returncode == 0
    assert processes.wait_gone(before, 0)
    assert local.node("n1")["pid"] != before
    assert answers(local.node("n1")["client"])


def test_a_paused_node_is_paused_until_it_is_resumed(local):
    pid = local.node("n3")["pid"]
    assert local.cluster("pause", "n3").returncode == 0
    node = local.node("n3")
    assert (node["state"], node["pid"]) == ("paused", pid)
    assert processes.state(pid, node["data_dir"]) == "paused"
    assert not answers(node["client"])
    refused = local.start()
    assert refused.returncode == 1
    assert "n3 is paused" in refused.stderr
    assert local.cluster("resume", "n3").returncode == 0
    assert (local.node("n3")["state"], local.node("n3")["pid"]) == ("running", pid)
    assert answers(node["client"])


def test_what_cannot_be_done_is_said(local):
    assert "there is no node 'n9'; there are n1, n2, n3" in local.cluster("kill", "n9").stderr
    local.cluster("kill", "n2")
    result = local.cluster("pause", "n2")
    assert result.returncode == 1
    assert "n2 is stopped" in result.stderr


def test_the_command_runs_from_any_directory(local, tmp_path):
    local.cluster("kill", "n2")
    node = local.node("n2")
    process = local.serve(node["command"], tmp_path / "log")
    wait_until(lambda: answers(node["client"]), "n2 answers")
    local.cluster("status")
    assert local.start().returncode == 0
    assert (local.node("n2")["state"], local.node("n2")["pid"]) == ("running", process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert read_pid(node["data_dir"]) is None


def test_stop_and_start_keep_what_was_written(local, client):
    client.set("kept", "yes")
    pids = [node["pid"] for node in local.file()["nodes"]]
    result = local.cluster("stop")
    assert result.returncode == 0, result.stderr
    assert all(processes.wait_gone(pid, 0) for pid in pids)
    assert [(node["state"], node["pid"]) for node in local.file()["nodes"]] == [
        ("stopped", None)
    ] * 3
    assert eraft("status", "--dir", local.directory).returncode == 1
    assert local.start().returncode == 0
    assert client.get("kept") == "yes"


@pytest.mark.parametrize("impl", ["python", "cython"])
def test_a_directory_serves_either_implementation(local, client, impl):
    """The cluster has one node of each kind beside the other, on the same directories."""
    client.set("before", impl)
    assert local.cluster("restart", "n2", ERAFT_IMPL=impl).returncode == 0
    impls = {node["node_id"]: node["impl"] for node in local.status()["nodes"]}
    assert impls[2] == impl
    client.set("after", impl)
    assert (client.get("before"), client.get("after")) == (impl, impl)


def test_a_start_that_fails_leaves_nothing_running(tmp_path):
    local = Local(tmp_path)
    base = choose_base_port(3)
    try:
        with socket.create_server(("127.0.0.1", base + 1)):
            result = local.start("--base-port", base, *FLAGS)
        assert result.returncode == 1
        assert "n2 did not stay up" in result.stderr
        assert f"client address 127.0.0.1:{base + 1}: Address already in use" in result.stderr
        assert [(it["state"], it["pid"]) for it in local.file()["nodes"]] == [("stopped", None)] * 3
        assert not list(Path(tmp_path).glob("n*/pid"))
    finally:
        local.end()


def test_one_node_is_a_cluster_too(tmp_path):
    local = Local(tmp_path)
    try:
        words = ("--nodes", 1, "--groups", 1, "--replicas", 1)
        assert local.start(*words, *FLAGS).returncode == 0
        assert local.file()["metaserver"] == ["n1"]
        result = subprocess.run(
            [*local.node("n1")["command"]], capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 2  # the directory, and the ports, are taken
        assert f"in use by another process, pid {local.node('n1')['pid']}" in result.stderr
    finally:
        local.end()
