"""DeepAR and Seq2Seq behind a live server, asked by unmodified boto3: the worked examples of their documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from serving.codecs.recordio import encode_record, read_records
from tests import sequences
from tests.batch import Batch
from tests.cloud import client, container, make_model
from tests.server import Server, serve

JSON, LINES, RECORDIO = "application/json", "application/jsonlines", "application/x-recordio-protobuf"
SERIES = {"start": "2009-11-01 00:00:00", "target": [4.0, "NaN", 113.0], "cat": [0, 1], "dynamic_feat": [[1.0] * 6]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Both behind one multi-model endpoint, and DeepAR as a model that batch transform can use."""
    root = tmp_path_factory.mktemp("sequences")
    sequences.deepar(root / "models" / "deepar")
    sequences.seq2seq(root / "models" / "seq2seq")
    with serve(root, str(root / "models")) as started:
        yield started


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """boto3's sagemaker-runtime."""
    return client(server, "sagemaker-runtime")


def ask(runtime: Any, model: str, body: bytes, content_type: str, accept: str = "") -> tuple[bytes, str]:
    """The answer's body and type."""
    more = {"Accept": accept} if accept else {}
    reply = runtime.invoke_endpoint(
        EndpointName="default", TargetModel=model, Body=body, ContentType=content_type, **more
    )
    return reply["Body"].read(), reply["ContentType"]


def test_deepar_answers_its_worked_example(runtime: Any) -> None:
    """Mean, quantiles and samples of the horizon, for a series with a missing value."""
    configuration = {
        "num_samples": 50,
        "output_types": ["mean", "quantiles", "samples"],
        "quantiles": ["0.5", "0.9"],
    }
    body = json.dumps({"instances": [SERIES], "configuration": configuration}).encode()
    answer, content_type = ask(runtime, "deepar", body, JSON)
    (forecast,) = json.loads(answer)["predictions"]
    assert (JSON, {"mean", "quantiles", "samples"}) == (content_type, forecast.keys())
    assert ({"0.5", "0.9"}, 50) == (forecast["quantiles"].keys(), len(forecast["samples"]))
    assert 113.0 == pytest.approx(forecast["mean"][0], abs=10)
    np.testing.assert_allclose(np.mean(forecast["samples"], axis=0), forecast["mean"])


def test_seq2seq_answers_its_worked_examples(runtime: Any) -> None:
    """A document with the attention, lines, and records of ids."""
    instance = {"data": "a b ?", "configuration": {"attention_matrix": "true"}}
    answer, _ = ask(runtime, "seq2seq", json.dumps({"instances": [instance]}).encode(), JSON)
    assert {"predictions": [{"target": "a b <unk>", "matrix": np.eye(3).tolist()}]} == json.loads(answer)
    assert (b'{"target":"c"}\n', LINES) == ask(runtime, "seq2seq", b'{"source": "c"}\n', LINES, LINES)
    records, content_type = ask(runtime, "seq2seq", encode_record({"values": np.array([4, 6])}), RECORDIO, RECORDIO)
    assert ([[4, 6]], RECORDIO) == ([one["target"].tolist() for one in read_records(records)], content_type)


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("deepar", {"instances": [{**SERIES, "dynamic_feat": [[1.0] * 3]}]}, "has 3 values, where 6 are needed"),
        ("seq2seq", {"instances": [{"data": " "}]}, "'data' is empty"),
    ],
)
def test_bad_input_is_the_models_400(runtime: Any, model: str, body: dict[str, Any], words: str) -> None:
    """ModelError with the container's status, in a sentence that helps."""
    with pytest.raises(ClientError, match=words) as refused:
        ask(runtime, model, json.dumps(body).encode(), JSON)
    assert ("ModelError", 400) == (
        refused.value.response["Error"]["Code"],
        refused.value.response["OriginalStatusCode"],
    )


def test_deepar_forecasts_lines_of_a_batch_as_its_environment_says(server: Server) -> None:
    """DEEPAR_INFERENCE_CONFIG, one series a request, as its documentation asks for."""
    batch = Batch(server)
    sequences.deepar(batch.store / "models" / "deepar")
    make_model(batch.sagemaker, "deepar", container("s3://models/deepar"))
    config = {"num_samples": 20, "output_types": ["quantiles"], "quantiles": ["0.5"]}
    source = batch.put("s3://in/series.jsonl", "".join(json.dumps(SERIES) + "\n" for _ in range(3)))
    ended = batch.run(
        source,
        "deepar",
        BatchStrategy="SingleRecord",
        Environment={"DEEPAR_INFERENCE_CONFIG": json.dumps(config)},
        Input={"ContentType": LINES},
        Output={"Accept": LINES},
    )
    assert ("Completed", []) == (ended.status, ended.errors)
    answers = [json.loads(line) for line in ended.outputs["series.jsonl.out"].splitlines()]
    assert 3 == len(answers)
    assert [{"quantiles": {"0.5": answers[0]["quantiles"]["0.5"]}}] * 3 == answers
