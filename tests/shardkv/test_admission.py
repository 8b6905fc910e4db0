"""What is refused before the log, and which keys and bucket a command has."""

import pytest

from eraft import limits
from eraft._impl import hashing, resp
from eraft.shardkv import admission
from eraft.shardkv.specs import COMMANDS, Kind


def refused(args: list[bytes]) -> bytes:
    """The error that admission raises."""
    with pytest.raises(admission.CommandError) as caught:
        admission.admit(admission.lookup(args), args)
    assert isinstance(caught.value.reply, resp.ReplyError)
    return bytes(caught.value.reply)


def admitted(*args: bytes) -> list[bytes]:
    return admission.admit(admission.lookup(list(args)), list(args))


def test_names_become_canonical() -> None:
    assert admitted(b"set", b"k", b"v", b"ex", b"10") == [b"SET", b"k", b"v", b"ex", b"10"]
    assert admitted(b"GET", b"k") == [b"GET", b"k"]
    assert admitted(b"flushdb", b"async") == [b"FLUSHALL"]
    assert admitted(b"FLUSHALL") == [b"FLUSHALL"]
    slot = [b"cluster", b"CountKeysInSlot", b"7"]
    assert admitted(*slot) == [b"CLUSTER|COUNTKEYSINSLOT", b"CountKeysInSlot", b"7"]


def test_subcommands_have_their_own_specification() -> None:
    assert admission.lookup([b"Client", b"id"]).name == b"CLIENT|ID"
    assert admission.lookup([b"COMMAND"]).name == b"COMMAND"
    assert admission.lookup([b"cluster", b"getkeysinslot", b"1", b"2"]).kind is Kind.KEYSPACE


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_arity_of_every_command(name: bytes) -> None:
    for spec in (COMMANDS[name], *COMMANDS[name].subcommands):
        words = spec.name.split(b"|")
        least = abs(spec.arity)
        wrong = [least - 1] + ([least + 1] if spec.arity > 0 else [])
        for count in wrong:
            args = (words + [b"x"] * count)[:count]
            if len(args) >= len(words) and args:
                with pytest.raises(admission.CommandError) as caught:
                    admission.lookup(args)
                text = b"ERR wrong number of arguments for '%b' command" % spec.name.lower()
                assert caught.value.reply == text


def test_internal_commands_are_unknown() -> None:
    for name in (b"_OWN", b"_EXPIRE", b"_TICK", b"", b"\xff"):
        assert refused([name, b"1"]).startswith(b"ERR unknown command '")


def test_the_largest_key() -> None:
    largest = b"k" * limits.KEY_SIZE_BYTES
    assert admitted(b"GET", largest) == [b"GET", largest]
    for args in ([b"GET"], [b"EXISTS", b"a"], [b"SET", b"v"]):
        args.insert(1, largest + b"k")
        assert refused(args).startswith(b"ERR key exceeds maximum allowed size")


def test_the_largest_pattern() -> None:
    largest = b"*" * limits.PATTERN_SIZE_BYTES
    assert admitted(b"KEYS", largest)
    assert refused([b"KEYS", largest + b"*"]).startswith(b"ERR pattern exceeds")
    assert refused([b"SCAN", b"0", b"MATCH", largest + b"*"]).startswith(b"ERR pattern exceeds")


def test_keys_and_bucket() -> None:
    def keys(*args: bytes) -> list[bytes]:
        return admission.keys_of(admission.lookup(list(args)), list(args))

    assert keys(b"GET", b"a") == [b"a"]
    assert keys(b"SET", b"a", b"b", b"EX", b"1") == [b"a"]
    assert keys(b"DEL", b"a", b"b", b"a") == [b"a", b"b", b"a"]
    assert keys(b"MSET", b"a", b"1", b"b", b"2") == [b"a", b"b"]
    assert keys(b"DBSIZE") == []
    args = [b"MGET", b"{x}1", b"{x}2"]
    assert admission.bucket_of_command(COMMANDS[b"MGET"], args) == hashing.bucket_of(b"x")


def test_a_time_that_depends_on_the_entry_passes() -> None:
    """Only at apply is it known whether it overflows, or whether GETEX looks at it."""
    assert admitted(b"SET", b"k", b"v", b"EX", b"9223372036854775")
    assert admitted(b"GETEX", b"k", b"EX", b"nothing")


def test_the_error_as_an_exception_is_readable() -> None:
    error = admission.CommandError(resp.ReplyError(b"ERR odd \xff"))
    assert str(error) == "ERR odd \\xff"
