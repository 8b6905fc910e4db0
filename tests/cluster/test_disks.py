"""Damaged logs, full disks and disks that cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from eraft import limits
from eraft.cli import processes
from eraft.errors import ConfigError
from eraft.storage.segments import HEADER_BYTES, HEADER_USED_BYTES
from tests.cli.local import eraft, wait_until
from tests.cluster.damage import bad_syncs, durable_byte, flipped, tear, used_bytes
from tests.cluster.nodes import Cluster, Node, Wire, command, segments

MIB = limits.MIB
SHUT_DOWN_S = 0.5
IMPATIENT = (
    *(sys.executable, "-P", "-c"),
    f"import sys; from eraft import limits; limits.SHUT_DOWN_S = {SHUT_DOWN_S};"
    "from eraft.cli.main import main; sys.exit(main(sys.argv[sys.argv.index('serve') :]))",
)
"""Runs `eraft serve` with little patience for disks that do not answer."""


def follower(cluster: Cluster) -> str:
    """A node that leads none of the data groups."""
    leaders = {cluster.wait_for_leader(gid) for gid in (1, 2)}
    return next(name for name in cluster.names() if name not in leaders)


def test_a_flipped_bit_quarantines_the_node_and_the_others_go_on(cluster: Cluster) -> None:
    with cluster.client() as client:
        for n in range(100):
            client.set(f"before{n}", n)
        victim = follower(cluster)
        cluster.do("kill", victim)
        path, offset = durable_byte(Path(cluster.node(victim)["data_dir"]), Random(1))
        before = path.read_bytes()
        with flipped(path, offset):
            damaged = path.read_bytes()
            cluster.do("restart", victim)
            why = cluster.node_status(victim)["quarantined"]
            assert path.name in why
            assert cluster.node_status(victim)["groups"] == []
            assert why in eraft("status", "--dir", cluster.directory).stdout
            assert f"QUARANTINED: {why}" in cluster.log(victim)
            for n in range(100):
                assert client.set(f"after{n}", n)
                assert client.get(f"before{n}") == str(n)
            with cluster.wire(victim) as wire:
                assert wire.ask("SET", "a", "1").startswith((b"-MOVED ", b"+OK"))
            cluster.do("restart", victim)
            assert cluster.node_status(victim)["quarantined"] == why
            assert path.read_bytes() == damaged  # evidence, not to be touched
            cluster.do("kill", victim)
        assert path.read_bytes() == before
        cluster.mend()
        cluster.wait_equal()
        assert cluster.node_status(victim)["quarantined"] is None


def test_a_segment_that_is_gone_quarantines_the_node(cluster: Cluster, tmp_path: Path) -> None:
    victim = follower(cluster)
    cluster.do("kill", victim)
    path = segments(cluster.node(victim)["data_dir"])[0]
    path.rename(tmp_path / path.name)
    try:
        cluster.do("restart", victim)
        assert cluster.node_status(victim)["quarantined"]
        with cluster.client() as client:
            assert client.set("without", "it")
        cluster.do("kill", victim)
    finally:
        (tmp_path / path.name).rename(path)
    cluster.mend()
    cluster.wait_equal()


def test_a_torn_tail_is_dropped_and_the_node_goes_on(cluster: Cluster) -> None:
    """The node died before it had written its last record, which nobody acknowledged."""
    with cluster.client() as client:
        for n in range(100):
            client.set(f"torn{n}", n)
        victim = follower(cluster)
        cluster.do("kill", victim)
        name = tear(Path(cluster.node(victim)["data_dir"]))
        cluster.do("restart", victim)
        assert cluster.node_status(victim)["quarantined"] is None
        assert f"{name}: a torn tail of " in cluster.log(victim)
        cluster.wait_equal()
        assert [client.get(f"torn{n}") for n in range(100)] == [str(n) for n in range(100)]


def test_a_replica_that_lost_what_it_had_acknowledged_is_taken_out(cluster: Cluster) -> None:
    """Its own log cannot tell, but the leader remembers what was acknowledged."""
    with cluster.client() as client:
        assert client.set("acknowledged", "x" * 100)
        cluster.wait_equal()
        victim = follower(cluster)
        cluster.do("kill", victim)
        paths = segments(cluster.node(victim)["data_dir"])
        path = next(it for it in reversed(paths) if used_bytes(it) > HEADER_BYTES)
        before = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(used_bytes(path) - 9)
            file.write(bytes(9))
        cluster.cluster("restart", victim)
        wait_until(
            lambda: any(it["quarantined"] for it in cluster.groups(victim).values()),
            "the replica is quarantined",
        )
        assert "an acknowledged entry stays" in cluster.log(victim)
        assert client.strlen("acknowledged") == 100
        cluster.cluster("kill", victim)
        path.write_bytes(before)
    cluster.mend()
    cluster.wait_equal()


def test_a_lost_database_is_made_again_from_the_log(make_node: Callable[..., Node]) -> None:
    node = make_node().format().start()
    node.open()
    with Wire(node.client) as wire:
        for n in range(100):
            assert wire.ask("SET", f"key{n}", "x" * n) == b"+OK\r\n"
    assert node.stop(signal.SIGTERM) == 0
    for file in (node.path / "state").iterdir():
        file.unlink()
    node.start()
    wait_until(lambda: node.status()["groups"][-1]["serving"], "it leads again")
    with Wire(node.client) as wire:
        lengths = [wire.ask("STRLEN", f"key{n}") for n in range(100)]
    assert lengths == [b":%d\r\n" % n for n in range(100)]


# Full and read-only disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "none", path],
            check=False,
            capture_output=True,
        ).returncode
    )
    if not mounted:
        pytest.skip("only root can mount a small file system")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Take the room on a disk with another file."""
    filler = disk / "filler"
    figures = os.statvfs(disk)
    size = figures.f_bavail * figures.f_frsize - leave_bytes
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return filler


def test_init_on_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    filler = fill(small_disk, 1 * MIB)
    node = Node(small_disk / "n1")
    with pytest.raises(ConfigError, match="the disk of .* is full"):
        node.format()
    assert not node.path.exists() or list(node.path.iterdir()) == []
    filler.unlink()
    node.format()


def test_a_disk_full_at_start_is_named_or_writes_are_refused(
    small_disk: Path, make_node: Callable[..., Node]
) -> None:
    node = make_node(directory=small_disk).format()
    node.log = small_disk.parent / "n1.log"
    filler = fill(small_disk)
    said = node.refused()
    assert str(node.path) in said
    assert "full" in said or "No space left" in said
    filler.unlink()
    node.flags = ["--free-disk-bytes", str(8 * MIB)]
    node.start()


def test_a_disk_that_fills_up_while_running(
    small_disk: Path, make_node: Callable[..., Node]
) -> None:
    node = make_node("n1", "--free-disk-bytes", 8 * MIB, directory=small_disk).format()
    node.log = small_disk.parent / "n1.log"
    node.start().open()
    with Wire(node.client) as wire:
        for n in range(50):
            assert wire.ask("SET", f"key{n}", n) == b"+OK\r\n"
        filler = fill(small_disk, 4 * MIB)
        wait_until(lambda: node.status()["refuses_writes"] is not None, "writes are refused")
        refusal = wire.ask("SET", "key0", "no")
        assert refusal.startswith(b"-MISCONF eraft refuses writes: free disk space ")
        for words in (("MSET", "a", "1"), ("INCR", "n"), ("FLUSHALL",), ("DEL", "key1")):
            assert wire.ask(*words) == refusal
        assert wire.ask("GET", "key0") == b"$1\r\n"
        assert wire.line() == b"0\r\n"
        assert wire.ask("STRLEN", "key49") == b":2\r\n"
        filler.unlink()
        wait_until(lambda: node.status()["refuses_writes"] is None, "there is room again")
        assert wire.ask("SET", "key0", "yes") == b"+OK\r\n"
        fill(small_disk)
        wait_until(lambda: node.status()["refuses_writes"] is not None, "writes are refused")
        assert wire.ask("SET", "key0", "no") == b"-MISCONF" + wire_rest(node)
    node.stop()
    (small_disk / "filler").unlink()
    node.start()
    wait_until(lambda: node.status()["groups"][-1]["serving"], "it leads again")
    with Wire(node.client) as wire:
        assert wire.ask("GET", "key0") == b"$3\r\n"
        assert wire.line() == b"yes\r\n"
        assert wire.ask("DBSIZE") == b":50\r\n"
    assert "Traceback" not in node.text()


def wire_rest(node: Node) -> bytes:
    return f" eraft refuses writes: {node.status()['refuses_writes']}\r\n".encode()


def test_sigterm_on_a_full_disk_loses_nothing(
    small_disk: Path, make_node: Callable[..., Node]
) -> None:
    node = make_node("n1", "--free-disk-bytes", 8 * MIB, directory=small_disk).format()
    node.log = small_disk.parent / "n1.log"
    node.start().open()
    with Wire(node.client) as wire:
        for n in range(200):
            assert wire.ask("SET", f"key{n}", "x" * 1000) == b"+OK\r\n"
    filler = fill(small_disk)
    assert node.stop(signal.SIGTERM) == 0
    assert "state not flushed" in node.text()
    assert "Traceback" not in node.text()
    filler.unlink()
    node.start()
    wait_until(lambda: node.status()["groups"][-1]["serving"], "it leads again")
    with Wire(node.client) as wire:
        assert wire.ask("DBSIZE") == b":200\r\n"


def test_a_read_only_disk_is_named(small_disk: Path, make_node: Callable[..., Node]) -> None:
    node = make_node("n1", "--free-disk-bytes", 8 * MIB, directory=small_disk).format()
    node.log = small_disk.parent / "n1.log"
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = node.refused()
    assert str(node.path) in said
    assert "Read-only file system" in said
    other = Node(small_disk / "n2")
    with pytest.raises(ConfigError, match="Read-only file system"):
        other.format()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert processes.is_free(int(node.client.rpartition(":")[2]))
    node.start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_named(make_node: Callable[..., Node]) -> None:
    node = make_node().format()
    node.path.chmod(0o500)
    assert "Permission denied" in node.refused()
    node.path.chmod(0o700)


# Settings and directories that do not fit


def test_a_newer_log_is_refused(node: Node) -> None:
    (path,) = segments(node.path)
    with path.open("r+b") as file:
        data = bytearray(file.read(4096))
    offset = data.index(1, 8)  # the format version comes after the magic
    assert offset < 16
    data[offset] = 9
    data[HEADER_USED_BYTES - 4 : HEADER_USED_BYTES] = zlib.crc32(
        data[: HEADER_USED_BYTES - 4]
    ).to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write(data)
    assert f"{path.name}: format version 9, this program knows 1" in node.refused()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('data_dri = "/tmp"', "unknown key 'data_dri' (did you mean 'data_dir'?)"),
        ("client = 6379", "client = 6379 is not"),
        ('data_dir = "a"\nclient = "here"', "client"),
        ('data_dir = "a"\ntick_s = -1', "tick_s"),
        ("client = ", "this is not TOML"),
        ('data_dir = "a"\nconnections = 99999999999999999999', "connections"),
        ("", "data_dir is missing"),
    ],
)
def test_a_wrong_settings_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "eraft.toml"
    path.write_text(text)
    result = eraft("serve", "--config", path)
    assert result.returncode == 2
    assert str(path) in result.stderr
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_second_process_on_the_directory_is_refused(node: Node) -> None:
    node.start()
    assert node.process is not None
    second = Node(node.path)
    assert f"{node.path} is in use by another process, pid {node.process.pid}" in second.refused()
    assert node.status()["node_id"] == 1


def test_the_log_is_recovered_before_the_database_opens(node: Node) -> None:
    """The database begins with compactions, which would take the processors from the recovery."""
    node.start()
    node.stop()
    (node.path / "state" / "CURRENT").write_text("nonsense")
    said = node.refused()
    assert 0 < said.find("log recovered") < said.find("the database is damaged")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the disk hang")
def test_a_sync_that_never_comes_back_does_not_keep_the_process(
    make_node: Callable[..., Node],
) -> None:
    node = make_node().format().start()
    node.open()
    assert node.process is not None
    with bad_syncs(node.process.pid, "delay_enter=600000000"):
        wait_until(lambda: traced(node.process), "it is traced")
        with Wire(node.client) as wire:
            wire.send(command("SET", "a", "1"))
            wait_until(lambda: "waiting for the disk" in node.text(), "the disk hangs")
        node.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "the node stops without its disk" in node.text(), "the node gives up")
    # Only now the thread that hung can end.
    assert node.process.wait(10) == 1
    node.start()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(10) == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the disk slow")
def test_a_slow_disk_is_given_the_time_to_write_the_state(make_node: Callable[..., Node]) -> None:
    """What bounds a stop is for disks that do not answer; it is shorter here than one sync."""
    node = make_node().format().start(IMPATIENT)
    node.open()
    assert node.process is not None
    with Wire(node.client) as wire:
        wire.ask("SET", "a", "1")
    with bad_syncs(node.process.pid, f"delay_enter={int(2e6 * SHUT_DOWN_S)}"):
        wait_until(lambda: traced(node.process), "it is traced")
        began_s = time.monotonic()
        assert node.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began_s > 2 * SHUT_DOWN_S
    assert "stopped" in node.text()


def traced(process: subprocess.Popen[bytes] | None) -> bool:
    """Whether all threads of the process are."""
    assert process is not None
    tasks = Path(f"/proc/{process.pid}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in task.read_text() for task in tasks)
