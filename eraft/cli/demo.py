"""`eraft demo`: a real cluster, shown and broken, every line checked."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eraft._impl import hashing
from eraft.cli import admin, cluster_file, cluster_nodes, processes, status
from eraft.cli.arguments import CommandFailed, add_command
from eraft.cli.cluster_file import NodeEntry
from eraft.cli.demo_writer import Writer, stock_client
from eraft.types import BUCKETS

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

KEYS = 3000
WRITES_BEFORE = 300
WRITES_AFTER = 300
GAP_LIMIT_S = 3.0
WAIT_S = 15.0
SEGMENT_SIZE_BYTES = 4 * 1024 * 1024
READ_BATCH = 500
BALANCE_INTERVAL_S = 1

TEXT = """
Starts 3 node processes on loopback that host the metaserver and 2 data groups
with 3 replicas each, uses them with redis-py (and redis-cli where it is
installed), kills a leader and then all nodes, and checks that no acknowledged
write is lost. Ends all processes and removes its directory. Needs redis-py.

Exit status 0 if every check held, 1 if one did not; it is named.
"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "demo", run, "show a cluster that loses nodes but no writes", TEXT
    )
    parser.add_argument(
        "--dir", metavar="DIR", help="a fresh directory (default: ./demo-..., on a real disk)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the nodes running and keep the directory"
    )


def run(args: argparse.Namespace) -> int:
    try:
        import redis  # noqa: F401
    except ImportError:
        raise CommandFailed("the demo uses redis-py: pip install 'redis>=5'") from None
    if args.dir:
        directory = Path(args.dir).absolute()
        if directory.exists() and any(directory.iterdir()):
            raise CommandFailed(f"{directory} is not empty: the demo needs a fresh directory")
    else:
        directory = Path(tempfile.mkdtemp(prefix="demo-", dir=Path.cwd()))
    demo = Demo(directory)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        demo.show()
    except CommandFailed as failure:
        print(f"\nFAILED: {failure}", flush=True)
        demo.show_logs()
        return 1
    finally:
        if args.keep:
            print(f"kept: eraft cluster stop --dir {directory}")
        else:
            demo.remove()
        signal.signal(signal.SIGTERM, before)
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


class Demo:
    """The steps, in order; each says what it does and checks what it says."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._start_s = time.monotonic()
        self._expected: dict[str, str] = {}
        self._unknown = 0
        self._gap_s = 0.0
        self._client: Any = None

    def show(self) -> None:
        self._start()
        self._config_table()
        self._stock_client()
        self._redis_cli()
        writer, victim = self._start_writer()
        try:
            self._kill_leader(writer, victim)
            self._restart_killed(writer, victim)
            self._kill_all(writer)
        finally:
            writer.stop()
        self._say("")
        self._say(
            f"writes acknowledged: {len(self._expected)}, lost: 0, outcome unknown: "
            f"{self._unknown}, gap after the kill: {self._gap_s * 1000:.0f} ms"
        )
        self._say("every check held")

    # How it speaks

    def _say(self, text: str) -> None:
        elapsed_s = time.monotonic() - self._start_s
        print(f"[{elapsed_s:5.1f} s] {text}" if text else "", flush=True)

    def _check(self, holds: bool, text: str, failure: str = "") -> None:
        """Print a line that is true, or end the demo."""
        if not holds:
            raise CommandFailed(failure or f"not true: {text}")
        self._say(f"  ok: {text}")

    def _eraft(self, *words: str) -> None:
        """Run a command of the console script as one would type it, and show what it prints."""
        self._say(f"$ eraft {' '.join(words)}")
        result = subprocess.run(
            [sys.executable, "-P", "-m", "eraft", *words],
            check=False,
            capture_output=True,
            text=True,
        )
        for line in (result.stdout + result.stderr).splitlines():
            self._say(f"    {line}")
        if result.returncode:
            raise CommandFailed(f"eraft {words[0]} ended with exit status {result.returncode}")

    def _wait(self, condition: Callable[[], bool], text: str, writer: Writer | None = None) -> None:
        """Wait for something to become true, while the writer runs if there is one."""

        def failure() -> str:
            return writer.failure if writer else ""

        if not processes.wait_until(lambda: bool(failure()) or condition(), WAIT_S):
            raise CommandFailed(f"after {WAIT_S:g} s still not: {text}")
        self._check(not failure(), text, failure())

    def _cluster(self) -> cluster_file.Cluster:
        return cluster_file.read(self._directory)

    def _report(self) -> status.Status:
        addresses = {node.id: node.admin for node in self._cluster().nodes}
        return status.gather(addresses, count_keys=True)

    def _connect(self, node: NodeEntry) -> None:
        """A new stock client, which learns the cluster from one node."""
        if self._client is not None:
            self._client.close()
        self._client = stock_client(node.client)

    def _group(self, gid: int) -> status.Status:
        return next(group for group in self._report()["groups"] if group["gid"] == gid)

    # What it shows

    def _start(self) -> None:
        self._say("A cluster: 3 processes, the metaserver and 2 data groups with 3 replicas each")
        words = ["--nodes", "3", "--groups", "2", "--replicas", "3"]
        words += ["--segment-size-bytes", str(SEGMENT_SIZE_BYTES)]
        words += ["--balance-interval-s", str(BALANCE_INTERVAL_S)]
        self._eraft("cluster", "start", "--dir", str(self._directory), *words)
        cluster = self._cluster()
        pids = [node.pid for node in cluster.nodes if node.state == "running"]
        self._check(len(pids) == 3, f"3 processes run: {', '.join(map(str, pids))}")
        # What follows counts on the masters that the client knows: a fault may
        # move leaders from here on, the balancer does not.
        self._wait(self._leaders_spread, "each data group is led by another node")

    def _leaders_spread(self) -> bool:
        self._connect(self._cluster().nodes[0])
        return len(self._client.get_primaries()) == 2

    def _config_table(self) -> None:
        self._say("The config table, version by version")
        where = self._cluster().nodes[0].admin
        newest = admin.ask(where, "META", "QUERY")
        before = admin.ask(where, "META", "QUERY", 0)
        happened = []
        for version in range(1, newest["version"] + 1):
            table = admin.ask(where, "META", "QUERY", version)
            what = difference(before, table)
            happened.append(what.split()[0].rstrip(","))
            self._check(table["version"] == version, f"version {version}: {what}")
            before = table
        self._check(
            happened.count("group") == 2 and happened[-1] == "opened",
            "two groups joined, then the table was opened",
        )
        counts = {1: 0, 2: 0}
        for start, end, gid in newest["buckets"]:
            counts[gid] += end - start + 1
        self._check(
            counts == {1: BUCKETS // 2, 2: BUCKETS // 2},
            f"the {BUCKETS} buckets are split: {counts[1]} to group 1, {counts[2]} to group 2",
        )

    def _stock_client(self) -> None:
        import redis

        self._say(f"{KEYS} keys through redis-py {redis.__version__} RedisCluster, one by one")
        begin_s = time.monotonic()
        for n in range(KEYS):
            key, value = f"key:{n}", f"value {n}"
            if self._client.set(key, value) is not True:
                raise CommandFailed(f"SET {key} was not answered OK")
            self._expected[key] = value
        took_s = time.monotonic() - begin_s
        self._say(f"  ok: {KEYS} writes acknowledged, each on 2 disks, {KEYS / took_s:.0f}/s")
        self._read_back()
        total = self._client.dbsize(target_nodes="primaries")
        self._check(total == KEYS, f"DBSIZE, summed over the masters: {total}")
        keys = {gid: self._group(gid)["keys"] for gid in (1, 2)}
        self._check(
            min(keys.values()) > 0 and sum(keys.values()) == KEYS,
            f"both groups hold a part: {keys[1]} and {keys[2]} keys",
        )

    def _redis_cli(self) -> None:
        if shutil.which("redis-cli") is None:
            self._say("redis-cli is not installed: left out")
            return
        self._say("The same with redis-cli -c, through each of the nodes")
        for node in self._cluster().nodes:
            port = node.client.rpartition(":")[2]
            key, value = f"cli:{node.name}", f"by {node.name}"
            for words, wanted in ((["SET", key, value], "OK"), (["GET", key], value)):
                command = ["redis-cli", "-c", "-p", port, *words]
                result = subprocess.run(command, check=False, capture_output=True, text=True)
                got = (result.stdout or result.stderr).strip()
                self._check(got == wanted, f"$ {shlex.join(command)} -> {got}")
            self._expected[key] = value

    def _start_writer(self) -> tuple[Writer, NodeEntry]:
        cluster = self._cluster()
        victim = cluster.node(str(self._group(1)["leader"]))
        other = self._survivor(victim)
        self._say(f"{victim.name} leads group 1: a writer starts, and then {victim.name} is killed")
        table = admin.ask(other.admin, "META", "QUERY")
        writer = Writer("demo-writer", other.client, keys_of(table, 1))
        writer.start()
        return writer, victim

    def _survivor(self, victim: NodeEntry) -> NodeEntry:
        return next(node for node in self._cluster().nodes if node.id != victim.id)

    def _kill_leader(self, writer: Writer, victim: NodeEntry) -> None:
        self._wait(lambda: writer.since(0) >= WRITES_BEFORE, "the writer writes", writer)
        before_s = time.monotonic()
        self._eraft("cluster", "kill", victim.name, "--dir", str(self._directory))
        gone_s = time.monotonic()
        self._wait(
            lambda: writer.since(gone_s) >= WRITES_AFTER,
            f"writes flow again while {victim.name} is dead",
            writer,
        )
        self._gap_s = writer.gap_s(before_s)
        self._check(
            self._gap_s < GAP_LIMIT_S,
            f"the longest time between two acknowledged writes: {self._gap_s * 1000:.0f} ms",
            f"writes stood still for {self._gap_s:.1f} s, more than {GAP_LIMIT_S:g} s",
        )
        self._wait(
            lambda: all(group["leader"] for group in self._report()["groups"]),
            "every group has a leader among the nodes that live",
            writer,
        )
        self._connect(self._survivor(victim))
        self._read_back(writer)

    def _restart_killed(self, writer: Writer, victim: NodeEntry) -> None:
        self._say(f"{victim.name} is started again, the writer goes on")
        self._eraft("cluster", "restart", victim.name, "--dir", str(self._directory))
        goal = {group["gid"]: group["commit"] for group in self._report()["groups"]}
        self._wait(
            lambda: all(self._applied(victim, gid) >= index for gid, index in goal.items()),
            f"{victim.name} has caught up: "
            + ", ".join(f"group {gid} applied to {index}" for gid, index in goal.items()),
            writer,
        )

    def _applied(self, node: NodeEntry, gid: int) -> int:
        """How far the node has applied a group; -1 where it has no replica."""
        groups = admin.ask(node.admin, "STATUS")["groups"]
        return max((group["applied"] for group in groups if group["gid"] == gid), default=-1)

    def _kill_all(self, writer: Writer) -> None:
        pids = [node.pid for node in self._cluster().nodes if node.pid is not None]
        self._say(
            f"SIGKILL to all nodes at once, pids {', '.join(map(str, pids))}; the writer runs"
        )
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        gone = [processes.wait_gone(pid, WAIT_S) for pid in pids]
        self._check(len(gone) == 3 and all(gone), "all 3 processes are gone")
        writer.stop()
        if writer.failure:
            raise CommandFailed(writer.failure)
        self._expected.update(writer.acknowledged)
        self._say(
            f"  the writer: {len(writer.acknowledged)} writes acknowledged, outcome unknown of "
            f"{len(writer.unknown)}, certainly not executed and repeated {writer.refused}"
        )
        self._eraft("cluster", "start", "--dir", str(self._directory))
        self._connect(self._cluster().nodes[0])
        self._read_back()
        self._eraft("cluster", "status", "--dir", str(self._directory))
        self._unknown = len(writer.unknown)

    def _read_back(self, writer: Writer | None = None) -> None:
        """Read every acknowledged write; each has to be there with its value."""
        expected = self._expected | (dict(writer.acknowledged) if writer else {})
        lost = []
        for keys in batches(list(expected), READ_BATCH):
            values = self._client.mget_nonatomic(keys)
            lost += [key for key, got in zip(keys, values, strict=True) if got != expected[key]]
        self._check(
            not lost,
            f"all {len(expected)} acknowledged writes read back, lost: 0",
            f"{len(lost)} of {len(expected)} acknowledged writes are lost, such as {lost[:3]}",
        )

    # How it ends

    def show_logs(self) -> None:
        """The end of each node's log, to see why a check failed."""
        for log in sorted(self._directory.glob("*.log")):
            print(f"the end of {log}:\n{processes.log_tail(str(log))}")

    def remove(self) -> None:
        """End all processes and remove the directory."""
        if self._client is not None:
            self._client.close()
        if cluster_file.exists(self._directory):
            with cluster_file.changing(self._directory) as cluster:
                for node in cluster.nodes:
                    if node.pid is not None:
                        cluster_nodes.kill(node)
        shutil.rmtree(self._directory, ignore_errors=True)


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What a version of the config table changed, in words."""
    if after["opened"] and not before["opened"]:
        return f"opened, {len(after['buckets'])} ranges of buckets have owners"
    for gid, group in after["groups"].items():
        if gid not in before["groups"]:
            nodes = ", ".join(str(replica["node_id"]) for replica in group["replicas"])
            return f"group {gid} joined, replicas on the nodes {nodes}"
    for node_id, node in after["nodes"].items():
        if node != before["nodes"].get(node_id):
            return f"node {node_id} registered, its clients use {node['client']}"
    return "nothing that the demo knows"


def keys_of(table: dict[str, Any], gid: int) -> Iterator[str]:
    """Endlessly many different keys that belong to a group."""
    ranges = [(start, end) for start, end, owner in table["buckets"] if owner == gid]
    for n in itertools.count():
        bucket = hashing.bucket_of(b"write:%d" % n)
        if any(start <= bucket <= end for start, end in ranges):
            yield f"write:{n}"


def batches(items: list[str], count: int) -> Iterator[list[str]]:
    for n in range(0, len(items), count):
        yield items[n : n + count]
