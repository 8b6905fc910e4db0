"""The commit index, with a batch of acknowledgements."""

import pytest

from bench.conftest import BATCH, Hot, Measure


@pytest.mark.parametrize("voters", [3, 5])
def test_record(hot: Hot, measure: Measure, voters: int) -> None:
    table = hot.commit.MatchTable(range(1, voters + 1))
    acknowledgements = [(1 + i % voters, i + 1) for i in range(BATCH)]

    def record() -> int:
        table.reset()
        for replica_id, index in acknowledgements:
            table.record(replica_id, index)
        committed: int = table.committed()
        return committed

    assert BATCH - voters < measure(f"commit: acknowledgements of {voters} voters", record) < BATCH
