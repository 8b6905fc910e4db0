"""Planted bugs: does the simulator find each of them?

Each file in `mutations/` says how to break one rule. It is applied to a copy
of the tree, and seeds are run until one fails.

    python -m tests.sim.mutate              all of them, as long as it takes; notes what it found
    python -m tests.sim.mutate NAME ...     only these
    python -m tests.sim.mutate --check      from the seeds on that have found them: for CI
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DIRECTORY = Path(__file__).parent / "mutations"
NOTES = DIRECTORY / "found.json"
TABLE = ROOT / "docs" / "testing.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- mutations -->\n", "<!-- end of mutations -->\n"
SEEDS_LIMIT = 5000
CHECK_LIMIT = 200


@dataclass(slots=True, frozen=True)
class Mutation:
    """Replaces texts, each of which is in its file exactly once."""

    name: str
    what: str
    source: str
    edits: tuple[tuple[str, str, str], ...]
    """Path, old and new text."""

    def broken(self, root: Path) -> dict[str, str]:
        """The texts of files, broken; ValueError if one is not what this was made for."""
        texts: dict[str, str] = {}
        for path, old, new in self.edits:
            text = texts.get(path) or (root / path).read_text()
            if text.count(old) != 1:
                raise ValueError(f"mutation {self.name}: {path} has {text.count(old)} times\n{old}")
            texts[path] = text.replace(old, new)
        return texts

    @property
    def implementation(self) -> str:
        """The one that the bug is in; the compiled one runs faster."""
        return "python" if any("/_pure/" in path for path, _, _ in self.edits) else "cython"


@dataclass(slots=True, frozen=True)
class Found:
    """The first seed that fails with a mutation, after how many, and which check it was."""

    seed: int
    seeds: int
    check: str


def mutations() -> dict[str, Mutation]:
    """All of them by name."""
    found = {}
    for path in sorted(DIRECTORY.glob("*.toml")):
        form = tomllib.loads(path.read_text())
        edits = tuple(
            (
                edit.get("path", form["path"]),
                edit["old"].removesuffix("\n"),
                edit["new"].removesuffix("\n"),
            )
            for edit in form["edits"]
        )
        found[path.stem] = Mutation(path.stem, form["what"], form["source"], edits)
    return found


def notes() -> dict[str, Found]:
    """What was found the last time."""
    return {name: Found(**it) for name, it in json.loads(NOTES.read_text()).items()}


def hunt(mutation: Mutation, first: int, limit: int) -> Found | None:
    """Run seeds on a broken copy of the tree, until one fails; None if none of `limit` does."""
    with tempfile.TemporaryDirectory(prefix="eraft-mutation-") as directory:
        tree = Path(directory)
        for part in ("eraft", "tests/linear", "tests/sim"):
            ignored = shutil.ignore_patterns("*.c", "*.html", "__pycache__", "mutations")
            shutil.copytree(ROOT / part, tree / part, ignore=ignored)
        for broken, text in mutation.broken(ROOT).items():
            (tree / broken).write_text(text)
        command = ["--seed", str(first), "--seeds", str(limit), "--hunt"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", *command],
            cwd=tree,
            env={**os.environ, "ERAFT_IMPL": mutation.implementation, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mutation {mutation.name}: {done.stderr}")
    answer: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1])
    if answer is None:
        return None
    if answer["why"].startswith("NameError"):
        raise RuntimeError(f"mutation {mutation.name} is broken itself: {answer['why']}")
    return Found(answer["seed"], answer["seed"] - first + 1, check_of(answer["why"]))


def check_of(why: str) -> str:
    """The name of the check, from the text of what it raised."""
    kind, _, message = why.partition(": ")
    if kind == "Violation":
        return message.partition(":")[0]
    if kind == "InvariantViolation":
        return f"eraft's own: {message.splitlines()[0].partition(':')[0]}"
    return f"eraft's own: {kind}"


def write_table(found: dict[str, Found]) -> None:
    """The table in docs/testing.md, from what was found."""
    lines = ["| planted bug | breaks | found by | seeds |\n", "|-|-|-|-|\n"]
    for name, mutation in mutations().items():
        it = found.get(name)
        told = f"{it.check} | {it.seeds}" if it else "no seed yet | "
        lines.append(f"| {mutation.what} | {mutation.source} | {told} |\n")
    text = TABLE.read_text()
    before, rest = text.split(TABLE_BEGINS)
    _, after = rest.split(TABLE_ENDS)
    TABLE.write_text(before + TABLE_BEGINS + "\n" + "".join(lines) + "\n" + TABLE_ENDS + after)


def main() -> int:
    """See the text of this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutate")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS_LIMIT)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    every, known = mutations(), notes()
    chosen = [every[name] for name in args.names or every]

    def attempt(mutation: Mutation) -> Found | None:
        if args.check:
            noted = known.get(mutation.name)
            return hunt(mutation, noted.seed if noted else 1, CHECK_LIMIT)
        return hunt(mutation, 1, args.seeds)

    failed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutation, found in zip(chosen, pool.map(attempt, chosen), strict=True):
            failed += found is None
            told = f"seed {found.seed}, {found.check}" if found else "NOT FOUND"
            print(f"{mutation.name}: {told}", flush=True)
            if not args.check:
                known.pop(mutation.name, None)
                if found is not None:
                    known[mutation.name] = found
                kept = {name: asdict(known[name]) for name in sorted(known) if name in every}
                NOTES.write_text(json.dumps(kept, indent=1) + "\n")
    if not args.check:
        write_table(known)
    print(f"{len(chosen)} planted bugs, {failed} not found")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
