"""What every test session says of itself first, and that it gives memory back."""

import ctypes
import gc
import os
from pathlib import Path

import eraft

MEMORY_BYTES = 400 * 1024 * 1024


def pytest_report_header() -> str:
    return f"eraft {eraft.__version__}, implementation: {eraft.IMPL}"


def pytest_runtest_logfinish() -> None:
    """A cluster in memory is a circle of few large objects, which Python is slow to collect.

    What they took malloc keeps, unless it is told to give it back.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    if pages * os.sysconf("SC_PAGE_SIZE") > MEMORY_BYTES:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
