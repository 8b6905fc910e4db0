"""`eraft init`: formats the data directory of a new node."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from eraft import limits
from eraft.cli import address
from eraft.cli.arguments import add_command, add_json, positive
from eraft.errors import ConfigError
from eraft.storage.directory import format_directory

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

TEXT = """
Formats DIR, which is absent or empty, as the data directory of node N: an
identity with a random store id, and an empty write-ahead log. Nothing else
makes a node, and a directory is formatted only once: a node that has lost its
directory comes back under a new node id.

--metaserver is the founding list of the metaserver, the same on every node:
1, 3 or 5 of the nodes with their peer addresses.
"""
EXAMPLES = """
  eraft init --data-dir /var/lib/eraft --cluster-id shop --node-id 1 \\
      --metaserver 1=10.0.0.1:16379,2=10.0.0.2:16379,3=10.0.0.3:16379
  eraft init --data-dir ./n1 --cluster-id test --node-id 1 --metaserver 1=127.0.0.1:16379
"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "init", run, "format the data directory of a new node", TEXT, EXAMPLES
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR")
    parser.add_argument(
        "--cluster-id", required=True, metavar="C", help="a name; all nodes share it"
    )
    parser.add_argument("--node-id", required=True, type=positive, metavar="N")
    parser.add_argument(
        "--metaserver", required=True, metavar="ID=HOST:PEERPORT,...", help="the founding list"
    )
    parser.add_argument(
        "--segment-size-bytes",
        type=positive,
        default=limits.SEGMENT_SIZE_BYTES,
        metavar="N",
        help="size of the log's first segment (default %(default)s)",
    )
    add_json(parser)


def parse_metaserver(text: str) -> dict[int, str]:
    """The founding list; a ConfigError names the item that is wrong."""
    nodes: dict[int, str] = {}
    for item in text.split(","):
        node, equals, where = item.strip().partition("=")
        if not equals or not (node.isascii() and node.isdigit()):
            raise ConfigError(f"--metaserver: {item!r} is not ID=HOST:PEERPORT")
        if int(node) in nodes:
            raise ConfigError(f"--metaserver: node {node} is there twice")
        if where in nodes.values():
            raise ConfigError(f"--metaserver: {where} is there twice")
        address.parse(where, f"--metaserver: node {node}")
        nodes[int(node)] = where
    # Replica ids follow the order: it must not depend on how each node's list was written.
    return dict(sorted(nodes.items()))


def run(args: argparse.Namespace) -> int:
    if len(args.cluster_id) > limits.NAME_CHARS:
        raise ConfigError(f"--cluster-id: longer than {limits.NAME_CHARS} characters")
    identity = format_directory(
        args.data_dir,
        args.cluster_id,
        args.node_id,
        parse_metaserver(args.metaserver),
        segment_size_bytes=args.segment_size_bytes,
    )
    if args.json:
        import orjson

        print(orjson.dumps(identity, option=orjson.OPT_NON_STR_KEYS).decode())
    else:
        print(
            f"formatted {args.data_dir} for node {identity.node_id} of cluster "
            f"{identity.cluster_id!r}, store {identity.store_id}"
        )
    return 0
