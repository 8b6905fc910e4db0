"""A small blocking RESP client, for the admin ports and to see whether a client port answers."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

import orjson

from eraft import limits
from eraft.cli import address
from eraft.errors import EraftError

CONNECT_S = 2.0
ANSWER_S = 15.0

Reply = bytes | int | None | list["Reply"]


class Unreachable(EraftError):
    """No connection, or no complete answer in time."""


class Refused(EraftError):
    """The node answered with an error; the text is the node's."""


class Connection:
    """One connection to a node; every call waits for its reply at most `answer_s`."""

    def __init__(
        self, where: str, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S
    ) -> None:
        self.where = where
        host, port = address.parse(where, "address")
        try:
            self._socket = socket.create_connection((host, port), connect_s)
        except OSError as error:
            raise Unreachable(f"{where}: {error.strerror or error}") from error
        self._socket.settimeout(answer_s)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def call(self, *words: str | bytes | int) -> Reply:
        """Send one command; Refused if the node answers with an error."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        command = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
        try:
            self._socket.sendall(command)
            return self._reply()
        except TimeoutError as error:
            raise Unreachable(f"{self.where}: no answer to {words[0]!s} in time") from error
        except OSError as error:
            raise Unreachable(f"{self.where}: {error.strerror or error}") from error

    def json(self, *words: str | bytes | int) -> Any:
        """Send one command whose reply is JSON."""
        try:
            reply = self.call(*words)
        except Refused as error:
            if str(error).startswith("unknown command"):
                raise Unreachable(f"{self.where}: not an admin port of eraft: {error}") from error
            raise
        try:
            return orjson.loads(reply if isinstance(reply, bytes) else b"")
        except orjson.JSONDecodeError as error:
            raise Unreachable(f"{self.where}: {words[0]!s}: not a JSON reply: {error}") from error

    def _line(self) -> bytes:
        line = self._file.readline(limits.ADMIN_COMMAND_BYTES)
        if not line:
            raise Unreachable(
                f"{self.where}: the connection was closed without an answer; is it an admin port?"
            )
        if not line.endswith(b"\r\n"):
            raise Unreachable(f"{self.where}: the connection was closed in the middle of an answer")
        return line[:-2]

    def _reply(self) -> Reply:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise Refused(rest.decode(errors="replace").removeprefix("ERR "))
        if kind not in b":$*" or not rest.lstrip(b"-").isdigit():
            raise Unreachable(f"{self.where}: this is not RESP: {line[:40]!r}")
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if number > limits.TABLE_SIZE_BYTES:
            raise Unreachable(f"{self.where}: a reply of {number} bytes or items is too large")
        if kind == b"*":
            return [self._reply() for _ in range(number)]
        body = self._file.read(number + 2)
        if len(body) != number + 2:
            raise Unreachable(f"{self.where}: the connection was closed in the middle of an answer")
        return body[:-2]


def ask(where: str, *words: str | bytes | int, answer_s: float = ANSWER_S) -> Any:
    """One command that is answered in JSON, on a connection of its own."""
    with Connection(where, answer_s=answer_s) as connection:
        return connection.json(*words)
