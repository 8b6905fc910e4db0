"""The core with one's own transport, as docs/library.md runs it."""

from __future__ import annotations

import subprocess
import sys

from tests.examples.cluster import EXAMPLES


def test_a_stopped_leader_comes_back_from_its_disk_with_everything():
    command = [sys.executable, str(EXAMPLES / "transport.py")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = result.stdout.splitlines()
    assert lines[0].endswith("leads and is stopped")
    assert lines[1].endswith("leads now")
    assert lines[2:] == [f"replica {it} has one two three four" for it in (1, 2, 3)]
