"""Online explanations of a real server, asked for by unmodified boto3 (``behaviour/06``)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from botocore.exceptions import ClientError

from serving.errors import ValidationError
from serving.explain.asking import Asked, attributions
from serving.watch import metrics
from tests.cloud import client, container, make_config, make_model, production, put_script
from tests.gallery import artifacts, sample
from tests.processes import is_alive, processes
from tests.raw import Raw, gate, open_gate, request
from tests.server import Server, script_model, serve, variant
from tests.shapley import shap_library

WEIGHTS = (1.0, -2.0, 0.5, 3.0)
#: Of rows of four numbers, their weighted sum; a row whose first is 666 is refused, one whose first is 777 waits
#: at a gate.
LINEAR = f"""
GATE = ""
WEIGHTS = {WEIGHTS}
def transform_fn(model, body, content_type, accept):
    rows = [[float(cell) for cell in line.split(",")] for line in body.split()]
    if any(row[0] == 777.0 for row in rows):
        open(GATE).read()
    if any(row[0] == 666.0 for row in rows):
        raise ValueError("the number of the beast")
    return "".join(f"{{sum(map(float.__mul__, WEIGHTS, row)) + 0.25!r}}\\n" for row in rows), "text/csv"
"""
#: Answers one record a call.
SHY = LINEAR.replace("    if any", "    assert 1 == len(rows), 'one at a time'\n    if any")
#: How good a review sounds, its words counting each for itself, and stars.
REVIEWS = """
import csv, io, re
GOOD = {"good": 2.0, "great": 3.0, "bad": -4.0}
def transform_fn(model, body, content_type, accept):
    rows = list(csv.reader(io.StringIO(body)))
    scores = [sum(GOOD.get(word, 0.0) for word in re.findall(r"\\w+", text)) + float(stars) for text, stars in rows]
    return "".join(f"{score!r}\\n" for score in scores), "text/csv"
"""
#: Probabilities of three classes, in JSON Lines, with their names.
CLASSES = """
import json, math
def transform_fn(model, body, content_type, accept):
    lines = []
    for line in body.splitlines():
        a, b = json.loads(line)["x"]
        odds = [math.exp(a), math.exp(b), 1.0]
        lines.append(json.dumps({"p": [one / sum(odds) for one in odds], "names": ["a", "b", "c"]}))
    return "\\n".join(lines), "application/jsonlines"
"""
BASELINE = "1,1,1,1\n3,3,3,3"
TEXT = {"Language": "en", "Granularity": "token"}


def explainer(baseline: str = BASELINE, shap: dict[str, Any] | None = None, **inference: Any) -> dict[str, Any]:
    """An ExplainerConfig; ``shap``: members of ShapConfig."""
    made: dict[str, Any] = {"ShapConfig": {"ShapBaselineConfig": {"ShapBaseline": baseline}, **(shap or {})}}
    return {"ClarifyExplainerConfig": made | ({"InferenceConfig": inference} if inference else {})}


def _endpoints() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> model, ExplainerConfig."""
    unwanted = explainer()
    unwanted["ClarifyExplainerConfig"]["EnableExplanations"] = "`false`"
    away = explainer()
    away["ClarifyExplainerConfig"]["ShapConfig"]["ShapBaselineConfig"] = {"ShapBaselineUri": "s3://b/away.csv"}
    long = explainer()
    long["ClarifyExplainerConfig"]["ShapConfig"]["ShapBaselineConfig"] = {"ShapBaselineUri": "s3://b/long.csv"}
    return {
        "linear": ("linear", explainer(FeatureHeaders=["a", "b", "c", "d"])),
        "unwanted": ("linear", unwanted),
        "away": ("linear", away),
        "gated": ("gated", explainer("777,0,0,0")),
        "greedy": ("linear", long),
        "beast": ("linear", explainer("666,0,0,0")),
        "narrow": ("linear", explainer("1,2,3")),
        "probable": ("linear", explainer(shap={"UseLogit": True})),
        "small": ("linear", explainer(MaxRecordCount=3)),
        "shy": ("shy", explainer()),
        "plain": ("linear", {}),
        "reviews": ("reviews", explainer("<M>,0", {"TextConfig": TEXT}, FeatureHeaders=["text", "stars"])),
        "classes": (
            "classes",
            explainer("0,0", FeaturesAttribute="x", ProbabilityAttribute="p", LabelAttribute="names"),
        ),
        "diabetes": ("diabetes", explainer("\n".join([",".join(["0"] * 10), ",".join(["0.02"] * 10)]))),
        "cancer": ("cancer", explainer(",".join(["5"] * 30), {"NumberOfSamples": 100, "Seed": 7})),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a model for each case, and an explainer for each kind of configuration."""
    folder = tmp_path_factory.mktemp("explanations")
    gated = LINEAR.replace('GATE = ""', f"GATE = {str(folder / 'gate')!r}")
    scripts = {"linear": LINEAR, "gated": gated, "shy": SHY, "reviews": REVIEWS, "classes": CLASSES}
    places = {name: script_model(folder / "models" / name, source) for name, source in scripts.items()}
    trees = artifacts("diabetes-xgboost", "breast-cancer-xgboost")
    places |= {"diabetes": trees / "diabetes-xgboost", "cancer": trees / "breast-cancer-xgboost"}
    endpoints = _endpoints()
    declared = {
        "Models": [
            {"ModelName": name, "PrimaryContainer": {"ModelDataUrl": str(place)}} for name, place in places.items()
        ],
        "EndpointConfigs": [
            {"EndpointConfigName": name, "ProductionVariants": [variant(model)], "ExplainerConfig": config}
            for name, (model, config) in endpoints.items()
        ],
        "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in endpoints],
    }
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(declared))
    with serve(folder, "--allow-code", "--config", str(path)) as running:
        baseline = running.data_dir / "s3" / "b" / "long.csv"
        baseline.parent.mkdir(parents=True)
        baseline.write_text("0,0,0,0\n" * 50_000)
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """boto3."""
    return client(server, "sagemaker-runtime")


def ask(runtime: Any, endpoint: str, body: str | bytes, kind: str = "text/csv", **more: Any) -> dict[str, Any]:
    """An invocation's answer, read."""
    answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType=kind, Accept=kind, **more)
    assert "application/json" == answer["ContentType"]
    told: dict[str, Any] = json.loads(answer["Body"].read())
    return told


def refusal(runtime: Any, endpoint: str, body: str | bytes, **more: Any) -> tuple[int, str, str]:
    """Status, code and message of an invocation that fails."""
    with pytest.raises(ClientError) as caught:
        ask(runtime, endpoint, body, **more)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"], error["Error"]["Message"]


def values(explanation: list[dict[str, Any]]) -> list[list[float]]:
    """The attributions of each feature's only unit."""
    return [feature["attributions"][0]["attribution"] for feature in explanation]


# --- what is answered -----------------------------------------------------------------------------------------------


def test_a_linear_model(runtime: Any) -> None:
    """Each feature adds its weight times how far it is from the baseline's mean; the answer has AWS's form."""
    told = ask(runtime, "linear", "1,2,3,4\n5,5,5,5\n")
    assert "1.0" == told["version"]
    assert {"content_type": "text/csv", "data": "10.75\n12.75\n"} == told["predictions"]
    assert {"version", "predictions", "explanations"} == set(told)
    for row, explanation in zip([[1, 2, 3, 4], [5, 5, 5, 5]], told["explanations"]["kernel_shap"], strict=True):
        expected = [[weight * (cell - 2.0)] for weight, cell in zip(WEIGHTS, row, strict=True)]
        assert np.allclose(expected, values(explanation), rtol=0.0, atol=1e-9)
        assert ["a", "b", "c", "d"] == [feature["feature_header"] for feature in explanation]
        assert {"feature_header", "attributions"} == set(explanation[0])
        assert [{"attribution"}] == [set(unit) for unit in explanation[0]["attributions"]]


def test_only_records_that_the_expression_is_true_of(runtime: Any) -> None:
    """The header overrides the configuration: null for a record that is not explained, and nothing where none is."""
    some = ask(runtime, "linear", "1,2,3,4\n9,9,9,9\n", EnableExplanations="[0] > `20`")
    assert [True, False] == [one is None for one in some["explanations"]["kernel_shap"]]
    none = ask(runtime, "linear", "1,2,3,4\n9,9,9,9\n", EnableExplanations="[0] > `99`")
    assert {} == none["explanations"]
    off = ask(runtime, "linear", "1,2,3,4\n", EnableExplanations="`false`")
    assert {"version": "1.0", "predictions": {"content_type": "text/csv", "data": "10.75\n"}, "explanations": {}} == off


def test_a_header_switches_on_what_the_configuration_does_not(runtime: Any) -> None:
    """And without it nothing is explained there."""
    assert {} == ask(runtime, "unwanted", "1,2,3,4")["explanations"]
    assert ask(runtime, "unwanted", "1,2,3,4", EnableExplanations="`true`")["explanations"]["kernel_shap"]


def test_both_doors_answer_alike(server: Server) -> None:
    """The routes that other ASGI servers would use give the same; who would rather wait is answered at once."""
    types = {"content-type": "text/csv", "accept": "text/csv"}
    with server.client() as http:
        fast = http.post("/endpoints/linear/invocations", content="1,2,3,4", headers=types)
        slow = http.post(
            "/endpoints/linear/invocations", content="1,2,3,4", headers={**types, "prefer": "respond-async"}
        )
    assert (200, "AllTraffic") == (fast.status_code, fast.headers["x-amzn-invoked-production-variant"])
    assert (200, "AllTraffic") == (slow.status_code, slow.headers["x-amzn-invoked-production-variant"])
    assert fast.content == slow.content


def test_the_command_asks_for_explanations(server: Server) -> None:
    """``serving invoke --enable-explanations``."""
    command = [sys.executable, "-m", "serving", "invoke", "unwanted", "--url", server.url, "--body", "1,2,3,4"]
    types = ["--content-type", "text/csv", "--accept", "text/csv"]
    done = subprocess.run([*command, *types, "--enable-explanations", "`true`"], capture_output=True, check=True)
    assert np.allclose(
        [[-1.0], [0.0], [0.5], [6.0]], values(json.loads(done.stdout)["explanations"]["kernel_shap"][0]), atol=1e-9
    )


def test_a_model_of_trees_is_explained_as_by_all_coalitions(runtime: Any) -> None:
    """Of a regression by its leaves, which nobody asks the model for: the same as the shap library's kernel finds with
    the model itself."""
    import xgboost

    shap = shap_library()
    body = sample("diabetes-xgboost").body
    with tarfile.open(artifacts() / "diabetes-xgboost" / "model.tar.gz") as archive:
        packed = archive.extractfile("xgboost-model")
        assert packed is not None
        booster = xgboost.Booster()
        booster.load_model(bytearray(packed.read()))
    row = np.array([body.decode().strip().split(",")], np.float64)
    baseline = np.array([[0.0] * 10, [0.02] * 10])
    model = shap.KernelExplainer(lambda rows: booster.inplace_predict(rows), baseline, silent=True)
    expected = model.shap_values(row, silent=True, l1_reg=False)[0]
    found = np.array(values(ask(runtime, "diabetes", body)["explanations"]["kernel_shap"][0]))[:, 0]
    assert np.abs(expected - found).max() < 1e-3 * np.abs(expected).max()


def test_samples_of_many_features(runtime: Any) -> None:
    """A seed makes them the same each time; whatever was drawn, all parts add up to the prediction."""
    body = sample("breast-cancer-xgboost").body
    one, again = (ask(runtime, "cancer", body) for _ in range(2))
    assert one == again
    other = ask(runtime, "cancer", ",".join(["5"] * 30))
    added = sum(value for (value,) in values(one["explanations"]["kernel_shap"][0]))
    assert abs(float(one["predictions"]["data"]) - float(other["predictions"]["data"]) - added) < 1e-6
    assert 30 * [[0.0]] == values(other["explanations"]["kernel_shap"][0])


def test_words_of_a_text(runtime: Any) -> None:
    """Each word by itself, with where it stands, beside a feature that is a number."""
    told = ask(runtime, "reviews", '"good film, not bad!",2\n')
    text, stars = told["explanations"]["kernel_shap"][0]
    assert ("text", "text") == (text["feature_header"], text["feature_type"])
    assert ("stars", "numerical") == (stars["feature_header"], stars["feature_type"])
    units = [(unit["description"]["partial_text"], unit["description"]["start_idx"]) for unit in text["attributions"]]
    assert [("good", 0), ("film", 5), (",", 9), ("not", 11), ("bad", 15), ("!", 18)] == units
    found = [unit["attribution"][0] for unit in text["attributions"]]
    assert np.allclose([2.0, 0.0, 0.0, 0.0, -4.0, 0.0], found, atol=1e-9)
    assert np.allclose([2.0], stars["attributions"][0]["attribution"], atol=1e-9)


def test_several_classes_in_json_lines(runtime: Any) -> None:
    """One number for each class, whose names the model says; each feature's add up over the classes to nothing."""
    told = ask(runtime, "classes", '{"x": [1, 0]}\n{"x": [2, 2]}', "application/jsonlines")
    assert ["a", "b", "c"] == told["label_headers"]
    first, second = (np.array(values(one)) for one in told["explanations"]["kernel_shap"])
    total = np.exp([1.0, 0.0, 0.0]) / np.exp([1.0, 0.0, 0.0]).sum() - 1 / 3
    assert np.allclose([total, [0.0] * 3], first, atol=1e-9)
    assert np.allclose(0.0, second.sum(1), atol=1e-9)
    assert np.allclose(second[0, [1, 0, 2]], second[1], atol=1e-9)


@pytest.mark.parametrize("endpoint", ["small", "shy"])
def test_models_that_take_few_records(runtime: Any, endpoint: str) -> None:
    """So many a call as MaxRecordCount says; and one, where nothing is said and more fail."""
    assert np.allclose(
        [[-1.0], [0.0], [0.5], [6.0]],
        values(ask(runtime, endpoint, "1,2,3,4")["explanations"]["kernel_shap"][0]),
        atol=1e-9,
    )


def test_a_multi_model_endpoint(server: Server, runtime: Any) -> None:
    """The target model is asked, and DescribeEndpoint repeats the explainer; a baseline may be an object."""
    put_script(server, "many/one", LINEAR)
    baseline = server.data_dir / "s3" / "b" / "baseline.csv"
    baseline.parent.mkdir(parents=True, exist_ok=True)
    baseline.write_text("0,0,0,0\n")
    config = explainer()
    config["ClarifyExplainerConfig"]["ShapConfig"]["ShapBaselineConfig"] = {"ShapBaselineUri": "s3://b/baseline.csv"}
    sagemaker = client(server)
    make_model(sagemaker, "many", container("s3://models/many/", Mode="MultiModel"))
    make_config(sagemaker, "many", production("many"), ExplainerConfig=config)
    sagemaker.create_endpoint(EndpointName="many", EndpointConfigName="many")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="many", WaiterConfig={"Delay": 1})
    assert config == sagemaker.describe_endpoint(EndpointName="many")["ExplainerConfig"]
    assert config == sagemaker.describe_endpoint_config(EndpointConfigName="many")["ExplainerConfig"]
    told = ask(runtime, "many", "1,2,3,4", TargetModel="one")
    expected = [[weight * cell] for weight, cell in zip(WEIGHTS, [1, 2, 3, 4], strict=True)]
    assert np.allclose(expected, values(told["explanations"]["kernel_shap"][0]), atol=1e-9)
    baseline.write_text("1,2,3,4\n")
    again = ask(runtime, "many", "1,2,3,4", TargetModel="one")
    assert np.allclose(0.0, values(again["explanations"]["kernel_shap"][0]), atol=1e-9)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "body", "more", "message"),
    [
        ("linear", "1,2,3,4", {"EnableExplanations": "[0]"}, "must be true or false for each record; it was 10.75"),
        ("linear", "1,2,3,4", {"EnableExplanations": "[0"}, "is not a valid JMESPath expression"),
        ("linear", "1,2,3,4", {"EnableExplanations": "[7] > `1`"}, "it was null"),
        ("narrow", "1,2,3,4", {}, "records have 4 features, the SHAP baseline's 3"),
        ("greedy", "1,2,3,4", {}, "takes 700,000 synthetic records, which is too many"),
        ("away", "1,2,3,4", {}, "There is no SHAP baseline at s3://b/away.csv"),
        ("plain", "1,2,3,4", {"EnableExplanations": "`true`"}, "has no explainer"),
    ],
)
def test_what_cannot_be_explained(runtime: Any, endpoint: str, body: str, more: dict[str, Any], message: str) -> None:
    """400, and why."""
    status, code, said = refusal(runtime, endpoint, body, **more)
    assert (400, "ValidationError") == (status, code)
    assert message in said


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({"ContentType": "text/csv"}, "Accept is required"),
        ({"Accept": "text/csv"}, "ContentType is required"),
        ({"ContentType": "application/x-npy", "Accept": "text/csv"}, "ContentType of a call that is explained must be"),
        ({"ContentType": "text/csv", "Accept": "image/png"}, "Accept of a call that is explained must be"),
    ],
)
def test_types_are_required(runtime: Any, types: dict[str, str], message: str) -> None:
    """Of both bodies, and of those that are understood."""
    with pytest.raises(ClientError, match=message):
        runtime.invoke_endpoint(EndpointName="linear", Body="1,2,3,4", **types)


@pytest.mark.parametrize(
    ("endpoint", "body", "message"),
    [
        ("linear", "666,2,3,4", "the number of the beast"),
        ("beast", "1,2,3,4", "the number of the beast"),
        ("linear", "a,b,c,d", "could not convert"),
        ("probable", "1,2,3,4", "UseLogit needs probabilities from 0 to 1"),
    ],
)
def test_a_model_that_fails(runtime: Any, endpoint: str, body: str, message: str) -> None:
    """424 with its message, be it at the record or at a synthetic one."""
    status, code, said = refusal(runtime, endpoint, body)
    assert (424, "ModelError") == (status, code)
    assert message in said


def test_a_stream_has_no_explanations(server: Server) -> None:
    """The header is refused there; without it a stream is as from any endpoint."""
    path = "/endpoints/linear/invocations-response-stream"
    types = {"content-type": "text/csv", "x-amzn-sagemaker-accept": "text/csv"}
    with server.client() as http:
        refused = http.post(
            path, content="1,2,3,4", headers={**types, "x-amzn-sagemaker-enable-explanations": "`true`"}
        )
        plain = http.post(path, content="1,2,3,4", headers=types)
    assert 400 == refused.status_code
    assert "A stream has no explanations" in refused.text
    assert b"10.75" in plain.content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"EnableExplanations": "[0"}, "is not a valid JMESPath expression"),
        ({"InferenceConfig": {"FeatureHeaders": ["a"]}}, "has 4 features, and there are 1 FeatureHeaders"),
    ],
)
def test_an_explainer_that_cannot_work_is_not_kept(server: Server, change: dict[str, Any], message: str) -> None:
    """CreateEndpointConfig fails."""
    config = explainer()
    config["ClarifyExplainerConfig"] |= change
    with pytest.raises(ClientError, match=message):
        make_config(client(server), "wrong", production("linear"), ExplainerConfig=config)


# --- the process ----------------------------------------------------------------------------------------------------


def test_explanations_are_counted_and_synthetic_calls_are_not(server: Server, runtime: Any) -> None:
    """By record; what a variant was asked is what callers asked it."""

    def counted(name: str) -> float:
        return server.metric(name, endpoint="shy", variant="AllTraffic")

    names = ("sagemaker_explanations_total", "sagemaker_explanation_seconds_count", "sagemaker_invocations_total")
    before = [counted(name) for name in names]
    ask(runtime, "shy", "1,2,3,4")
    assert [1.0, 1.0, 1.0] == [counted(name) - was for name, was in zip(names, before, strict=True)]


def test_its_end_is_an_error_in_words_and_it_comes_back(server: Server, runtime: Any) -> None:
    """Plain calls are not touched by it."""
    types = {"ContentType": "text/csv", "Accept": "text/csv"}

    def predicted() -> float:
        return server.metric("sagemaker_model_latency_seconds_count", endpoint="linear")

    (victim,) = processes(server, "serving.explain_process")
    before = predicted()
    os.kill(victim, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(refusal, runtime, "linear", "1,2,3,4")
        server.eventually(lambda: predicted() > before)
        plain = runtime.invoke_endpoint(EndpointName="plain", Body="1,2,3,4", **types)
        assert b"10.75\n" == plain["Body"].read()
        assert {} == ask(runtime, "linear", "1,2,3,4", EnableExplanations="`false`")["explanations"]
        os.kill(victim, signal.SIGKILL)
        status, code, _ = asked.result()
    assert (503, "ServiceUnavailable") == (status, code)
    server.eventually(lambda: not is_alive(victim))
    assert ask(runtime, "linear", "1,2,3,4")["explanations"]["kernel_shap"]


def test_a_monitoring_run_asks_for_many(server: Server) -> None:
    """Attributions of records as arrays; a body that is refused is counted beside the others."""
    socket = _socket(server)
    bodies = [Asked(b"1,2,3,4\n5,5,5,5\n", "text/csv", "text/csv"), Asked(b"1,2\n", "text/csv", "text/csv")]
    found = attributions(socket, "linear", "AllTraffic", bodies)
    expected = np.array([[-1.0, 0.0, 0.5, 6.0], [3.0, -6.0, 1.5, 9.0]])
    assert (2, 4, 1) == found.values.shape
    assert np.allclose(expected, found.values[:, :, 0], atol=1e-9)
    assert np.allclose([5.25], found.expected)
    assert ("a", "b", "c", "d") == found.headers
    assert [1] == [index for index, _ in found.refused]
    config = explainer("0,0,0,0")["ClarifyExplainerConfig"]
    other = attributions(socket, "plain", "AllTraffic", bodies[:1], config)
    assert np.allclose([1.0, -4.0, 1.5, 12.0], other.values[0, :, 0], atol=1e-9)
    assert ("column_0", "column_1", "column_2", "column_3") == other.headers


def test_who_leaves_is_not_explained(server: Server) -> None:
    """The calls that were on their way to the model are taken back."""
    run_dir = _socket(server).parent

    def open_calls() -> float:
        taken = metrics.snapshot(run_dir / "uncounted")
        return taken.get(("sagemaker_concurrent_requests", ("gated", "AllTraffic")), [0.0])[0]

    types = {"content-type": "text/csv", "accept": "text/csv"}
    with gate(_gate(server)) as at:
        with Raw(server.url) as connection:
            connection.send(request("/endpoints/gated/invocations", b"1,2,3,4", types))
            passing = open_gate(at)
            server.eventually(lambda: open_calls() > 0.0)
        server.eventually(lambda: open_calls() == 0.0)
        os.close(passing)


def test_no_explanation_outlives_its_time(server: Server) -> None:
    """The call is answered as one whose model took too long."""
    bodies = [Asked(b"1,2,3,4\n", "text/csv", "text/csv")]
    with gate(_gate(server)) as at, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(attributions, _socket(server), "gated", "AllTraffic", bodies, seconds=1.0)
        passing = open_gate(at)
        with pytest.raises(ValidationError, match="Your invocation timed out while waiting for a response"):
            asked.result()
        os.close(passing)


def test_a_call_is_explained_wholly_by_the_old_or_the_new_deployment(server: Server, runtime: Any) -> None:
    """An update that takes its variant away under its explanation does not fail it; answer and values are of one."""
    sagemaker = client(server)
    new = explainer("0,0,0,1")
    make_config(sagemaker, "regated", production("linear", name="Other"), ExplainerConfig=new)
    with gate(_gate(server)) as at, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, runtime, "gated", "1,2,3,4")
        passing = open_gate(at)
        sagemaker.update_endpoint(EndpointName="gated", EndpointConfigName="regated")
        server.eventually(lambda: ["Other"] == [one["VariantName"] for one in _variants(sagemaker, "gated")])
        os.close(passing)
        told = asked.result(30.0)
    found = [value for (value,) in values(told["explanations"]["kernel_shap"][0])]
    assert [1.0, -4.0, 1.5, 9.0] == pytest.approx(found)


def _variants(sagemaker: Any, name: str) -> list[dict[str, Any]]:
    """What an endpoint's description says of its variants."""
    found: list[dict[str, Any]] = sagemaker.describe_endpoint(EndpointName=name).get("ProductionVariants", [])
    return found


def _gate(server: Server) -> Path:
    """Where the gated model waits."""
    return server.data_dir.parent / "gate"


def _socket(server: Server) -> Path:
    """The explain process's: in the folder where its metrics are."""
    (pid,) = processes(server, "serving.explain_process")
    files = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    (run_dir,) = {file.parent.parent for file in files if file.suffix == ".index"}
    return run_dir / "explain.sock"
