"""The table of commands: complete, well-formed, and equal to what Redis says of itself."""

from typing import Any

import pytest

from eraft.shardkv.specs import COMMANDS, PLAIN_READS, PLAIN_WRITES, CommandSpec, Kind

from .redis_server import Connection

EVERY = list(COMMANDS.values()) + [
    subcommand for spec in COMMANDS.values() for subcommand in spec.subcommands
]
NEWER = {b"CLIENT|SETINFO"}
"""Commands that Redis 7.0 does not have."""


def described(info: list[Any]) -> tuple[Any, ...]:
    """The first fields of an element of the reply to COMMAND INFO."""
    name, arity, flags, first, last, step, categories, tips = info[:8]
    return name, arity, flags, first, last, step, categories, tips


def ours(spec: CommandSpec) -> tuple[Any, ...]:
    return (
        spec.name.lower(),
        spec.arity,
        [flag.encode() for flag in spec.flags],
        spec.first_key,
        spec.last_key,
        spec.key_step,
        [b"@" + category.encode() for category in spec.categories],
        [tip.encode() for tip in spec.tips],
    )


def test_what_redis_says_of_every_command(redis: Connection) -> None:
    infos = redis.execute(b"COMMAND", b"INFO", *COMMANDS)
    for spec, info in zip(COMMANDS.values(), infos, strict=True):
        assert ours(spec) == described(info)
        theirs = {sub[0].upper(): sub for sub in info[9]}
        for subcommand in spec.subcommands:
            if subcommand.name not in NEWER:
                assert ours(subcommand) == described(theirs[subcommand.name])


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name.decode())
def test_docs(redis: Connection, spec: CommandSpec) -> None:
    if spec.name in NEWER:
        return
    doc = redis.execute(b"COMMAND", b"DOCS", spec.name)[1]
    fields = dict(zip(doc[::2], doc[1::2], strict=True))
    assert spec.since.encode() == fields[b"since"]
    assert spec.group.encode() == fields[b"group"]


def test_plain_commands_have_one_key_and_a_valid_arity() -> None:
    for name, count in {**PLAIN_WRITES, **PLAIN_READS}.items():
        assert COMMANDS[name].first_key == 1
        assert COMMANDS[name].accepts(count)
    assert all(COMMANDS[name].kind is Kind.WRITE for name in PLAIN_WRITES)
    assert all(COMMANDS[name].kind is Kind.READ for name in PLAIN_READS)


def test_kinds() -> None:
    for spec in EVERY:
        assert (spec.first_key > 0) == (spec.kind in (Kind.READ, Kind.WRITE)), spec.name
        if spec.kind is Kind.READ:
            assert "readonly" in spec.flags
        if spec.kind is Kind.LOCAL:
            assert not {"readonly", "write"} & set(spec.flags)


@pytest.mark.parametrize(
    ("arity", "count", "right"),
    [(2, 2, True), (2, 1, False), (2, 3, False), (-2, 1, False), (-2, 9, True)],
)
def test_arity(arity: int, count: int, right: bool) -> None:
    spec = COMMANDS[b"GET"] if arity == 2 else COMMANDS[b"DEL"]
    assert spec.arity == arity
    assert spec.accepts(count) is right
