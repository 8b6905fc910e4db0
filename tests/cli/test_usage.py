"""Help, versions and wrong usage: exit status 0 and 2."""

import pytest

import eraft

COMMANDS = [
    ["init"],
    ["serve"],
    ["cluster"],
    ["cluster", "start"],
    ["cluster", "stop"],
    ["cluster", "status"],
    ["cluster", "kill"],
    ["cluster", "restart"],
    ["cluster", "pause"],
    ["cluster", "resume"],
    ["meta"],
    ["meta", "join"],
    ["meta", "open"],
    ["meta", "query"],
    ["meta", "leave"],
    ["meta", "move"],
    ["status"],
    ["demo"],
]


def test_version_names_the_implementation(cli):
    result = cli("--version")
    assert result.status == 0
    assert result.out == f"eraft {eraft.__version__} ({eraft.IMPL})\n"


def test_help_lists_the_commands(cli):
    result = cli("--help")
    assert result.status == 0
    for command in {words[0] for words in COMMANDS}:
        assert f"\n    {command} " in result.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help(cli, words):
    result = cli(*words, "--help")
    assert result.status == 0
    assert f"usage: eraft {' '.join(words)} " in result.out


@pytest.mark.parametrize("words", [["init"], ["serve"], ["cluster"], ["meta"], ["status"]])
def test_help_of_what_is_typed_first_has_examples(cli, words):
    assert "examples:\n  eraft " in cli(*words, "--help").out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["init"], "the following arguments are required: --data-dir"),
        (["init", "--data-dir", "x", "--cluster-id", "c", "--node-id", "0"], "0 is not a positive"),
        (["cluster", "start"], "the following arguments are required: --dir"),
        (["cluster", "start", "--dir", "x", "--nodes", "none"], "none is not a positive number"),
        (["cluster", "start", "--dir", "x", "--timeout-s", "-1"], "-1 is not a number of seconds"),
        (["cluster", "kill", "--dir", "x"], "the following arguments are required: NODE"),
        (["meta", "join", "1", "2"], "the following arguments are required: --node"),
        (["meta", "join", "1", "--node", "h:1"], "the following arguments are required: NODE_ID"),
        (["meta", "query", "one", "--node", "h:1"], "invalid int value: 'one'"),
        (["status"], "one of the arguments --node --dir is required"),
        (["status", "--node", "h:1", "--dir", "d"], "not allowed with argument"),
        (["serve", "--segment-size-bytes", "64M"], "invalid int value: '64M'"),
    ],
)
def test_wrong_usage_is_named_with_status_2(cli, words, complaint):
    result = cli(*words)
    assert result.status == 2
    assert result.out == ""
    assert complaint in result.err


@pytest.mark.parametrize(
    "address", ["localhost", "127.0.0.1:", "127.0.0.1:x", ":1", "h:70000", "::1:5"]
)
def test_a_wrong_address_is_named_with_status_2(cli, address):
    result = cli("meta", "open", "--node", address)
    assert result.status == 2
    assert repr(address) in result.err


def test_a_node_that_does_not_answer_is_named_with_status_1(cli):
    result = cli("status", "--node", "127.0.0.1:1")
    assert result.status == 1
    assert "127.0.0.1:1: Connection refused" in result.err
