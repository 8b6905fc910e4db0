"""Replicated counters on the ready host: a line in, a line out, over TCP.

    python examples/counter.py DATA_DIR CLIENT PEER ADMIN      (three nodes, each host:port)

`add NAME N` adds and `get NAME` reads, linearizably, on any node. The other
answers: `leader HOST:PORT` (ask there), `retry WHY` (certainly not added) and
`unknown WHY` (perhaps added: to add again could count twice).
"""

import asyncio
import logging
import sys
from functools import partial
from typing import Any

import uvloop

from eraft.errors import NotApplied, NotLeader, OutcomeUnknown
from eraft.host import Host, NodeOptions, ReplicaRows

GID = 1
AMOUNT = 2**63


class Counters:
    """A row for each counter, in decimal. A payload is `NAME N`."""

    def __init__(self, gid: int, rows: ReplicaRows) -> None:
        """Nothing is kept beside the rows."""

    def apply(
        self, rows: ReplicaRows, index: int, term: int, payload: bytes, replies: list[Any] | None
    ) -> None:
        name, amount = payload.split()
        value = self.value(rows, name) + int(amount)
        rows.put(rows.data_prefix + name, b"%d" % value)
        if replies is not None:
            replies.append(value)

    def value(self, rows: ReplicaRows, name: bytes) -> int:
        return int(rows.get(rows.data_prefix + name) or 0)


async def answer(host: Host[Counters], line: bytes) -> str:
    try:
        match line.split():
            case [b"add", name, amount]:
                number = int(amount)
                if abs(number) > AMOUNT:  # what apply cannot execute must not get into the log
                    return "error the amount is too large"
                return f"value {await host.propose(GID, b'%b %d' % (name, number))}"
            case [b"get", name]:
                return f"value {await host.read(GID, lambda it, rows: it.value(rows, name))}"
        return "error try: add NAME N, or get NAME"
    except NotLeader as error:
        return f"leader {error.leader}"
    except NotApplied as error:
        return f"retry {error}"
    except OutcomeUnknown as error:
        return f"unknown {error}"
    except ValueError as error:
        return f"error {error}"


async def serve(
    host: Host[Counters], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async for line in reader:
        writer.write((await answer(host, line)).encode() + b"\n")
        await writer.drain()
    writer.close()


async def main(data_dir: str, client: str, peer: str, admin: str) -> int:
    options = NodeOptions(data_dir=data_dir, client=client, peer=peer, admin=admin)
    async with Host(options, Counters) as host:
        address, _, port = client.rpartition(":")
        server = await asyncio.start_server(partial(serve, host), address, int(port))
        status = await host.stopped()
        server.close()
    return status


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(uvloop.run(main(*sys.argv[1:])))
