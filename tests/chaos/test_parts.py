"""What the runs are made of: that the faults are real, that the clients keep true histories,
and that nothing is left of a run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eraft import limits
from tests.chaos.__main__ import TOOLS
from tests.chaos.disks import Disk
from tests.chaos.load import Client, Load, lost
from tests.chaos.namespaces import NAMESPACES, Network
from tests.linear.checker import Operation

MISSING = ["root"] if os.geteuid() else [tool for tool in TOOLS if not shutil.which(tool)]
real = pytest.mark.skipif(bool(MISSING), reason=f"real faults need {', '.join(MISSING)}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "d.img", 64 * limits.MIB)
    try:
        disk.mount()
        yield disk
    finally:
        disk.unmount()


def write(path: Path, data: bytes, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


@real
def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(disk: Disk) -> None:
    write(disk.path / "synced", b"x", sync=True)
    write(disk.path / "unsynced", b"x", sync=False)
    write(disk.path / "synced", b"y", sync=False)
    disk.cut_power()
    with pytest.raises(OSError, match="Input/output error"):
        write(disk.path / "late", b"x", sync=True)
    disk.unmount()
    disk.mount()
    assert not (disk.path / "unsynced").exists() or not (disk.path / "unsynced").read_bytes()
    assert (disk.path / "synced").read_bytes() != b"y"
    assert not (disk.path / "late").exists()


@real
def test_a_full_disk_has_room_again(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write(disk.path / "more", bytes(limits.MIB), sync=True)
    disk.empty()
    disk.cut_power()
    disk.unmount()
    disk.mount()
    write(disk.path / "more", bytes(limits.MIB), sync=True)


@real
def test_a_cut_drops_one_way_and_the_namespaces_go() -> None:
    with Network(["a", "b"]) as network:
        ends = {}
        for name, address in network.addresses.items():
            network.enter(name)
            ends[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            ends[name].bind((address, 7777))
            ends[name].settimeout(0.2)
        where = {name: (address, 7777) for name, address in network.addresses.items()}
        network.enter("switch")

        def arrives(source: str, destination: str) -> bool:
            ends[source].sendto(b"x", where[destination])
            try:
                return ends[destination].recv(10) == b"x"
            except TimeoutError:
                return False

        assert arrives("a", "b")
        assert arrives("b", "a")
        assert network.dropped() == 0
        network.cut([("a", "b")])
        assert not arrives("a", "b")
        assert arrives("b", "a")
        assert network.dropped() == 1
        network.heal()
        assert arrives("a", "b")
        for end in ends.values():
            end.close()
        names = [network.namespace(host) for host in ("switch", "a", "b")]
        assert set(names) <= set(os.listdir(NAMESPACES))
    assert not set(names) & set(os.listdir(NAMESPACES))
    with pytest.raises(RuntimeError), Network(["a"]) as network:
        raise RuntimeError
    assert network.namespace("a") not in os.listdir(NAMESPACES)


@real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--dir", str(tmp_path), "run"]
    run = subprocess.Popen([*command, "--fault", "pause"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert any("pause" in line for line in run.stdout)
    namespaces = [name for name in os.listdir(NAMESPACES) if name.startswith(f"chaos{run.pid}-")]
    assert len(namespaces) == 5
    run.send_signal(number)
    assert run.wait(30) == 128 + number
    run.stdout.close()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not set(namespaces) & set(os.listdir(NAMESPACES))
    served = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path)]
    assert not [words for words in served if str(tmp_path).encode() in words]


def readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


# The clients


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Client, list[bytes]]]:
    """A client, and the commands that arrive where it connects; each is answered as given.

    An empty answer closes the connection, after the command was read.
    """
    arrived: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection = None
            for answer in answers:
                connection = connection or server.accept()[0]
                arrived.append(connection.recv(65536))
                connection.sendall(answer)
                if not answer.endswith(b"\n"):
                    connection.close()
                    connection = None
            if connection:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        client = Client(Load([address], 1, 0, lambda: None), 2)
        try:
            yield client, arrived
        finally:
            thread.join()
            client.close()


def test_what_was_not_executed_is_sent_again_and_not_recorded() -> None:
    refusals = (b"-TRYAGAIN x\r\n", b"-CLUSTERDOWN x\r\n", b"-MISCONF x\r\n")
    with serving(*refusals, b"+OK\r\n") as (client, arrived):
        client.execute("register:1", [("SET", b"v>")])
        assert len(arrived) == 4
        (operation,) = client.history["register:1"]
        assert operation.known
        assert client.refused == 3


@pytest.mark.parametrize("answer", [b"", b"+O", b"$5\r\nab", b"-TIMEOUT outcome unknown\r\n"])
def test_what_is_not_known_is_recorded_and_not_sent_again(answer: bytes) -> None:
    with serving(answer) as (client, arrived):
        client.execute("register:1", [("SET", b"v>")])
        assert len(arrived) == 1
        (operation,) = client.history["register:1"]
        assert not operation.known


def test_an_answer_that_must_not_be_fails_the_client() -> None:
    with serving(b"-ERR what\r\n") as (client, _), pytest.raises(AssertionError, match="ERR what"):
        client.execute("register:1", [("SET", b"v>")])


def test_a_pipeline_that_breaks_is_known_as_far_as_it_was_answered() -> None:
    with serving(b":1\r\n-TRYAGAIN x\r\n:", b":2\r\n") as (client, arrived):
        client.execute("counter:1", [("INCR", b"")] * 3)
        assert len(arrived) == 2
        assert [it.result for it in client.history["counter:1"]] == [1, None, 2]


def test_lost_writes_are_counted() -> None:
    now = time.monotonic()
    done = [Operation("APPEND", b"%d>" % n, now, now, n) for n in range(3)]
    unknown = Operation("APPEND", b"9>", now)
    assert lost({"list:1": [*done, unknown, Operation("GET", b"", now, now, b"0>2>")]}) == 1
    counted = [Operation("INCR", b"", now, now, n) for n in range(3)]
    assert lost({"counter:1": [*counted, Operation("GET", b"", now, now, b"1")]}) == 2
    assert lost({"counter:1": [*counted, Operation("GET", b"", now, now, b"3")]}) == 0
