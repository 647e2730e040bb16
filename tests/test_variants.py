"""Which variant answers: the draw and the sticky choice as pure functions, then the shares that callers see."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from serving.variants import Split, sticky
from tests.raw import TOLD, Raw, gate, open_gate, request, told
from tests.server import Server, declare, serve, variant
from tests.toys import ROW, write_script_model, write_sum_model

# --- the draw (pure) --------------------------------------------------------------------------------------------------

POSITIVE = st.one_of(st.floats(5e-324, 3.4e38), st.floats(0.01, 1), st.sampled_from([5e-324, 1e-300, 1.0, 9.0]))
WEIGHT = st.just(0.0) | POSITIVE
WEIGHTS = st.tuples(st.lists(WEIGHT, max_size=4), POSITIVE, st.lists(WEIGHT, max_size=5)).map(
    lambda drawn: [*drawn[0], drawn[1], *drawn[2]]
)
U = st.one_of(st.floats(0, 1, exclude_max=True), st.just(math.nextafter(1, 0)))


@given(WEIGHTS, U)
def test_a_draw_picks_a_variant_that_has_weight(weights: list[float], u: float) -> None:
    """Whatever the dice say: an index of the list, never one of weight 0."""
    assert weights[Split(weights).pick(u)] > 0


@given(WEIGHTS, U, U)
def test_a_draw_is_monotone_in_the_dice(weights: list[float], u: float, v: float) -> None:
    """Each variant owns one stretch of [0, 1)."""
    split = Split(weights)
    assert split.pick(min(u, v)) <= split.pick(max(u, v))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=10).filter(any))
def test_each_stretch_is_as_long_as_its_weight(weights: list[int]) -> None:
    """Share = weight / sum of the weights, to the width of the grid."""
    split, total, grid = Split(weights), sum(weights), 2000
    counts = Counter(split.pick(at / grid) for at in range(grid))
    for at, weight in enumerate(weights):
        assert abs(counts[at] / grid - weight / total) <= 1 / grid


@pytest.mark.parametrize("weights", [(9, 1), (0.5, 1.5, 2), (0, 1), (1,) * 10, (0.9, 0, 0.1)], ids=str)
def test_shares_of_many_draws_are_those_of_the_weights(weights: tuple[float, ...]) -> None:
    """Ten thousand seeded draws, within three standard deviations (``behaviour/02``)."""
    split, dice, calls = Split(weights), random.Random(7), 10_000
    counts = Counter(split.pick(dice.random()) for _ in range(calls))
    for at, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[at] - calls * share) <= 3 * math.sqrt(calls * share * (1 - share))


def test_nothing_can_be_drawn_without_weight() -> None:
    """The total says so, for no variants and for variants of weight 0."""
    assert (0.0, 0.0) == (Split(()).total, Split((0.0, 0.0)).total)


# --- the sticky choice (pure) -----------------------------------------------------------------------------------------

KEYS = [f"user-{n}" for n in range(10_000)]


@given(st.text(), WEIGHTS)
def test_a_key_always_gets_the_same_variant_and_one_with_weight(key: str, weights: list[float]) -> None:
    """Also when the variants are listed in another order."""
    names = [f"v{at}" for at in range(len(weights))]
    at = sticky(key, names, weights)
    assert weights[at] > 0
    assert at == sticky(key, names, weights)
    if all(weight == 0 or 1e-30 < weight for weight in weights):  # else distances may tie, at infinity
        assert names[at] == names[::-1][sticky(key, names[::-1], weights[::-1])]


@pytest.mark.parametrize("weights", [(9, 1), (0.5, 1.5, 2), (0, 1), (1,) * 10], ids=str)
def test_keys_are_spread_in_proportion_to_the_weights(weights: tuple[float, ...]) -> None:
    """Ten thousand keys, within three standard deviations."""
    names = [f"variant-{at}" for at in range(len(weights))]
    counts = Counter(sticky(key, names, weights) for key in KEYS)
    for at, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[at] - len(KEYS) * share) <= 3 * math.sqrt(len(KEYS) * share * (1 - share))


@pytest.mark.parametrize(
    ("before", "after"),
    [((1.0, 1.0, 1.0), (1.0, 1.0, 2.0)), ((1.0, 1.0, 1.0), (1.0, 1.0, 0.5)), ((1.0, 1.0, 0.0), (1.0, 1.0, 1.0))],
    ids=["more", "less", "new"],
)
def test_a_changed_weight_moves_no_key_between_the_others(before: tuple[float, ...], after: tuple[float, ...]) -> None:
    """Keys move to the variant that gains, or from the one that loses; and just as many as its share changes."""
    names = ["a", "b", "c"]
    moves = Counter((sticky(key, names, before), sticky(key, names, after)) for key in KEYS)
    moved = {pair for pair in moves if pair[0] != pair[1]}
    assert all(2 in pair for pair in moved)
    assert all((pair[1] == 2) == (after[2] > before[2]) for pair in moved)
    expected = abs(after[2] / sum(after) - before[2] / sum(before)) * len(KEYS)
    assert abs(sum(moves[pair] for pair in moved) - expected) <= 3 * math.sqrt(expected)


# --- what callers see -------------------------------------------------------------------------------------------------

FRAIL = (
    TOLD
    + """
def model_fn(model_dir):
    with open(os.path.join(model_dir, "there")) as there:
        return there.read()
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's models lie."""
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """Endpoints of two variants, and endpoints of one variant with two workers."""
    models: dict[str, Mapping[str, Any]] = {
        "sum": {"ModelDataUrl": str(write_sum_model(folder / "sum.onnx"))},
        "told": {"ModelDataUrl": str(write_script_model(folder / "told", TOLD))},
        "frail": {"ModelDataUrl": str(write_script_model(folder / "frail", FRAIL))},
    }
    (folder / "frail" / "there").write_text("yes")
    least = {"RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}}
    endpoints = {
        "ab": [variant("sum", "a", weight=9.0), variant("sum", "b", weight=1.0)],
        "zero": [variant("sum", "a"), variant("sum", "b", weight=0.0)],
        "none": [variant("sum", "a", weight=0.0), variant("sum", "b", weight=0.0)],
        "changed": [variant("sum", "a"), variant("sum", "b", weight=0.0)],
        "frail": [variant("frail", "frail"), variant("told", "sound")],
        "least": [variant("told", count=2, **least)],
        "random": [variant("told", count=2)],
    }
    config = str(declare(folder / "e.yaml", endpoints, models))
    with serve(folder, "--config", config, "--allow-code", environment={"SERVING_LOG_LEVEL": "error"}) as running:
        yield running


def answered(server: Server, endpoint: str, headers: list[dict[str, str]]) -> list[str]:
    """Who answered each of these calls, one connection for all. Fails when one is not answered."""
    found = []
    with Raw(server.url) as raw:
        for at in range(0, len(headers), 50):
            batch = headers[at : at + 50]
            path = f"/endpoints/{endpoint}/invocations"
            raw.send(b"".join(request(path, ROW.encode(), {"Content-Type": "text/csv"} | extra) for extra in batch))
            answers = [raw.answer() for _ in batch]
            assert {200} == {answer.status for answer in answers}, answers
            found += [answer.headers["x-amzn-invoked-production-variant"] for answer in answers]
    return found


def assert_share(share: float, found: list[str], name: str) -> None:
    """Within five standard deviations: once in two million runs this is off by chance."""
    allowed = 5 * math.sqrt(len(found) * share * (1 - share))
    assert abs(found.count(name) - share * len(found)) <= allowed, Counter(found)


def test_calls_are_split_by_weight(server: Server) -> None:
    """Nine to one, over four thousand calls; every answer names its variant."""
    found = answered(server, "ab", [{}] * 4000)
    assert {"a", "b"} == set(found)
    assert_share(0.1, found, "b")


def test_a_variant_without_weight_answers_only_when_named(server: Server) -> None:
    """It keeps its workers for TargetVariant, which beats the weights completely."""
    assert {"a"} == set(answered(server, "zero", [{}] * 200))
    assert {"b"} == set(answered(server, "zero", [{"X-Amzn-SageMaker-Target-Variant": "b"}] * 50))
    assert {"b"} == set(answered(server, "ab", [{"X-Amzn-SageMaker-Target-Variant": "b"}] * 50))


def test_without_any_weight_a_call_must_name_its_variant(server: Server) -> None:
    """400 ValidationError for the others."""
    with Raw(server.url) as raw:
        answer = raw.ask(request("/endpoints/none/invocations", ROW.encode(), {"Content-Type": "text/csv"}))
        assert (400, "ValidationError") == (answer.status, answer.headers["x-amzn-errortype"])
        assert "weight 0" in answer.fields["Message"]
    assert {"b"} == set(answered(server, "none", [{"X-Amzn-SageMaker-Target-Variant": "b"}]))


@pytest.mark.parametrize("header", ["X-Serving-Affinity-Key", "X-Amzn-SageMaker-Prefix-Aware-Id"])
def test_the_same_key_gets_the_same_variant(server: Server, header: str) -> None:
    """Call after call, while keys together are spread as the weights say."""
    keys = [{header: f"user-{n}"} for n in range(1500)]
    found = answered(server, "ab", keys)
    assert found == answered(server, "ab", keys)
    assert_share(0.1, found, "b")
    assert found == [["a", "b"][sticky(key[header], ["a", "b"], [9.0, 1.0])] for key in keys]


def test_a_key_of_the_callers_own_beats_the_prefix(server: Server) -> None:
    """What a call begins with is a hint; the user stays with its variant."""
    user = {"X-Serving-Affinity-Key": "user-1"}
    calls = [user | {"X-Amzn-SageMaker-Prefix-Aware-Id": f"prefix-{n}"} for n in range(200)]
    assert 1 == len(set(answered(server, "ab", calls)))


def test_sessions_yet_to_be_opened_are_split_by_weight(server: Server) -> None:
    """NEW_SESSION is no session's name."""
    found = answered(server, "ab", [{"X-Amzn-SageMaker-Session-Id": "NEW_SESSION"}] * 1000)
    assert_share(0.1, found, "b")


def pids(server: Server, endpoint: str, calls: int, headers: Mapping[str, str] | None = None) -> list[int]:
    """The workers that answer so many calls, one after the other."""
    with Raw(server.url) as raw:
        call = told(f"/endpoints/{endpoint}/invocations", headers)
        return [json.loads(raw.ask(call).body)["pid"] for _ in range(calls)]


def test_random_routing_spreads_calls_evenly(server: Server) -> None:
    """Over the two workers, in no order."""
    found = pids(server, "random", 400)
    assert {worker["Pid"] for worker in server.workers("random")} == set(found)
    assert_share(0.5, [str(pid) for pid in found], str(found[0]))
    assert found != sorted(found)


def test_least_outstanding_routing_passes_by_the_busy_worker(server: Server, tmp_path: Path) -> None:
    """While one worker holds a call, all others go to the other worker; then to both again."""
    path = "/endpoints/least/invocations"
    with gate(tmp_path / "gate") as fifo, Raw(server.url) as raw:
        raw.send(told(path, hold=str(fifo)))
        end = open_gate(fifo)
        free = set(pids(server, "least", 50))
        os.close(end)
        busy = json.loads(raw.answer().body)["pid"]
    assert 1 == len(free)
    assert {worker["Pid"] for worker in server.workers("least")} == {busy, *free}
    assert {busy, *free} == set(pids(server, "least", 100))


def test_a_key_stays_with_its_worker(server: Server) -> None:
    """Within a variant too, whatever its routing."""
    for endpoint in ("random", "least"):
        homes = [set(pids(server, endpoint, 10, {"X-Serving-Affinity-Key": f"user-{n}"})) for n in range(30)]
        assert {1} == {len(home) for home in homes}
        assert 2 == len(set().union(*homes))


def test_a_variant_without_a_worker_leaves_the_draw_until_it_has_one(server: Server, folder: Path) -> None:
    """Its worker is killed and its model cannot be loaded again: no call fails, the other variant answers them all.
    When the model is whole again, so are the shares."""

    def of(names: list[str]) -> set[str]:
        return set(names)

    assert {"frail", "sound"} == of(_told_by(server, 100))
    (folder / "frail" / "there").unlink()
    victim = next(worker["Pid"] for worker in server.workers("frail") if worker["Pid"] in _pids_of(server, "frail"))
    os.kill(victim, signal.SIGKILL)
    server.eventually(lambda: not _pids_of(server, "frail"))
    assert {"sound"} == of(_told_by(server, 300))
    (folder / "frail" / "there").write_text("again")
    server.eventually(lambda: bool(_pids_of(server, "frail")))
    server.eventually(lambda: {"frail", "sound"} == of(_told_by(server, 50)))


def _told_by(server: Server, calls: int) -> list[str]:
    with Raw(server.url) as raw:
        answers = [raw.ask(told("/endpoints/frail/invocations")) for _ in range(calls)]
    assert {200} == {answer.status for answer in answers}, answers
    return [answer.headers["x-amzn-invoked-production-variant"] for answer in answers]


def _pids_of(server: Server, name: str) -> list[int]:
    """Pids of the ready workers of a variant of ``frail``."""
    variants = server.endpoints()["frail"]["ProductionVariants"]
    workers = next(one["Workers"] for one in variants if one["VariantName"] == name)
    return [worker["Pid"] for worker in workers if worker["State"] == "READY"]


# --- changing weights live --------------------------------------------------------------------------------------------


def control(server: Server) -> Any:
    """Unmodified boto3."""
    return boto3.client(
        "sagemaker",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}),
    )


def change(server: Server, *changes: dict[str, Any], endpoint: str = "changed") -> str:
    """UpdateEndpointWeightsAndCapacities; the endpoint's ARN."""
    done = control(server).update_endpoint_weights_and_capacities(
        EndpointName=endpoint, DesiredWeightsAndCapacities=list(changes)
    )
    return str(done["EndpointArn"])


def weights(server: Server) -> dict[str, float]:
    """The weights of ``changed`` as the server tells them."""
    variants = server.endpoints()["changed"]["ProductionVariants"]
    return {one["VariantName"]: one["CurrentWeight"] for one in variants}


def test_boto3_changes_weights_while_calls_go_on(server: Server) -> None:
    """Each step takes effect while calls come in, none of which fails; a variant left out keeps its weight."""
    with ThreadPoolExecutor(1) as callers:
        for new in ({"a": 0.0, "b": 1.0}, {"a": 3.0}, {"a": 1.0, "b": 0.0}):
            expected = weights(server) | new
            meanwhile = callers.submit(answered, server, "changed", [{}] * 500)
            arn = change(server, *({"VariantName": name, "DesiredWeight": weight} for name, weight in new.items()))
            assert "arn:aws:sagemaker:us-east-1:123456789012:endpoint/changed" == arn
            server.eventually(lambda expected=expected: expected == weights(server))
            assert_share(expected["b"] / sum(expected.values()), answered(server, "changed", [{}] * 1000), "b")
            assert {"a", "b"} >= set(meanwhile.result())


def test_boto3_changes_the_number_of_workers(server: Server) -> None:
    """DesiredInstanceCount, up and down; calls are answered all the while."""

    def ready() -> int:
        variants = server.endpoints()["changed"]["ProductionVariants"]
        return next(int(one["CurrentInstanceCount"]) for one in variants if one["VariantName"] == "b")

    for count in (2, 1):
        change(server, {"VariantName": "b", "DesiredInstanceCount": count})
        server.eventually(lambda count=count: count == ready())
        assert {"b"} == set(answered(server, "changed", [{"X-Amzn-SageMaker-Target-Variant": "b"}] * 50))


@pytest.mark.parametrize(
    ("endpoint", "changes", "text"),
    [
        ("absent", [{"VariantName": "a", "DesiredWeight": 1.0}], "absent"),
        ("changed", [{"VariantName": name, "DesiredWeight": 5.0} for name in "abc"], r'variant name\(s\) "c"'),
        ("changed", [{"VariantName": "a", "DesiredWeight": 1e39}], "desiredWeight"),
        ("changed", [{"VariantName": "a", "DesiredInstanceCount": 1001}], "instances per endpoint"),
    ],
    ids=["endpoint", "variant", "weight", "count"],
)  # fmt: skip
def test_a_change_that_is_wrong_in_part_changes_nothing(
    server: Server, endpoint: str, changes: list[dict[str, Any]], text: str
) -> None:
    """400 ValidationError, and the weights are what they were."""
    before = weights(server)
    with pytest.raises(ClientError, match=text) as caught:
        change(server, *changes, endpoint=endpoint)
    assert 400 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert before == weights(server)
