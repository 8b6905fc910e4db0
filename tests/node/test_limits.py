"""What a client may ask of a node without taking it down."""

from eraft import limits
from tests.node.world import opened

OK = b"+OK\r\n"


def encoded(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)


def test_the_expiry_of_many_long_keys_fits_into_entries() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    count = limits.ENTRY_SIZE_BYTES // limits.KEY_SIZE_BYTES + 10
    for number in range(count):
        key = b"%08d" % number + b"k" * (limits.KEY_SIZE_BYTES - 8)
        client.send(encoded(b"SET", key, b"v", b"PX", b"100"))
        if number % 8 == 0:
            world.settle()
    world.settle()
    assert client.received == OK * count
    world.until(lambda: not world.nodes[world.leader(1)].replicas[1].machine.due(1 << 62, 1))
    client.received = b""
    client.send("DBSIZE")
    world.settle()
    assert client.received == b":0\r\n"


def test_replies_of_many_runs_count_together_against_the_output_limit() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    client.send(encoded(b"SET", b"a", bytes(limits.VALUE_SIZE_BYTES)))
    world.settle()
    client.received = b""
    client.send(b"GET a\r\nPING\r\n" * 40)
    world.settle()
    assert client.closed == "its replies exceed the output buffer limit"
    assert client.received == b""
    other = world.connect(world.leader(1))
    other.send("STRLEN a")
    world.settle()
    assert other.received == b":%d\r\n" % limits.VALUE_SIZE_BYTES


def test_a_run_that_is_too_large_ends_a_connection_that_was_about_to_end() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    client.send(encoded(b"SET", b"a", bytes(limits.VALUE_SIZE_BYTES)))
    world.settle()
    client.received = b""
    client.send(b"GET a\r\n" * 10 + b"QUIT\r\n")
    world.settle()
    assert client.closed == "its replies exceed the output buffer limit"
    assert client.received == b""


def test_what_the_writes_of_one_entry_answer_is_bounded() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    client.send(encoded(b"SET", b"a", bytes(limits.VALUE_SIZE_BYTES)))
    world.settle()
    machine = world.nodes[world.leader(1)].shard(1).machine
    replies: list[object] = []
    payload = bytes(8) + encoded(b"GETEX", b"a") * 12
    machine.apply(machine.rows, world.nodes[world.leader(1)].shard(1).applied, 1, payload, replies)
    sizes = [len(reply) for reply in replies if isinstance(reply, bytes)]
    assert len(sizes) == 12
    assert sum(sizes) < limits.CLIENT_OUTPUT_BYTES + limits.VALUE_SIZE_BYTES
