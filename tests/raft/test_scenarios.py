"""The scenarios in `scenarios/*.txt` do what is written in them (see `script`)."""

from pathlib import Path

import pytest

from tests.raft.script import DIRECTORY, written

SCENARIOS = sorted(DIRECTORY.glob("*.txt"))


def test_there_are_scenarios() -> None:
    names = {path.stem for path in SCENARIOS}
    assert names >= {
        "election",
        "pre_vote",
        "check_quorum",
        "transfer",
        "joint_consensus",
        "learner",
        "snapshot",
        "read_index",
        "divergent_logs",
        "bad_messages",
    }


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text = path.read_text()
    assert written(text) == text, "`python -m tests.raft.script` writes what happens now"
