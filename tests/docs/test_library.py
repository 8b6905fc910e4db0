"""docs/library.md shows what the examples are, and its snippets do what they say."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import eraft.raft
from eraft import host
from eraft._pure import log
from eraft.raft import confchange, quorum

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SESSIONS = [block for block in BLOCKS if block.startswith(">>>")]
SHOWN = [block for block in BLOCKS if not block.startswith(">>>")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_the_page_has_blocks_of_both_kinds():
    assert len(SHOWN) >= 5
    assert SESSIONS


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.split("\n")[0][:40].strip())
def test_what_is_shown_is_in_an_example(block):
    assert any("\n" + block in path.read_text() for path in EXAMPLES)


@pytest.mark.parametrize("session", SESSIONS)
def test_sessions_answer_as_shown(session):
    test = doctest.DocTestParser().get_doctest(session, {}, "library.md", None, None)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("name", ["counter.py", "locks.py"])
def test_programs_on_the_ready_host_are_short(name):
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 100


def public():
    for module in (eraft.raft, host, quorum, confchange):
        names = getattr(module, "__all__", None) or [
            name
            for name, it in vars(module).items()
            if not name.startswith("_") and getattr(it, "__module__", "") == module.__name__
        ]
        for name in names:
            # A compiled class has its documentation in its twin.
            it = log.EntryLog if name == "EntryLog" else getattr(module, name)
            yield f"{module.__name__}.{name}", it
            if inspect.isclass(it):
                for member, value in inspect.getmembers(it, inspect.isfunction):
                    if not member.startswith("_"):
                        yield f"{module.__name__}.{name}.{member}", value


@pytest.mark.parametrize(
    ("name", "it"), list(public()), ids=lambda it: it if type(it) is str else ""
)
def test_public_names_are_documented(name, it):
    assert inspect.getdoc(it), name
