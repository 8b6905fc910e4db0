"""The only chooser between the compiled hot modules and their Python twins.

`ERAFT_IMPL=cython` or `ERAFT_IMPL=python` forces one and fails loudly if it
is not there; unset means compiled, else pure with a warning. The twins are
also what type checkers see. `IMPL` tells which one runs, and `TRACED` whether
the compiled one traces its lines, for coverage and never for speed.
"""

import os
import warnings
from typing import TYPE_CHECKING, Final

__all__ = ["IMPL", "TRACED", "batch", "commit", "frames", "hashing", "log", "resp", "wal"]

_wanted = os.environ.get("ERAFT_IMPL", "")
if _wanted not in ("", "cython", "python"):
    raise ImportError(f"ERAFT_IMPL={_wanted!r}: must be 'cython' or 'python'")

if TYPE_CHECKING:
    from eraft._pure import batch, commit, frames, hashing, log, resp, wal

    IMPL: Final[str] = "python"
    TRACED: Final[bool] = False
elif _wanted == "python":
    from eraft._pure import batch, commit, frames, hashing, log, resp, wal

    IMPL = "python"
    TRACED = False
else:
    try:
        from eraft._core import batch, commit, frames, hashing, log, resp, wal

        IMPL = "cython"
        TRACED = log.TRACED
    except ImportError as error:
        if _wanted:
            raise ImportError(
                f"ERAFT_IMPL=cython, but the compiled modules cannot be loaded: {error}"
            ) from error
        warnings.warn(
            f"eraft runs in pure Python, the compiled modules cannot be loaded: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        from eraft._pure import batch, commit, frames, hashing, log, resp, wal

        IMPL = "python"
        TRACED = False
