"""`eraft serve`: runs one node until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import time
from typing import TYPE_CHECKING

from eraft.cli import address, config
from eraft.cli.arguments import add_command
from eraft.node.options import NodeOptions

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

logger = logging.getLogger("eraft")

TIME = "%Y-%m-%dT%H:%M:%S"

TEXT = """
Runs the node of a data directory that `eraft init` has formatted, in the
foreground, with its log on standard error. SIGTERM or Ctrl-C stop it cleanly.

Every setting is a flag or a key of the TOML file (client = "127.0.0.1:6379",
segment_size_bytes = 67108864, ...); a flag wins over the file.

There is no password and no encryption yet: whoever reaches the ports reads and
writes everything. Keep them on loopback or in a network that you trust.
"""
EXAMPLES = """
  eraft serve --data-dir ./n1
  eraft serve --config /etc/eraft.toml
  eraft serve --data-dir ./n2 --client 127.0.0.1:6380 --peer 127.0.0.1:16380 --admin 127.0.0.1:26380
"""


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "serve", run, "run one node", TEXT, EXAMPLES)
    parser.add_argument("--config", metavar="FILE.toml", help="settings; flags win over it")
    config.add_flags(parser)


def start_logging() -> None:
    """One line per event on standard error: time in UTC, level, what happened."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", TIME)
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def warn_exposed(options: NodeOptions) -> None:
    """Say which addresses others than this machine can reach."""
    for name in config.BOUND:
        text = getattr(options, name)
        if not address.is_loopback(address.parse(text, name, port_zero=True)[0]):
            logger.warning(
                "the %s address %s is not loopback, and there is no password and no encryption: "
                "whoever reaches it reads and writes everything",
                name,
                text,
            )


def run(args: argparse.Namespace) -> int:
    options = config.load(args.config, config.given_flags(args))
    start_logging()
    warn_exposed(options)
    from eraft.net import server

    return server.run(options)
