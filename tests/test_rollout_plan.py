"""The plan of a guarded update, and what its phases come to: pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.fleet import rollout
from serving.fleet.rollout import ACTIVATING, BAKING, CREATING, Plan, Progress
from serving.workers.sides import blended, lot

WAIT, TERMINATION = 60, 600


def percent(value: int) -> dict[str, Any]:
    """A size."""
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    """A size."""
    return {"Type": "INSTANCE_COUNT", "Value": value}


def blue_green(kind: str, **more: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    routing = {"Type": kind, "WaitIntervalInSeconds": WAIT, **more}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": TERMINATION}
    return {"BlueGreenUpdatePolicy": policy}


def rolling(size: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    return {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": WAIT, **more}}


def plan(config: dict[str, Any], count: int) -> Plan:
    """Of one variant, from as many instances to as many."""
    return rollout.plan(config, {"v": count}, {"v": count})


@pytest.mark.parametrize(
    ("config", "count", "shares"),
    [
        (blue_green("ALL_AT_ONCE"), 3, [1.0]),
        (blue_green("CANARY", CanarySize=percent(30)), 3, [1 / 3, 1.0]),
        (blue_green("CANARY", CanarySize=instances(2)), 4, [0.5, 1.0]),
        (blue_green("LINEAR", LinearStepSize=percent(30)), 10, [0.3, 0.6, 0.9, 1.0]),
        (blue_green("LINEAR", LinearStepSize=instances(2)), 5, [0.4, 0.8, 1.0]),
        (blue_green("LINEAR", LinearStepSize=percent(10)), 2, [0.5, 1.0]),
        (rolling(percent(50)), 4, [0.5, 1.0]),
        (rolling(instances(1)), 3, [1 / 3, 2 / 3, 1.0]),
        (rolling(percent(5)), 1, [1.0]),
    ],
)
def test_traffic_follows_active_instances(config: dict[str, Any], count: int, shares: list[float]) -> None:
    """Percentages are of whole instances, rounded up; the last step takes what is left (``behaviour/08``)."""
    assert shares == [step.share for step in plan(config, count).steps]


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        (blue_green("CANARY", CanarySize=percent(10)), [0.1, 1.0]),
        (blue_green("LINEAR", LinearStepSize=percent(30)), [0.3, 0.6, 0.9, 1.0]),
    ],
)
def test_one_instance_shares_traffic_by_the_percentage_itself(config: dict[str, Any], shares: list[float]) -> None:
    """A whole instance would be all of it."""
    assert shares == [step.share for step in plan(config, 1).steps]


def test_bakes_are_the_waits_that_the_policy_says() -> None:
    """After each step but the last of blue/green the interval; after that the termination wait. Rolling: always the
    interval."""
    of = {"CANARY": blue_green("CANARY", CanarySize=percent(20)), "ROLLING": rolling(percent(50))}
    waits = {name: [(step.bake, step.member) for step in plan(config, 4).steps] for name, config in of.items()}
    interval, termination = (WAIT, "WaitIntervalInSeconds"), (TERMINATION, "TerminationWaitInSeconds")
    assert {"CANARY": [interval, termination], "ROLLING": [interval, interval]} == waits


def test_rolling_needs_but_one_batch_more_than_there_was() -> None:
    """As many of the old go as new ones have come, after their bake."""
    made = plan(rolling(percent(50)), 4)
    assert [({"v": 2}, {"v": 2}), ({"v": 4}, {"v": 0})] == [(step.green, step.blue) for step in made.steps]
    assert [{"v": 4}, {"v": 2}] == [made.blue(at) for at in range(2)]


def test_variants_move_in_step() -> None:
    """One share for all of them; each has an instance as soon as it has traffic."""
    made = rollout.plan(rolling(percent(50)), {"a": 3, "b": 1}, {"a": 3, "b": 1})
    assert [0.5, 1.0] == [step.share for step in made.steps]
    assert [{"a": 2, "b": 1}, {"a": 3, "b": 1}] == [step.green for step in made.steps]
    assert [{"a": 2, "b": 1}, {"a": 0, "b": 0}] == [step.blue for step in made.steps]


def test_blue_green_comes_back_at_once_and_rolling_in_batches() -> None:
    """RollbackMaximumBatchSize; by default the whole old fleet at once."""
    shares = [
        [step.share for step in rollout.rollback(made, len(made.steps) - 1)]
        for made in (
            plan(blue_green("ALL_AT_ONCE"), 4),
            plan(rolling(instances(1)), 4),
            plan(rolling(instances(1), RollbackMaximumBatchSize=percent(50)), 4),
        )
    ]
    assert [[0.0], [0.0], [0.5, 0.0]] == shares


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (blue_green("CANARY", CanarySize=instances(2)), 3),
        (blue_green("CANARY", CanarySize=instances(1)), 1),
        (blue_green("LINEAR", LinearStepSize=instances(1)), 11),
        (rolling(instances(3)), 4),
        (rolling(instances(1)), 21),
    ],
)
def test_a_count_out_of_bounds_of_the_capacity_is_refused(config: dict[str, Any], count: int) -> None:
    """Canary at most half, linear 10 to 50 percent, rolling 5 to 50 percent."""
    with pytest.raises(ValidationError, match="percent of the endpoint's"):
        plan(config, count)


def test_an_update_goes_through_its_phases_to_an_end() -> None:
    """And green has a step's share only while it bakes, and that of the one before until then."""
    made = plan(blue_green("CANARY", CanarySize=percent(25)), 4)
    at: Progress | None = Progress(0, CREATING, 0.0)
    seen = []
    while at is not None:
        seen.append((at.step, at.phase, rollout.share(made, at)))
        at = rollout.following(made, at, 1.0)
    assert [
        (0, CREATING, 0.0),
        (0, ACTIVATING, 0.0),
        (0, BAKING, 0.25),
        (1, CREATING, 0.25),
        (1, ACTIVATING, 0.25),
        (1, BAKING, 1.0),
    ] == seen


def test_a_bake_is_told_in_awss_words() -> None:
    """VariantStatus, StatusMessage (``behaviour/08``)."""
    made = plan(blue_green("CANARY", CanarySize=percent(30)), 3)
    assert (
        "Baking for 60 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s).",
        "Baking for 600 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 3 instance(s).",
    ) == tuple(rollout.message(made, Progress(step, BAKING, 0.0)) for step in range(2))


def test_a_part_of_an_instance_is_told_as_a_part_of_the_calls() -> None:
    """Nobody shall read "1 instance" of one and think it were all."""
    made = plan(blue_green("CANARY", CanarySize=percent(10)), 1)
    assert (
        "Baking for 60 seconds (WaitIntervalInSeconds) with traffic enabled on 0.1 of the calls, canary capacity of "
        "1 instance(s)."
    ) == rollout.message(made, Progress(0, BAKING, 0.0))


@pytest.mark.parametrize(
    ("variant", "guarded"),
    [
        ({"VariantName": "v", "ModelName": "m"}, True),
        ({"VariantName": "v"}, False),
        ({"VariantName": "v", "ModelName": "m", "ServerlessConfig": {}}, False),
    ],
    ids=["instances", "holds components", "serverless"],
)
def test_only_what_has_instances_is_rolled_out_in_steps(variant: dict[str, Any], guarded: bool) -> None:
    """Of either deployment; and nothing without a DeploymentConfig."""
    plain = {"Config": {"ProductionVariants": [{"VariantName": "v", "ModelName": "m"}]}}
    other = {"Config": {"ProductionVariants": [variant]}}
    policy = {"DeploymentConfig": canary()}
    assert (guarded, guarded, False) == (
        rollout.is_guarded(plain, other | policy),
        rollout.is_guarded(other, plain | policy),
        rollout.is_guarded(plain, plain),
    )
    assert rollout.is_guarded({"Count": 1}, {"Count": 2} | policy)


def canary() -> dict[str, Any]:
    """A DeploymentConfig."""
    return blue_green("CANARY", CanarySize=percent(10))


WEIGHTS = st.sampled_from([0.0, 0.1, 1.0, 3.5])
COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 40), min_size=1)
CONFIGS = st.one_of(
    st.builds(lambda size: blue_green("CANARY", CanarySize=percent(size)), st.integers(1, 50)),
    st.builds(lambda size: blue_green("LINEAR", LinearStepSize=percent(size)), st.integers(10, 50)),
    st.builds(
        lambda size, back: rolling(percent(size), RollbackMaximumBatchSize=percent(back)),
        st.integers(5, 50),
        st.integers(5, 100),
    ),
)


@given(CONFIGS, COUNTS, COUNTS)
def test_whatever_the_policy_and_the_fleets_traffic_grows_to_all_of_it(
    config: dict[str, Any], old: dict[str, int], new: dict[str, int]
) -> None:
    """Shares rise to 1, few steps; who has traffic has instances; nobody has more than there shall be; the way back
    falls to nothing and ends with blue whole."""
    made = rollout.plan(config, old, new)
    shares = [step.share for step in made.steps]
    assert shares[-1] == 1.0
    assert all(one < other for one, other in pairwise([0.0, *shares]))
    assert len(shares) <= 21
    for step in made.steps:
        assert all(0 < step.green[name] <= count for name, count in new.items() if count)
        assert all(0 < step.blue[name] <= count for name, count in old.items() if count and 0 < step.share < 1)
        assert step.active <= max(1, sum(new.values()))
    for at in range(len(made.steps)):
        back = rollout.rollback(made, at)
        falling = [shares[at], *(one.share for one in back)]
        assert all(one > other for one, other in pairwise(falling))
        assert (0.0, old) == (back[-1].share, back[-1].blue)


@given(
    st.dictionaries(st.sampled_from("abc"), WEIGHTS, min_size=1),
    st.dictionaries(st.sampled_from("abc"), WEIGHTS, min_size=1),
    st.floats(0, 1),
)
def test_variants_and_sides_together_split_calls_as_each_side_would(
    blue: dict[str, float], green: dict[str, float], share: float
) -> None:
    """The part of a variant's green side among all calls is the share times its weight among green's."""
    weights, shares = blended(blue, green, share)
    for name in weights:
        if sum(green.values()):
            wanted = share * green.get(name, 0.0) / sum(green.values())
            assert weights[name] * shares[name] == pytest.approx(wanted, abs=1e-9) or not weights[name]
    if sum(blue.values()) and sum(green.values()):
        assert pytest.approx(1.0) == sum(weights.values())


def test_a_lot_is_even_and_always_the_same() -> None:
    """A tenth of ten thousand callers, give or take five standard deviations."""
    drawn = [lot(f"caller {at}") for at in range(10_000)]
    assert drawn == [lot(f"caller {at}") for at in range(10_000)]
    assert 850 <= sum(one < 0.1 for one in drawn) <= 1150
