"""Facts about the control plane when things go wrong around it, at the worst moment."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import (
    ANSWERS,
    answers,
    client,
    container,
    deploy,
    make_config,
    make_model,
    production,
    put_script,
    said,
    settled,
)
from tests.load import Caller, Load
from tests.postgres import NEEDED, Postgres, postgres
from tests.processes import children, is_alive, processes
from tests.server import Server, script_model, serve

AT_ONCE = {"SERVING_SETTLE_SECONDS": "0"}
#: A container that adds its name, after a moment in which anything may happen.
STAGE = (
    "import time\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    time.sleep(0.05)\n"  # the model's work
    "    text = body if isinstance(body, str) else body.decode()\n"
    "    return (text + '{name}').encode(), 'text/plain'\n"
)

#: Loads for as long as a file is missing.
PATIENT = (
    "import pathlib, time\n"
    "while not pathlib.Path({gate!r}).exists():\n"
    "    time.sleep(0.01)\n"  # the model waits, not the test
    "def transform_fn(model, body, content_type, accept):\n"
    "    return b'patient:' + body, 'text/plain'\n"
)

#: Holds its interpreter's lock for as long as it is told to.
HOLDING = (
    "def transform_fn(model, body, content_type, accept):\n"
    "    if body != b'go':\n"
    "        sum(range(int(body)))\n"
    "    return b'done', 'text/plain'\n"
)

ROLE = "arn:aws:iam::123456789012:role/any"
#: A variant that holds inference components.
BARE = {"VariantName": "bare", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An empty server, whose control calls answer at once."""
    with serve(tmp_path, "--allow-code", environment=AT_ONCE) as started:
        yield started


@pytest.fixture
def sagemaker(server: Server) -> Any:
    """Its control plane."""
    return client(server)


def chain(server: Server, sagemaker: Any, name: str, *words: str) -> None:
    """A model and a configuration of containers in series."""
    stages = [container(put_script(server, f"{name}{word}", STAGE.format(name=f" {name}-{word}"))) for word in words]
    make_model(sagemaker, name, *stages)
    make_config(sagemaker, name, production(name))


def test_a_pipeline_that_is_updated_under_load_fails_no_call(server: Server, sagemaker: Any) -> None:
    """Calls between two of its containers go on in the deployment that they began in."""
    chain(server, sagemaker, "one", "a", "b")
    chain(server, sagemaker, "two", "a", "b")
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="one")
    settled(sagemaker, "e")
    with Load(server.url, 4, b"x", path="/endpoints/e/invocations") as load:
        for config in ("two", "one", "two", "one"):
            load.wait(4)
            sagemaker.update_endpoint(EndpointName="e", EndpointConfigName=config)
            assert config == settled(sagemaker, "e")["EndpointConfigName"]
    assert [] == load.failures
    assert {b"x one-a one-b", b"x two-a two-b"} == {outcome.body for outcome in load.outcomes}


def test_a_call_between_two_containers_whose_worker_is_lost_begins_again_in_the_new_deployment(
    server: Server, sagemaker: Any, tmp_path: Path
) -> None:
    """It waits for the second container, which does not come back; then there is another pipeline to answer it."""
    gate = tmp_path / "gate"
    gate.touch()
    first = container(put_script(server, "first", STAGE.format(name=" first")))
    make_model(sagemaker, "e", first, container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
    make_config(sagemaker, "e", production("e"))
    chain(server, sagemaker, "two", "a", "b")
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
    settled(sagemaker, "e")
    gate.unlink()
    _, second = server.workers("e")
    os.kill(second["Pid"], signal.SIGKILL)
    server.eventually(lambda: server.workers("e")[1]["State"] == "STARTING")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(said, client(server, "sagemaker-runtime"), "e")
        second_stage = {"endpoint": "e", "variant": "AllTraffic/container-2"}
        server.eventually(lambda: server.metric("sagemaker_invocations_total", **second_stage) == 1)
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="two")
        assert "x two-a two-b" == waiting.result(30)


def test_whatever_calls_name_updates_with_two_fronts_fail_none(tmp_path: Path) -> None:
    """Variants by draw, and models of many: each answer is of one deployment, each front switches whole."""
    with serve(tmp_path, "--allow-code", "--fronts", "2", environment=AT_ONCE) as server:
        sagemaker = client(server)
        for word in ("one", "two"):
            script_model(server.data_dir / "s3" / f"many-{word}" / "m", ANSWERS.format(word=f"many-{word}"))
            make_model(sagemaker, f"many-{word}", container(f"s3://many-{word}/", Mode="MultiModel"))
            make_config(sagemaker, f"many-{word}", production(f"many-{word}", count=2))
            make_model(sagemaker, word, container(answers(server, word)))
            make_config(sagemaker, word, production(word, name="left"), production(word, name="right"))
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="one")
        sagemaker.create_endpoint(EndpointName="many", EndpointConfigName="many-one")
        settled(sagemaker, "e")
        settled(sagemaker, "many")
        with (
            Load(server.url, 2, b"x", path="/endpoints/e/invocations") as drawn,
            Load(server.url, 2, b"x", target="m", path="/endpoints/many/invocations") as named,
        ):
            for word in ("two", "one", "two"):
                sagemaker.update_endpoint(EndpointName="e", EndpointConfigName=word)
                sagemaker.update_endpoint(EndpointName="many", EndpointConfigName=f"many-{word}")
                settled(sagemaker, "e")
                settled(sagemaker, "many")
                assert f"{word}:x".encode() == drawn.began_after_now().body
                assert f"many-{word}:x".encode() == named.began_after_now().body
        assert [] == drawn.failures + named.failures


def test_what_is_made_and_deleted_leaves_nothing_behind(server: Server, sagemaker: Any) -> None:
    """No process, open file, file or metric series of ten endpoints, each updated once."""
    runtime = client(server, "sagemaker-runtime")
    for word in ("one", "two"):
        make_model(sagemaker, word, container(answers(server, word)))
        make_config(sagemaker, word, production(word))

    def use() -> None:
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="one")
        settled(sagemaker, "e")
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="two")
        settled(sagemaker, "e")
        assert "two:x" == said(runtime, "e")
        sagemaker.delete_endpoint(EndpointName="e")
        server.eventually(lambda: [] == sagemaker.list_endpoints()["Endpoints"])
        server.eventually(lambda: 0 == server.metric("sagemaker_workers"))

    def left() -> tuple[int, int, int, int]:
        pids = [server.process.pid, *children(server.process.pid)]
        opened = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        with server.client() as http:
            series = len(http.get("/metrics").text.splitlines())
        return len(pids), opened, len(list(server.data_dir.rglob("*"))), series

    use()
    before = left()
    for _ in range(9):
        use()
    server.eventually(lambda: all(now <= then for now, then in zip(left(), before, strict=True)))


def test_callers_mind_the_case_of_a_name_and_operators_do_not(server: Server, sagemaker: Any) -> None:
    """Deleted in one case and created in another, it goes by the new one alone."""
    runtime = client(server, "sagemaker-runtime")
    deploy(sagemaker, "Name", answers(server, "one"))
    for name, stranger in (("Name", "name"), ("nAME", "Name")):
        assert "one:x" == said(runtime, name)
        with pytest.raises(ClientError, match=f"Endpoint {stranger} of account 123456789012 not found"):
            said(runtime, stranger)
        assert name == sagemaker.describe_endpoint(EndpointName="NAME")["EndpointName"]
        sagemaker.delete_endpoint(EndpointName="NAME")
        server.eventually(lambda: [] == sagemaker.list_endpoints()["Endpoints"])
        sagemaker.create_endpoint(EndpointName="nAME", EndpointConfigName="NAME")
        settled(sagemaker, "nAme")


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """The control process cannot write to any file."""
    pid, before = server.process.pid, resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def refusal(call: Any, **params: Any) -> tuple[str, str]:
    """The code and message of the error that a call meets."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_disk_that_fills_up_in_an_update_holds_it_up_and_no_more(
    server: Server, sagemaker: Any, tmp_path: Path
) -> None:
    """Meanwhile the endpoint answers, what is asked for is refused with 503, what is there is described; with space it
    goes on by itself, and the old workers go."""
    deploy(sagemaker, "e", answers(server, "one"))
    runtime, gate = client(server, "sagemaker-runtime"), tmp_path / "gate"
    make_model(sagemaker, "slow", container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
    make_config(sagemaker, "slow", production("slow"))
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="slow")
    with full_disk(server):
        gate.touch()
        server.wait_for("endpoint/e: The state store is not available.*Trying again")
        code, message = refusal(sagemaker.delete_model, ModelName="slow")
        assert "ServiceUnavailable" == code
        assert "state store" in message
        assert "Updating" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]
        assert "patient:x" == said(runtime, "e")
    described = settled(sagemaker, "e")
    assert ("InService", "slow") == (described["EndpointStatus"], described["EndpointConfigName"])
    server.eventually(lambda: server.metric("sagemaker_workers", endpoint="e") == 1)
    assert "patient:x" == said(runtime, "e")


def test_what_cannot_come_back_can_still_be_changed_and_deleted(tmp_path: Path) -> None:
    """Weights and counts are taken, a bad update is undone, and as soon as its artifact is there again it serves."""
    with serve(tmp_path, "--allow-code") as server:
        deploy(client(server), "e", answers(server, "one"))
        deploy(client(server), "f", answers(server, "two"))
        make_model(client(server), "nowhere", container("s3://nowhere/model.tar.gz"))
        make_config(client(server), "nowhere", production("nowhere"))
    artifacts, aside = tmp_path / "data" / "s3" / "models", tmp_path / "aside"
    artifacts.rename(aside)
    with serve(tmp_path, "--allow-code") as server:
        sagemaker = client(server)
        assert "OutOfService" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]
        changes = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=changes)
        described = settled(sagemaker, "e")
        assert "OutOfService" == described["EndpointStatus"]
        assert "models" in described["FailureReason"]
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="nowhere")
        assert "OutOfService" == settled(sagemaker, "e")["EndpointStatus"]
        sagemaker.delete_endpoint(EndpointName="f")
        shutil.copytree(aside, artifacts)
        server.eventually(lambda: [worker["State"] for worker in server.workers("e")] == ["READY"] * 2, 30)
        assert "InService" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]
        assert "one:x" == said(client(server, "sagemaker-runtime"), "e")
        assert ["e"] == list(server.endpoints())


def test_a_forkserver_may_be_killed_as_often_as_one_likes(server: Server, sagemaker: Any) -> None:
    """Ten times: each time there is a worker again, and calls only wait."""
    deploy(sagemaker, "e", answers(server, "one"))
    with Load(server.url, 1, b"x", path="/endpoints/e/invocations") as load:
        for _ in range(10):
            (before,) = server.workers("e")
            os.kill(processes(server, "forkserver")[0], signal.SIGKILL)
            server.wait_for(f"worker {int(before['WorkerId']) + 1:04d} of e/AllTraffic ready")
            load.wait(2)
    assert [] == load.failures
    assert "InService" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]


def test_an_endpoint_with_a_worker_that_stands_still_can_be_deleted(server: Server, sagemaker: Any) -> None:
    """The call that holds it up is answered, then the worker ends and the endpoint is gone."""
    for name in ("holding", "other"):
        script_model(server.data_dir / "s3" / "many" / name, HOLDING)
    make_model(sagemaker, "e", container("s3://many/", Mode="MultiModel"))
    make_config(sagemaker, "e", production("e"))
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
    settled(sagemaker, "e")
    runtime, path = client(server, "sagemaker-runtime"), "/endpoints/e/invocations"
    assert "done" == said(runtime, "e", b"go", TargetModel="holding")
    (worker,) = server.workers("e")
    with Load(server.url, 1, b"200000000", target="holding", path=path) as load:
        with Caller(server.url, path) as caller:  # another model's call has to wait until a worker stands in
            server.eventually(lambda: [caller.call(b"go", "other").status, len(server.workers("e"))] == [200, 2])
        sagemaker.delete_endpoint(EndpointName="e")
        load.stop()
    assert 200 == load.outcomes[0].status
    server.eventually(lambda: [] == sagemaker.list_endpoints()["Endpoints"])
    assert not is_alive(worker["Pid"])


def test_a_store_whose_file_has_gone_takes_no_more(server: Server, sagemaker: Any) -> None:
    """What it would acknowledge would be lost at the next start. What is there is still told and served; with the file
    back it goes on."""
    deploy(sagemaker, "e", answers(server, "one"))
    file, aside = server.data_dir / "serving.db", server.data_dir / "aside.db"
    file.rename(aside)
    expected = ("ServiceUnavailable", "The state store's file has been removed or replaced.")
    assert expected == refusal(sagemaker.delete_endpoint, EndpointName="e")
    assert "InService" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]
    assert "one:x" == said(client(server, "sagemaker-runtime"), "e")
    shutil.copyfile(aside, file)
    assert expected == refusal(sagemaker.delete_endpoint, EndpointName="e")
    aside.rename(file)
    sagemaker.delete_endpoint(EndpointName="e")


def copy_of(url: str) -> dict[str, Any]:
    """An inference component of endpoint ``e``, in CreateInferenceComponent's words."""
    return {
        "InferenceComponentName": "component",
        "EndpointName": "e",
        "VariantName": "bare",
        "Specification": {
            "Container": {"Image": "any", "ArtifactUrl": url},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 1.0},
        },
        "RuntimeConfig": {"CopyCount": 1},
    }


def test_components_go_with_an_endpoint_that_is_declared_no_more(tmp_path: Path) -> None:
    """No worker is started for what nobody can call."""
    declared = tmp_path / "declared.yaml"
    declared.write_text(
        json.dumps(
            {
                "EndpointConfigs": [
                    {"EndpointConfigName": "c", "ExecutionRoleArn": ROLE, "ProductionVariants": [BARE]}
                ],
                "Endpoints": [{"EndpointName": "e", "EndpointConfigName": "c"}],
            }
        )
    )
    with serve(tmp_path, "--config", str(declared), "--allow-code") as server:
        client(server).create_inference_component(**copy_of(answers(server, "one")))
    with serve(tmp_path, "--config", str(declared), "--allow-code") as server:
        assert "one:x" == said(client(server, "sagemaker-runtime"), "e", InferenceComponentName="component")
    with serve(tmp_path, "--allow-code") as server:
        assert [] == client(server).list_inference_components()["InferenceComponents"]
        assert 0 == server.metric("sagemaker_workers")


def test_a_variant_that_holds_components_is_not_taken_from_them(server: Server, sagemaker: Any, tmp_path: Path) -> None:
    """Neither by an update, nor by a component that is created while an update is on its way."""
    gate = tmp_path / "gate"
    make_model(sagemaker, "slow", container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
    make_config(sagemaker, "bare", BARE, ExecutionRoleArn=ROLE)
    make_config(sagemaker, "own", production("slow", name="bare"))
    component = copy_of(answers(server, "one"))
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="bare")
    settled(sagemaker, "e")
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="own")
    assert "does not hold inference components" in refusal(sagemaker.create_inference_component, **component)[1]
    gate.touch()
    settled(sagemaker, "e")
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="bare")
    settled(sagemaker, "e")
    sagemaker.create_inference_component(**component)
    code, message = refusal(sagemaker.update_endpoint, EndpointName="e", EndpointConfigName="own")
    assert "ValidationException" == code
    assert 'Variant "bare" holds inference component "component"' in message
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="bare")
    settled(sagemaker, "e")
    assert "one:x" == said(client(server, "sagemaker-runtime"), "e", InferenceComponentName="component")


@pytest.mark.parametrize(
    ("source", "reason"),
    [("while True:\n    pass\n", "not ready within 2 s"), ("import os\nos._exit(3)\n", "its worker ended")],
    ids=["hangs", "ends"],
)
def test_an_update_that_never_comes_up_is_undone_in_time(tmp_path: Path, source: str, reason: str) -> None:
    """With the reason; the old deployment has answered throughout, and nothing of the new one is left."""
    hasty = AT_ONCE | {"SERVING_LOAD_TIMEOUT_SECONDS": "2"}
    with serve(tmp_path, "--allow-code", environment=hasty) as server:
        sagemaker = client(server)
        deploy(sagemaker, "e", answers(server, "one"))
        make_model(sagemaker, "never", container(put_script(server, "never", source)))
        make_config(sagemaker, "never", production("never"))
        with Load(server.url, 1, b"x", path="/endpoints/e/invocations") as load:
            sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="never")
            described = settled(sagemaker, "e")
        assert ("InService", "e") == (described["EndpointStatus"], described["EndpointConfigName"])
        assert reason in described["FailureReason"]
        assert {(200, b"one:x")} == {(one.status, one.body) for one in load.outcomes}
        server.eventually(lambda: server.metric("sagemaker_workers", endpoint="e") == 1)


@pytest.mark.parametrize("settle", ["0", "2"])
def test_sigterm_in_an_update_under_load_fails_no_call(tmp_path: Path, settle: str) -> None:
    """The server ends as ever, whether or not somebody waits for the update, which the next start finishes."""
    gate, there = tmp_path / "gate", {"SERVING_SETTLE_SECONDS": settle}
    with serve(tmp_path, "--allow-code", "--fronts", "2", environment=there) as server:
        sagemaker = client(server)
        deploy(sagemaker, "e", answers(server, "one"))
        make_model(sagemaker, "slow", container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
        make_config(sagemaker, "slow", production("slow"))
        with Load(server.url, 4, b"x", path="/endpoints/e/invocations") as load:
            load.wait(10)
            sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="slow")
            load.wait(10)
            assert 0 == server.stop()
        # A connection that the kernel completes between a listener's last accept and its close is reset: Linux closes
        # no listener without that. On a kept-alive one nothing may be lost.
        kept = [one for one in load.outcomes if one.status or not one.fresh]
        assert {(200, b"one:x")} == {(one.status, one.body) for one in kept}
    gate.touch()
    with serve(tmp_path, "--allow-code") as server:
        assert "slow" == settled(client(server), "e")["EndpointConfigName"]
        assert "patient:x" == said(client(server, "sagemaker-runtime"), "e")


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


@contextmanager
def silent(database: Postgres) -> Iterator[None]:
    """No process of PostgreSQL says anything."""
    main = int((database.folder / "data" / "postmaster.pid").read_text().split()[0])
    stopped = [main, *children(main)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


@NEEDED
def test_the_life_of_an_endpoint_on_postgresql(tmp_path: Path, database: Postgres) -> None:
    """Created, updated, reweighed, failed to update, killed, started again, deleted."""
    there = {"SERVING_DATABASE_URL": database.database()}
    with serve(tmp_path, "--allow-code", environment=there) as server:
        sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
        assert "InService" == deploy(sagemaker, "e", answers(server, "one"))["EndpointStatus"]
        assert not (server.data_dir / "serving.db").exists()
        make_model(sagemaker, "two", container(answers(server, "two")))
        make_config(sagemaker, "two", production("two"))
        sagemaker.update_endpoint(EndpointName="E", EndpointConfigName="Two")
        assert "two:x" == said(runtime, "e")
        changes = [{"VariantName": "AllTraffic", "DesiredWeight": 3.0, "DesiredInstanceCount": 2}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=changes)
        make_model(sagemaker, "bad", container("s3://nowhere/model.tar.gz"))
        make_config(sagemaker, "bad", production("bad"))
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="bad")
        assert "nowhere" in settled(sagemaker, "e")["FailureReason"]
        server.process.kill()
        server.process.wait()
    with serve(tmp_path, "--allow-code", environment=there) as server:
        sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
        described = sagemaker.describe_endpoint(EndpointName="e")
        (variant,) = described["ProductionVariants"]
        assert ("InService", "two", 3.0, 2) == (
            described["EndpointStatus"],
            described["EndpointConfigName"],
            variant["CurrentWeight"],
            variant["CurrentInstanceCount"],
        )
        assert "two:x" == said(runtime, "e")
        sagemaker.delete_endpoint(EndpointName="e")
        assert "ValidationException" == refusal(sagemaker.describe_endpoint, EndpointName="e")[0]
        assert {} == server.endpoints()
        assert 0 == server.stop()


@NEEDED
def test_postgresql_may_go_away_and_come_back(tmp_path: Path) -> None:
    """Invocations go on, control calls are refused with 503; then both work, and a start without it says so."""
    with postgres() as database:
        there = {"SERVING_DATABASE_URL": database.database()}
        with serve(tmp_path, "--allow-code", environment=there) as server:
            sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
            deploy(sagemaker, "e", answers(server, "one"))
            with database.away():
                assert "one:x" == said(runtime, "e")
                for call, params in (
                    (sagemaker.describe_endpoint, {"EndpointName": "e"}),
                    (sagemaker.list_models, {}),
                    (sagemaker.delete_endpoint, {"EndpointName": "e"}),
                ):
                    assert ("ServiceUnavailable", "The state store is not available.") == refusal(call, **params)
                assert "one:x" == said(runtime, "e")
                with serve(tmp_path / "other", wait=False, environment=there) as refused:
                    assert 2 == refused.process.wait(60)
                    refused.close()
                    assert refused.lines[-1].startswith("Error: The state store cannot be used: connection")
                    assert "Traceback" not in refused.log
            sagemaker.delete_endpoint(EndpointName="e")
            assert {} == server.endpoints()
            assert 0 == server.stop()


@NEEDED
def test_a_database_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path, database: Postgres) -> None:
    """Invocations go on meanwhile, control calls are refused; SIGTERM ends the server as ever."""
    there = {"SERVING_DATABASE_URL": database.database()}
    with serve(tmp_path, "--allow-code", environment=there) as server:
        sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
        deploy(sagemaker, "e", answers(server, "one"))
        with silent(database):
            expected = ("ServiceUnavailable", "The state store does not answer.")
            assert expected == refusal(sagemaker.describe_endpoint, EndpointName="e")
            assert "one:x" == said(runtime, "e")
            assert 0 == server.stop()
