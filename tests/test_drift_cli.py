"""``serving baseline`` and ``serving drift``, as a user types them, against a server that captures."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import parquet

from serving import baselines
from serving.config import Settings
from serving.errors import ConfigError, ValidationError
from serving.monitor.drifting import Layout, layouts
from tests.cloud import client, container, make_config, make_model, production, put_script, settled
from tests.server import Server, serve
from tests.test_cli import serving

SCRIPT = "def transform_fn(model, body, content_type, accept):\n    return '0.5\\n' * len(body.split()), 'text/csv'\n"
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://captures/e",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data as it was at training, of another kind, and drifted in one column."""
    folder = tmp_path_factory.mktemp("drift")
    (folder / "train.csv").write_text(dataset(400))
    (folder / "drifted.csv").write_text(dataset(400, shift=2.0))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """An endpoint ``e`` that has captured 300 rows without a label, and ``plain``, which captures nothing."""
    with serve(folder, environment={"SERVING_ALLOW_CODE": "true"}) as running:
        sagemaker, runtime = client(running), client(running, "sagemaker-runtime")
        make_model(sagemaker, "m", container(put_script(running, "m", SCRIPT)))
        make_config(sagemaker, "e", production("m"), DataCaptureConfig=CAPTURE)
        make_config(sagemaker, "plain", production("m"))
        for name in ("e", "plain"):
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        assert {"InService"} == {settled(sagemaker, name)["EndpointStatus"] for name in ("e", "plain")}
        lines = [line.partition(",")[2] for line in dataset(300, seed=2).splitlines()[1:]]
        for at in range(0, 300, 20):
            body = "\n".join(lines[at : at + 20])
            runtime.invoke_endpoint(EndpointName="e", Body=body, ContentType="text/csv")["Body"].read()
        yield running


def dataset(count: int, shift: float = 0.0, seed: int = 1) -> str:
    """CSV with a label of two words first, then three columns; ``b`` is shifted."""
    dice = random.Random(seed)
    lines = [
        f"{dice.choice(('yes', 'no'))},{dice.gauss(0, 1):.4f},{dice.gauss(0, 1) + shift:.4f},{dice.randrange(9)}"
        for _ in range(count)
    ]
    return "\n".join(["churned,a,b,c", *lines, ""])


def run(*arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command prints, and what it says about it."""
    done = serving(*arguments)
    assert status == done.returncode, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


# --- as users type it -------------------------------------------------------------------------------------------------


def test_calls_like_the_training_data_pass(server: Server, folder: Path) -> None:
    """The first try works: a header, a label that no request has, under a name of its own."""
    out, said = run("drift", "e", "--baseline", str(folder / "train.csv"), "--url", server.url)
    rows = [line.split("\t") for line in out.split("\n\n")[0].splitlines()]
    assert ["COLUMN", "TYPE", "DISTANCE", "THRESHOLD", "VIOLATES"] == rows[0]
    assert {"a", "b", "c"} == {row[0] for row in rows[1:]}
    assert {"-"} == {row[4] for row in rows[1:]}
    assert "300 rows: as the baseline." in out
    assert "without 'churned', the label" in said


def test_a_column_that_drifted_is_named_and_the_status_says_so(server: Server, folder: Path) -> None:
    """For continuous integration; with the files, where they are asked for."""
    wanted = ("--baseline", str(folder / "drifted.csv"), "--label", "churned", "--output", str(folder / "found"))
    out, _ = run("drift", "e", *wanted, "--url", server.url, "--json", status=1)
    found = json.loads(out)
    assert [("b", "baseline_drift_check")] == [
        (one["feature_name"], one["constraint_check_type"]) for one in found["Violations"]
    ]
    assert ("input", 300) == (found["Side"], found["Records"])
    assert (
        found["Violations"] == json.loads((folder / "found" / "constraint_violations.json").read_text())["violations"]
    )
    assert 300 == json.loads((folder / "found" / "statistics.json").read_text())["dataset"]["item_count"]


def test_a_baseline_is_written_and_used(server: Server, folder: Path) -> None:
    """Of Parquet as of CSV, into the store; the statistics are found beside the constraints."""
    names, *rows = (line.split(",") for line in dataset(400).splitlines())
    columns = {name: [float(row[at]) for row in rows] for at, name in enumerate(names) if at}
    parquet.write_table(pa.table(columns), folder / "train.parquet")
    settings = folder / "settings.toml"
    settings.write_text(f'data_dir = "{server.data_dir}"\n')
    given = ("--settings", str(settings))
    out, _ = run("baseline", str(folder / "train.parquet"), "--output", "s3://baselines/e", *given)
    assert "400 rows, 3 columns: s3://baselines/e/statistics.json s3://baselines/e/constraints.json\n" == out
    out, _ = run("drift", "e", "--baseline", "s3://baselines/e/constraints.json", *given, "--url", server.url)
    assert "300 rows: as the baseline." in out


def test_what_the_server_refuses_is_one_line(server: Server, folder: Path) -> None:
    """Exit status 1."""
    given = ("--baseline", str(folder / "train.csv"), "--url", server.url)
    out, said = run("drift", "plain", *given, status=1)
    assert ("", 1, True) == (out, len(said.splitlines()), "Endpoint plain captures nothing" in said)


@pytest.mark.parametrize(
    ("name", "label", "words"),
    [
        ("nowhere.csv", "", "Cannot read"),
        ("empty.csv", "", "has no rows"),
        ("train.csv", "x", "The dataset has no column 'x'; it has churned, a, b, c."),
        ("words.txt", "", "A dataset is CSV, JSON Lines or Parquet"),
        ("words.json", "", "is no JSON object"),
    ],
)
def test_a_dataset_that_is_none_is_refused(folder: Path, name: str, label: str, words: str) -> None:
    """In a sentence that a command prints, with exit status 2."""
    (folder / "empty.csv").write_text("a,b\n")
    for other in ("words.txt", "words.json"):
        (folder / other).write_text("words")
    with pytest.raises((ConfigError, ValidationError)) as caught:
        baselines.given(Settings(data_dir=folder), str(folder / name), "", True, label)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "an object with constraints"),
        (b'{"constraints": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}", "nested more than 32 levels deep"),
        (b'{"constraints": []}', "an object with constraints"),
        (b'{"constraints": {}, "statistics": 1}', "statistics is the content"),
        (b'{"constraints": {"features": [{"name": 7}]}}', "constraints.json: features[0].name"),
        (b'{"constraints": {"features": 7}}', "constraints.json: features"),
        (b'{"constraints": {}, "statistics": {"features": [{"name": 7}]}}', "statistics.json"),
    ],
    ids=range(8),
)
def test_a_baseline_that_is_none_is_the_callers_fault(server: Server, body: bytes, words: str) -> None:
    """400, with the place of what cannot be meant."""
    answer = httpx.post(f"{server.url}/endpoints/e/drift", content=body)
    assert 400 == answer.status_code, answer.text
    assert words in answer.json()["Message"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("variant=x", "has no variant 'x'"),
        ("until=20h", "No call to e in this window could be used"),
        ("since=x", "since is a time"),
        ("since=1h&until=2h", "since must be before until"),
        ("colour=red", "There is no 'colour' to ask by"),
        ("label=z", "The baseline has no column 'z'"),
        ("target-model=z", "No call of model z to e in this window could be used."),
    ],
)
def test_a_question_that_is_none_is_the_callers_fault(server: Server, query: str, words: str) -> None:
    """400, and why."""
    body = {"constraints": {"features": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}
    answer = httpx.post(f"{server.url}/endpoints/e/drift?{query}", json=body)
    assert (400, True) == (answer.status_code, words in answer.json()["Message"]), answer.text


# --- columns side by side ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "outputs", "label", "expected"),
    [
        (["a", "b"], 1, "", [Layout("input", "")]),
        (["x", "a", "b"], 1, "", [Layout("input", "x"), Layout("input", "b")]),
        (["a", "b", "Target"], 1, "", [Layout("input", "Target")]),
        (["y", "b", "target"], 1, "", [Layout("input", "y"), Layout("input", "target")]),
        (["a", "q", "b"], 1, "q", [Layout("input", "q")]),
        (["_c0", "_c1", "_c2"], 1, "", [Layout("both", "")]),
        (["p", "q", "a", "b"], 2, "", [Layout("both", "")]),
        (["p", "q", "a", "b"], 1, "", [Layout("auto", "")]),
        ([], 1, "", [Layout("auto", "")]),
    ],
)
def test_columns_are_put_side_by_side(names: list[str], outputs: int, label: str, expected: list[Layout]) -> None:
    """Of calls of two columns: with a label or without, behind answers or not."""
    assert expected == layouts(names, 2, outputs, label)


def test_a_label_that_is_no_column() -> None:
    """Refused by name."""
    with pytest.raises(ValidationError, match="no column 'z'"):
        layouts(["a"], 1, 1, "z")


def test_few_rows_say_how_little_they_tell() -> None:
    """The Robust distance forgives few rows much."""
    found: dict[str, Any] = {"Violations": [], "Features": [], "Records": 81}
    assert "Of so few rows a column drifts when it is 0.20 farther" in baselines.sentences(found)[1]
    assert 1 == len(baselines.sentences({**found, "Records": 300}))


def test_a_baseline_too_large_for_a_call_goes_without_its_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ten buckets are left."""
    kll = {"buckets": [1], "sketch": {"data": [[0.5] * 1000]}}
    feature = {"name": "a", "numerical_statistics": {"mean": 1.0, "distribution": {"kll": kll}}}
    text = {"name": "b", "string_statistics": {}}
    baseline = baselines.Baseline({}, {"features": [feature, text]}, [])
    sent: list[bytes] = []
    for limit in (10**6, 1000):
        monkeypatch.setattr(baselines, "_LARGEST_BODY", limit)
        sent.append(baselines._body(baseline))
    whole, light = (json.loads(body)["statistics"]["features"] for body in sent)
    assert [feature, text] == whole
    assert {"kll": {"buckets": [1]}} == light[0]["numerical_statistics"]["distribution"]
    assert (1.0, text) == (light[0]["numerical_statistics"]["mean"], light[1])
