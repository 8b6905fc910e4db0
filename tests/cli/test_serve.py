"""`eraft serve` and `eraft meta`: one node as an operator runs it, and what it refuses."""

import json
import shutil
import signal
import socket
import subprocess

import pytest

from eraft.cli import processes
from eraft.cli.cluster_file import choose_base_port
from tests.cli.local import ERAFT, SEGMENT_SIZE_BYTES, Local, answers, eraft, read_pid, wait_until


class Node:
    """A single node with a directory and ports of its own."""

    def __init__(self, path, local, node_id=1, metaserver=None, cluster_id="test"):
        self.path = path
        self.log = path.with_suffix(".log")
        self.local = local
        base = choose_base_port(1)
        self.client, self.peer, self.admin = (f"127.0.0.1:{base + n}" for n in range(3))
        self.init = [
            *("init", "--data-dir", path, "--cluster-id", cluster_id, "--node-id", node_id),
            *("--metaserver", metaserver or f"{node_id}={self.peer}"),
            *("--segment-size-bytes", SEGMENT_SIZE_BYTES),
        ]
        self.flags = [
            *("serve", "--data-dir", str(path), "--client", self.client, "--peer", self.peer),
            *("--admin", self.admin, "--segment-size-bytes", str(SEGMENT_SIZE_BYTES)),
        ]

    def start(self):
        process = self.local.serve([*ERAFT, *self.flags], self.log)
        wait_until(lambda: answers(self.admin) or process.poll() is not None, "the node answers")
        assert process.poll() is None, self.log.read_text()
        return process

    def refused(self):
        """Serve, which must not start; its messages."""
        result = eraft(*self.flags)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr


@pytest.fixture
def local(tmp_path):
    local = Local(tmp_path)
    yield local
    local.end()


@pytest.fixture
def node(tmp_path, local):
    node = Node(tmp_path / "n1", local)
    assert eraft(*node.init).returncode == 0
    return node


def ask(operation, *words):
    result = eraft("meta", operation, *words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_sigterm_stops_a_node_cleanly(node):
    process = node.start()
    assert read_pid(node.path) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert read_pid(node.path) is None
    text = node.log.read_text()
    assert f"serves clients at {node.client}, peers at {node.peer}, admin at {node.admin}" in text
    assert "INFO stopping: SIGTERM" in text
    assert text.splitlines()[-1].endswith("INFO stopped")
    assert "WARNING" not in text


def test_the_file_says_what_flags_would(node):
    toml = node.path.with_suffix(".toml")
    toml.write_text(
        f'data_dir = "{node.path}"\nclient = "{node.client}"\npeer = "{node.peer}"\n'
        f'admin = "127.0.0.1:1"\nsegment_size_bytes = {SEGMENT_SIZE_BYTES}\n'
    )
    node.flags = ["serve", "--config", str(toml), "--admin", node.admin]
    node.start()
    assert answers(node.client)


def test_a_node_by_hand_becomes_a_cluster(node):
    node.start()
    where = ("--node", node.admin)

    def registered():
        table = eraft("meta", "query", *where, "--json")
        return table.returncode == 0 and json.loads(table.stdout)["nodes"]["1"]["store_id"]

    wait_until(registered, "the node registers")
    before = ask("query", *where)["version"]
    assert ask("join", 7, 1, *where)["version"] == before + 1
    assert ask("open", *where)["version"] == before + 2
    assert ask("query", *where)["buckets"] == [[0, 16383, 7]]
    assert ask("query", before + 1, *where)["buckets"] == []
    shown = eraft("meta", "query", *where).stdout
    assert "group 7: nodes 1; weight 1, 16384 buckets 0-16383" in shown
    late = eraft("meta", "join", 8, 1, *where)
    assert "config table version" in late.stdout
    assert "stays empty" in late.stdout


def test_what_the_metaserver_refuses_is_status_1(node):
    node.start()
    wait_until(lambda: eraft("meta", "query", "--node", node.admin).returncode == 0, "a leader")
    for words, complaint in (
        (("join", 7, 4), "node 4 has not registered"),
        (("open",), "no group has joined"),
        (("query", 99), "no version 99"),
        (("leave", 7), "not"),
        (("move", 7, 1), "not"),
    ):
        result = eraft("meta", *words, "--node", node.admin)
        assert (result.returncode, result.stdout) == (1, "")
        assert complaint in result.stderr


@pytest.mark.parametrize("kind", ["client", "peer", "admin"])
def test_a_port_in_use_is_named(node, kind):
    address = getattr(node, kind)
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert f"{kind} address {address}: Address already in use" in node.refused()
    node.start()  # and is no problem when it is free again


def test_a_directory_in_use_is_named(node):
    process = node.start()
    other = Node(node.path, node.local)
    assert f"{node.path} is in use by another process, pid {process.pid}" in other.refused()
    assert answers(node.client)


def test_an_unformatted_directory_is_refused(tmp_path, local):
    node = Node(tmp_path / "n1", local)
    assert f"{node.path} is not a directory" in node.refused()
    node.path.mkdir()
    assert f"{node.path} is not formatted" in node.refused()


def test_a_newer_format_is_refused(node):
    path = node.path / "identity.json"
    identity = json.loads(path.read_text())
    path.write_text(json.dumps({**identity, "format_version": 2}))
    assert "has format version 2, this program knows 1" in node.refused()


def test_a_log_of_another_node_is_refused(node, tmp_path, local):
    other = Node(tmp_path / "n2", local)
    assert eraft(*other.init).returncode == 0
    shutil.rmtree(node.path / "log")
    shutil.copytree(other.path / "log", node.path / "log")
    assert str(node.path / "log") in node.refused() or "store" in node.refused()


def test_a_wiped_node_is_refused_under_its_old_id(tmp_path, local):
    """Its peers remember its store; under the old id it could vote a second time."""
    assert local.start("--segment-size-bytes", SEGMENT_SIZE_BYTES).returncode == 0
    victim = local.node("n3")
    store_id = json.loads((tmp_path / "n3" / "identity.json").read_text())["store_id"]
    assert local.cluster("kill", "n3").returncode == 0
    shutil.rmtree(tmp_path / "n3")
    stored = local.file()
    founding = ",".join(f"{it['id']}={it['peer']}" for it in stored["nodes"])
    identity = ("--cluster-id", stored["cluster_id"], "--node-id", 3, "--metaserver", founding)
    size = ("--segment-size-bytes", SEGMENT_SIZE_BYTES)
    assert eraft("init", "--data-dir", tmp_path / "n3", *identity, *size).returncode == 0
    local.serve(victim["command"], tmp_path / "again.log")
    wait_until(
        lambda: "node 3 comes with another store" in (tmp_path / "again.log").read_text(),
        "its peers refuse the node, and it says so",
    )
    assert "node 3 comes with another store" in local.log("n1")
    table = ask("query", "--node", local.node("n1")["admin"])
    assert table["nodes"]["3"]["store_id"] == store_id


def test_a_node_of_another_cluster_is_refused(node, tmp_path, local):
    node.start()
    stranger = Node(tmp_path / "n2", local, 2, f"1={node.peer},2=127.0.0.1:1", cluster_id="other")
    assert eraft(*stranger.init).returncode == 0
    stranger.start()
    wait_until(lambda: "cluster" in node.log.read_text().partition("serves")[2], "it is refused")
    assert "other" in node.log.read_text()
    assert answers(node.client)


def test_a_terminal_sees_usage_not_a_traceback(tmp_path):
    process = subprocess.Popen(
        [*ERAFT, "serve", "--data-dir", str(tmp_path), "--tick-s", "0"], stderr=subprocess.PIPE
    )
    assert processes.wait_gone(process.pid, 30)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors == b"eraft: --tick-s: 0.0 is not a positive number\n"
