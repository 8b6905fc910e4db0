"""A redis-server for the whole run of these tests."""

from collections.abc import Iterator

import pytest

from .redis_server import SERVER, Connection, redis_server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    if SERVER is None:
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path_factory.mktemp("redis")) as connection:
        yield connection
