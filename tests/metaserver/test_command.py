"""The META commands of the admin port."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eraft.errors import NotApplied, ProtocolError
from eraft.metaserver.command import HELP, parse
from eraft.metaserver.operations import Forget, Join, Open, Operation, Query, Replicas


@pytest.mark.parametrize(
    ("line", "operation"),
    [
        ("JOIN 1 1", Join(1, (1,))),
        ("join 4294967295 3 1 2", Join(4294967295, (3, 1, 2))),
        ("JOIN 1 1 2 3 weight 7", Join(1, (1, 2, 3), 7)),
        ("OPEN", Open()),
        ("QUERY", Query()),
        ("query 12", Query(12)),
        ("REPLICAS 1 ADD 4", Replicas(1, (4,), ())),
        ("replicas 0 remove 2 add 4 5 remove 3", Replicas(0, (4, 5), (2, 3))),
        ("REPLICAS 1 ADD 2 REMOVE 2", Replicas(1, (2,), (2,))),
        ("FORGET 3", Forget(3)),
    ],
)
def test_commands(line: str, operation: Operation) -> None:
    assert parse(line.encode().split()) == operation


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "META needs a subcommand: JOIN, REPLICAS, FORGET, OPEN, QUERY, LEAVE, MOVE"),
        ("JOYN 1 1", "unknown subcommand META 'JOYN'"),
        ("JOIN", "META JOIN: needs a gid and at least one node id; usage: META JOIN gid"),
        ("JOIN 1", "needs a gid and at least one node id"),
        ("JOIN WEIGHT 2", "needs a gid and at least one node id"),
        ("JOIN 0 1", "gid: must be from 1"),
        ("JOIN one 1", "gid: must be a whole number, not 'one'"),
        ("JOIN 1 -1", "node id: must be a whole number, not '-1'"),
        ("JOIN 1 4294967296", "node id: must be from 1 to 4294967295"),
        ("JOIN 1 1 1", "node 1 is named twice"),
        ("JOIN 1 1 2 3 4 5 6 7 8", "8 nodes, must be 1 to 7"),
        ("JOIN 1 1 WEIGHT 0", "weight: must be from 1"),
        ("JOIN 1 1 WEIGHT", "node id: must be a whole number, not 'WEIGHT'"),
        ("REPLICAS", "META REPLICAS: needs a gid; usage: META REPLICAS gid"),
        ("REPLICAS 1", "no node to add or to remove"),
        ("REPLICAS 1 ADD", "no node to add or to remove"),
        ("REPLICAS 1 4", "ADD or REMOVE comes before '4'"),
        ("REPLICAS 1 ADD 4 4", "node 4 is named twice"),
        ("REPLICAS 1 ADD 1 2 3 4 5 6 7 8", "8 nodes, must be 0 to 7"),
        ("REPLICAS x ADD 1", "gid: must be a whole number, not 'x'"),
        ("REPLICAS 1 ADD 0", "node id: must be from 1"),
        ("FORGET", "META FORGET: needs a node id"),
        ("FORGET 1 2", "META FORGET: needs a node id"),
        ("OPEN now", "META OPEN: too many arguments"),
        ("QUERY 1 2", "META QUERY: too many arguments"),
        ("QUERY x", "version: must be a whole number, not 'x'"),
    ],
)
def test_mistakes_are_named(line: str, complaint: str) -> None:
    with pytest.raises(ProtocolError) as error:
        parse(line.encode().split())
    assert complaint in str(error.value)


@pytest.mark.parametrize("line", ["LEAVE 1", "MOVE 1 5 6", "leave"])
def test_what_is_not_there_yet_says_so(line: str) -> None:
    with pytest.raises(NotApplied, match="not available yet"):
        parse(line.encode().split())


@given(
    st.lists(
        st.sampled_from([b"JOIN", b"1", b"2", b"WEIGHT", b"QUERY", b"REPLICAS", b"ADD"])
        | st.binary(),
        max_size=6,
    )
)
def test_whatever_arrives_is_a_command_or_a_clear_error(args: list[bytes]) -> None:
    try:
        parse(args)
    except (ProtocolError, NotApplied) as error:
        assert str(error).isprintable()


def test_every_subcommand_has_a_help_text() -> None:
    for name, (usage, meaning) in HELP.items():
        assert usage.startswith(f"META {name}")
        assert meaning
