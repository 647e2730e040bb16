"""``serving deploy``, ``endpoints``, ``describe``, ``weights``, ``delete``: the terminal's end of the control API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import remote, testing
from serving.errors import ConfigError
from tests.test_cli import serving
from tests.toys import ROW, write_script_model, write_sum_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that the server may read."""
    place = tmp_path_factory.mktemp("models")
    write_sum_model(place / "sum.onnx")
    write_sum_model(place / "twice.onnx", 2.0)
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[testing.LocalServer]:
    """A server without endpoints."""
    with testing.server(settings={"file_roots": [folder]}, set_environment=False) as running:
        yield running


def run(server: testing.LocalServer, *arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command prints on standard output and standard error."""
    done = serving(*arguments, "--url", server.url)
    assert status == done.returncode, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def told(server: testing.LocalServer, *arguments: str) -> Any:
    """What a command says with ``--json``."""
    return json.loads(run(server, *arguments, "--json")[0])


def answer(server: testing.LocalServer, endpoint: str) -> float:
    """An endpoint's answer to a row of ones."""
    reply = server.client().invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Accept="text/csv", Body=ROW)
    return float(reply["Body"].read())


def table(text: str) -> list[list[str]]:
    """The rows of a table on a pipe, without its headings."""
    return [line.split("\t") for line in text.splitlines()[1:]]


def declared(path: Path, model: str, **variant: object) -> Path:
    """A file of one endpoint ``shop``, whose model lies beside it."""
    body = {"VariantName": "blue", "ModelName": "shop-model", **variant}
    document = {
        "Models": [{"ModelName": "shop-model", "PrimaryContainer": {"ModelDataUrl": model}}],
        "EndpointConfigs": [{"EndpointConfigName": "shop-config", "ProductionVariants": [body]}],
        "Endpoints": [{"EndpointName": "shop", "EndpointConfigName": "shop-config"}],
    }
    path.write_text(json.dumps(document))
    return path


def test_a_file_is_deployed_and_then_only_its_differences(server: testing.LocalServer, folder: Path) -> None:
    """Each step is told; a second time nothing is done; a changed model makes one update."""
    file = declared(folder / "shop.json", "sum.onnx")
    out, steps = run(server, "deploy", str(file))
    assert [["shop", "InService", "blue", "1", "1/1"]] == table(out)
    assert [
        "model shop-model is new",
        "endpoint config shop-config is new",
        "endpoint shop is new",
    ] == steps.splitlines()
    assert "nothing differs\n" == run(server, "deploy", str(file))[1]
    _, steps = run(server, "deploy", str(declared(file, "twice.onnx")))
    assert [
        "model shop-model differs",
        "model shop-model is made anew",
        "endpoint shop has another model (shop-model)",
    ] == steps.splitlines()
    assert 60.0 == answer(server, "shop")


def test_what_was_declared_at_start_and_what_is_deployed_are_one(folder: Path) -> None:
    """The same file by ``serving up --config`` and ``serving deploy``: nothing differs."""
    file = declared(folder / "start.json", "sum.onnx")
    with testing.server(config=file, set_environment=False) as server:
        assert "nothing differs\n" == run(server, "deploy", str(file))[1]
        changed = declared(folder / "start.json", "sum.onnx", InitialInstanceCount=2)
        assert ["shop"] == [one["EndpointName"] for one in told(server, "deploy", str(changed))["Endpoints"]]
        assert [["shop", "InService", "blue", "1", "2/2"]] == table(run(server, "endpoints")[0])


def test_an_artifact_is_deployed_and_deployed_again(server: testing.LocalServer, folder: Path) -> None:
    """By path or by URL, as an endpoint of the name that is asked for; again, as it may have changed."""
    run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "one", "--instances", "2")
    assert 30.0 == answer(server, "one")
    _, steps = run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "one", "--instances", "2")
    assert "endpoint one is deployed again\n" == steps
    server.put_object("s3://bucket/twice.onnx", folder / "twice.onnx")
    run(server, "deploy", "s3://bucket/twice.onnx", "--endpoint", "one")
    assert 60.0 == answer(server, "one")
    assert {"CurrentInstanceCount": 1}.items() <= told(server, "describe", "one")["ProductionVariants"][0].items()


def test_a_folder_or_prefix_is_a_multi_model_endpoint(server: testing.LocalServer, folder: Path) -> None:
    """A URL says so by its slash."""
    for name, what in (("path", str(folder)), ("url", f"file://{folder}/")):
        run(server, "deploy", what, "--endpoint", name)
        out, _ = run(server, "invoke", name, "--body", ROW, "--accept", "text/csv", "--target-model", "twice.onnx")
        assert 60.0 == float(out)


def test_an_endpoint_is_described(server: testing.LocalServer, folder: Path) -> None:
    """Its state as facts, its variants as a table with model and artifact; JSON is DescribeEndpoint's own."""
    run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "seen")
    out, _ = run(server, "describe", "seen")
    facts = dict(line.split(maxsplit=1) for line in out.partition("\n\n")[0].splitlines())
    assert {"endpoint", "status", "config", "created", "changed"} == set(facts)
    assert ("seen", "InService") == (facts["endpoint"], facts["status"])
    assert [["AllTraffic", "1", "1/1", "seen", f"file://{folder}/sum.onnx"]] == table(out.partition("\n\n")[2])
    assert "arn:aws:sagemaker:us-east-1:123456789012:endpoint/seen" == told(server, "describe", "seen")["EndpointArn"]


def test_weights_and_workers_change(server: testing.LocalServer, folder: Path) -> None:
    """One argument for each variant; those left out stay."""
    variants = [
        {"VariantName": name, "ModelName": "shop-model", "InitialVariantWeight": 0.5} for name in ("blue", "green")
    ]
    file = declared(folder / "ab.json", "sum.onnx")
    document = json.loads(file.read_text())
    document["EndpointConfigs"] = [{"EndpointConfigName": "ab", "ProductionVariants": variants}]
    document["Endpoints"] = [{"EndpointName": "ab", "EndpointConfigName": "ab"}]
    file.write_text(json.dumps(document))
    run(server, "deploy", str(file))
    out, _ = run(server, "weights", "ab", "blue=0.25:2")
    assert [["ab", "InService", "blue", "0.25", "2/2"], ["ab", "InService", "green", "0.5", "1/1"]] == table(out)
    assert "nothing differs\n" == run(server, "deploy", str(file))[1]


def test_an_endpoint_is_deleted_with_all_that_belongs_to_it(server: testing.LocalServer, folder: Path) -> None:
    """Without ``--all`` config and model stay; with it, they go as well."""
    for name in ("kept", "gone"):
        run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", name)
    assert {"Deleted": ["endpoint kept"]} == told(server, "delete", "kept")
    assert ["endpoint gone", "endpoint config gone", "model gone"] == told(server, "delete", "gone", "--all")["Deleted"]
    models = {model["ModelName"] for model in server.client("sagemaker").list_models(MaxResults=100)["Models"]}
    assert {"kept"} == models & {"kept", "gone"}


def test_what_failed_is_told_and_can_be_deployed_over(server: testing.LocalServer, folder: Path) -> None:
    """The reason on standard error, exit status 1; a good artifact makes the endpoint anew."""
    code = write_script_model(folder / "code-model", "")
    _, errors = run(server, "deploy", str(code), "--endpoint", "mended", status=1)
    assert "Error: mended is Failed: " in errors
    assert "Failed" in run(server, "describe", "mended")[0]
    _, steps = run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "mended")
    assert steps.endswith("endpoint mended had failed\nendpoint mended is made anew\n")
    assert 30.0 == answer(server, "mended")


GATED = """
import os, time
def model_fn(folder):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)  # the model waits, not the test
def transform_fn(model, body, content_type, accept):
    return "gated", "text/plain"
"""


def test_who_deploys_into_a_change_waits_for_its_end(folder: Path, tmp_path: Path) -> None:
    """An endpoint that is being updated is updated again when it has settled; one that is going is made anew."""
    gate = tmp_path / "gate"
    write_script_model(tmp_path / "slow", GATED.format(gate=str(gate)))
    files = {"file_roots": [folder, tmp_path]}
    with testing.server(allow_code=True, settings={**files, "settle_seconds": 0.1}, set_environment=False) as server:
        run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "e")
        out, _ = run(server, "deploy", str(tmp_path / "slow"), "--endpoint", "e", "--no-wait")
        assert [["e", "Updating", "AllTraffic", "1", "1/1"]] == table(out)
        command = [sys.executable, "-m", "serving", "deploy", str(folder / "twice.onnx"), "--endpoint", "e"]
        with subprocess.Popen([*command, "--url", server.url], stderr=subprocess.PIPE, text=True) as deploying:
            assert deploying.stderr is not None
            while "has another model" not in deploying.stderr.readline():
                assert deploying.poll() is None
            gate.touch()
            assert 0 == deploying.wait(60)
        assert 60.0 == answer(server, "e")
        run(server, "delete", "e", "--no-wait")
        run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "e")
        assert 30.0 == answer(server, "e")


REFUSED: list[tuple[list[str], int, str]] = [
    (["describe", "nobody"], 1, "400 ValidationException: Could not find endpoint"),
    (["weights", "nobody", "v=1"], 1, "400 ValidationException: Could not find endpoint"),
    (["delete", "nobody"], 1, "400 ValidationException: Could not find endpoint"),
    (["describe", "a b"], 1, "failed to satisfy constraint"),
    (["weights", "e", "v"], 2, "'v' is no change of a variant; expected VARIANT=WEIGHT"),
    (["weights", "e", "v=-1"], 2, "'v=-1' is no change"),
    (["deploy", "nowhere"], 2, "There is no file or folder 'nowhere'"),
    (["deploy", "nowhere.yaml"], 2, "Cannot read nowhere.yaml"),
    (["deploy", "s3://b/k", "--endpoint", "a_b"], 1, "failed to satisfy constraint"),
]


@pytest.mark.parametrize(("arguments", "status", "text"), REFUSED, ids=[" ".join(words) for words, _, _ in REFUSED])
def test_a_refusal_is_one_line(server: testing.LocalServer, arguments: list[str], status: int, text: str) -> None:
    """Exit status 1 when the server said no, 2 when the command cannot be carried out."""
    out, errors = run(server, *arguments, status=status)
    assert ("", 1) == (out, len(errors.splitlines()))
    assert errors.startswith("Error: ")
    assert text in errors


def test_options_of_an_artifact_do_not_go_with_a_file(server: testing.LocalServer, tmp_path: Path) -> None:
    """A file says names and numbers itself."""
    (tmp_path / "none.yaml").write_text("{}")
    for options in (["--endpoint", "e"], ["--instances", "2"]):
        assert "are for an ARTIFACT" in run(server, "deploy", str(tmp_path / "none.yaml"), *options, status=2)[1]


def test_a_server_with_keys_is_asked_by_who_may(folder: Path, tmp_path: Path) -> None:
    """``manage`` to change, ``read`` to look: the first key of one's own that has the permission signs."""
    secret = "a-secret-of-twenty-characters"
    keys = tmp_path / "keys.json"
    keys.write_text(
        json.dumps(
            [
                {"AccessKeyId": "READER", "SecretAccessKey": secret, "Permissions": ["read"]},
                {"AccessKeyId": "MANAGER", "SecretAccessKey": secret, "Permissions": ["manage", "read"]},
            ]
        )
    )
    own = {"SERVING_ACCESS_KEYS": str(keys)}
    reader = {"AWS_ACCESS_KEY_ID": "READER", "AWS_SECRET_ACCESS_KEY": secret}
    with testing.server(
        models=folder / "sum.onnx", settings={"access_keys": keys, "file_roots": [folder]}, set_environment=False
    ) as server:
        deploy = ["deploy", str(folder / "sum.onnx"), "--endpoint", "e", "--url", server.url]
        statuses = [
            serving(*command, **who).returncode
            for command, who in [
                (deploy, own),
                (deploy, reader),
                (["describe", "e", "--url", server.url], reader),
                (["delete", "e", "--url", server.url], reader),
                (["delete", "e", "--url", server.url], own),
                (["endpoints", "--url", server.url], {}),
            ]
        ]
    assert [0, 1, 0, 1, 0, 1] == statuses


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("blue=0.9", {"VariantName": "blue", "DesiredWeight": 0.9}),
        ("b-2:3", {"VariantName": "b-2", "DesiredInstanceCount": 3}),
        ("v=.5:2", {"VariantName": "v", "DesiredWeight": 0.5, "DesiredInstanceCount": 2}),
        ("v=2.", {"VariantName": "v", "DesiredWeight": 2.0}),
    ],
)
def test_a_change_is_read(argument: str, expected: dict[str, object]) -> None:
    """Weight behind ``=``, workers behind ``:``."""
    assert [expected] == remote.changes([argument])


@given(st.text(max_size=20))
def test_any_argument_is_a_change_or_refused(text: str) -> None:
    """Never anything else."""
    try:
        (change,) = remote.changes([text])
    except ConfigError:
        return
    assert {"VariantName"} < set(change)


def test_a_changed_file_counts_at_the_next_start(folder: Path, tmp_path: Path) -> None:
    """What is no longer declared goes, what differs is changed and keeps its tags, what boto3 made stays."""
    file = declared(folder / "restart.json", "sum.onnx")
    document = json.loads(file.read_text())
    document["Endpoints"] = [
        {**document["Endpoints"][0], "Tags": [{"Key": "team", "Value": "a"}]},
        {"EndpointName": "second", "EndpointConfigName": "shop-config"},
    ]
    file.write_text(json.dumps(document))
    keep = {"data_dir": tmp_path / "data", "file_roots": [folder]}
    with testing.server(config=file, settings=keep, set_environment=False) as server:
        run(server, "deploy", str(folder / "sum.onnx"), "--endpoint", "own")
        assert {"own", "second", "shop"} == {row[0] for row in table(run(server, "endpoints")[0])}
    document["Models"][0]["PrimaryContainer"]["ModelDataUrl"] = "twice.onnx"
    del document["Endpoints"][1]
    file.write_text(json.dumps(document))
    with testing.server(config=file, settings=keep, set_environment=False) as server:
        assert {"own", "shop"} == {row[0] for row in table(run(server, "endpoints")[0])}
        assert (30.0, 60.0) == (answer(server, "own"), answer(server, "shop"))
        arn = told(server, "describe", "shop")["EndpointArn"]
        assert [{"Key": "team", "Value": "a"}] == server.client("sagemaker").list_tags(ResourceArn=arn)["Tags"]
