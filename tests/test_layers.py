"""The architecture, enforced: imports point downwards only, and what decides has no I/O."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import eraft

PACKAGE = Path(eraft.__file__).parent

# From top to bottom; names in one tuple may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("host",),
    ("net",),
    ("node",),
    ("shardkv",),
    ("metaserver",),
    ("raft",),
    ("storage",),
    ("", "_impl"),  # "" is eraft/__init__.py, which only chooses
    ("_core",),
    ("_pure",),
    ("errors",),
    ("limits",),
    ("types",),
)
RANK = {name: len(LAYERS) - n for n, names in enumerate(LAYERS) for name in names}
LEAVES = {"errors", "limits", "types"}

# These decide; files, sockets, threads, chance and time come to them as arguments.
DECIDING = {"node", "shardkv", "metaserver", "raft"}
SHELL_MODULES = {"asyncio", "uvloop", "time", "threading", "socket", "selectors", "select"}
IO_MODULES = SHELL_MODULES | {
    "_thread",
    "concurrent",
    "datetime",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "secrets",
    "shutil",
    "signal",
    "subprocess",
    "tempfile",
    "uuid",
}
# The log writer is a thread in both implementations.
ALLOWED = {("_pure.wal", "threading"), ("_core.wal", "threading")}

CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<source>[\w.]+)\s+c?import\s+(?P<names>[^#]+)|c?import\s+(?P<modules>[^#]+))"
)


def python_imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from m import n` gives m.n, which may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def cython_imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        match = CYTHON_IMPORT.match(line)
        if match is None:
            continue
        if match["source"]:
            base = absolute(match["source"], package)
            for name in re.findall(r"\w+", re.sub(r"\bas\s+\w+", "", match["names"])):
                yield number, f"{base}.{name}"
        else:
            for name in match["modules"].split(","):
                yield number, name.split()[0]


def absolute(name: str, package: str) -> str:
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    parent = package.split(".")[: len(package.split(".")) - dots + 1]
    return ".".join([*parent, *filter(None, [name.lstrip(".")])])


def layer_of(module: str) -> str:
    """`eraft.raft.group.RaftGroup` -> `raft`; `eraft.IMPL` -> `` (the package itself)."""
    name = module.removeprefix("eraft").removeprefix(".").split(".")[0]
    return name if name in RANK else ""


def violations(name: str, source: str, cython: bool = False) -> list[str]:
    """What is wrong with the imports of the module `name` (dotted, without `eraft.`)."""
    layer = name.split(".")[0]
    package = "eraft." + name.rpartition(".")[0] if "." in name else "eraft"
    found = []
    imports = cython_imports if cython else python_imports
    for line, module in imports(source, package):
        where = f"{name}:{line} imports {module}"
        top = module.split(".")[0]
        if top == "eraft":
            target = layer_of(module)
            if layer in LEAVES or RANK[target] > RANK[layer]:
                found.append(f"{where}: not below {layer or 'eraft'}")
        elif (name, top) in ALLOWED:
            continue
        elif top in SHELL_MODULES and layer not in {"net", "host", "cli"}:
            found.append(f"{where}: only net, host and cli may")
        elif top in IO_MODULES and layer in DECIDING:
            found.append(f"{where}: {layer} has no I/O")
        elif top == "random" and layer in DECIDING and module not in {"random", "random.Random"}:
            found.append(f"{where}: only random.Random, which has a seed")
    if layer in DECIDING:
        found += chance(name, source)
    return found


def chance(name: str, source: str) -> Iterator[str]:
    """What makes two runs from one seed differ."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "random"
            and node.attr != "Random"
            and isinstance(node.ctx, ast.Load)
            and imports_module(source, "random")
        ):
            yield f"{name}:{node.lineno} uses random.{node.attr}: only random.Random, with a seed"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"hash", "id"}
        ):
            yield f"{name}:{node.lineno} calls {node.func.id}(): differs from run to run"


def imports_module(source: str, module: str) -> bool:
    return any(name == module for _, name in python_imports(source, "eraft"))


def modules() -> list[Path]:
    return sorted(path for suffix in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{suffix}"))


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return "" if name == "__init__" else name


def test_every_layer_is_known() -> None:
    tops = {dotted(path).split(".")[0] for path in modules()}
    assert tops <= set(RANK), f"not in LAYERS: {sorted(tops - set(RANK))}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    assert not violations(dotted(path), path.read_text(), cython=path.suffix != ".py")


@pytest.mark.parametrize(
    ("name", "source", "cython"),
    [
        ("raft.group", "from eraft.node import options", False),
        ("raft.group", "from eraft import node", False),
        ("raft.group", "from ..shardkv.machine import ShardMachine", False),
        ("raft.group", "def f():\n    import time", False),
        ("raft.group", "from random import random", False),
        ("raft.group", "import random\nrandom.random()", False),
        ("raft.group", "x = hash('a')", False),
        ("node.node", "import os", False),
        ("storage.wal", "import asyncio.events", False),
        ("storage.wal", "from eraft.raft import RaftGroup", False),
        ("errors", "from eraft import types", False),
        ("_pure.log", "from eraft._impl import IMPL", False),
        ("_pure.log", "import threading", False),
        ("_core.log", "from eraft.raft.group cimport Group", True),
        ("_core.log", "    import socket", True),
    ],
)
def test_a_violation_is_found(name: str, source: str, cython: bool) -> None:
    assert violations(name, source, cython)


@pytest.mark.parametrize(
    ("name", "source", "cython"),
    [
        ("raft.group", "from eraft._impl import log\nfrom . import progress", False),
        ("raft.group", "import random\n\ndef f(rng: random.Random): rng.random()", False),
        ("shardkv.machine", "from eraft.metaserver.table import ConfigTable", False),
        ("net.server", "import asyncio, time\nfrom eraft.node.options import NodeOptions", False),
        ("_core.log", "from libc.string cimport memcpy\nfrom eraft._core.buffer cimport B", True),
        ("_pure.wal", "import threading", False),
    ],
)
def test_what_is_right_is_let_through(name: str, source: str, cython: bool) -> None:
    assert not violations(name, source, cython)
