"""The demo's own parts; `make demo` runs the whole of it."""

from itertools import islice

import pytest

from eraft.cli import demo
from eraft.cli.arguments import CommandFailed
from eraft.cli.demo import Demo
from eraft.cli.demo_writer import Writer
from eraft.types import BUCKETS

EMPTY = {"version": 0, "opened": False, "nodes": {}, "groups": {}, "buckets": []}
NODE = {"store_id": "s", "client": "h:1", "peer": "h:2", "admin": "h:3"}
GROUP = {"weight": 1, "replicas": [{"node_id": 1}, {"node_id": 3}]}


def test_versions_are_told_by_what_they_changed():
    registered = {**EMPTY, "nodes": {"1": NODE}}
    joined = {**registered, "groups": {"4": GROUP}}
    opened = {**joined, "opened": True, "buckets": [[0, 16383, 4]]}
    assert demo.difference(EMPTY, registered) == "node 1 registered, its clients use h:1"
    assert demo.difference(registered, joined) == "group 4 joined, replicas on the nodes 1, 3"
    assert demo.difference(joined, opened) == "opened, 1 ranges of buckets have owners"


def test_keys_are_different_and_of_the_group():
    from eraft._impl import hashing

    table = {"buckets": [[0, 99, 1], [100, BUCKETS - 1, 2]]}
    keys = list(islice(demo.keys_of(table, 1), 20))
    assert len(set(keys)) == 20
    assert all(hashing.bucket_of(key.encode()) < 100 for key in keys)


def test_batches_are_everything_in_order():
    items = [str(n) for n in range(7)]
    assert [*demo.batches(items, 3)] == [items[:3], items[3:6], items[6:]]


def test_what_does_not_hold_ends_it(tmp_path, capsys):
    shown = Demo(tmp_path)
    shown._check(True, "water is wet")
    assert "ok: water is wet" in capsys.readouterr().out
    with pytest.raises(CommandFailed, match="not true: water is dry"):
        shown._check(False, "water is dry")


def test_a_failed_check_is_named_and_all_is_removed(cli, tmp_path, monkeypatch):
    def broken(self: Demo) -> None:
        self._check(False, "water is dry")

    monkeypatch.setattr(Demo, "show", broken)
    result = cli("demo", "--dir", tmp_path / "d")
    assert result.status == 1
    assert "FAILED: not true: water is dry" in result.out
    assert not (tmp_path / "d").exists()


def test_a_directory_with_something_in_it_is_left_alone(cli, tmp_path):
    (tmp_path / "thesis.tex").touch()
    result = cli("demo", "--dir", tmp_path)
    assert result.status == 1
    assert f"{tmp_path} is not empty" in result.err
    assert (tmp_path / "thesis.tex").exists()


def test_the_longest_time_between_two_writes():
    writer = Writer.__new__(Writer)
    writer._times_s = [1.0, 4.0, 4.5, 6.0, 6.1]
    assert writer.gap_s(0) == 3.0
    assert writer.gap_s(4.2) == 1.5
    assert writer.gap_s(7) == 0.0
    assert (writer.since(4.5), writer.since(7)) == (2, 0)
