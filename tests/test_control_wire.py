"""The control API's wire: targets, bodies, error codes and answers, in the control process and over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from serving.api import control_api
from serving.api.control_actions import ACTIONS, OPERATIONS
from serving.api.control_api import ControlApi
from serving.api.control_call import ControlCall, Outcome
from serving.api.schema import Schema
from serving.api.services import SAGEMAKER
from serving.config import Settings
from serving.errors import ServiceUnavailable, ServingError, ValidationError
from serving.fleet.store import AlreadyThere, Record, Stale, Store, StoreThread
from tests.calls import GOOD, ROLE, places, spoilt, wild
from tests.conform import assert_conforms, service_model
from tests.raw import Raw, request
from tests.server import Server, serve

SCHEMA = Schema.load("sagemaker", ACTIONS)
SETTINGS = Settings(settle_seconds=1.5)
T = TypeVar("T")


class Still:
    """A world in which nothing runs; it notes what the API tells and asks it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def live(self, name: str) -> Mapping[str, Any] | None:
        """Nothing."""
        return None

    def touch(self, tags: Iterable[str]) -> None:
        """Noted."""
        self.heard.append(("touch", tuple(tags)))

    async def settled(self, tags: Iterable[str], seconds: float) -> None:
        """Noted; at once."""
        self.heard.append(("settled", seconds))

    def progress(self, name: str) -> Mapping[str, Any] | None:
        """None."""
        return None

    async def news(self, tag: str, revision: int, seconds: float) -> None:
        """Noted; at once."""
        self.heard.append(("news", tag))


def loaded(prefix: str) -> Schema:
    """SageMaker's model is read once for all tests."""
    return SCHEMA if prefix == SAGEMAKER else control_api.load_schema(prefix)


class Wire:
    """A ``ControlApi`` on a store of its own, asked as a front asks it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder / 'state.sqlite'}").open()
        self.world = Still()

    def within(self, work: Callable[[ControlApi], Awaitable[T]], load: Callable[[str], Schema] = loaded) -> T:
        """What ``work`` makes of an API that lives as long as it does."""

        async def run() -> T:
            thread = StoreThread(self.store)
            try:
                return await work(ControlApi(SETTINGS, thread, self.world, load))
            finally:
                await asyncio.to_thread(thread.close)

        return asyncio.run(run())

    def send(self, target: str, body: str = "{}") -> dict[str, Any]:
        """The reply to one call: status, headers, body."""
        reply = self.within(lambda api: api.handle(call(target, body)))
        assert "the-id" == dict(reply["headers"])["x-amzn-RequestId"]
        assert "application/x-amz-json-1.1" == dict(reply["headers"])["content-type"]
        return reply

    def error(self, target: str, body: str = "{}") -> tuple[int, str, str]:
        """Status, code and message of a call that fails."""
        reply = self.send(target, body)
        said = json.loads(reply["body"])
        assert {"__type", "message"} == set(said)
        assert said["__type"] == dict(reply["headers"])["x-amzn-ErrorType"]
        return reply["status"], said["__type"], said["message"]

    def add(self, *records: Record) -> None:
        """Records as the other parts of the server keep them."""
        with self.store.write() as session:
            for record in records:
                session.add(record)


def call(target: str, body: str = "{}") -> dict[str, Any]:
    """A front's question."""
    return {"target": target, "body": body, "region": "eu-west-1", "request_id": "the-id"}


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """On an empty store."""
    made = Wire(tmp_path)
    yield made
    made.store.close()


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("", "X-Amz-Target"),
        ("CreateModel", "no operation CreateModel"),
        ("SageMaker.", "no operation"),
        ("SageMaker", "no operation"),
        (".CreateModel", "no operation"),
        ("sagemaker.CreateModel", "no operation"),
        ("SageMaker.createModel", "no operation"),
        ("SageMaker.CreateModel ", "no operation"),
        ("SageMaker.SageMaker.CreateModel", "no operation"),
        ("SageMaker.NoSuchThing", "no operation SageMaker.NoSuchThing"),
        ("SageMaker.CreateTrainingJob", "does not offer the operation CreateTrainingJob"),
        ("AnyScaleFrontendService.CreateModel", "no operation"),
        ("AnyScaleFrontendService.GetPredictiveScalingForecast", "does not offer"),
        ("SageMaker.RegisterScalableTarget", "no operation"),
        ("SageMaker." + "x" * 100_000, "no operation"),
        ("SageMaker.\r\nX: y", "no operation"),
    ],
)
def test_what_is_not_offered_is_unknown(wire: Wire, target: str, text: str) -> None:
    """400 UnknownOperationException; an operation that AWS has is told from one that nobody has."""
    status, code, message = wire.error(target)
    assert (400, "UnknownOperationException") == (status, code)
    assert text in message
    assert message.isprintable()
    assert len(message) < 300


def test_every_other_operation_of_aws_says_that_it_is_not_offered(wire: Wire) -> None:
    """By name, all of them."""

    async def ask(api: ControlApi) -> None:
        for operation in sorted(SCHEMA.known - set(ACTIONS)):
            reply = await api.handle(call(f"SageMaker.{operation}"))
            said = json.loads(reply["body"])
            assert (400, "UnknownOperationException") == (reply["status"], said["__type"])
            assert f"does not offer the operation {operation}." in said["message"]

    wire.within(ask)


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    ["{", "}", "nonsense", "{'a': 1}", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "\ufeff{}", "[" * 100_000,
     '{"a":' * 100_000, "[]", "null", "1", '"{}"', "true", "{}{}", '{"ModelName": "m",}', "\0"],
    ids=range(18),
)  # fmt: skip
def test_a_body_that_is_no_json_object_cannot_be_read(wire: Wire, body: str) -> None:
    """400 SerializationException, whatever operation was meant."""
    for operation in ("CreateModel", "ListModels", "DeleteEndpoint"):
        assert (400, "SerializationException") == wire.error(f"SageMaker.{operation}", body)[:2]


def test_no_body_is_an_empty_object(wire: Wire) -> None:
    """For callers by hand."""
    assert '{"Models":[]}' == wire.send("SageMaker.ListModels", "")["body"]


def test_of_a_member_given_twice_the_last_counts(wire: Wire) -> None:
    """As JSON readers have it."""
    assert 'model/b".' in wire.error("SageMaker.DescribeModel", '{"ModelName": "a", "ModelName": "b"}')[2]


def test_a_wrong_request_is_a_validation_exception(wire: Wire) -> None:
    """In AWS's words, with this API's code."""
    assert (
        400,
        "ValidationException",
        "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: Member must not be null",
    ) == wire.error("SageMaker.DescribeModel")


def test_what_is_not_there_cannot_be_found(wire: Wire) -> None:
    """The code and words that clients and waiters test; the ARN is of the caller's region."""
    assert (
        400,
        "ValidationException",
        'Could not find endpoint "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/none".',
    ) == wire.error("SageMaker.DescribeEndpoint", '{"EndpointName": "none"}')


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_operation_without_output_answers_with_nothing(wire: Wire) -> None:
    """200 and an empty body."""
    wire.add(Record("model", "m", {"ModelName": "m"}, 1.0, 1.0))
    reply = wire.send("SageMaker.DeleteModel", '{"ModelName": "M"}')
    assert (200, "") == (reply["status"], reply["body"])


def test_without_the_wire_the_answer_is_the_same(wire: Wire) -> None:
    """What the operator declares takes the same path; models may lie at any path then."""
    container = {"ModelDataUrl": "/models/a.onnx"}
    params = {"ModelName": "m", "PrimaryContainer": container}
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m"
    assert {"ModelArn": arn} == wire.within(lambda api: api.call("CreateModel", params))
    described = wire.within(lambda api: api.call("DescribeModel", {"ModelName": "m"}))
    assert container == described["PrimaryContainer"]
    assert_conforms("DescribeModel", described)
    assert {} == wire.within(lambda api: api.call("DeleteModel", {"ModelName": "m"}))
    with pytest.raises(ValidationError, match="Could not find model"):
        wire.within(lambda api: api.call("DeleteModel", {"ModelName": "m"}))
    with pytest.raises(ValidationError, match="modelDataUrl"):
        wire.within(lambda api: api.call("CreateModel", params, trusted=False))


def put_action(monkeypatch: pytest.MonkeyPatch, operation: str, action: Callable[[ControlCall], Outcome]) -> None:
    """Let ``operation`` be answered by ``action``, for what no real one does at will."""
    monkeypatch.setattr(control_api, "OPERATIONS", {**OPERATIONS, SAGEMAKER: {**ACTIONS, operation: action}})


def test_a_change_is_told_and_waited_for(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the commit, as long as the operator allows; a call that changes nothing waits for nothing."""
    put_action(monkeypatch, "UpdateEndpoint", lambda call: Outcome({"EndpointArn": "arn"}, ("endpoint/e",)))
    body = '{"EndpointName": "e", "EndpointConfigName": "c"}'
    assert '{"EndpointArn":"arn"}' == wire.send("SageMaker.UpdateEndpoint", body)["body"]
    assert [("touch", ("endpoint/e",)), ("settled", 1.5)] == wire.world.heard
    wire.send("SageMaker.ListEndpoints")
    wire.error("SageMaker.DescribeEndpoint", '{"EndpointName": "e"}')
    assert 2 == len(wire.world.heard)


@pytest.mark.parametrize("collision", [Stale(), AlreadyThere()])
def test_a_write_that_collides_is_tried_again(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, collision: Exception
) -> None:
    """On what the other one wrote; what the failed try wrote is undone."""
    tries: list[int] = []

    def collides(call: ControlCall) -> Outcome:
        tries.append(call.session.count("model"))
        call.session.add(Record("model", f"m{len(tries)}", {}, 1.0, 1.0))
        if len(tries) < 3:
            raise collision
        return Outcome({"ModelArn": "arn"})

    put_action(monkeypatch, "CreateModel", collides)
    assert 200 == wire.send("SageMaker.CreateModel", '{"ModelName": "m"}')["status"]
    assert [0, 0, 0] == tries


def test_a_write_that_always_collides_is_a_conflict(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tries later; 400 ConflictException."""

    def collides(call: ControlCall) -> Outcome:
        raise Stale

    put_action(monkeypatch, "CreateModel", collides)
    assert (400, "ConflictException") == wire.error("SageMaker.CreateModel", '{"ModelName": "m"}')[:2]


def test_a_defect_is_an_internal_failure(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500; its cause is in the log under the request id, and nowhere else; nothing of it is kept."""

    def broken(call: ControlCall) -> Outcome:
        call.session.add(Record("model", "half", {}, 1.0, 1.0))
        raise RuntimeError("/secret/path")

    put_action(monkeypatch, "CreateModel", broken)
    status, code, message = wire.error("SageMaker.CreateModel", '{"ModelName": "m"}')
    assert (500, "InternalFailure") == (status, code)
    assert "secret" not in message
    assert "/secret/path" in caplog.text
    assert '{"Models":[]}' == wire.send("SageMaker.ListModels")["body"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ServiceUnavailable("The server is shutting down."), 503, "ServiceUnavailable"),
        (ServingError("?"), 500, "InternalFailure"),
    ],
)
def test_what_is_our_fault_says_so(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, error: ServingError, status: int, code: str
) -> None:
    """So that clients try again."""

    def fails(call: ControlCall) -> Outcome:
        raise error

    put_action(monkeypatch, "ListModels", fails)
    assert (status, code) == wire.error("SageMaker.ListModels")[:2]


def test_too_many_calls_at_once_are_throttled(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with the time to come back; those at work are answered."""
    monkeypatch.setattr(control_api, "_MOST_CALLS", 3)

    async def flood(api: ControlApi) -> list[dict[str, Any]]:
        return await asyncio.gather(*(api.handle(call("SageMaker.ListModels")) for _ in range(5)))

    replies = wire.within(flood)
    assert [200, 200, 200, 429, 429] == sorted(reply["status"] for reply in replies)
    throttled = next(reply for reply in replies if reply["status"] == 429)
    assert {"__type": "ThrottlingException", "message": "Rate exceeded"} == json.loads(throttled["body"])
    assert "1" == dict(throttled["headers"])["Retry-After"]


def test_calls_wait_for_the_model_and_the_loop_does_not(wire: Wire) -> None:
    """It is read on a thread, once, and the first call need not be the one that starts it."""
    may_go, loads = threading.Event(), []

    def slow(prefix: str) -> Schema:
        if prefix != SAGEMAKER:
            return SCHEMA
        loads.append(threading.current_thread())
        assert may_go.wait(30)
        return SCHEMA

    async def work(api: ControlApi) -> list[dict[str, Any]]:
        api.start()
        calls = [asyncio.create_task(api.handle(call("SageMaker.ListModels"))) for _ in range(3)]
        calls[0].cancel()  # one who leaves ends nothing for the others
        await asyncio.wait(calls[:1])
        assert not any(one.done() for one in calls[1:])
        may_go.set()
        return [await one for one in calls[1:]]

    assert [200, 200] == [reply["status"] for reply in wire.within(work, slow)]
    assert 1 == len(loads)
    assert threading.main_thread() is not loads[0]


def test_without_a_model_every_call_fails_and_says_so(wire: Wire) -> None:
    """botocore's data may be missing: an error, not silence."""

    async def work(api: ControlApi) -> dict[str, Any]:
        return await api.handle(call("SageMaker.ListModels"))

    reply = wire.within(work, lambda _: Schema.load("no-such-service"))
    assert 500 == reply["status"]
    assert "install botocore" in json.loads(reply["body"])["message"]


# --- whatever is sent -------------------------------------------------------------------------------------------------


_REFUSALS = {
    "ValidationException",
    "ConflictException",
    "ResourceInUse",
    "ResourceLimitExceeded",
    "ResourceNotFound",
}


def judged(operation: str, reply: Mapping[str, Any]) -> None:
    """Either a good answer or the caller's error."""
    if reply["status"] == 200:
        assert_conforms(operation, reply["body"], _ANY)
        return
    said = json.loads(reply["body"])
    assert 400 == reply["status"], said
    assert said["__type"] in _REFUSALS, said
    assert said["message"]
    assert len(said["message"]) <= 8192


class _Anywhere(frozenset[str]):
    """Every place: what a caller sent empty comes back empty."""

    def __contains__(self, item: object) -> bool:
        return True


_ANY = _Anywhere()


@pytest.mark.parametrize("operation", sorted(GOOD))
def test_a_good_request_is_answered(wire: Wire, operation: str) -> None:
    """Or refused for what it names, on an empty store and on a full one."""
    judged(operation, wire.send(f"SageMaker.{operation}", json.dumps(GOOD[operation])))
    _fill(wire)
    judged(operation, wire.send(f"SageMaker.{operation}", json.dumps(GOOD[operation])))


def _fill(wire: Wire) -> None:
    """The things that the good requests name, where they are not there (any more)."""
    variant = {"VariantName": "AllTraffic", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    component = GOOD["CreateInferenceComponent"] | {"VariantName": "AllTraffic"}
    config: dict[str, Any] = {
        "EndpointConfigName": "my-config",
        "ProductionVariants": [variant],
        "ExecutionRoleArn": ROLE,
    }
    config["DataCaptureConfig"] = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://bucket/captured",
        "KmsKeyId": "key",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    first = (
        ("CreateModel", GOOD["CreateModel"]),
        ("CreateEndpointConfig", config),
        ("CreateEndpoint", {"EndpointName": "my-endpoint", "EndpointConfigName": "my-config"}),
        ("CreateModelPackageGroup", {"ModelPackageGroupName": "my-group"}),
        ("CreateModelPackage", GOOD["CreateModelPackage"]),
        ("CreateTransformJob", GOOD["CreateTransformJob"]),
        *((name, params) for name, params in GOOD.items() if name.startswith("Create") and "JobDefinition" in name),
    )

    async def create(api: ControlApi, *calls: tuple[str, Mapping[str, Any]]) -> None:
        for operation, params in calls:
            await api.handle(call(f"SageMaker.{operation}", json.dumps(params)))

    wire.within(lambda api: create(api, *first))
    _in_service(wire)
    schedule = GOOD["CreateMonitoringSchedule"]
    wire.within(
        lambda api: create(api, ("CreateInferenceComponent", component), ("CreateMonitoringSchedule", schedule))
    )
    _in_service(wire)


def _in_service(wire: Wire) -> None:
    """As if a reconciler had done all there was to do."""
    with wire.store.write() as session:
        for record in [*session.every("endpoint"), *session.every("inference-component")]:
            if record.status == "Deleting":
                session.remove(record.kind, record.name)
            elif record.status != "InService":
                body = {**record.body, "Serving": record.body.get("Pending", record.body.get("Serving"))}
                body.pop("Pending", None)
                session.change(record, now=2.0, body=body, status="InService")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A store in which the good requests find what they name."""
    made = Wire(tmp_path_factory.mktemp("full"))
    yield made
    made.store.close()


def test_a_full_store_is_full(full: Wire) -> None:
    """What the next facts stand on: everything the good requests name is there."""
    _fill(full)
    for operation in (name for name in GOOD if name.startswith("Describe") and name != "DescribeModelPackage"):
        assert 200 == full.send(f"SageMaker.{operation}", json.dumps(GOOD[operation]))["status"], operation


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=200)
@given(wild())
def test_any_request_is_answered_or_the_callers_fault(full: Wire, case: tuple[str, Any]) -> None:
    """Never a 500, never an answer that a client could not read."""
    operation, raw = case
    _fill(full)
    reply = full.within(lambda api: api.handle(call(f"SageMaker.{operation}", json.dumps(raw))))
    if isinstance(raw, dict):
        judged(operation, reply)
    else:
        assert 400 == reply["status"]


def test_whatever_was_kept_can_be_read(full: Wire) -> None:
    """After all the wild requests: every list, and Describe of everything in it."""
    described = {
        "Models": ("DescribeModel", "ModelName"),
        "EndpointConfigs": ("DescribeEndpointConfig", "EndpointConfigName"),
        "Endpoints": ("DescribeEndpoint", "EndpointName"),
        "InferenceComponents": ("DescribeInferenceComponent", "InferenceComponentName"),
        "ModelPackageGroupSummaryList": ("DescribeModelPackageGroup", "ModelPackageGroupName"),
        "ModelPackageSummaryList": ("DescribeModelPackage", "ModelPackageArn"),
        "TransformJobSummaries": ("DescribeTransformJob", "TransformJobName"),
        "MonitoringScheduleSummaries": ("DescribeMonitoringSchedule", "MonitoringScheduleName"),
    }

    async def read(api: ControlApi) -> None:
        of_one = ("ListTags", "ListMonitoringAlerts")
        for operation in sorted(name for name in ACTIONS if name.startswith("List") and name not in of_one):
            listed = await api.call(operation, {"MaxResults": 100})
            assert_conforms(operation, listed)
            if operation.endswith("JobDefinitions"):
                described["JobDefinitionSummaries"] = (operation.replace("List", "Describe")[:-1], "JobDefinitionName")
            key = next((name for name in listed if name in described), "")
            if not key:  # nothing describes one of these
                continue
            describe, name = described[key]
            asked = describe.replace("Describe", ""), name.replace("PackageArn", "PackageName")
            for summary in listed[key]:
                shown = summary.get(name) or summary[f"Monitoring{name}"]
                assert_conforms(describe, await api.call(describe, {asked[1]: shown}), _ANY)

    full.within(read)


@pytest.mark.parametrize("operation", sorted(GOOD))
def test_junk_anywhere_is_the_callers_fault(full: Wire, operation: str) -> None:
    """Long, empty, negative, of the wrong type: at every place of every request."""

    _fill(full)

    async def ask(api: ControlApi) -> None:
        for at in places(GOOD[operation]):
            for junk in ("", "a" * 65_536, "a/b\n\0'\"", -1, 2**70, 1e308, False, [], {}, [[{}]], None):
                if at:
                    body = json.dumps(spoilt(GOOD[operation], at, junk))
                    judged(operation, await api.handle(call(f"SageMaker.{operation}", body)))

    full.within(ask)


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An empty server."""
    with serve(tmp_path_factory.mktemp("control"), environment={"SERVING_LOG_LEVEL": "warning"}) as running:
        yield running
        assert "request failed" not in running.log


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    """boto3 as anybody configures it, but that it leaves the checking to us."""
    return boto3.client(
        "sagemaker",
        endpoint_url=server.url,
        region_name="ap-southeast-2",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


def post(raw: Raw, target: str, body: bytes, **headers: str) -> Any:
    """One control call by hand."""
    return raw.ask(request("/", body, {"X-Amz-Target": target, **headers}))


@pytest.mark.parametrize(
    ("target", "body", "status", "code"),
    [
        ("SageMaker.ListModels", b"{", 400, "SerializationException"),
        ("SageMaker.ListModels", b'{"a": "\xff"}', 400, "SerializationException"),
        ("SageMaker.ListModels", b"[" * 1_000_000, 400, "SerializationException"),
        ("SageMaker.ListModels", b"\0" * 1_000_000, 400, "SerializationException"),
        ("SageMaker.ListModels", b'{"NextToken": "' + b"a" * 2**20 + b'"}', 400, "ValidationException"),
        ("SageMaker.ListModels", b"{}" + b" " * 6_000_000, 400, "ValidationException"),
        ("SageMaker.DescribeModel", b'{"ModelName": "' + b"\xc3\xa9" * 500_000 + b'"}', 400, "ValidationException"),
        ("SageMaker.Nothing", b"{}", 400, "UnknownOperationException"),
        ("SageMaker." + "x" * 5000, b"{}", 400, "UnknownOperationException"),
        ("SageMaker.CreateModel\xff", b"{}", 400, "UnknownOperationException"),
    ],
    ids=range(10),
)
def test_a_bad_call_over_http(server: Server, target: str, body: bytes, status: int, code: str) -> None:
    """Its status and code, and the connection is good for the next."""
    with Raw(server.url) as raw:
        answer = post(raw, target, body)
        assert (status, code) == (answer.status, answer.fields["__type"])
        assert "application/x-amz-json-1.1" == answer.headers["content-type"]
        assert answer.headers["x-amzn-requestid"]
        good = post(raw, "SageMaker.ListModels", b"{}")
        assert (200, b"Models") == (good.status, good.body[2:8])


def test_a_body_beyond_the_servers_limit_is_refused(server: Server) -> None:
    """Before it is read; with a code."""
    with Raw(server.url) as raw:
        answer = raw.ask(request("/", b"", {"X-Amz-Target": "SageMaker.ListModels", "Content-Length": "99999999"}))
        assert 400 <= answer.status < 500
        assert answer.headers["x-amzn-errortype"]


def test_an_operation_without_output_over_http(server: Server) -> None:
    """An empty body, with its length."""
    with Raw(server.url) as raw:
        post(raw, "SageMaker.CreateModel", b'{"ModelName": "gone", "PrimaryContainer": {"Image": "i"}}')
        answer = post(raw, "SageMaker.DeleteModel", b'{"ModelName": "gone"}')
        assert (200, "0", b"") == (answer.status, answer.headers["content-length"], answer.body)


def test_boto3_reads_an_error_as_it_reads_awss(client: Any) -> None:
    """Code, message, status and request id."""
    with pytest.raises(ClientError) as caught:
        client.create_endpoint_config(EndpointConfigName="a_b", ProductionVariants=[{"VariantName": "x" * 64}])
    error, metadata = caught.value.response["Error"], caught.value.response["ResponseMetadata"]
    assert "ValidationException" == error["Code"]
    assert error["Message"].startswith("2 validation errors detected: Value 'a_b' at 'endpointConfigName' failed")
    assert (400, True) == (metadata["HTTPStatusCode"], bool(metadata["RequestId"]))


def test_the_waiter_for_a_deleted_endpoint_ends_at_once(client: Any) -> None:
    """An unknown endpoint is a ValidationException."""
    client.get_waiter("endpoint_deleted").wait(EndpointName="never-was")


def test_an_arn_is_of_the_clients_region(client: Any) -> None:
    """Which its signature tells."""
    created = client.create_model_package_group(ModelPackageGroupName="group")
    assert (
        "arn:aws:sagemaker:ap-southeast-2:123456789012:model-package-group/group" == (created["ModelPackageGroupArn"])
    )


def test_every_offered_operation_is_reached_by_boto3(client: Any) -> None:
    """Under the name botocore gives it; none is unknown, none fails for a fault of ours."""
    names = {name: client.meta.method_to_api_mapping[name] for name in client.meta.method_to_api_mapping}
    methods = {operation: name for name, operation in names.items()}
    for operation, params in GOOD.items():
        try:
            getattr(client, methods[operation])(**params)
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("ValidationException", "ResourceNotFound"), error


def test_what_the_model_takes_and_gives_is_what_botocore_ships() -> None:
    """Our reading of the data file is botocore's own."""
    model = service_model()
    assert set(model.operation_names) == SCHEMA.known
    silent = {name for name in ACTIONS if model.operation_model(name).output_shape is None}
    assert silent == {name for name in ACTIONS if SCHEMA.shape(name, {}) is None}
