"""Shadow variants on a real server through unmodified boto3: who gets copies, and that no caller ever hears of it."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet import resolve
from serving.monitor.captures import read
from serving.monitor.values import Complaints, Window
from serving.objects.local import LocalObjects
from serving.shadows import MOST_BYTES, MOST_CALLS, Shadow, lot, share
from serving.watch.capture import sampled
from serving.watch.metrics import Registry
from serving.workers.pool import Pool
from tests.cloud import answers, client, container, make_config, make_model, production, put_script, said, settled
from tests.load import Load
from tests.server import Server, serve

#: Notes what it is sent, and does what that says.
DOES = """
import os, time

def transform_fn(model, body, content_type, accept, context):
    while body.startswith(b"hang") and not os.path.exists({gate!r}):
        time.sleep(0.01)  # the model waits, not the test
    if body.startswith(b"crash"):
        os._exit(1)
    if body.startswith(b"refuse"):
        raise ValueError("not this")
    with open({notes!r}, "ab") as notes:
        target, inference_id = "", context.request_headers.get("X-Amzn-SageMaker-Inference-Id", "")
        notes.write(body + b" " + inference_id.encode() + b"\\n")
    return "shadow", "text/plain"
"""
STREAMS = """
def transform_fn(model, body, content_type, accept, context):
    return iter([b"one", b"two"])
"""
MANY = """
import os

def model_fn(folder):
    return os.path.basename(folder)

def transform_fn(model, body, content_type, accept):
    if {notes!r}:
        with open({notes!r}, "ab") as notes:
            notes.write(model.encode() + b":" + body + b"\\n")
    return model
"""


class Place:
    """A server, its clients, and what its shadows have noted."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.sagemaker, self.runtime = client(server), client(server, "sagemaker-runtime")

    def make(self, name: str, *shadows: dict[str, Any], variants: tuple[str, ...] = ("plain",), **more: Any) -> Any:
        """An endpoint, settled."""
        self.config(name, *shadows, variants=variants, **more)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return settled(self.sagemaker, name)

    def config(self, name: str, *shadows: dict[str, Any], variants: tuple[str, ...] = ("plain",), **more: Any) -> None:
        """An endpoint configuration whose variants have their models' names."""
        shown = {"ShadowProductionVariants": shadows} if shadows else {}
        make_config(self.sagemaker, name, *(production(one, name=one) for one in variants), **shown, **more)

    def does(self, name: str) -> str:
        """A model of this name that does what it is told."""
        source = DOES.format(gate=str(self.folder / f"{name}.gate"), notes=str(self.folder / name))
        make_model(self.sagemaker, name, container(put_script(self.server, name, source)))
        return name

    def noted(self, name: str) -> list[str]:
        """What the model of this name was sent, one line a call."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def count(self, metric: str, endpoint: str, variant: str, **labels: str) -> float:
        """A metric of a variant."""
        return self.server.metric(f"sagemaker_{metric}", endpoint=endpoint, variant=variant, **labels)

    def eventually(self, wanted: float, number: Callable[[], float]) -> None:
        """Copies arrive when they arrive."""
        self.server.eventually(lambda: wanted == number())


def shadow(model: str, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    """A shadow variant of its model's name."""
    return production(model, name=model, weight=weight, **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Two fronts, and a model ``plain`` for production."""
    folder = tmp_path_factory.mktemp("shadows")
    environment = {"SERVING_SETTLE_SECONDS": "0", "SERVING_FRONTS": "2"}
    with serve(folder, "--allow-code", environment=environment) as server:
        made = Place(server, folder)
        make_model(made.sagemaker, "plain", container(answers(server, "plain")))
        yield made
        assert [] == [words for words in ("could not be sent", "a caller failed") if words in server.log]


def test_a_shadow_gets_every_call_and_the_caller_hears_of_production_alone(place: Place) -> None:
    """Body and inference id are the call's; each is counted under its own variant, and the pairs' times are kept."""
    described = place.make("all", shadow(place.does("seen")))
    assert ["InService", "plain", "seen"] == [
        described["EndpointStatus"],
        *(described[f"{kind}ProductionVariants"][0]["VariantName"] for kind in ("", "Shadow")),
    ]
    for number in range(30):
        answer = place.runtime.invoke_endpoint(EndpointName="all", Body=f"b{number}", InferenceId=f"i{number}")
        assert (b"plain:b%d" % number, "plain") == (answer["Body"].read(), answer["InvokedProductionVariant"])
    place.eventually(30, lambda: place.count("shadow_pairs_total", "all", "seen", production="plain"))
    assert [f"b{number} i{number}" for number in range(30)] == sorted(
        place.noted("seen"), key=lambda one: int(one.split()[0][1:])
    )
    assert [30, 30] == [place.count("invocations_total", "all", variant) for variant in ("plain", "seen")]
    assert 0 == place.count("shadow_dropped_total", "all", "seen")
    times = {
        side: place.count("shadow_pair_seconds_total", "all", "seen", side=side) for side in ("production", "shadow")
    }
    assert all(0 < seconds < 30 for seconds in times.values())
    assert place.count("shadow_pair_squared_difference_total", "all", "seen") >= (
        (times["shadow"] - times["production"]) ** 2 / 30  # Cauchy and Schwarz
    )


def test_a_shadows_workers_give_way(place: Place) -> None:
    """Where processors are short the system lets production's workers go first."""
    place.make("polite", {**shadow("plain", 0.0), "VariantName": "polite"}, variants=("plain",))
    row = place.server.endpoints()["polite"]
    mine, theirs = (
        os.getpriority(os.PRIO_PROCESS, row[f"{kind}ProductionVariants"][0]["Workers"][0]["Pid"])
        for kind in ("", "Shadow")
    )
    assert min(mine + 10, 19) == theirs


def test_a_share_is_drawn_by_the_request_id(place: Place) -> None:
    """Half of production's weight is about half of the calls, and which they are the ids say: of two shadows the
    smaller's are among the larger's; several production variants count together; a weight may be changed while it
    runs."""
    for name in ("half", "some"):
        place.does(name)
    make_model(place.sagemaker, "other", container(answers(place.server, "other")))
    place.make("shares", shadow("half", 1.0), shadow("some", 0.2), variants=("plain", "other"))
    ids = {}
    for number in range(200):
        answer = place.runtime.invoke_endpoint(EndpointName="shares", Body=f"b{number}")
        ids[f"b{number} "] = answer["ResponseMetadata"]["RequestId"]
    for name, part in (("half", 0.5), ("some", 0.1)):
        wanted = {body for body, id in ids.items() if lot(id) < part}
        place.eventually(len(wanted), partial(place.count, "invocations_total", "shares", name))
        assert wanted == set(place.noted(name))
        assert abs(len(wanted) - 200 * part) <= 4 * math.sqrt(200 * part * (1 - part))
    changes = [
        {"VariantName": "some", "DesiredWeight": 5.0},
        {"VariantName": "half", "DesiredWeight": 0.0, "DesiredInstanceCount": 2},
    ]
    place.sagemaker.update_endpoint_weights_and_capacities(EndpointName="shares", DesiredWeightsAndCapacities=changes)
    described = settled(place.sagemaker, "shares")["ShadowProductionVariants"]
    assert [(0.0, 2), (5.0, 1)] == [(one["CurrentWeight"], one["CurrentInstanceCount"]) for one in described]
    before = place.count("invocations_total", "shares", "half")
    said(place.runtime, "shares", b"last")
    place.server.eventually(lambda: "last " in place.noted("some"))
    assert before == place.count("invocations_total", "shares", "half")
    listed = place.server.endpoints()["shares"]["ShadowProductionVariants"]
    assert [("half", 2), ("some", 1)] == [(one["VariantName"], len(one["Workers"])) for one in listed]


def test_a_shadow_cannot_be_named_by_a_caller(place: Place) -> None:
    """It is no variant to them."""
    place.make("named", shadow(place.does("unnamed")))
    with pytest.raises(ClientError, match="Variant unnamed of endpoint named not found") as refusal:
        said(place.runtime, "named", TargetVariant="unnamed")
    assert "ValidationError" == refusal.value.response["Error"]["Code"]
    assert "plain:x" == said(place.runtime, "named", TargetVariant="plain")
    place.eventually(1, lambda: len(place.noted("unnamed")))


def test_a_shadow_that_hangs_is_left_to_itself(place: Place) -> None:
    """It holds so many copies and no more: the others are dropped and counted, and production answers every call."""
    place.make("hung", shadow(place.does("hangs")))
    with Load(place.server.url, 4, b"hang", path="/endpoints/hung/invocations") as load:
        load.wait(2 * MOST_CALLS + 200)
    assert ([], {b"plain:hang"}) == (load.failures, {one.body for one in load.outcomes})
    calls = len(load.outcomes)
    place.server.eventually(lambda: place.count("shadow_dropped_total", "hung", "hangs") > 0)
    place.eventually(
        calls,
        lambda: (
            place.count("shadow_dropped_total", "hung", "hangs") + place.count("concurrent_requests", "hung", "hangs")
        ),
    )
    assert place.count("concurrent_requests", "hung", "hangs") <= 2 * MOST_CALLS
    (place.folder / "hangs.gate").touch()
    place.server.eventually(lambda: 0 == place.count("concurrent_requests", "hung", "hangs"))
    assert "plain:x" == said(place.runtime, "hung")
    place.server.eventually(lambda: "x " in place.noted("hangs"))


def test_an_endpoint_with_a_shadow_that_hangs_can_be_deleted(place: Place) -> None:
    """Nobody waits for a copy as for a call."""
    place.make("stuck", shadow(place.does("sticks")))
    assert "plain:hang" == said(place.runtime, "stuck", b"hang")
    place.eventually(1, lambda: place.count("concurrent_requests", "stuck", "sticks"))
    place.sagemaker.delete_endpoint(EndpointName="stuck")
    names = place.sagemaker.list_endpoints
    place.server.eventually(lambda: "stuck" not in {one["EndpointName"] for one in names()["Endpoints"]})


def test_a_shadow_that_crashes_or_refuses_is_its_own_affair(place: Place) -> None:
    """Its deaths and errors are counted under its name; no caller hears of any, and it comes back."""
    place.make("frail", shadow(place.does("fails")))
    for body in (b"refuse", b"crash", b"refuse", b"x"):
        assert f"plain:{body.decode()}" == said(place.runtime, "frail", body)
    place.server.eventually(lambda: place.count("worker_deaths_total", "frail", "fails") > 0)
    place.server.eventually(lambda: "x " in place.noted("fails"))
    place.eventually(3, lambda: place.count("invocation_model_errors_total", "frail", "fails"))
    assert 0 == place.count("invocation_model_errors_total", "frail", "plain")
    assert 0 == place.count("invocation_errors_total", "frail", "plain")
    assert "InService" == settled(place.sagemaker, "frail")["EndpointStatus"]


def test_a_shadow_comes_and_goes_under_load(place: Place) -> None:
    """Updates add a shadow, make it production, and drop it: no call fails, and copies are no one's answers."""
    place.does("guest")
    place.config("with", shadow("guest"))
    place.config("swapped", shadow("plain"), variants=("guest",))
    place.make("busy")
    with Load(place.server.url, 2, b"x", path="/endpoints/busy/invocations") as load:
        for config, words in (("with", {b"plain:x"}), ("swapped", {b"shadow"}), ("busy", {b"plain:x"})):
            place.sagemaker.update_endpoint(EndpointName="busy", EndpointConfigName=config)
            assert ("InService", config) == tuple(
                settled(place.sagemaker, "busy")[member] for member in ("EndpointStatus", "EndpointConfigName")
            )
            begun = load.began_after_now()
            load.wait(50)
            assert words == {one.body for one in load.outcomes if one.began > begun.began}
    assert [] == load.failures
    assert len(place.noted("guest")) > 50
    place.server.eventually(lambda: 0 == place.count("invocations_total", "busy", "guest"))
    assert 0 == place.server.metric("sagemaker_shadow_pairs_total", endpoint="busy")


def test_a_shadow_that_cannot_load_fails_the_deployment(place: Place) -> None:
    """As any variant would: an update is rolled back, a creation fails, and the reason names it."""
    make_model(place.sagemaker, "broken", container(put_script(place.server, "broken", "raise RuntimeError('no')\n")))
    failed = place.make("doomed", shadow("broken"))
    assert ("Failed", True) == (failed["EndpointStatus"], "broken" in failed["FailureReason"])
    place.make("kept")
    place.sagemaker.update_endpoint(EndpointName="kept", EndpointConfigName="doomed")
    kept = settled(place.sagemaker, "kept")
    assert ("InService", "kept") == (kept["EndpointStatus"], kept["EndpointConfigName"])
    assert "plain:x" == said(place.runtime, "kept")


def test_a_streamed_call_is_copied_whole_and_a_session_not_at_all(place: Place) -> None:
    """A stream's copy is a plain call and no pair of times; what a session means only its worker knows."""
    make_model(place.sagemaker, "streams", container(put_script(place.server, "streams", STREAMS)))
    place.make("parts", shadow(place.does("whole")), variants=("streams",))
    answer = place.runtime.invoke_endpoint_with_response_stream(EndpointName="parts", Body=b"streamed")
    assert b"onetwo" == b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
    said(place.runtime, "parts", b"opens", SessionId="NEW_SESSION")
    said(place.runtime, "parts", b"last")
    place.eventually(1, lambda: place.count("shadow_pairs_total", "parts", "whole"))
    assert {"streamed ", "last "} == set(place.noted("whole"))


def test_a_copy_names_the_model_that_the_call_names(place: Place) -> None:
    """A multi-model endpoint's shadow has models of the same names; one whose variants are of two kinds is refused."""
    for prefix, notes in (("many", ""), ("manyshadow", str(place.folder / "many-noted"))):
        for name in ("a", "b"):
            put_script(place.server, f"{prefix}/{name}", MANY.format(notes=notes))
        make_model(place.sagemaker, prefix, container(f"s3://models/{prefix}/", Mode="MultiModel"))
    with pytest.raises(ClientError, match="either every variant has a MultiModel container or none"):
        place.config("mixed", shadow("plain"), variants=("many",))
    place.make("many", shadow("manyshadow"), variants=("many",))
    for name in ("a", "b"):
        assert name == said(place.runtime, "many", TargetModel=name)
    place.server.eventually(lambda: ["a:x", "b:x"] == sorted(place.noted("many-noted")))


def test_asynchronous_calls_are_copied(place: Place) -> None:
    """The jobs process sends copies as fronts do."""
    asynchronous = {"OutputConfig": {"S3OutputPath": "s3://answers/out"}}
    place.make("later", shadow(place.does("late")), AsyncInferenceConfig=asynchronous)
    source = place.server.data_dir / "s3" / "inputs"
    source.mkdir()
    (source / "a").write_bytes(b"hello")
    taken = place.runtime.invoke_endpoint_async(EndpointName="later", InputLocation="s3://inputs/a", InferenceId="mine")
    answer = place.server.data_dir / "s3" / taken["OutputLocation"].removeprefix("s3://")
    place.server.eventually(answer.exists)
    assert b"plain:hello" == answer.read_bytes()
    place.server.eventually(lambda: ["hello mine"] == place.noted("late"))
    place.eventually(1, lambda: place.count("shadow_pairs_total", "later", "late"))


def test_what_is_captured_of_a_copy_can_be_joined_with_the_call(place: Place, tmp_path: Path) -> None:
    """Production and shadow each write under their own name, of the same calls, with the same ids."""
    capture = {
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": "s3://captures/here",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/plain"]},
    }
    place.make("written", shadow(place.does("writes")), DataCaptureConfig=capture)
    wanted = 0
    for number in range(20):
        named = {"InferenceId": f"i{number}"} if number % 2 else {}
        answer = place.runtime.invoke_endpoint(
            EndpointName="written", Body=f"b{number}", ContentType="text/plain", **named
        )
        wanted += sampled(answer["ResponseMetadata"]["RequestId"], 50)
    objects, data = LocalObjects(place.server.data_dir / "s3", tmp_path), place.server.data_dir

    def records(variant: str) -> dict[str, tuple[str, str]]:
        window = Window(0.0, math.inf)
        found = read(objects, data / "capture", "s3://captures/here", "written", window, Complaints(), (variant,))
        sides = ((one.key, one.input, one.output) for one in found)
        return {key: (asked.data, told.data) for key, asked, told in sides if asked and told}

    place.server.eventually(lambda: [wanted, wanted] == [len(records(name)) for name in ("plain", "writes")])
    calls, copies = records("plain"), records("writes")
    assert calls.keys() == copies.keys()
    assert {key: (asked, f"plain:{asked}") for key, (asked, _) in copies.items()} == calls
    assert {"shadow"} == {told for _, told in copies.values()}


def test_a_restart_brings_shadows_back_and_waits_for_none(tmp_path: Path) -> None:
    """After kill -9 it gets copies again; where its artifact has gone production answers, and the reason is told."""
    with serve(tmp_path, "--allow-code") as server:
        place = Place(server, tmp_path)
        make_model(place.sagemaker, "plain", container(answers(server, "plain")))
        place.make("e", shadow(place.does("back")))
        place.make("f", shadow(place.does("lost")))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    shutil.rmtree(tmp_path / "data" / "s3" / "models" / "lost")
    with serve(tmp_path, "--allow-code") as server:
        place = Place(server, tmp_path)
        assert ["plain:x", "plain:x"] == [said(place.runtime, name) for name in ("e", "f")]
        server.eventually(
            lambda: (
                place.sagemaker.describe_endpoint(EndpointName="e")["ShadowProductionVariants"][0][
                    "CurrentInstanceCount"
                ]
                == 1
            )
        )
        said(place.runtime, "e", b"again")
        server.eventually(lambda: "again " in place.noted("back"))
        server.eventually(
            lambda: "lost" in place.sagemaker.describe_endpoint(EndpointName="f").get("FailureReason", "")
        )
        described = place.sagemaker.describe_endpoint(EndpointName="f")
        assert "InService" == described["EndpointStatus"]
        assert [(0, 1)] == [
            (one["CurrentInstanceCount"], one["DesiredInstanceCount"]) for one in described["ShadowProductionVariants"]
        ]


# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "weights", "expected"),
    [
        (0.5, 1.0, 0.5),
        (1.0, 1.0, 1.0),
        (2.0, 1.0, 1.0),
        (1.0, 4.0, 0.25),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 1.0),
    ],
)
def test_a_share_is_the_ratio_of_weights(weight: float, weights: float, expected: float) -> None:
    """min(1, shadow weight / production weight)."""
    assert expected == share(weight, weights)


@given(st.uuids(), st.text())
def test_a_lot_is_in_the_unit_interval_and_always_the_same(id: object, odd: str) -> None:
    """Whatever an id looks like."""
    for one in (str(id), odd):
        assert 0.0 <= lot(one) < 1.0
        assert lot(one) == lot(one)


def test_a_deployment_from_before_shadows_ran_has_them_as_its_config_says() -> None:
    """Its record names weights and counts of production variants only."""
    one = {"VariantName": "a", "ModelName": "m", "InitialInstanceCount": 1}
    config = {
        "ProductionVariants": [one],
        "ShadowProductionVariants": [{**one, "VariantName": "b", "InitialVariantWeight": 0.5}],
    }
    made = resolve.deployment(1, "c", config, {"m": {"PrimaryContainer": {"ModelDataUrl": "/m"}}}, 0.0)
    assert {"Weight": 0.5, "Count": 1} == made["Variants"].pop("b")
    (shadowing,) = resolve.endpoint_spec("e", made).shadows
    assert ("b", 0.5, 1) == (shadowing.name, shadowing.weight, shadowing.instance_count)


def test_lots_are_even() -> None:
    """Ids that only count upwards, as a front's do, are spread evenly: 10,000 into tenths, four standard deviations."""
    head = "3f2c1b64-6a55-4c1e-9a3e"
    tenths = [0] * 10
    for number in range(10_000):
        tenths[int(10 * lot(f"{head}-{number:012x}"))] += 1
    assert all(abs(count - 1000) <= 4 * math.sqrt(10_000 * 0.1 * 0.9) for count in tenths)


def test_a_shadow_holds_so_many_copies_and_bytes(tmp_path: Path) -> None:
    """One body larger than all it may hold gets in alone."""
    nowhere: Any = object.__new__(Pool)
    with closing(Registry(tmp_path, "test")) as registry:
        one = Shadow("e", "s", nowhere, registry)
        assert one.enter(2 * MOST_BYTES)
        assert not one.enter(1)
        one.leave(2 * MOST_BYTES)
        assert [True] * MOST_CALLS + [False] == [one.enter(10) for _ in range(MOST_CALLS + 1)]
        for _ in range(MOST_CALLS):
            one.leave(10)
        assert (0, 0) == (one.calls, one.bytes)
