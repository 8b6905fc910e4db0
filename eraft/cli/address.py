"""Addresses as people write them: host:port, [::1]:port."""

import ipaddress

from eraft import limits
from eraft.errors import ConfigError


def parse(text: str, what: str, port_zero: bool = False) -> tuple[str, int]:
    """Host and port. `what` names the setting in the ConfigError; `port_zero` allows port 0."""
    host, colon, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{what}: {text!r}: write an IPv6 address as [::1]:6379")
    if not colon or not host or len(host) > limits.HOST_CHARS or any(c.isspace() for c in host):
        raise ConfigError(f"{what}: {text!r} is not host:port")
    if not (port_text.isascii() and port_text.isdigit()):
        raise ConfigError(f"{what}: {text!r}: {port_text!r} is not a port number")
    port = int(port_text)
    if not (0 if port_zero else 1) <= port <= 65535:
        raise ConfigError(f"{what}: {text!r}: a port is at most 65535 and at least 1")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; a name that is not `localhost` counts as no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
