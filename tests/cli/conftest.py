"""Running commands: in this process where they only print, as processes where they start some."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from eraft.cli.main import main


@dataclass
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command in this process."""

    def run(*argv: object) -> Result:
        try:
            status = main([str(word) for word in argv])
        except SystemExit as ended:  # argparse
            assert isinstance(ended.code, int)
            status = ended.code
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """A server on loopback that answers whatever is asked with the given bytes, then closes."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket, answer: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with closing(connection):
                if connection.recv(65536):
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(listener, answer), daemon=True)
        thread.start()
        listeners.append(listener)
        threads.append(thread)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
    for thread in threads:
        thread.join()
