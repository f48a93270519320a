"""Which way round a ratio is, and when a bound holds."""

from __future__ import annotations

from tests.benchmarks.result import at_least, at_most, line


def test_less_time_than_the_peer_is_a_ratio_above_one() -> None:
    found = line("fresh", [90.0, 100.0, 110.0], "ms", peer=[2900.0, 3000.0, 3500.0])
    assert found.ratio == 30.0
    assert found.best == 90.0


def test_a_higher_rate_than_the_peer_is_a_ratio_above_one() -> None:
    found = line("put", [80.0, 120.0], "MB/s", peer=[50.0], more_is_better=True)
    assert found.ratio == 2.0
    assert found.best == 120.0


def test_without_a_peer_there_is_no_ratio() -> None:
    assert line("alive", [1800.0], "MB").as_json() == {
        "name": "alive",
        "ours": 1800.0,
        "peer": None,
        "ratio": None,
        "unit": "MB",
        "n": 1,
    }


def test_all_bounds_must_hold() -> None:
    bounds = at_most(150), at_least(25, "ratio")
    assert line("fresh", [150.0], "ms", *bounds, peer=[3750.0]).holds
    assert not line("fresh", [151.0], "ms", *bounds, peer=[9000.0]).holds
    assert not line("fresh", [100.0], "ms", *bounds, peer=[2499.0]).holds


def test_a_cost_is_what_is_more_than_the_peers() -> None:
    assert line("load", [180.0], "ms", at_most(30, "over peer"), peer=[150.0]).holds
    assert not line("load", [180.1], "ms", at_most(30, "over peer"), peer=[150.0]).holds


def test_a_ratio_that_was_not_measured_holds_nothing() -> None:
    assert not line("fresh", [1.0], "ms", at_least(25, "ratio")).holds
    assert not line("load", [1.0], "ms", at_most(30, "over peer")).holds


def test_a_bound_reads_as_it_is_meant() -> None:
    assert [str(at_most(150)), str(at_least(25, "ratio")), str(at_most(30, "over peer"))] == [
        "≤ 150",
        "ratio ≥ 25",
        "over peer ≤ 30",
    ]
