"""Processes: detached, found again by their id, and never taken for another one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eraft.cli import processes
from eraft.cli.cluster_file import PORTS_BELOW, choose_base_port

SLEEPER = "import sys, time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def sleeper(tmp_path):
    """A spawned process with tmp_path as its data directory; ended whatever happens."""
    pid = processes.spawn([sys.executable, "-c", SLEEPER, str(tmp_path)], tmp_path / "log")
    try:
        assert processes.wait_until(lambda: "up" in (tmp_path / "log").read_text(), 10)
        yield pid
    finally:
        processes.send(pid, signal.SIGKILL)
        assert processes.wait_gone(pid, 10)
        os.waitpid(pid, 0)


def test_a_process_is_detached(sleeper):
    stat = Path(f"/proc/{sleeper}/stat").read_text().rpartition(")")[2].split()
    group, session = int(stat[2]), int(stat[3])
    assert (group, session) == (sleeper, sleeper)
    assert Path(f"/proc/{sleeper}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{sleeper}/cwd").readlink() == Path("/")


def test_its_output_goes_to_the_log(sleeper, tmp_path):
    assert processes.log_tail(str(tmp_path / "log")) == "  up"


def test_state_follows_the_process(sleeper, tmp_path):
    def is_state(wanted: str) -> bool:
        return processes.wait_until(lambda: processes.state(sleeper, str(tmp_path)) == wanted, 10)

    assert is_state("running")
    processes.send(sleeper, signal.SIGSTOP)
    assert is_state("paused")
    processes.send(sleeper, signal.SIGCONT)
    assert is_state("running")
    processes.send(sleeper, signal.SIGKILL)
    assert processes.wait_gone(sleeper, 10)
    assert processes.state(sleeper, str(tmp_path)) == "stopped"  # though nobody has reaped it


def test_a_process_runs_as_soon_as_it_is_spawned(tmp_path):
    """The kernel shows no arguments for a moment: that must not look like the end."""
    for _ in range(50):
        pid = processes.spawn(["sleep", "60"], tmp_path / "log")
        try:
            assert processes.state(pid, "60") == "running"
        finally:
            processes.send(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_another_program_with_the_same_id_is_not_the_node(sleeper, tmp_path):
    assert processes.state(sleeper, str(tmp_path / "other")) == "stopped"
    assert processes.state(None, str(tmp_path)) == "stopped"


def test_waiting_has_an_end(sleeper):
    assert not processes.wait_gone(sleeper, 0.01)
    assert not processes.wait_until(lambda: False, 0.01)


def test_a_process_that_is_gone_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    processes.send(process.pid, signal.SIGTERM)
    assert processes.wait_gone(process.pid, 1)


def test_the_log_tail_of_no_log_says_so(tmp_path):
    assert "No such file" in processes.log_tail(str(tmp_path / "absent"))
    (tmp_path / "empty").touch()
    assert "empty" in processes.log_tail(str(tmp_path / "empty"))
    (tmp_path / "long").write_text("".join(f"line {n}\n" for n in range(5000)))
    tail = processes.log_tail(str(tmp_path / "long")).splitlines()
    assert tail == [f"  line {n}" for n in range(5000 - processes.LOG_TAIL_LINES, 5000)]


def test_ports_are_free_in_a_row_and_not_ephemeral():
    base = choose_base_port(7)
    assert base >= 10000
    assert base + 21 <= PORTS_BELOW
    assert all(processes.is_free(port) for port in range(base, base + 21))


def test_a_port_in_use_is_not_free():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not processes.is_free(listener.getsockname()[1])
