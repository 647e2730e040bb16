"""The control API through unmodified boto3: lists, describe, create, restart, updates under load, the boto3 route."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.aws import Cloud, config_body, model_body, place
from loadtests.client import ClientProcess, Count, Plan
from loadtests.figures import median_ratio, percentile
from loadtests.generator import Call
from loadtests.processes import Running, our_server
from loadtests.report import Figure
from loadtests.workloads.base import Bench, Card, failures, is_right, per_second
from loadtests.workloads.rows import MODEL, one_row_call
from serving.fleet.store import Record, Store

MODELS = 100_000
CONFIGS = 500
ENDPOINTS = 50
UPDATES = 20
_CALLERS = 16
_LOOKS = 100
_EPOCH = 1_700_000_000.0
_CSV = {"Content-Type": "text/csv"}


@contextmanager
def _data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-control-") as folder:
        yield Path(folder)


def _milliseconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


# --- lists and describe ---------------------------------------------------------------------------------------------


def _seed(data: Path) -> None:
    """A hundred thousand models and five hundred configs, a second apart, in no order of names."""
    store = Store(f"sqlite:///{data}/serving.db").open()
    names = [f"model-{number * 7919 % MODELS:06}" for number in range(MODELS)]
    with store.write() as session:
        session.add_all(
            Record("model", name, model_body(name), _EPOCH + at, _EPOCH + at) for at, name in enumerate(names)
        )
        session.add_all(
            Record("endpoint-config", f"config-{at}", config_body(f"config-{at}", names[at]), _EPOCH + at, _EPOCH + at)
            for at in range(CONFIGS)
        )
    store.close()


def lists(bench: Bench) -> list[Figure]:
    """Pages of a hundred of every kind, and single looks, while a hundred thousand models are there."""
    with _data() as data:
        _seed(data)
        with our_server(data=data) as server:
            cloud = Cloud(server)
            pages = _pages(cloud)
            found = {name: [_milliseconds(call) for _ in range(bench.rounds)] for name, call in pages.items()}
            looks = _looks(cloud)
            ready = server.ready_seconds
    for name, times in found.items():
        bench.say(f"  {name}: {median(times):.1f} ms, at most {max(times):.1f}")
    slowest = max(found, key=lambda name: max(found[name]))
    worst, look = max(found[slowest]), median(looks)
    middle = median(median(times) for times in found.values())
    return [
        Figure("control: 100,000 models", "any page of 100, slowest", f"{worst:.1f} ms", "-", worst, 200.0, "<=", "ms",
               note=f"{slowest}; half of all kinds of page within {middle:.1f} ms; server ready in {ready:.2f} s"),
        Figure("control: 100,000 models", "describe", f"{look:.2f} ms", "-", look, 5.0, "<=", "ms",
               note=f"median of {len(looks)}, boto3's own work included; p99 {percentile(sorted(looks), 99):.1f} ms"),
    ]  # fmt: skip


def _pages(cloud: Cloud) -> dict[str, Callable[[], Any]]:
    """What a user may list, each kind of page by name."""
    models, configs = cloud.sagemaker.list_models, cloud.sagemaker.list_endpoint_configs
    early = datetime.fromtimestamp(_EPOCH + MODELS / 2, UTC)
    token = ""
    for _ in range(20):
        token = models(MaxResults=100, SortBy="Name", **({"NextToken": token} if token else {}))["NextToken"]
    kinds: dict[str, dict[str, Any]] = {
        "newest": {},
        "oldest": {"SortOrder": "Ascending"},
        "by name": {"SortBy": "Name", "SortOrder": "Ascending"},
        "page 21 by name": {"SortBy": "Name", "NextToken": token},
        "one name among all": {"NameContains": "del-012345"},
        "no such name": {"NameContains": "absent"},
        "no such name, by name": {"NameContains": "absent", "SortBy": "Name"},
        "since the middle": {"CreationTimeAfter": early, "SortOrder": "Ascending"},
        "before a second, by name": {"CreationTimeBefore": datetime.fromtimestamp(_EPOCH + 1, UTC),
                                     "SortBy": "Name"},
        "names in a window": {"CreationTimeAfter": early, "NameContains": "99"},
    }  # fmt: skip
    calls = {f"models, {name}": lambda more=more: models(MaxResults=100, **more) for name, more in kinds.items()}
    return {**calls, "configs, newest": lambda: configs(MaxResults=100)}


def _looks(cloud: Cloud) -> list[float]:
    """Milliseconds of DescribeModel and DescribeEndpointConfig calls."""
    return [
        milliseconds
        for number in range(_LOOKS)
        for milliseconds in (
            _milliseconds(lambda at=number: cloud.sagemaker.describe_model(ModelName=f"model-{at * 991:06}")),
            _milliseconds(
                lambda at=number: cloud.sagemaker.describe_endpoint_config(EndpointConfigName=f"config-{at}")
            ),
        )
    ]


# --- create and restart ---------------------------------------------------------------------------------------------


def create(bench: Bench) -> list[Figure]:
    """From the CreateEndpoint call to InService: the first of a fresh server, and those after it."""
    cold: list[float] = []
    warm: list[float] = []
    wrong = 0
    for number in range(bench.rounds):
        with _data() as data:
            place(data, "small", bench.artifacts / MODEL)
            with our_server(data=data) as server:
                cloud = Cloud(server)
                cloud.model("small")
                cold.append(cloud.create("first", "small"))
                warm += [cloud.create(f"warm-{at}", "small") for at in range(5)]
                wrong += sum(not _answers(bench, server, name) for name in ("first", "warm-4"))
        bench.say(f"  server {number + 1}: {cold[-1] * 1e3:.0f} ms, then {median(warm[-5:]) * 1e3:.0f} ms")
    return [
        Figure("control: create to InService", "first of a fresh server", f"{median(cold) * 1e3:.0f} ms", "-",
               median(cold), 1.0, "<=", "s", note=f"at most {max(cold) * 1e3:.0f} ms", failures=wrong),
        Figure("control: create to InService", "those after it", f"{median(warm) * 1e3:.0f} ms", "-",
               median(warm) * 1e3, 300.0, "<=", "ms", note=f"median of {len(warm)}; at most {max(warm) * 1e3:.0f} ms",
               failures=wrong),
    ]  # fmt: skip


def _call(bench: Bench, endpoint: str) -> Call:
    return Call(f"/endpoints/{endpoint}/invocations", Card(bench.artifacts, MODEL).body("request.csv"), _CSV)


def _answers(bench: Bench, server: Running, endpoint: str) -> bool:
    return is_right(_call(bench, endpoint).once(server.port), Card(bench.artifacts, MODEL).expected("request"))


def restart(bench: Bench) -> list[Figure]:
    """Fifty endpoints, the server ended and started again: until every one of them has answered."""
    times: list[float] = []
    with _data() as data:
        place(data, "small", bench.artifacts / MODEL)
        with our_server(data=data) as server:
            cloud = Cloud(server)
            cloud.model("small")
            for number in range(ENDPOINTS):
                cloud.create(f"endpoint-{number}", "small")
        for number in range(min(bench.rounds, 3)):
            with our_server(data=data) as server:
                times.append(_all_answer(bench, server))
            bench.say(
                f"  restart {number + 1}: ready in {server.ready_seconds:.2f} s, all answered in {times[-1]:.2f} s"
            )
    return [
        Figure(f"control: restart, {ENDPOINTS} endpoints", "start until all answered", f"{median(times):.2f} s", "-",
               median(times), 5.0, "<=", "s", note=f"median of {len(times)}; at most {max(times):.2f} s"),
    ]  # fmt: skip


def _all_answer(bench: Bench, server: Running) -> float:
    """Seconds from the server's start until each endpoint has given its right answer once."""
    for number in range(ENDPOINTS):
        while not _answers(bench, server, f"endpoint-{number}"):
            if time.monotonic() > server.started + 60:
                raise RuntimeError(f"endpoint-{number} does not answer:\n{server.log_tail()}")
            server.look_again()
    return time.monotonic() - server.started


# --- updates --------------------------------------------------------------------------------------------------------


def updates(bench: Bench) -> list[Figure]:
    """Twenty UpdateEndpoint calls from one model to another and back, under sixteen connections. A reply is whole when
    the variant it names and the answer it holds belong together."""
    sides = {"Blue": "model-000.ubj", "Green": "model-001.ubj"}
    body = Card(bench.artifacts, "zoo").body("request.csv")
    with _data() as data:
        for variant, file in sides.items():
            place(data, variant, bench.artifacts / "zoo" / file)
        with our_server(data=data) as server:
            cloud = Cloud(server)
            for variant in sides:
                cloud.model(variant, variant)
            cloud.create("busy", "Blue")
            call = Call("/endpoints/busy/invocations", body, _CSV)
            whole = {f"Blue {_text(call, server)}"}
            cloud.update("busy", "Green")
            whole.add(f"Green {_text(call, server)}")
            plan = Plan(server.port, (call.raw(),), _CALLERS, seconds=120, tell=True)
            with ClientProcess(plan) as client:
                times = [cloud.update("busy", ("Blue", "Green")[number % 2]) for number in range(UPDATES)]
                count = client.stop()
    bench.say(f"  {count.calls:,} calls, {count.failures} failed; replies {count.replies}")
    return [updates_figure(times, count, whole)]


def updates_figure(times: list[float], count: Count, whole: set[str]) -> Figure:
    """``whole``: the replies there may be; a run that has not met them all has shown nothing."""
    mixed = {reply: number for reply, number in count.replies.items() if reply not in whole}
    faults = count.failures + sum(mixed.values()) + len(whole - set(count.replies))
    pace = f"{count.calls:,} calls at {per_second(count.per_second)}, p99 {count.p99_us / 1e3:.0f} ms"
    took = f"an update takes {median(times) * 1e3:.0f} ms, at most {max(times) * 1e3:.0f}"
    strange = "; ".join([*count.examples, *(f"mixed: {reply}" for reply in mixed)])
    return Figure(
        f"control: {len(times)} updates, {_CALLERS} connections", "failed or mixed calls", str(faults), "-",
        float(faults), 0.0, "<=", "", note="; ".join(filter(None, (pace, took, strange))), failures=faults,
    )  # fmt: skip


def _text(call: Call, server: Running) -> str:
    answer = call.once(server.port)
    if answer.status != 200:
        raise RuntimeError(f"{call.path} answered {answer.status}: {answer.body[:300]!r}")
    return answer.body.decode().strip()


# --- the boto3 route ------------------------------------------------------------------------------------------------


def route(bench: Bench) -> list[Figure]:
    """The same row to the same endpoint by the container's path, by boto3's, and with all the headers boto3 sends."""
    plain = one_row_call(bench)
    with our_server(str(bench.artifacts / MODEL)) as server:
        headers = Cloud(server).sent_headers("default", plain.body, "text/csv")
        calls = {
            "/invocations": plain,
            "boto3's path": Call("/endpoints/default/invocations", plain.body, plain.headers),
            "boto3's path, its headers": Call("/endpoints/default/invocations", plain.body, headers),
        }
        expected = Card(bench.artifacts, MODEL).expected("request")
        wrong = sum(not is_right(call.once(server.port), expected) for call in calls.values())
        bench.load(server.port, [plain], 64, min(2, bench.seconds))

        def side(call: Call) -> Callable[[], Count]:
            return lambda: bench.load(server.port, [call], 64)

        counts = bench.take_turns({name: side(call) for name, call in calls.items()})
    rates = {name: [count.per_second for count in runs] for name, runs in counts.items()}
    return [
        Figure("control: one row, 64 connections", f"{name} / /invocations", per_second(median(rates[name])),
               per_second(median(rates["/invocations"])), median_ratio(rates[name], rates["/invocations"]), 0.9,
               note=note, failures=wrong + failures(*counts.values()))
        for name, note in (("boto3's path", "same headers"), ("boto3's path, its headers", f"{len(headers)} of them"))
    ]  # fmt: skip
