"""The meters: what they say of calls, latencies, concurrency, backlogs and machines, by CloudWatch's names."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ValidationError
from serving.watch import catalogue
from serving.watch.catalogue import HOSTS, PROMETHEUS, SAGEMAKER
from serving.watch.meters import Meters
from serving.watch.metrics import Registry
from serving.watch.readings import Metric, Stat
from serving.workers.usage import UsageMetrics, usage
from tests import cloud
from tests.server import serve

E, V = ("EndpointName", "e"), ("VariantName", "v")
EV = ("e", "v")
CALLS, ERRORS, FLIGHT = (
    "sagemaker_invocations_total",
    "sagemaker_invocation_errors_total",
    "sagemaker_concurrent_requests",
)
GIB = 2**30


def variant(name: str = "v", *parts: str, **more: Any) -> dict[str, Any]:
    """A variant's row in a routing table of endpoint ``e``."""
    pools = [{"key": ["e", 1, name, part, ""]} for part in parts or ("",)]
    return {"name": name, "pools": pools, "serverless": None, **more}


def table(*variants: Mapping[str, Any], components: tuple[str, ...] = (), later: bool = False) -> dict[str, Any]:
    """A routing table with endpoint ``e``."""
    held = [{"key": ["e", 1, "", "", name]} for name in components]
    row = {"name": "e", "asynchronous": later, "variants": list(variants), "shadows": [], "components": held}
    return {"endpoints": [row]}


class Bench:
    """Meters over the files of two processes, with a clock that is set. A period is 6 s, a tick a third of a second."""

    def __init__(self, folder: Path) -> None:
        self.now = 6_000_000.0
        self.folder = folder
        self._processes: list[Registry] = []
        self.front = self.process("front-1", 1)
        self.other = self.process("front-2", 2)
        self.meters = Meters(folder, 6.0, 8 * GIB, clock=lambda: self.now)

    def process(self, role: str, number: int) -> Registry:
        """A process of its own, as its files tell."""
        made = Registry(self.folder, role)
        mine = made.path.with_name(f"{role}.{number}.cells")
        made.path.with_suffix(".index").rename(mine.with_suffix(".index"))
        made.path = made.path.rename(mine)
        self._processes.append(made)
        return made

    def close(self) -> None:
        """Let go of all files."""
        self.meters.close()
        for one in self._processes:
            one.close()

    def know(self, *variants: Mapping[str, Any], **more: Any) -> None:
        """What there is."""
        self.meters.know(table(*variants, **more))

    def ready(self, count: int, name: str = "v") -> None:
        """So many workers can answer."""
        self.front.counter("sagemaker_workers", "e", name, "READY").set(count)

    def wait(self, seconds: float) -> None:
        """Time goes by; the meters are looked at as they are in a server."""
        for _ in range(round(seconds * 3)):
            self.now = round(self.now * 3 + 1) / 3
            self.meters.sample(whole=False)

    def values(
        self,
        name: str,
        statistic: str = "Sum",
        *,
        of: tuple[tuple[str, str], ...] = (E, V),
        space: str = SAGEMAKER,
        seconds: float = 6.0,
        per_minute: bool = False,
    ) -> list[float]:
        """A metric's values in the periods since the bench was built."""
        stat = Stat(Metric(space, name, of), statistic, per_minute)
        return [value for _, value in self.meters.series(stat, seconds, 6_000_000.0, self.now)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench where variant ``v`` of endpoint ``e`` has one worker."""
    made = Bench(tmp_path)
    made.know(variant())
    made.ready(1)
    yield made
    made.close()


# --- calls ------------------------------------------------------------------------------------------------------------


def test_calls_are_summed_over_processes_by_period(bench: Bench) -> None:
    """The period that is not over has no value yet."""
    bench.front.counter(CALLS, *EV).add(3)
    bench.other.counter(CALLS, *EV).add(4)
    bench.wait(6)
    bench.front.counter(CALLS, *EV).add(5)
    bench.wait(8)
    stat = Stat(Metric(SAGEMAKER, "Invocations", (E, V)), "Sum")
    found = bench.meters.series(stat, 6.0, 6_000_000.0, 6_000_100.0)
    assert [(6_000_000.0, 7.0), (6_000_006.0, 5.0)] == list(found)


def test_what_came_just_before_the_end_of_a_period_is_in_it(bench: Bench) -> None:
    """The meters are looked at when somebody asks."""
    bench.wait(5)
    bench.front.counter(CALLS, *EV).add(9)
    bench.now = 6_000_006.01
    assert [9.0] == bench.values("Invocations")


@pytest.mark.parametrize("period", [0.9, 5.0, 7.0])
def test_each_call_is_in_its_own_period_at_any_time_of_day(tmp_path: Path, period: float) -> None:
    """Sixths of a period are no exact numbers of seconds; nothing slips into the next one."""
    at = [math.floor(1_763_754_893.0 / period) * period]
    registry = Registry(tmp_path, "front-1")
    meters = Meters(tmp_path, period, clock=lambda: at[0] + 0.002)
    meters.know(table(variant()))
    sixth, begun = period / 6, at[0]
    for number in range(1, 61):
        registry.counter(CALLS, *EV).add(number)
        registry.counter(FLIGHT, *EV).set(number)
        at[0] = begun + number * sixth
        meters.sample()
    invocations = Stat(Metric(SAGEMAKER, "Invocations", (E, V)), "Sum")
    flight = Stat(Metric(SAGEMAKER, "ConcurrentRequestsPerModel", (E, V)), "Maximum")
    sixths = [value for _, value in meters.series(invocations, sixth, begun, begun + 10 * period)]
    assert [float(number) for number in range(1, 61)] == sixths
    most = [value for _, value in meters.series(flight, sixth, begun, begun + 10 * period)]
    assert [float(number) for number in range(60)] == most
    whole = [value for _, value in meters.series(invocations, period, begun, begun + 10 * period)]
    assert [sum(range(at * 6 + 1, at * 6 + 7)) for at in range(10)] == whole
    meters.close()
    registry.close()


def test_an_idle_variant_has_zeros_and_no_latencies(bench: Bench) -> None:
    """As SageMaker sends them."""
    bench.wait(12)
    for name in ("Invocations", "InvocationsPerInstance", "Invocation5XXErrors", "ConcurrentRequestsPerModel"):
        assert [0.0, 0.0] == bench.values(name)
    assert [0.0, 0.0] == bench.values("Invocation4XXErrors", "Average")
    for name in ("ModelLatency", "OverheadLatency", "ModelCacheHit"):
        assert [] == bench.values(name, "Average")


def test_what_there_is_not_has_no_values(bench: Bench) -> None:
    """Another variant, another metric, another namespace, one dimension too few."""
    bench.wait(12)
    assert [] == bench.values("Invocations", of=(E, ("VariantName", "w")))
    assert [] == bench.values("NoSuchThing")
    assert [] == bench.values("Invocations", space="AWS/EC2")
    assert [] == bench.values("Invocations", of=(E,))
    assert [] == bench.values("no_such_total", of=(), space=PROMETHEUS)


def test_a_call_counts_by_the_workers_that_were_ready_when_it_came(bench: Bench) -> None:
    """New ones count once they are."""
    calls = bench.front.counter(CALLS, *EV)
    calls.add(6)
    bench.wait(3)
    bench.ready(3)
    bench.wait(1)
    calls.add(6)
    bench.wait(2)
    assert [8.0] == bench.values("InvocationsPerInstance")
    assert [80.0] == bench.values("InvocationsPerInstance", per_minute=True)
    assert [12.0] == bench.values("InvocationsPerInstance", "SampleCount")


def test_an_errors_average_is_its_share_of_the_calls(bench: Bench) -> None:
    """Each call is a value of 1 or 0."""
    bench.front.counter(CALLS, *EV).add(8)
    bench.front.counter(ERRORS, *EV, "5xx").add(2)
    bench.wait(6)
    assert [0.25] == bench.values("Invocation5XXErrors", "Average")
    assert [2.0] == bench.values("Invocation5XXErrors", "Sum")
    assert [8.0] == bench.values("Invocation5XXErrors", "SampleCount")
    assert [1.0] == bench.values("Invocation5XXErrors", "Maximum")
    assert [0.0] == bench.values("Invocation4XXErrors", "Average")


def test_latencies_are_in_microseconds(bench: Bench) -> None:
    """Sum and mean are exact, percentiles lie in the bucket they fall into."""
    latency = bench.front.histogram("sagemaker_model_latency_seconds", *EV)
    for seconds in (0.003, 0.003, 0.003, 0.2):
        latency.observe(seconds)
    bench.wait(6)
    assert [pytest.approx(209_000.0)] == bench.values("ModelLatency", "Sum")
    assert [pytest.approx(52_250.0)] == bench.values("ModelLatency", "Average")
    assert [4.0] == bench.values("ModelLatency", "SampleCount")
    (half,) = bench.values("ModelLatency", "p50")
    (most,) = bench.values("ModelLatency", "p99")
    assert 2_500 <= half <= 5_000
    assert 100_000 <= most <= 250_000
    assert half <= bench.values("ModelLatency", "p75")[0] <= most <= bench.values("ModelLatency", "Maximum")[0]


def test_a_cache_hit_is_a_share_of_the_calls_that_asked(bench: Bench) -> None:
    """No calls, no share."""
    worker = bench.process("worker-0001", 3)
    for result, count in (("hit", 3), ("miss", 1)):
        worker.counter("sagemaker_model_cache_requests_total", *EV, result).add(count)
    bench.wait(12)
    assert [0.75] == bench.values("ModelCacheHit", "Average", seconds=12.0)


# --- gauges -----------------------------------------------------------------------------------------------------------


def test_concurrency_is_by_worker_and_its_most_is_kept(bench: Bench) -> None:
    """Sixths of a period are told apart."""
    flight = bench.front.counter(FLIGHT, *EV)
    flight.set(2)
    bench.wait(2 / 3)
    for count in (8, 4):
        flight.set(count)
        bench.wait(1)
    bench.ready(2)
    bench.wait(4 / 3)
    assert [2.0, 8.0, 4.0, 2.0] == bench.values("ConcurrentRequestsPerModel", "Maximum", seconds=1.0)
    bench.wait(2)
    assert [8.0] == bench.values("ConcurrentRequestsPerModel", "Maximum")
    assert [2.0] == bench.values("ConcurrentRequestsPerModel", "Minimum")


def test_concurrency_without_a_worker_is_what_waits(bench: Bench) -> None:
    """Division by none is by one."""
    bench.ready(0)
    bench.front.counter(FLIGHT, *EV).set(5)
    bench.wait(6)
    assert [5.0] == bench.values("ConcurrentRequestsPerModel", "Maximum")


def test_an_instance_of_several_containers_is_one_of_each(bench: Bench) -> None:
    """There are as many as there are of the fewest."""
    bench.know(variant("v", "a", "b"))
    bench.ready(4, "v/a")
    bench.ready(2, "v/b")
    bench.wait(1)
    bench.front.counter(CALLS, *EV).add(6)
    for part, flight in (("v/a", 3), ("v/b", 1)):
        bench.front.counter(FLIGHT, "e", part).set(flight)
    bench.wait(5)
    assert [3.0] == bench.values("InvocationsPerInstance")
    assert [2.0] == bench.values("ConcurrentRequestsPerModel", "Maximum")


def test_containers_that_are_called_by_themselves_are_summed(bench: Bench) -> None:
    """Nothing is counted of the variant as a whole."""
    bench.know(variant("v", "a", "b", direct=True))
    for part, calls in (("v/a", 3), ("v/b", 1)):
        bench.front.counter(CALLS, "e", part).add(calls)
        bench.front.counter(ERRORS, "e", part, "5xx").add(1)
        bench.front.histogram("sagemaker_model_latency_seconds", "e", part).observe(0.1 * calls)
    bench.wait(6)
    assert [4.0] == bench.values("Invocations")
    assert [0.5] == bench.values("Invocation5XXErrors", "Average")
    assert [pytest.approx(200_000.0)] == bench.values("ModelLatency", "Average")


def test_a_backlog_by_instance_is_none_where_there_is_none(bench: Bench) -> None:
    """And the endpoint has it, not its variants."""
    bench.know(variant(), later=True)
    backlog = bench.front.counter("sagemaker_approximate_backlog_size", "e")
    each = bench.front.counter("sagemaker_approximate_backlog_size_per_instance", "e")
    without = bench.front.counter("sagemaker_has_backlog_without_capacity", "e")
    for gauge, value in ((backlog, 6), (each, math.nan), (without, 1)):
        gauge.set(value)
    bench.wait(17 / 3)
    for gauge, value in ((backlog, 4), (each, 2), (without, 0)):
        gauge.set(value)
    bench.wait(19 / 3)
    assert [6.0, 4.0] == bench.values("ApproximateBacklogSize", "Average", of=(E,))
    assert [2.0] == bench.values("ApproximateBacklogSizePerInstance", "Average", of=(E,))
    assert [1.0, 0.0] == bench.values("HasBacklogWithoutCapacity", "Average", of=(E,))
    assert [] == bench.values("Invocations")  # AWS has none of asynchronous endpoints


def test_a_component_is_asked_for_by_its_name_alone(bench: Bench) -> None:
    """Its calls are by copy."""
    bench.know(components=("c",))
    of = (("InferenceComponentName", "c"),)
    bench.ready(2, "c")
    bench.wait(1)
    bench.front.counter(CALLS, "e", "c").add(6)
    bench.front.counter(FLIGHT, "e", "c").set(6)
    bench.front.counter("sagemaker_no_capacity_invocation_failures_total", "e", "c").add(1)
    bench.wait(5)
    assert [3.0] == bench.values("InvocationsPerCopy", of=of)
    assert [3.0] == bench.values("ConcurrentRequestsPerCopy", "Maximum", of=of)
    assert [1.0] == bench.values("NoCapacityInvocationFailures", of=of)


def test_a_serverless_variants_concurrency_is_a_share_of_its_limits(bench: Bench) -> None:
    """In percent; without provisioned concurrency there is none of that."""
    bench.know(variant(serverless={"concurrency": 8, "provisioned": 0}))
    bench.front.counter(FLIGHT, *EV).set(2)
    bench.wait(6)
    assert [25.0] == bench.values("ServerlessConcurrentExecutionsUtilization", "Maximum")
    assert [] == bench.values("ServerlessProvisionedConcurrencyUtilization", "Maximum")


def test_what_workers_take_is_told_by_instance(bench: Bench) -> None:
    """Percent of one processor, and of the machine's memory."""
    bench.ready(2)
    bench.wait(6)
    bench.front.counter("sagemaker_worker_cpu_seconds_total", *EV).add(3.0)
    bench.front.counter("sagemaker_worker_memory_bytes", *EV).set(4 * GIB)
    bench.wait(6)
    assert [0.0, pytest.approx(25.0)] == bench.values("CPUUtilization", "Average", space=HOSTS)
    assert 2.0 == bench.values("CPUUtilization", "SampleCount", space=HOSTS)[-1]
    assert [pytest.approx(25.0, rel=0.1)] == bench.values("MemoryUtilization", "Average", space=HOSTS)


def test_processor_time_and_memory_of_a_process_are_counted(bench: Bench) -> None:
    """Of one that has ended they are nothing."""
    mine = usage(os.getpid())
    assert mine is not None
    counted = UsageMetrics(bench.front)
    counted.look([(EV, os.getpid()), (EV, 2**22 + 1)], 100.0)
    cpu, memory = (
        bench.front.counter("sagemaker_worker_cpu_seconds_total", *EV),
        bench.front.counter("sagemaker_worker_memory_bytes", *EV),
    )
    assert mine.cpu <= cpu.value <= mine.cpu + 5
    assert memory.value > 2**20
    counted.look([], 101.0)
    assert 0.0 == memory.value


# --- what comes and goes ----------------------------------------------------------------------------------------------


def test_a_variant_that_comes_again_begins_anew(bench: Bench) -> None:
    """Nothing of the former one is left, not even in the same period."""
    bench.front.counter(CALLS, *EV).add(100)
    bench.wait(3)
    bench.meters.know({"endpoints": []})
    bench.front.keep(())
    assert [] == bench.values("Invocations")
    bench.know(variant())
    bench.front.counter(CALLS, *EV).add(2)
    bench.wait(9)
    assert [2.0, 0.0] == bench.values("Invocations")


def test_what_a_dead_process_counted_stays(bench: Bench) -> None:
    """Its parent has it now; nothing is counted twice, and what it held goes with it."""
    bench.front.counter(CALLS, *EV).add(3)
    bench.other.counter(CALLS, *EV).add(4)
    bench.other.counter(FLIGHT, *EV).set(6)
    bench.wait(6)
    bench.front.fold(2)
    bench.wait(6)
    assert [7.0, 0.0] == bench.values("Invocations")
    assert [6.0, 6.0] == bench.values("ConcurrentRequestsPerModel", "Maximum")
    assert [6.0, 0.0] == bench.values("ConcurrentRequestsPerModel", "Minimum")


def test_numbers_that_are_being_moved_are_not_read(bench: Bench) -> None:
    """They come with the next look."""
    bench.front.counter(CALLS, *EV).add(3)
    bench.wait(3)
    folds = bench.folder / "folds"
    folds.write_bytes((1).to_bytes(8, "little"))
    bench.front.counter(CALLS, *EV).add(4)
    bench.wait(3)
    assert [] == bench.values("Invocations")
    folds.write_bytes((2).to_bytes(8, "little"))
    bench.wait(6)
    assert 7.0 == sum(bench.values("Invocations"))


def test_series_that_take_the_place_of_others_are_their_own(bench: Bench) -> None:
    """Cells are used again for another endpoint."""
    bench.front.counter(CALLS, "gone", "v").add(50)
    bench.wait(1)
    bench.front.keep({EV, ("e",)})
    bench.front.keep({EV, ("e",)})
    bench.front.counter(CALLS, *EV).add(1)
    bench.wait(5)
    assert [1.0] == bench.values("Invocations")


def test_each_side_of_a_guarded_update_has_its_own(bench: Bench) -> None:
    """By EndpointConfigName, from its beginning on: 0 before its first call."""
    of = (("EndpointConfigName", "new"), E, V)
    bench.wait(6)
    assert [] == bench.values("Invocation5XXErrors", "Average", of=of)
    bench.front.counter("sagemaker_deployment_invocations_total", *EV, "new")
    bench.wait(6)
    assert [0.0] == bench.values("Invocation5XXErrors", "Average", of=of)
    bench.front.counter("sagemaker_deployment_invocations_total", *EV, "new").add(4)
    bench.front.counter("sagemaker_deployment_invocation_errors_total", *EV, "new", "5xx").add(1)
    bench.front.histogram("sagemaker_deployment_model_latency_seconds", *EV, "new").observe(0.5)
    bench.wait(6)
    assert 0.25 == bench.values("Invocation5XXErrors", "Average", of=of)[-1]
    assert 4.0 == bench.values("Invocations", of=of)[-1]
    assert [500_000.0] == bench.values("ModelLatency", "Average", of=of)


# --- by name ----------------------------------------------------------------------------------------------------------


def test_any_metric_of_ours_has_its_own_name(bench: Bench) -> None:
    """In its own units, by all its labels; a counter of an idle variant is 0."""
    labels = (("endpoint", "e"), ("variant", "v"))
    bench.front.histogram("sagemaker_queue_seconds", *EV).observe(0.5)
    bench.wait(6)
    assert [0.5] == bench.values("sagemaker_queue_seconds", "Average", of=labels, space=PROMETHEUS)
    assert [0.0] == bench.values("sagemaker_retried_invocations_total", of=labels, space=PROMETHEUS)
    by_state = (*labels[:1], ("state", "READY"), *labels[1:])
    assert [1.0] == bench.values("sagemaker_workers", "Maximum", of=by_state, space=PROMETHEUS)
    assert [] == bench.values("sagemaker_workers", "Maximum", of=labels, space=PROMETHEUS)


def test_metrics_are_listed_by_namespace_name_and_dimensions(bench: Bench) -> None:
    """Any of them may be left open."""
    bench.wait(1)
    found = bench.meters.listed(SAGEMAKER, "Invocations", [("VariantName", "v")])
    assert [Metric(SAGEMAKER, "Invocations", (E, V))] == found
    assert Metric(HOSTS, "CPUUtilization", (E, V)) in bench.meters.listed("", "", [("EndpointName", None)])
    assert Metric(SAGEMAKER, "ModelLatency", (E, V)) in bench.meters.listed()
    assert [] == bench.meters.listed(SAGEMAKER, "", [("VariantName", "w")])
    assert [] == bench.meters.listed(SAGEMAKER, "ApproximateBacklogSize")


def test_a_metric_has_cloudwatchs_unit() -> None:
    """None where it has not heard of it."""
    for name, expected in (("ModelLatency", "Microseconds"), ("TimeInBacklog", "Milliseconds"), ("Mine", "None")):
        assert expected == catalogue.unit(Metric(SAGEMAKER, name))


@pytest.mark.parametrize(
    ("kind", "resource", "name", "statistic"),
    [
        ("SageMakerVariantInvocationsPerInstance", "endpoint/e/variant/v", "InvocationsPerInstance", "Sum"),
        (
            "SageMakerVariantConcurrentRequestsPerModelHighResolution",
            "endpoint/e/variant/v",
            "ConcurrentRequestsPerModel",
            "Maximum",
        ),
        ("SageMakerInferenceComponentInvocationsPerCopy", "inference-component/c", "InvocationsPerCopy", "Sum"),
    ],
)
def test_a_predefined_metric_is_one_that_there_is(
    bench: Bench, kind: str, resource: str, name: str, statistic: str
) -> None:
    """Of the resource it is asked for."""
    bench.know(variant(), components=("c",))
    stat = catalogue.predefined(kind, (resource, "any"))
    assert (name, statistic) == (stat.metric.name, stat.statistic)
    assert stat.metric in bench.meters.listed()


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("SageMakerVariantInvocationsPerInstance", "inference-component/c"),
        ("SageMakerInferenceComponentInvocationsPerCopy", "endpoint/e/variant/v"),
        ("DynamoDBReadCapacityUtilization", "endpoint/e/variant/v"),
    ],
)
def test_a_predefined_metric_of_something_else_is_refused(kind: str, resource: str) -> None:
    """With both names."""
    with pytest.raises(ValidationError, match=f"{kind}.*{resource}"):
        catalogue.predefined(kind, (resource, "any"))


def test_every_metric_of_the_catalogue_is_made_of_one_there_is(bench: Bench) -> None:
    """And can be asked for under every statistic, at rest and after a call."""
    bench.know(variant(serverless={"concurrency": 2, "provisioned": 1}), components=("c",))
    bench.wait(6)
    for metric in bench.meters.listed():
        for statistic in ("Sum", "Average", "Minimum", "Maximum", "SampleCount", "p99.9"):
            found = bench.meters.series(Stat(metric, statistic), 6.0, 6_000_000.0, bench.now)
            assert all(math.isfinite(value) for _, value in found), metric
    with pytest.raises(ValidationError, match="IQM"):
        bench.values("Invocations", "IQM")


# --- what clients put in ----------------------------------------------------------------------------------------------


def test_what_a_client_puts_in_is_told_again(bench: Bench) -> None:
    """Values, values with counts, and sums of values, under every statistic."""
    name = {"MetricName": "Depth", "Dimensions": [{"Name": "Queue", "Value": "q"}]}
    high = {**name, "StorageResolution": 1}
    bench.meters.put("mine", [{**high, "Value": 4.0}, {**high, "Values": [1.0, 9.0], "Counts": [2.0, 1.0]}])
    bench.wait(6)
    of = (("Queue", "q"),)
    for statistic, expected in (("Sum", 15.0), ("SampleCount", 4.0), ("Minimum", 1.0), ("Maximum", 9.0), ("p50", 1.0)):
        assert [expected] == bench.values("Depth", statistic, of=of, space="mine")
    assert [Metric("mine", "Depth", of)] == bench.meters.listed("mine")
    totals = {"SampleCount": 2.0, "Sum": 8.0, "Minimum": 3.0, "Maximum": 5.0}
    bench.meters.put("mine", [{**high, "StatisticValues": totals}])
    bench.wait(6)
    assert [3.75, 4.0] == bench.values("Depth", "Average", of=of, space="mine")
    assert [1.0] == bench.values("Depth", "p50", of=of, space="mine")


def test_what_is_no_datum_is_refused_and_nothing_of_its_call_is_kept(bench: Bench) -> None:
    """Not a number, too large, too old, unequal lists."""
    good = {"MetricName": "m", "Value": 1.0}
    for bad in (
        {"Value": math.nan},
        {"Value": 2.0**361},
        {"Value": 1.0, "Timestamp": 0.0},
        {"Values": [1.0, 2.0], "Counts": [1.0]},
        {"Values": [1.0], "Counts": [-1.0]},
        {"StatisticValues": {"SampleCount": 1.0, "Sum": math.inf, "Minimum": 0.0, "Maximum": 1.0}},
        {},
    ):
        with pytest.raises(ValidationError):
            bench.meters.put("mine", [good, {"MetricName": "m", **bad}])
    assert [] == bench.meters.listed("mine")


def test_what_clients_put_in_is_bounded(bench: Bench) -> None:
    """The metric that was put in longest ago makes room."""
    for at in range(1_500):
        bench.meters.put("mine", [{"MetricName": f"m{at}", "Value": 1.0}])
    assert {f"m{at}" for at in range(500, 1_500)} == {metric.name for metric in bench.meters.listed("mine")}


# --- what may happen --------------------------------------------------------------------------------------------------


def test_a_clock_that_is_put_back_takes_the_past_with_it(bench: Bench) -> None:
    """Nothing is counted twice, and measuring goes on."""
    bench.front.counter(CALLS, *EV).add(5)
    bench.wait(6)
    bench.now -= 3600.0
    bench.front.counter(CALLS, *EV).add(2)
    bench.wait(6)
    stat = Stat(Metric(SAGEMAKER, "Invocations", (E, V)), "Sum")
    found = bench.meters.series(stat, 6.0, bench.now - 12.0, bench.now)
    assert [5.0, 2.0] == [value for _, value in found]


def test_little_is_kept_however_much_changes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound the past is kept for half an hour, not for three."""
    monkeypatch.setattr("serving.watch.meters._MOST_BYTES", 20_000)
    calls, latency = bench.front.counter(CALLS, *EV), bench.front.histogram("sagemaker_model_latency_seconds", *EV)
    for _ in range(2_000):
        bench.now += 5.0
        calls.add(1)
        latency.observe(0.001)
        bench.meters.sample()
    hours = bench.values("Invocations", seconds=60.0)
    assert {12.0} == set(hours[-10:])
    assert 29 <= len(hours) <= 31
    assert bench.meters.bytes < 60_000


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_meters_measure_by_themselves(tmp_path: Path) -> None:
    """In a thread of their own, until they are closed."""
    registry = Registry(tmp_path, "front-1")
    meters = Meters(tmp_path, 0.9)
    meters.know(table(variant()))
    seen = threading.Event()
    read = meters.sample

    def sample(whole: bool = True) -> None:
        read(whole)
        if meters.listed(PROMETHEUS, CALLS):
            seen.set()

    meters.sample = sample  # type: ignore[method-assign]  # to hear of it
    registry.counter(CALLS, *EV).add(1)
    meters.start()
    assert seen.wait(30)
    meters.close()
    registry.close()


def test_a_server_measures_its_workers(tmp_path: Path) -> None:
    """How many there should be, what they take, how long calls wait in them."""
    with serve(tmp_path, "--allow-code", environment={"SERVING_SCALING_PERIOD_SECONDS": "0.5"}) as server:
        cloud.deploy(cloud.client(server), "e", cloud.answers(server, "hi"))
        assert (
            b"hi:x"
            == cloud.client(server, "sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")["Body"].read()
        )
        server.eventually(lambda: server.metric("sagemaker_desired_workers", endpoint="e") == 1)
        server.eventually(lambda: server.metric("sagemaker_worker_memory_bytes", endpoint="e") > 2**20)
        server.eventually(lambda: server.metric("sagemaker_worker_cpu_seconds_total", endpoint="e") > 0)
        assert 1.0 == server.metric("sagemaker_queue_seconds_count", endpoint="e")
        watch = cloud.client(server, "cloudwatch")
        dimensions = [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "AllTraffic"}]

        def utilisation() -> list[float]:
            now = datetime.now(UTC)
            metric = {"Namespace": HOSTS, "MetricName": "MemoryUtilization", "Dimensions": dimensions}
            found = watch.get_metric_statistics(
                **metric, StartTime=now - timedelta(seconds=20), EndTime=now, Period=1, Statistics=["Average"]
            )
            return [point["Average"] for point in found["Datapoints"]]

        server.eventually(lambda: any(0 < one < 100 for one in utilisation()))
