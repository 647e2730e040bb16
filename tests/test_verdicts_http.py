"""Verdicts and shadow reports of a real server: captured calls, labels sent back, asked over HTTP and by command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from serving.api.verdicts import challengers, moment
from serving.comparing import exit_statuses
from serving.errors import ConfigError, ValidationError
from tests.server import Server, body_json, serve, variant
from tests.test_cli import serving
from tests.toys import COLUMNS, write_sum_model

CALLS = 60
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://captured/all",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
}


def row(number: int) -> str:
    """Thirty numbers, whose sum is ``30.5 + number``."""
    return ",".join([*["1"] * (COLUMNS - 1), f"{number + 1.5}"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``ab``: A answers the sum, B twice the sum; ``shadowed``: A, and B as its shadow. Sixty calls of each are
    captured; the label of each is the sum."""
    place = tmp_path_factory.mktemp("verdicts")
    models = [
        {"ModelName": name, "PrimaryContainer": {"ModelDataUrl": str(write_sum_model(place / name / "m.onnx", factor))}}
        for name, factor in (("one", 1.0), ("two", 2.0))
    ]
    a, b = variant("one", "A", weight=0.9), variant("two", "B", weight=0.1)
    configs = [
        {"EndpointConfigName": "ab", "ProductionVariants": [a, b], "DataCaptureConfig": CAPTURE},
        {
            "EndpointConfigName": "shadowed",
            "ProductionVariants": [variant("one", "A")],
            "ShadowProductionVariants": [variant("two", "B")],
            "DataCaptureConfig": CAPTURE,
        },
        {"EndpointConfigName": "plain", "ProductionVariants": [a, b]},
        {"EndpointConfigName": "candidate", "ProductionVariants": [variant("one", "A")]},
    ]
    endpoints = [
        {"EndpointName": one["EndpointConfigName"], "EndpointConfigName": one["EndpointConfigName"]} for one in configs
    ]
    file = place / "endpoints.yaml"
    file.write_text(yaml.safe_dump({"Models": models, "EndpointConfigs": configs, "Endpoints": endpoints}))
    with serve(place, "--config", str(file)) as running:
        for endpoint, names in (("ab", ("A", "B")), ("shadowed", ("",))):
            call(running, endpoint, names)
        yield running


def call(server: Server, endpoint: str, variants: tuple[str, ...]) -> None:
    """Sixty calls to each variant, labelled; returns when all of them can be read."""
    labels = []
    with server.client() as client:
        for number in range(CALLS * len(variants)):
            id = f"{endpoint}-{number}"
            headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Inference-Id": id}
            if name := variants[number % len(variants)]:
                headers["X-Amzn-SageMaker-Target-Variant"] = name
            assert (
                200
                == client.post(f"/endpoints/{endpoint}/invocations", content=row(number), headers=headers).status_code
            )
            labels.append(json.dumps({"InferenceId": id, "Label": 30.5 + number}))
        assert 200 == client.post(f"/endpoints/{endpoint}/ground-truth", content="\n".join(labels)).status_code
        wanted = CALLS * 2  # by two variants, or by a variant and its shadow
        server.eventually(lambda: wanted == len(client.get(f"/endpoints/{endpoint}/captures").text.splitlines()))


def ask(server: Server, path: str, status: int = 200, **query: Any) -> dict[str, Any]:
    """GET a path of an endpoint."""
    with server.client() as client:
        answer = client.get(f"/endpoints/{path}", params=query)
    assert status == answer.status_code, answer.text
    return body_json(answer)


# --- verdicts -------------------------------------------------------------------------------------------------------


def test_a_verdict_is_reached_from_captures_and_labels(server: Server) -> None:
    """B is wrong by the whole sum, A never: roll B back."""
    found = ask(server, "ab/verdict", metric="rmse")
    assert ("RollBack", "B", "A") == (found["Decision"], found["Variant"], found["Baseline"])
    a, b = found["Variants"]
    assert (CALLS, CALLS, CALLS) == (a["Invocations"], a["CapturedCalls"], a["LabelledCalls"])
    assert pytest.approx(0.0, abs=1e-3) == a["Value"]
    assert b["Value"] > 50
    assert 0 < a["ModelLatencySeconds"]["P50"] <= a["ModelLatencySeconds"]["P99"]


def test_the_baseline_can_be_named(server: Server) -> None:
    """Beside B, A is to be promoted."""
    found = ask(server, "ab/verdict", metric="rmse", baseline="B", challenger="A")
    assert "Promote A" in found["Sentence"]


def test_what_is_not_captured_has_no_metric(server: Server) -> None:
    """A sentence says what to do; errors and latency are known all the same."""
    found = ask(server, "plain/verdict")
    assert "Wait" == found["Decision"]
    assert "captures none (DataCaptureConfig)" in found["Sentence"]
    assert "A and B had no calls yet" in ask(server, "plain/verdict", metric="latency")["Sentence"]


def test_a_shadow_is_a_challenger_of_a_sole_variant(server: Server) -> None:
    """Its answers have the same labels."""
    found = ask(server, "shadowed/verdict", metric="rmse")
    assert ["RollBack"] == [one["Decision"] for one in found["Challengers"]]
    assert "B" == found["Variant"]


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("ab/verdict", {"challenger": "Z"}, 400, "no variant 'Z'; it has A, B"),
        ("ab/verdict", {"metrics": "auc"}, 400, "no 'metrics' to ask by"),
        ("ab/verdict", {"alpha": "much"}, 400, "alpha is a number"),
        ("ab/verdict", {"since": "yesterday"}, 400, "since is a time"),
        ("nobody/verdict", {}, 400, "nobody"),
        ("nobody/shadow-report", {}, 400, "nobody"),
        ("ab/shadow-report", {}, 400, "no shadow variant"),
    ],
    ids=str,
)
def test_a_question_without_sense_is_refused(
    server: Server, path: str, query: dict[str, str], status: int, words: str
) -> None:
    """400, and one sentence."""
    told = ask(server, path, status, **query)
    assert words in (told.get("Message") or told.get("message"))


# --- shadow reports -------------------------------------------------------------------------------------------------


def test_a_shadow_report_compares_answers_and_times(server: Server) -> None:
    """Sixty pairs of numbers, none alike; times of all of them from the metrics."""
    found = ask(server, "shadowed/shadow-report")
    assert ("regression", CALLS, 0.0, "B") == (
        found["Kind"],
        found["Pairs"],
        found["Agreement"],
        found["ShadowVariant"],
    )
    assert pytest.approx(0.5, rel=0.02) == found["Regression"]["RelativeError"]["P50"]
    assert pytest.approx(1.0) == found["Regression"]["Correlation"]
    assert ("metrics", CALLS) == (found["Latency"]["Source"], found["Latency"]["Pairs"])
    assert found["Latency"]["MeanDifferenceLow"] < found["Latency"]["MeanDifferenceHigh"]
    assert {"Key", "Row", "Difference"} == found["Examples"][0].keys()
    assert "" == found["Examples"][0]["Key"]


def test_what_callers_sent_is_shown_when_asked_for(server: Server) -> None:
    """By those who manage the server (``test_auth_http.py``)."""
    found = ask(server, "shadowed/shadow-report", bodies="true", examples=1)
    assert [("shadowed-59", row(59))] == [(one["Key"], one["Input"]) for one in found["Examples"]]


# --- commands -------------------------------------------------------------------------------------------------------


def test_the_verdict_command_says_it_plainly(server: Server) -> None:
    """A table and a sentence; the exit status only where one is asked for."""
    done = serving("verdict", "ab", "--metric", "rmse", "--url", server.url)
    lines = done.stdout.decode().splitlines()
    assert 0 == done.returncode, done.stderr
    assert lines[0].startswith("VARIANT\tWEIGHT\tCALLS") and lines[0].endswith("RMSE")
    assert lines[-1].startswith("Roll back B: B's RMSE is")
    done = serving(
        "verdict", "ab", "--metric", "rmse", "--exit-code", "rollback=4,wait=3", "--json", "--url", server.url
    )
    assert (4, "RollBack") == (done.returncode, json.loads(done.stdout)["Decision"])


def test_exit_statuses_are_given_by_decision() -> None:
    """Others are 0; what is no decision is refused."""
    assert {"Wait": 3, "RollBack": 4} == exit_statuses("wait=3,rollback=4")
    assert {} == exit_statuses("")
    for wrong in ("maybe=1", "wait", "wait=many", "wait=256"):
        with pytest.raises(ConfigError):
            exit_statuses(wrong)


def test_the_shadow_command_shows_the_worst_examples(server: Server) -> None:
    """How far, how much longer, and for which calls."""
    done = serving("shadow", "shadowed", "--bodies", "--examples", "2", "--url", server.url)
    text = done.stdout.decode()
    assert 0 == done.returncode, done.stderr
    assert "the same number in 0.00% of 60 calls" in text
    assert "shadowed-59" in text and "shadowed-58" in text and "shadowed-57" not in text


def test_what_an_endpoint_captured_is_replayed(server: Server) -> None:
    """Its production calls, not the shadow's copies of them, to a candidate that answers the same."""
    limits = ("--fail-below-agreement", "1", "--fail-above-error", "0")
    done = serving("replay", "shadowed", "--to", "candidate", "--rate", "max", *limits, "--json", "--url", server.url)
    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    assert (CALLS, 1.0, "candidate") == (told["Sent"], told["Difference"]["Agreement"], told["Target"])


# --- the query ------------------------------------------------------------------------------------------------------


def test_since_is_a_time_or_how_long_ago() -> None:
    """To the minute, so that those who look at the same time get the same answer."""
    now = 1_795_252_345.6
    assert [now // 60 * 60 - 3600, now // 60 * 60 - 2 * 86_400] == [moment("60m", now), moment("2d", now)]
    assert 1_795_251_600.0 == moment("2026-11-21T09:00:00Z", now) == moment("2026-11-21T09:00", now)
    assert 1_795_251_600.5 == moment("1795251600.5", now)
    for wrong in ("", "soon", "5y", "-1h", "1e9"):
        with pytest.raises(ValidationError, match="since is a time"):
            moment(wrong, now)


def test_shadows_are_no_challengers_unless_nobody_else_is() -> None:
    """All the others of production; of a sole variant whoever there is; or those that are named."""
    assert ["B", "C"] == challengers([], {"A": 0.8, "B": 0.1, "C": 0.1}, "")
    assert ["A", "C"] == challengers([], {"A": 0.8, "B": 0.1, "C": 0.1}, "B")
    assert [] == challengers([], {"A": 1.0}, "")
    assert ["B", "S", "C"] == challengers(["B,S", "C"], {"A": 1.0}, "")
