"""A network of namespaces on one switch, whose packets can be dropped by source and destination.

Every host has a namespace of its own, joined by a veth pair to a bridge; the
bridge is in one more namespace, with the only firewall rules, so nothing of
the machine's own network is touched. Whoever is inside `with Network(...)` is
on the switch itself: it reaches every host, whatever is cut.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

CLONE_NEWNET = 0x40000000
NAMESPACES = "/run/netns"
SWITCH = "switch"
SUBNET = "10.77.0"

RULES = """
table bridge chaos {
    set cut { type ipv4_addr . ipv4_addr; }
    counter dropped { }
    chain forward {
        type filter hook forward priority 0;
        ip saddr . ip daddr @cut counter name dropped drop
    }
}
"""

_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: object, text: str | None = None) -> str:
    """A command that has to succeed; what it prints.

    A session of its own: Ctrl-C reaches this process alone, which then cleans up.
    """
    result = subprocess.run(
        [str(word) for word in words],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        start_new_session=True,
    )
    assert result.returncode == 0, (words, result.stderr)
    return result.stdout


def enter(path: str) -> None:
    """Move the calling thread, and what it starts from now on, into a network namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


class Network:
    """The hosts by name; a context, at whose end the namespaces are gone."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self.addresses = {name: f"{SUBNET}.{n}" for n, name in enumerate(hosts, 1)}
        self._prefix = f"chaos{os.getpid()}-{next(_numbers)}-"
        self._stack = ExitStack()

    def namespace(self, host: str) -> str:
        return self._prefix + host

    def prefix(self, host: str) -> list[str]:
        """What makes a command run on the host; its process id stays that of the command.

        Not `ip netns exec`, which gives it mounts of its own: a disk that
        another process still has mounted cannot lose its power.
        """
        return ["nsenter", f"--net={NAMESPACES}/{self.namespace(host)}"]

    def enter(self, host: str) -> None:
        """Let the calling thread open its connections on the host."""
        enter(f"{NAMESPACES}/{self.namespace(host)}")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, here)
            for host in (SWITCH, *self.addresses):
                stack.callback(remove, self.namespace(host))
                run("ip", "netns", "add", self.namespace(host))
                run("ip", "-n", self.namespace(host), "link", "set", "lo", "up")
            stack.callback(enter, f"/proc/self/fd/{here}")
            self.enter(SWITCH)
            self._wire()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _wire(self) -> None:
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "address", "add", f"{SUBNET}.254/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        for host, address in self.addresses.items():
            there = self.namespace(host)
            peer = ("peer", "name", "eth0", "netns", there)
            run("ip", "link", "add", f"to-{host}", "type", "veth", *peer)
            run("ip", "link", "set", f"to-{host}", "master", "br0", "up")
            run("ip", "-n", there, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", there, "link", "set", "eth0", "up")
        run("nft", "-f", "-", text=RULES)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Drop every packet from the first to the second host of each pair."""
        listed = (f"{self.addresses[one]} . {self.addresses[other]}" for one, other in pairs)
        run("nft", "add", "element", "bridge", "chaos", "cut", "{ " + ", ".join(listed) + " }")

    def heal(self) -> None:
        """Drop nothing any more."""
        run("nft", "flush", "set", "bridge", "chaos", "cut")

    def dropped(self) -> int:
        """How many packets have been dropped so far."""
        words = run("nft", "list", "counter", "bridge", "chaos", "dropped").split()
        return int(words[words.index("packets") + 1])


def remove(namespace: str) -> None:
    """Remove a namespace, if it was made."""
    if os.path.exists(f"{NAMESPACES}/{namespace}"):
        run("ip", "netns", "delete", namespace)
