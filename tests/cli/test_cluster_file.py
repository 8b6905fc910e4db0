"""cluster.json: what it holds, that it is replaced whole, and its lock."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict

import pytest

from eraft.cli import cluster_file, cluster_start
from eraft.cli.arguments import CommandFailed
from eraft.cli.cluster_file import Cluster
from eraft.cli.cluster_start import Plan
from eraft.errors import ConfigError


def plan(nodes=None, groups=None, replicas=None, base_port=None, **settings):
    return Plan(nodes, groups, replicas, base_port, settings)


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return cluster_start.new_cluster(tmp_path, plan(base_port=9000, segment_size_bytes=4194304))


def test_its_contents(cluster, tmp_path):
    cluster_file.write(tmp_path, cluster)
    stored = json.loads((tmp_path / "cluster.json").read_text())
    assert list(stored) == ["cluster_id", "metaserver", "nodes", "groups"]
    assert stored["metaserver"] == ["n1", "n2", "n3"]
    assert stored["groups"] == [
        {"gid": 1, "nodes": ["n1", "n2", "n3"]},
        {"gid": 2, "nodes": ["n2", "n3", "n1"]},
    ]
    second = stored["nodes"][1]
    data_dir = str(tmp_path / "n2")
    assert second == {
        "name": "n2",
        "id": 2,
        "state": "stopped",
        "pid": None,
        "client": "127.0.0.1:9001",
        "peer": "127.0.0.1:9004",
        "admin": "127.0.0.1:9007",
        "data_dir": data_dir,
        "log": str(tmp_path / "n2.log"),
        "command": [
            *(sys.executable, "-P", "-m", "eraft", "serve", "--data-dir", data_dir),
            *("--client", "127.0.0.1:9001", "--peer", "127.0.0.1:9004"),
            *("--admin", "127.0.0.1:9007", "--segment-size-bytes", "4194304"),
        ],
    }


def test_what_is_written_is_read_again(cluster, tmp_path):
    cluster_file.write(tmp_path, cluster)
    assert asdict(cluster_file.read(tmp_path)) == asdict(cluster)
    assert not list(tmp_path.glob("*.tmp"))


def test_nodes_are_found_by_name_and_id(cluster):
    assert cluster.node("n3") is cluster.node("3") is cluster.nodes[2]
    with pytest.raises(ConfigError, match="no node 'n4'; there are n1, n2, n3"):
        cluster.node("n4")


@pytest.mark.parametrize(
    ("nodes", "metaserver", "groups"),
    [
        (1, ["n1"], [["n1"], ["n1"]]),
        (2, ["n1"], [["n1", "n2"], ["n2", "n1"]]),
        (5, ["n1", "n2", "n3"], [["n1", "n2", "n3"], ["n2", "n3", "n4"]]),
    ],
)
def test_groups_go_round_the_nodes(tmp_path, nodes, metaserver, groups):
    cluster = cluster_start.new_cluster(tmp_path, plan(nodes=nodes, base_port=9000))
    assert cluster.metaserver == metaserver
    assert [group.nodes for group in cluster.groups] == groups


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"nodes": 2, "replicas": 3}, "--replicas 3: a group has at most one replica on each"),
        ({"nodes": 9, "replicas": 9}, "at most 7"),
        ({"base_port": 80}, "--base-port 80: 3 nodes need 9 ports from 1024 on and below 32768"),
        ({"base_port": 32760}, "--base-port 32760: 3 nodes need 9 ports"),
    ],
)
def test_flags_that_cannot_be_are_refused(tmp_path, flags, complaint):
    with pytest.raises(ConfigError, match=complaint):
        cluster_start.new_cluster(tmp_path, plan(**flags))


def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(cli, tmp_path):
    (tmp_path / "thesis.tex").touch()
    result = cli("cluster", "start", "--dir", tmp_path)
    assert result.status == 2
    assert f"{tmp_path} is not empty" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"nodes": 3, "groups": 2, "replicas": 3, "base_port": 9000},
        {"segment_size_bytes": 4194304},
    ],
)
def test_the_same_flags_are_accepted_again(cluster, same):
    cluster_start.check_same(cluster, plan(**same))


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"nodes": 5}, "--nodes 5: the cluster was made with 3"),
        ({"groups": 1}, "--groups 1: the cluster was made with 2"),
        ({"replicas": 1}, "--replicas 1: the cluster was made with 3"),
        ({"base_port": 9001}, "--base-port 9001: the cluster was made with 9000"),
        ({"segment_size_bytes": 1}, "--segment-size-bytes 1: the cluster was made with 4194304"),
        ({"tick_s": 0.1}, "--tick-s 0.1: the cluster was made with the default"),
    ],
)
def test_other_flags_are_refused(cluster, other, complaint):
    with pytest.raises(ConfigError, match=complaint):
        cluster_start.check_same(cluster, plan(**other))


def test_a_dead_node_is_stopped_whatever_the_file_says(cluster, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    cluster.nodes[0].pid, cluster.nodes[0].state = gone.pid, "running"
    cluster.nodes[1].pid, cluster.nodes[1].state = os.getpid(), "running"  # somebody else by now
    cluster_file.write(tmp_path, cluster)
    assert [(it.state, it.pid) for it in cluster_file.read(tmp_path).nodes] == [
        ("stopped", None)
    ] * 3


def test_a_reader_never_sees_half_a_file(cluster, tmp_path):
    cluster_file.write(tmp_path, cluster)
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(len(json.loads((tmp_path / "cluster.json").read_bytes())["nodes"]))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(50):
            cluster_file.write(tmp_path, cluster)
    finally:
        done.set()
        reader.join()
    assert seen
    assert set(seen) == {3}


def test_the_lock_keeps_another_process_waiting(tmp_path):
    script = (
        "import sys, pathlib; from eraft.cli import cluster_file\n"
        "print('asks', flush=True)\n"
        f"with cluster_file.locked(pathlib.Path({str(tmp_path)!r})): print('has it', flush=True)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    with cluster_file.locked(tmp_path):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "asks\n"
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.2)
        except BaseException:
            other.kill()
            other.wait()
            raise
    with other:
        assert other.stdout.readline() == "has it\n"
    assert other.returncode == 0


def test_one_command_at_a_time_changes_the_members_and_others_do_not_wait(cluster, tmp_path):
    cluster_file.write(tmp_path, cluster)
    with cluster_file.changing_members(tmp_path) as inside:
        with (
            pytest.raises(CommandFailed, match="another command changes the members"),
            cluster_file.changing_members(tmp_path),
        ):
            raise AssertionError
        inside.nodes.pop()
        with cluster_file.changing(tmp_path) as other:  # it would wait for ever
            assert len(other.nodes) == 3
    assert len(cluster_file.read(tmp_path).nodes) == 2
    with cluster_file.changing_members(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"cluster_id": "c", "metaserver": [], "nodes": [{}], "groups": []}', "is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, complaint):
    (tmp_path / "cluster.json").write_bytes(text)
    with pytest.raises(ConfigError, match=f"{tmp_path / 'cluster.json'} {complaint}"):
        cluster_file.read(tmp_path)


@pytest.mark.parametrize("words", [["stop"], ["status"], ["kill", "n1"], ["restart", "n1"]])
def test_a_directory_without_a_cluster_is_left_alone(cli, tmp_path, words):
    result = cli("cluster", *words, "--dir", tmp_path)
    assert result.status == 2
    assert f"{tmp_path} has no cluster.json" in result.err
    assert not list(tmp_path.iterdir())
