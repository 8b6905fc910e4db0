"""Both implementations of a hot path, measured the same way.

A benchmark takes `hot` (its modules: `hot.log`) and `measure`; it runs once
per implementation, and the two results share a group named for the hot path.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

PACKAGES = {"python": "eraft._pure", "cython": "eraft._core"}
BATCH = 64
"""Commands, entries or messages that a busy node has in hand at a time."""

Measure = Callable[..., Any]


class Hot:
    """The hot modules of one implementation, none of them traced."""

    def __init__(self, impl: str) -> None:
        self.impl = impl

    def __getattr__(self, name: str) -> ModuleType:
        module = importlib.import_module(f"{PACKAGES[self.impl]}.{name}")
        if self.impl != module.IMPL:
            pytest.fail(f"{module.__name__} says that it is {module.IMPL}")
        if self.impl == "cython" and module.TRACED:
            pytest.exit(f"{module.__name__} is built with line tracing: rebuild it to measure")
        setattr(self, name, module)
        return module


@pytest.fixture(params=list(PACKAGES))
def impl(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def hot(impl: str) -> Hot:
    return Hot(impl)


@pytest.fixture
def measure(benchmark: BenchmarkFixture, impl: str) -> Measure:
    """measure(path, function, *arguments) returns what the function does."""

    def run(path: str, function: Callable[..., Any], *args: Any) -> Any:
        benchmark.group = path
        benchmark.extra_info["impl"] = impl
        return benchmark(function, *args)

    return run


@pytest.fixture
def keys() -> list[bytes]:
    """The keys of a batch, as redis-benchmark makes them."""
    return [b"key:%012d" % (7919 * i) for i in range(BATCH)]
