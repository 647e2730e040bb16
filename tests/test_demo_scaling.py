"""The demonstrations of scaling and of rollouts judge what they have seen as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests import demo_rollout, demo_scaling
from loadtests.demo_rollout import Release
from loadtests.demo_scaling import Call, Found, Look, Plan

PLAN = Plan(climb=90, stay=600, rest=160, burst=20, users=50)
GOOD = Found(second=3.0, burst=1.2, back=110.0, changes=1, failed=0, calls=9000, from_zero=0.2)


def looks(*levels: tuple[float, int, int]) -> list[Look]:
    """Ten looks a second: (seconds, ready workers, calls in flight), one after the other."""
    found: list[Look] = []
    for seconds, ready, in_flight in levels:
        found += [Look(1000 + (len(found) + step) / 10, ready, in_flight) for step in range(round(seconds * 10))]
    return found


def test_the_target_is_exceeded_when_three_periods_on_end_are_above_it() -> None:
    """A short peak is none; the time is the beginning of the first of the three."""
    seen = looks((10, 1, 4), (0.5, 1, 9), (10, 1, 4), (10, 1, 5))
    assert 1020.5 == pytest.approx(demo_scaling.exceeded(seen, 1000.0), abs=5 / 6)
    assert float("inf") == demo_scaling.exceeded(seen[:200], 1000.0)
    assert float("inf") == demo_scaling.exceeded(looks((30, 2, 8)), 1000.0)


def test_users_go_between_the_points_of_the_plan() -> None:
    """Ten seconds of one, the climb, the stay, nobody, all at once."""
    times = [seconds for seconds, _ in PLAN.points()]
    assert sorted(times) == times
    assert [1, 1, 50, 50, 0, 0, 50, 50] == [users for _, users in PLAN.points()]
    assert 10 + 90 + 600 + 160 + 20 == times[-1]


def test_figures_are_taken_of_calls_and_looks() -> None:
    """The second worker, the burst, the way back, changes while the load was constant, failed calls."""
    ends = PLAN.points()
    calls = [Call(1000 + second, 0.05, 200) for second in range(int(ends[4][0]))]
    calls += [Call(1000 + ends[6][0] + second, 0.05, 500 if second else 200) for second in range(10)]
    seen = looks((20, 1, 1), (4, 1, 9), (376, 2, 2), (300.5, 3, 2), (90, 2, 0), (70.6, 1, 0), (10, 4, 9))
    found = demo_scaling.judged(calls, seen, PLAN, 0.3)
    assert 4.0 == pytest.approx(found.second, abs=5 / 6)
    assert 1.0 == pytest.approx(found.burst, abs=0.2)
    assert 90.0 == pytest.approx(found.back, abs=0.2)
    assert (1, 9, len(calls), 0.3) == found[3:]


@pytest.mark.parametrize(
    ("worse", "told"),
    [
        ({"second": 5.1}, "second worker after the target"),
        ({"burst": None}, "burst: never"),
        ({"back": 121.0}, "back to one worker"),
        ({"changes": 2}, "changes"),
        ({"failed": 1}, "failed calls"),
        ({"from_zero": 0.6}, "from zero"),
    ],
)
def test_a_figure_that_is_missed_is_told(worse: dict[str, Any], told: str) -> None:
    """One at a time; none when all are reached."""
    assert [] == demo_scaling.faults(GOOD, PLAN)
    (fault,) = demo_scaling.faults(GOOD._replace(**worse), PLAN)
    assert told in fault


def test_a_ramp_is_charted_with_its_failed_calls() -> None:
    """Load, workers, latency."""
    drawn = demo_scaling.chart([Call(1000.0, 0.05, 200), Call(1001.5, 0.2, 500)], looks((3, 1, 1)), PLAN)
    load, workers, latency = drawn.panels
    assert [1.0, 1.0] == list(load.series[0].ys[:2])
    assert [1.5] == list(load.series[1].xs)
    assert {1.0} == set(workers.series[0].ys)
    assert [50.0, 200.0] == pytest.approx(latency.series[0].ys[:2])


def test_calls_are_read_but_for_a_line_cut_short(tmp_path: Path) -> None:
    """In the order in which they were sent."""
    (tmp_path / "calls.csv").write_text("1001.5,20.0,200\n1000.5,10.0,500\n1002.0,3")
    assert [Call(1000.5, 0.01, 500), Call(1001.5, 0.02, 200)] == demo_scaling.read_calls(tmp_path / "calls.csv")


@pytest.mark.parametrize("demo", ["scaling", "rollout"])
def test_what_is_declared_is_there(tmp_path: Path, demo: str) -> None:
    """Each endpoint's config, each config's model, each model's file."""
    if demo == "scaling":
        (tmp_path / "model.ubj").touch()
        path = demo_scaling.declared(tmp_path, tmp_path / "model.ubj")
    else:
        path = demo_rollout.declared(tmp_path)
    document = yaml.safe_load(path.read_text())
    models = {one["ModelName"]: one["PrimaryContainer"]["ModelDataUrl"] for one in document["Models"]}
    configs = {
        one["EndpointConfigName"]: one["ProductionVariants"][0]["ModelName"] for one in document["EndpointConfigs"]
    }
    assert all(Path(url).exists() for url in models.values())
    assert set(configs.values()) <= set(models)
    assert {one["EndpointConfigName"] for one in document["Endpoints"]} <= set(configs)


def released(failed: int, **described: Any) -> list[str]:
    """Faults of a bad release of a thousand calls, so many of which failed, and of a good one."""
    calls = [Call(1000 + number / 50, 0.01, 500 if number < failed else 200) for number in range(1000)]
    calls += [Call(1030 + number / 50, 0.01, 200) for number in range(500)]
    states = {"EndpointStatus": "InService", "EndpointConfigName": "blue", "FailureReason": "rolled back", **described}
    bad = Release("bad", 1000.0, 1025.0, {name: value for name, value in states.items() if value})
    good = Release("green", 1030.0, 1040.0, {"EndpointStatus": "InService", "EndpointConfigName": "green"})
    return demo_rollout.faults(calls, bad, good)


def test_a_canary_may_fail_its_share_of_the_calls() -> None:
    """A tenth, and what chance makes of it; not more, and not none."""
    assert [] == released(110)
    assert ["more calls failed than the canary's share"] == released(200)
    assert ["the canary got no call: nothing was shown"] == released(0)


def test_a_bad_release_that_stays_is_told() -> None:
    """By its config, or by the reason that is missing."""
    assert "was not rolled back" in released(100, EndpointConfigName="bad")[0]
    assert "was not rolled back" in released(100, FailureReason=None)[0]


def test_a_call_that_fails_at_any_other_time_is_told() -> None:
    """The good release fails none."""
    good = Release("green", 1030.0, 1040.0, {"EndpointStatus": "InService", "EndpointConfigName": "green"})
    bad = Release("bad", 1000.0, 1010.0, {"EndpointConfigName": "blue", "FailureReason": "x", "EndpointStatus": "-"})
    calls = [Call(1005.0, 0.1, 500), *[Call(1000 + step / 10, 0.1, 200) for step in range(100)], Call(1035.0, 0.1, 500)]
    (fault,) = demo_rollout.faults(calls, bad, good)
    assert "1 calls failed while the bad release was not on its way" in fault
