"""A real redis-server on a free loopback port, for differential tests."""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = shutil.which("redis-server")


class ErrorReply(bytes):
    """An error reply, without its minus."""


class SimpleReply(bytes):
    """A simple string reply, without its plus."""


class Connection:
    """Sends commands, reads RESP2 replies; nothing more."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def execute(self, *args: bytes) -> Any:
        return self.pipeline([args])[0]

    def pipeline(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """Send all commands at once and return their replies."""
        parts = []
        for args in commands:
            parts.append(b"*%d\r\n" % len(args))
            parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]
        self._socket.sendall(b"".join(parts))
        return [self._reply() for _ in commands]

    def _reply(self) -> Any:
        line = self._file.readline()
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return SimpleReply(rest)
            case b"-":
                return ErrorReply(rest)
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
            case b"*":
                return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise ValueError(f"not a reply: {line!r}")


@contextmanager
def redis_server(directory: Path) -> Iterator[Connection]:
    """Start a server that owns all hash slots; stop it at the end."""
    assert SERVER is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "port": str(port),
        "bind": "127.0.0.1",
        "cluster-enabled": "yes",
        "cluster-port": str(_free_port()),
        "save": "",
        "dir": str(directory),
    }
    command = [SERVER]
    for name, value in settings.items():
        command += [f"--{name}", value]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if b"Ready to accept connections" in line:
                break
        else:
            raise RuntimeError(f"redis-server did not start: exit status {process.wait()}")
        connection = Connection(port)
        try:
            connection.execute(b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383")
            while b"cluster_state:ok" not in connection.execute(b"CLUSTER", b"INFO"):
                pass
            yield connection
        finally:
            connection.close()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
