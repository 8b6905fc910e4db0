"""The tools behind `make bench` and `make bench-redis`: what they choose, count and refuse."""

import argparse
from pathlib import Path

import pytest

from bench import __main__ as hot
from bench import memory, redis
from bench.redis import FLOORS, NAMES, POINTS, Comparison, Figure, Point, chosen, report
from eraft._core import log
from eraft.errors import ConfigError


class Made:
    """A system that is only a name: its figures are given."""

    def __init__(self, name: str) -> None:
        self.name = self.title = name


def comparison(figures: dict[str, list[tuple[float, float]]], point: Point) -> Comparison:
    found = Comparison([Made(name) for name in figures], [point], 1.0)  # type: ignore[list-item]
    for name, rounds in figures.items():
        found.figures[name][point] = [Figure(*figure) for figure in rounds]
    return found


def test_every_floor_belongs_to_a_point() -> None:
    assert {*FLOORS, *redis.CPU_CEILINGS_US} <= {str(point) for point in POINTS}


@pytest.mark.parametrize(
    ("text", "names", "points"),
    [
        ("", list(NAMES), 8),
        ("redis,eraft", ["redis", "eraft"], 8),
        ("set", list(NAMES), 4),
        ("get,64", list(NAMES), 1),
        ("64,256", list(NAMES), 4),
        ("SET@64xP16,pure", ["pure"], 1),
        ("set@1,get@1", list(NAMES), 2),
    ],
)
def test_only(text: str, names: list[str], points: int) -> None:
    found_names, found_points = chosen(text)
    assert found_names == names
    assert len(found_points) == points


def test_only_knows_its_words() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="there is no 'mysql'; there are redis"):
        chosen("redis,mysql")


def test_a_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    point = Point("SET", 64)
    found = comparison(
        {"redis": [(100, 1), (50, 1), (1000, 1)], "eraft": [(50, 20), (40, 90), (600, 50)]}, point
    )
    assert found.ratio("eraft", "redis", point) == 0.6
    assert found.ops_per_s("eraft", point) == 50
    assert found.cpu_us("eraft", point) == 50
    assert found.ratio("eraft", "pure", point) is None


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ((41, 59), ("", "")),
        ((39, 59), ("BELOW THE FLOOR", "")),
        ((41, 61), ("", "ABOVE THE CEILING")),
        ((39, 61), ("BELOW THE FLOOR", "ABOVE THE CEILING")),
    ],
)
def test_a_missed_floor_is_said(figure: tuple[float, float], said: tuple[str, str]) -> None:
    text = "\n".join(report(comparison({"redis": [(100, 1)], "eraft": [figure]}, Point("SET", 64))))
    for words, wanted in zip(("BELOW THE FLOOR", "ABOVE THE CEILING"), said, strict=True):
        assert (words in text) == bool(wanted)


def test_void_runs_are_part_of_the_report() -> None:
    found = comparison({"redis": [(100, 1)]}, Point("SET", 64))
    found.repeated.append("eraft SET@64: the leader changed")
    assert report(found)[-1] == "eraft SET@64: the leader changed"


def bench_of(group: str, impl: str | None, median_s: float) -> dict[str, object]:
    extra = {} if impl is None else {"impl": impl}
    name = f"test[{impl}]"
    return {
        "group": group,
        "name": name,
        "fullname": name,
        "extra_info": extra,
        "stats": {"median": median_s},
    }


def test_the_table_of_hot_paths() -> None:
    figures = [bench_of("log: append", "cython", 2e-6), bench_of("log: append", "python", 9e-6)]
    found = hot.medians_us(figures)
    assert found == {"log: append": {"cython": pytest.approx(2), "python": pytest.approx(9)}}
    assert hot.table(found)[-1].split() == ["log:", "append", "9.0", "2.0", "4.5"]


@pytest.mark.parametrize(
    ("impls", "complaint"),
    [
        (["cython"], "'p': measured on cython only"),
        (["cython", "cython"], "implementation 'cython' of 'p'"),
        (["cython", None], "implementation None of 'p'"),
        (["cython", "pypy"], "implementation 'pypy' of 'p'"),
    ],
)
def test_benches_that_do_not_compare_are_refused(impls: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        hot.medians_us([bench_of("p", impl, 1e-6) for impl in impls])
    assert complaint in str(error.value)


def test_a_traced_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "TRACED", True)
    with pytest.raises(ConfigError, match="line tracing"):
        hot.check_builds()


def test_the_disk_is_measured(tmp_path: Path) -> None:
    assert redis.fsync_us(tmp_path, samples=3) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ((0.01, 50_000_000, 140_000_000, 140_000_000), False),
        ((0.01, 50_000_000, 140_000_000, 173_000_000), False),
        ((0.03, 50_000_000, 140_000_000, 140_000_000), True),
        ((0.01, 121_000_000, 140_000_000, 140_000_000), True),
        ((0.01, 50_000_000, 140_000_000, 174_000_000), True),
    ],
)
def test_a_node_that_takes_more_than_allowed_is_marked(
    figures: tuple[float, int, int, int], missed: bool
) -> None:
    lines = memory.report([memory.Footprint(*figures)], 120, 600)
    assert ("MORE THAN ALLOWED" in lines[1]) is missed
