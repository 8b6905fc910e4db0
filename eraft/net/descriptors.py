"""How many files and sockets this process may have open."""

import logging
import resource

from eraft import limits
from eraft.errors import ConfigError

logger = logging.getLogger("eraft")


def client_connections(wanted: int) -> int:
    """Raise the limit of open files as far as needed; how many client connections fit into it.

    Without room of its own the log or the database would be what fails when
    clients have taken every descriptor, and that ends the node.

    Raises:
        ConfigError: not even one connection fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + limits.RESERVED_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    fitting = allowed - limits.RESERVED_FILES
    if fitting < 1:
        raise ConfigError(
            f"this process may have {hard} files open (ulimit -Hn), "
            f"a node needs more than {limits.RESERVED_FILES}"
        )
    if fitting < wanted:
        logger.warning(
            "only %d client connections instead of %d: this process may have %d files open "
            "(ulimit -Hn)",
            fitting,
            wanted,
            hard,
        )
    return fitting
