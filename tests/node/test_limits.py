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
