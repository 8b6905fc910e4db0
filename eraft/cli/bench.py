"""`eraft bench`: loads a running cluster and tells how it did."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from eraft import limits
from eraft.cli import address, cluster_file, status
from eraft.cli.arguments import CommandFailed, add_command, positive, seconds
from eraft.cli.load import Loader, Outcome, Topology, Workload
from eraft.errors import ConfigError

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

DEFAULT_SECONDS = 5.0
PERCENTILES = (0.5, 0.99, 0.999)
PROGRESS_S = 0.2
BAR_CHARS = 30
FILL_CLIENTS, FILL_PIPELINE = 16, 64
ORDER_LENGTH = 1 << 16
KEYS_MOST = 10_000_000

TEXT = """
Loads a running cluster as Redis Cluster clients do and reports, for each
operation in turn, operations per second, latency percentiles, and how much
processor time the nodes used per operation (when they run on this machine).

Each client waits for the replies to its pipeline before it sends the next.
Keys are key:0 to key:N-1, chosen at random; operations that read find them
all present. Refused commands (MOVED, TRYAGAIN, CLUSTERDOWN) are tried again
and counted as retries; their latency counts from the first attempt.

Figures of a build with line tracing would mislead: it is refused, and so is a
cluster that runs another implementation than --impl says. Exit status 1 if
any command ended in an error.
"""
EXAMPLES = """
  eraft bench --dir ./try                         a cluster of `eraft cluster start --dir ./try`
  eraft bench --node 127.0.0.1:26379 --clients 256 --ops set
  eraft bench --dir ./try --pipeline 16 --requests 1000000 --json figures.json
"""


@dataclass(slots=True, frozen=True)
class Operation:
    command: bytes
    key: str
    value: bool
    reads: bool


OPERATIONS = {
    "set": Operation(b"SET", "key", value=True, reads=False),
    "get": Operation(b"GET", "key", value=False, reads=True),
    "incr": Operation(b"INCR", "counter", value=False, reads=False),
    "exists": Operation(b"EXISTS", "key", value=False, reads=True),
    "strlen": Operation(b"STRLEN", "key", value=False, reads=True),
    "ttl": Operation(b"TTL", "key", value=False, reads=True),
    "getset": Operation(b"GETSET", "key", value=True, reads=True),
    "del": Operation(b"DEL", "key", value=False, reads=False),
}


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "bench", run, "load a running cluster", TEXT, EXAMPLES)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--node", metavar="HOST:ADMINPORT", help="any node's admin address")
    where.add_argument("--dir", metavar="DIR", help="the directory of a local cluster")
    parser.add_argument(
        "--clients", type=positive, default=64, metavar="N", help="concurrent clients (default 64)"
    )
    parser.add_argument(
        "--pipeline", type=positive, default=1, metavar="N", help="commands at a time (default 1)"
    )
    parser.add_argument(
        "--ops",
        type=operations,
        default=["set", "get"],
        metavar="OP,...",
        help=f"of {', '.join(OPERATIONS)} (default set,get)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--requests", type=positive, metavar="N", help="commands per operation")
    length.add_argument(
        "--seconds",
        type=seconds,
        metavar="S",
        help=f"time per operation (default {DEFAULT_SECONDS:g})",
    )
    parser.add_argument(
        "--keys", type=positive, default=10_000, metavar="N", help="how many keys (default 10000)"
    )
    parser.add_argument(
        "--value-bytes", type=positive, default=64, metavar="N", help="size of values (default 64)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    parser.add_argument(
        "--impl", choices=("cython", "python"), help="refuse a cluster of another implementation"
    )


def operations(text: str) -> list[str]:
    names = text.lower().split(",")
    for name in names:
        if name not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise argparse.ArgumentTypeError(f"there is no operation {name!r}; there are {known}")
    return names


def run(args: argparse.Namespace) -> int:
    if args.keys > KEYS_MOST:
        raise ConfigError(f"--keys {args.keys}: at most {KEYS_MOST}")
    if args.value_bytes > limits.VALUE_SIZE_BYTES:
        raise ConfigError(f"--value-bytes {args.value_bytes}: at most {limits.VALUE_SIZE_BYTES}")
    nodes = measurable(find_nodes(args), args.impl)
    topology = Topology([node["client"] for node in nodes])
    topology.learn()
    pids = local_pids(nodes)
    bench = Bench(args, topology, pids)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(bench.run())
    report = {
        "impl": impl_of(nodes),
        "nodes": len(nodes),
        "clients": args.clients,
        "pipeline": args.pipeline,
        "keys": args.keys,
        "value_bytes": args.value_bytes,
        "operations": rows,
    }
    print("\n".join(describe(report)))
    if args.json:
        Path(args.json).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    return 1 if any(row["errors"] for row in rows) else 0


def find_nodes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """STATUS of every node that answers."""
    if args.node:
        addresses = {0: args.node}
    else:
        cluster = cluster_file.read(Path(args.dir).absolute())
        addresses = {node.id: node.admin for node in cluster.nodes}
    report = status.gather(addresses)
    return [node for node in report["nodes"] if "error" not in node]


def measurable(nodes: list[dict[str, Any]], impl: str | None) -> list[dict[str, Any]]:
    """The same nodes; ConfigError if figures of them would mislead."""
    for node in nodes:
        name = f"node {node['node_id']}"
        if node["traced"]:
            raise ConfigError(
                f"{name} runs a build with line tracing, which must not be measured: "
                "build again without ERAFT_TRACE"
            )
        if impl is not None and node["impl"] != impl:
            raise ConfigError(f"{name} runs the implementation {node['impl']}, not {impl}")
    return nodes


def impl_of(nodes: list[dict[str, Any]]) -> str:
    return "+".join(sorted({node["impl"] for node in nodes}))


def local_pids(nodes: list[dict[str, Any]]) -> list[int]:
    """The nodes' process ids; empty unless all of them run on this machine."""
    if all(is_here(address.parse(node["client"], "client address")[0]) for node in nodes):
        return [node["pid"] for node in nodes]
    return []


def is_here(host: str) -> bool:
    """Whether an address is one of this machine's own."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:
            probe.bind(found[4])
    except OSError:
        return False
    return True


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time that the processes have used so far."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError as error:
            raise CommandFailed(f"process {pid} of a node is gone: {error.strerror}") from error
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Bench:
    """The operations of one call, one after the other."""

    def __init__(self, args: argparse.Namespace, topology: Topology, pids: list[int]) -> None:
        self._args = args
        self._topology = topology
        self._pids = pids
        # Seeded: two runs send the same commands.
        chance = random.Random(1)
        self._value = chance.randbytes(args.value_bytes)
        self._order = chance.choices(range(args.keys), k=ORDER_LENGTH)

    async def run(self) -> list[dict[str, Any]]:
        names: list[str] = self._args.ops
        rows = []
        filled = False
        for name in names:
            if OPERATIONS[name].reads and not filled:
                await self._fill()
            filled = name != "del" and (filled or OPERATIONS[name].reads)
            rows.append(await self._measure(name))
        return rows

    async def _fill(self) -> None:
        args = self._args
        loader = Loader(
            self._topology,
            self._workload("set"),
            range(args.keys),
            FILL_CLIENTS,
            FILL_PIPELINE,
            args.keys,
            None,
        )
        outcome = await watched("fill", loader)
        if outcome.errors:
            raise CommandFailed(f"the keys could not be written: {dict(outcome.errors)}")

    async def _measure(self, name: str) -> dict[str, Any]:
        args = self._args
        length = None if args.requests else args.seconds or DEFAULT_SECONDS
        loader = Loader(
            self._topology,
            self._workload(name),
            self._order,
            args.clients,
            args.pipeline,
            args.requests,
            length,
        )
        nodes_before_s, own_before_s = cpu_s(self._pids), time.process_time()
        outcome = await watched(name, loader)
        nodes_s, own_s = cpu_s(self._pids) - nodes_before_s, time.process_time() - own_before_s
        return figures(name, outcome, nodes_s if self._pids else None, own_s)

    def _workload(self, name: str) -> Workload:
        operation = OPERATIONS[name]
        keys = [f"{operation.key}:{n}".encode() for n in range(self._args.keys)]
        value = self._value if operation.value else None
        return Workload.make(name, operation.command, keys, value)


def figures(
    name: str, outcome: Outcome, nodes_cpu_s: float | None, own_cpu_s: float
) -> dict[str, Any]:
    """One row of the report."""
    done = max(1, outcome.finished)
    p50_s, p99_s, p999_s = outcome.latencies.percentiles_s(PERCENTILES)
    return {
        "op": name,
        "operations": outcome.finished,
        "elapsed_s": round(outcome.elapsed_s, 3),
        "ops_per_s": round(outcome.finished / max(outcome.elapsed_s, 1e-9), 1),
        "p50_ms": round(p50_s * 1e3, 3),
        "p99_ms": round(p99_s * 1e3, 3),
        "p999_ms": round(p999_s * 1e3, 3),
        "nodes_cpu_us_per_op": None if nodes_cpu_s is None else round(nodes_cpu_s / done * 1e6, 2),
        "bench_cpu_share": round(own_cpu_s / max(outcome.elapsed_s, 1e-9), 2),
        "retries": outcome.retries,
        "errors": dict(outcome.errors),
    }


async def watched(name: str, loader: Loader) -> Outcome:
    """Run the loader; on a terminal a bar shows how far it is."""
    if not sys.stderr.isatty():
        return await loader.run()
    shower = asyncio.get_running_loop().create_task(show(name, loader))
    try:
        return await loader.run()
    finally:
        shower.cancel()
        sys.stderr.write("\r\x1b[K")


async def show(name: str, loader: Loader) -> None:
    before = 0
    while True:
        await asyncio.sleep(PROGRESS_S)
        done = loader.outcome.finished
        bar = "#" * round(loader.share_done * BAR_CHARS)
        rate = (done - before) / PROGRESS_S
        sys.stderr.write(f"\r{name:>6} [{bar:.<{BAR_CHARS}}] {done:,} done, {rate:,.0f}/s\x1b[K")
        sys.stderr.flush()
        before = done


TITLES = ("op", "operations", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU us/op", "retries")
LOADER_BUSY = 0.9


def describe(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    rows: list[tuple[str, ...]] = [
        (
            row["op"],
            f"{row['operations']:,}",
            f"{row['ops_per_s']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['p999_ms']:.2f}",
            "-" if row["nodes_cpu_us_per_op"] is None else f"{row['nodes_cpu_us_per_op']:.1f}",
            str(row["retries"]),
        )
        for row in report["operations"]
    ]
    lines = [
        f"{report['nodes']} nodes ({report['impl']}), {report['clients']} clients, pipeline "
        f"{report['pipeline']}, {report['keys']} keys, values of {report['value_bytes']} bytes",
        "",
        *status.columns(TITLES, rows),
    ]
    if all(row["nodes_cpu_us_per_op"] is None for row in report["operations"]):
        lines.append("CPU: not all nodes run on this machine")
    for row in report["operations"]:
        if row["bench_cpu_share"] > LOADER_BUSY:
            lines.append(f"{row['op']}: this program kept a core busy: the cluster may do more")
        lines += [f"{row['op']}: ERROR {count} x {text}" for text, count in row["errors"].items()]
    return lines
