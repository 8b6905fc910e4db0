"""A replicated lock service with fencing tokens on the ready host: JSON lines over TCP.

    python examples/locks.py DATA_DIR CLIENT PEER ADMIN        (three nodes, each host:port)

`{"do": "acquire", "lock": L, "owner": O, "ttl_ms": N}` answers the token and
who has it: who holds the lock already extends it and keeps its token, so asking
again is safe. `release` gives it back, `holder` reads. A slow holder may go on
after its time: what the lock guards has to refuse a token below the largest seen.
"""

import asyncio
import json
import logging
import sys
import time
from functools import partial
from typing import Any

import uvloop

from eraft.errors import NotApplied, NotLeader, OutcomeUnknown
from eraft.host import Host, NodeOptions, ReplicaRows

GID = 1


class Locks:
    """A row for each lock. A payload is a request with the time at which it was proposed."""

    def __init__(self, gid: int, rows: ReplicaRows) -> None: ...

    def apply(
        self, rows: ReplicaRows, index: int, term: int, payload: bytes, replies: list[Any] | None
    ) -> None:
        request = json.loads(payload)
        # Leaders have different clocks: the group's own is the latest that any of them told.
        now_ms = max(request["now_ms"], int(rows.meta(b"now_ms") or 0))
        rows.set_meta(b"now_ms", b"%d" % now_ms)
        held = self.holder(rows, request["lock"])
        free = held is None or held["until_ms"] <= now_ms
        mine = held is not None and held["owner"] == request["owner"]
        key = rows.data_prefix + request["lock"].encode()
        if request["do"] == "acquire" and (free or mine):
            # An index is never used twice and later ones are larger: a fencing token.
            token = index if free else held["token"]
            until_ms = now_ms + request["ttl_ms"]
            held = {"owner": request["owner"], "token": token, "until_ms": until_ms}
            rows.put(key, json.dumps(held).encode())
        elif request["do"] == "release" and mine:
            rows.delete(key)
            held = None
        if replies is not None:
            replies.append(held)

    def holder(self, rows: ReplicaRows, lock: str) -> Any:
        row = rows.get(rows.data_prefix + lock.encode())
        return None if row is None else json.loads(row)


async def answer(host: Host[Locks], line: bytes) -> dict[str, Any]:
    try:
        match json.loads(line):
            case {"do": "holder", "lock": str(lock)}:
                return {"held": await host.read(GID, lambda it, rows: it.holder(rows, lock))}
            case {"do": "acquire" | "release" as do, "lock": str(lock), "owner": str(owner)} as it:
                lock.encode()  # what apply cannot execute must not get into the log
                ttl_ms = min(int(it.get("ttl_ms", 0)), 10**9)
                request = {"do": do, "lock": lock, "owner": owner, "ttl_ms": ttl_ms}
                request["now_ms"] = time.time_ns() // 1_000_000
                return {"held": await host.propose(GID, json.dumps(request).encode())}
        return {"error": "try acquire, release or holder"}
    except NotLeader as error:
        return {"leader": error.leader}
    except (NotApplied, OutcomeUnknown) as error:
        return {"retry": str(error)}
    except (ValueError, TypeError, OverflowError) as error:
        return {"error": str(error)}


async def serve(host: Host[Locks], lines: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
    async for line in lines:
        out.write(json.dumps(await answer(host, line)).encode() + b"\n")
        await out.drain()
    out.close()


async def main(data_dir: str, client: str, peer: str, admin: str) -> int:
    options = NodeOptions(data_dir=data_dir, client=client, peer=peer, admin=admin)
    async with Host(options, Locks) as host:
        address, _, port = client.rpartition(":")
        server = await asyncio.start_server(partial(serve, host), address, int(port))
        status = await host.stopped()
        server.close()
    return status


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(uvloop.run(main(*sys.argv[1:])))
