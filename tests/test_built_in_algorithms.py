"""SageMaker's built-in algorithms of arrays, asked by unmodified boto3 in every type that they document."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from botocore.exceptions import ClientError

from serving.codecs.recordio import LABEL, encode_record, read_records
from tests.algorithms import EXAMPLES, Example, graph, write
from tests.cloud import client, make_config, make_model, production, put
from tests.server import Server, serve

CSV, JSON, LINES, RECORDIO = "text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf"
#: What an algorithm documents, where these are not all four types.
DOCUMENTED = {
    "factorization-machines": (JSON, LINES, RECORDIO),
    "lda": (CSV, JSON, RECORDIO),
    "xgboost": (CSV, RECORDIO),
}
VERBOSE = {"distances", "labels"}


def algorithm_of(name: str) -> str:
    """The algorithm that an example is one of."""
    return name.removesuffix("-multiclass").removesuffix("-regression")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All examples behind one multi-model endpoint, half of them as folders, half packed as training leaves them."""
    root = tmp_path_factory.mktemp("algorithms")
    for number, (name, example) in enumerate(EXAMPLES.items()):
        folder = write(root / ("models" if number % 2 else "packed") / name, example, algorithm_of(name))
        if not number % 2:
            (root / "models").mkdir(exist_ok=True)
            with tarfile.open(root / "models" / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(folder, ".")
    with serve(root, str(root / "models")) as started:
        yield started


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """boto3's sagemaker-runtime."""
    return client(server, "sagemaker-runtime")


def ask(runtime: Any, name: str, body: bytes, content_type: str = "", accept: str = "") -> tuple[bytes, str]:
    """The answer's body and type."""
    said = {"ContentType": content_type, "Accept": accept}
    packed = not list(EXAMPLES).index(name) % 2
    reply = runtime.invoke_endpoint(
        EndpointName="default",
        TargetModel=f"{name}.tar.gz" if packed else name,
        Body=body,
        **{key: value for key, value in said.items() if value},
    )
    return reply["Body"].read(), reply["ContentType"]


def sparse(row: dict[int, float], width: int) -> dict[str, Any]:
    """A row as ``{"keys", "shape", "values"}``."""
    return {"keys": sorted(row), "shape": [width], "values": [row[key] for key in sorted(row)]}


def requests(example: Example, wanted: tuple[str, ...]) -> dict[str, tuple[str, bytes]]:
    """The example's rows in each documented form: its content type and body."""
    dense = example.dense()
    features = [{"features": row} for row in dense]
    values = [{"data": {"features": {"values": row}}, "configuration": {}} for row in dense]
    keys = [{"data": {"features": sparse(dict(row), example.width)}} for row in example.rows]
    records = [np.array(row, np.float32) for row in dense]
    forms = {
        "rows": (CSV, "\n".join(",".join(map(str, row)) for row in dense).encode()),
        "rows without label": ("text/csv;label_size=0", "\n".join(",".join(map(str, row)) for row in dense).encode()),
        "features": (JSON, json.dumps({"instances": features}).encode()),
        "values": (JSON, json.dumps({"instances": values, "configuration": {}}).encode()),
        "keys": (JSON, json.dumps({"instances": keys}).encode()),
        "mixed": (JSON, json.dumps({"instances": [features[0], keys[1]]}).encode()),
        "lines": (LINES, "\n".join(map(json.dumps, features)).encode()),
        "lines of keys": (LINES, "\n".join(map(json.dumps, keys)).encode() + b"\n"),
        "records": (RECORDIO, b"".join(encode_record({"values": row}) for row in records)),
        "sparse records": (RECORDIO, b"".join(sparse_record(dict(row), example.width) for row in example.rows)),
    }
    return {form: request for form, request in forms.items() if request[0].partition(";")[0] in wanted}


def sparse_record(row: dict[int, float], width: int) -> bytes:
    """A record with keys, as AWS's own writer makes it: written here by hand, field by field."""
    keys = sorted(row)
    values = np.array([row[key] for key in keys], "<f4").tobytes()
    tensor = field(1, values) + field(2, b"".join(map(varint, keys))) + field(3, varint(width))
    payload = field(1, field(1, b"values") + field(2, field(2, tensor)))
    return b"\x0a\x23\xd7\xce" + len(payload).to_bytes(4, "little") + payload + bytes(-len(payload) % 4)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """Protobuf's whole number."""
    low = number & 0x7F
    return bytes((low,)) if number < 0x80 else bytes((low | 0x80,)) + varint(number >> 7)


def shown(answer: Any) -> dict[str, Any]:
    """An answer as it is without ``verbose``."""
    return {key: value for key, value in answer.items() if key not in VERBOSE}


def like(expected: Any) -> Any:
    """Equal up to float32's last digits; whole numbers must be whole, floats floats."""
    if isinstance(expected, dict):
        return {key: like(value) for key, value in expected.items()}
    if isinstance(expected, list):
        return [like(value) for value in expected]
    return pytest.approx(expected, abs=1e-6) if isinstance(expected, float) else expected


def kinds(value: Any) -> Any:
    """The types of what a document holds."""
    if isinstance(value, dict):
        return {key: kinds(inner) for key, inner in value.items()}
    return [kinds(inner) for inner in value] if isinstance(value, list) else type(value)


CASES = [
    (name, form)
    for name, example in EXAMPLES.items()
    for form in requests(example, DOCUMENTED.get(algorithm_of(name), (CSV, JSON, LINES, RECORDIO)))
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_each_documented_request_is_answered_as_documented(runtime: Any, name: str, form: str) -> None:
    """All forms of the same rows give the same document, with the algorithm's keys, envelope and kinds of number."""
    example = EXAMPLES[name]
    content_type, body = requests(example, (CSV, JSON, LINES, RECORDIO))[form]
    found, answered = ask(runtime, name, body, content_type, JSON)
    expected = {example.envelope: [shown(answer) for answer in example.answers]}
    document = json.loads(found)
    assert (like(expected), JSON) == (document, answered)
    assert kinds(expected) == kinds(document)


@pytest.mark.parametrize("name", EXAMPLES)
def test_json_lines_hold_the_inner_objects(runtime: Any, name: str) -> None:
    """Without the envelope, one a line."""
    example = EXAMPLES[name]
    found, answered = ask(runtime, name, requests(example, (RECORDIO,))["records"][1], RECORDIO, LINES)
    lines = [json.loads(line) for line in found.splitlines()]
    assert ([like(shown(answer)) for answer in example.answers], LINES) == (lines, answered)


@pytest.mark.parametrize("name", EXAMPLES)
def test_record_answers_are_one_record_a_row_with_float_labels(runtime: Any, name: str) -> None:
    """Each field of the answer is a float32 tensor of ``label``, PCA's under ``projection``."""
    example = EXAMPLES[name]
    found, answered = ask(runtime, name, requests(example, (RECORDIO,))["records"][1], RECORDIO, RECORDIO)
    records = [{key: value.tolist() for key, value in record.items()} for record in read_records(found, LABEL)]
    expected = [
        {key: value if isinstance(value, list) else [value] for key, value in shown(answer).items()}
        for answer in example.answers
    ]
    assert RECORDIO == answered
    for wanted, record in zip(expected, records, strict=True):
        assert wanted.keys() == record.keys()
        for key in wanted:
            assert pytest.approx(wanted[key], abs=1e-6) == record[key]


def test_clusters_as_csv(runtime: Any) -> None:
    """The documented line, floats with their point."""
    assert b"1.0,3.0\n4.0,6.0\n" == ask(runtime, "kmeans", b"1.5,16.0\n3.0,8.0", CSV, CSV)[0]


@pytest.mark.parametrize("accept", ["application/json; verbose=true", "application/json;verbose=True"])
def test_neighbours_are_told_when_asked_for(runtime: Any, accept: str) -> None:
    """k-NN's verbose answer adds the distances, the nearest first, and the labels."""
    found, _ = ask(runtime, "knn", b"1.5,16.0\n3.0,8.0", CSV, accept)
    assert like(EXAMPLES["knn"].document) == json.loads(found)


@pytest.mark.parametrize(
    ("name", "expected", "answered"),
    [
        ("xgboost", b"0.43", CSV),
        ("linear-learner", b'{"predictions":[{"score":0.4,"predicted_label":0}]}', JSON),
        ("randomcutforest", b'{"scores":[{"score":0.02', JSON),
        ("pca", b'{"projections":[{"projection":[1.0,2.0]}]}', JSON),
    ],
)
@pytest.mark.parametrize("accept", ["", "*/*"])
def test_default_answer_is_the_algorithms_own(
    runtime: Any, name: str, expected: bytes, answered: str, accept: str
) -> None:
    """JSON without Accept, but CSV from XGBoost."""
    found, content_type = ask(runtime, name, b"1.5,16.0", CSV, accept)
    assert (True, answered) == (found.startswith(expected), content_type)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("factorization-machines", CSV), ("lda", LINES), ("xgboost", JSON), ("kmeans", "application/x-npy")],
)
def test_types_that_an_algorithm_does_not_read_are_refused(runtime: Any, name: str, content_type: str) -> None:
    """With the types that it does read."""
    with pytest.raises(ClientError) as refused:
        ask(runtime, name, b"1.5,16.0", content_type)
    error = refused.value.response
    assert (424, "ModelError", 415) == (
        error["ResponseMetadata"]["HTTPStatusCode"],
        error["Error"]["Code"],
        error["OriginalStatusCode"],
    )
    assert "it reads" in error["OriginalMessage"]


_BAD_KEYS = '{"instances":[{"data":{"features":{"keys":%s,"shape":[%d],"values":[1]}}}]}'
BAD = {
    "too wide": (JSON, b'{"instances":[{"features":[1.5,16.0]},{"features":[1.5,16.0,1.0]}]}', "row 2"),
    "key outside": (JSON, (_BAD_KEYS % ("[2]", 2)).encode(), "feature 2 of 2"),
    "negative key": (JSON, (_BAD_KEYS % ("[-1]", 2)).encode(), "feature -1"),
    "other shape": (JSON, (_BAD_KEYS % ("[1]", 9)).encode(), "9 values, 2 are expected"),
    "enormous shape": (JSON, (_BAD_KEYS % ("[1]", 10**15)).encode(), "2 are expected"),
    "keys without values": (JSON, (_BAD_KEYS % ("[1,0]", 2)).encode(), "2 keys"),
    "text": (CSV, b"1.5,16.0\n1.5,many", "row 2"),
    "no JSON": (JSON, b'{"instances":', "not JSON"),
    "no instances": (JSON, b'{"instances":[]}', "at least one"),
    "huge": (JSON, b'{"instances":[{"features":[1.5,1e300]}]}', "out of range"),
    "half a record": (RECORDIO, encode_record({"values": np.ones(2)})[:-4], "cut short"),
    "key outside a record": (RECORDIO, sparse_record({2: 1.0}, 2), "feature 2 of 2"),
    "empty": (JSON, b" ", "not JSON"),
    "missing": (CSV, b"1.5,16.0\nnan,1.0", "row 2 has a missing value"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_row_fails_the_call_with_a_sentence(runtime: Any, case: str) -> None:
    """The whole request is the model's 400, which the runtime tells as 424; the sentence says what is wrong where."""
    content_type, body, sentence = BAD[case]
    with pytest.raises(ClientError) as refused:
        ask(runtime, "kmeans", body, content_type)
    error = refused.value.response
    assert (424, 400) == (error["ResponseMetadata"]["HTTPStatusCode"], error["OriginalStatusCode"])
    assert sentence in error["OriginalMessage"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b'{"instances":[{"data":{"features":{"keys":[],"shape":[2000],"values":[]}}}]}'),
        (RECORDIO, sparse_record({}, 2000)),
    ],
)
def test_sparse_row_without_keys_is_all_zeros(runtime: Any, content_type: str, body: bytes) -> None:
    """As AWS's own writer makes of an empty row of a sparse matrix."""
    found, _ = ask(runtime, "factorization-machines", body, content_type)
    assert {"predictions": [{"score": 0.0, "predicted_label": 0}]} == json.loads(found)


def test_xgboost_answers_an_empty_body_with_nothing(server: Server, runtime: Any) -> None:
    """The container with 204, the runtime API with an empty 200; the connection goes on."""
    name = "xgboost" if list(EXAMPLES).index("xgboost") % 2 else "xgboost.tar.gz"
    with server.client(headers={"X-Amzn-SageMaker-Target-Model": name, "Content-Type": CSV}) as http:
        for _ in range(2):
            answer = http.post("/invocations", content=b"")
            assert (204, b"", None) == (answer.status_code, answer.content, answer.headers.get("content-length"))
        assert (200, b"0.43") == ((full := http.post("/invocations", content=b"1.5,16")).status_code, full.content[:4])
    assert b"" == ask(runtime, "xgboost", b"", CSV)[0]


def test_empty_body_is_an_error_elsewhere(runtime: Any) -> None:
    """With a sentence."""
    with pytest.raises(ClientError, match="the body is empty"):
        ask(runtime, "kmeans", b"", CSV)


def test_stock_image_makes_a_plain_model_answer_as_its_algorithm(server: Server, runtime: Any, tmp_path: Path) -> None:
    """CreateModel with an image of K-Means and an ONNX file: the script of a user who moves here changes nothing."""
    onnx.save(graph(EXAMPLES["kmeans"]), tmp_path / "model.onnx")
    url = put(server, "s3://models/plain/model.onnx", tmp_path / "model.onnx")
    sagemaker = client(server)
    image = "382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"
    make_model(sagemaker, "clusters", {"Image": image, "ModelDataUrl": url})
    make_config(sagemaker, "clusters", production("clusters"))
    sagemaker.create_endpoint(EndpointName="clusters", EndpointConfigName="clusters")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="clusters")
    reply = runtime.invoke_endpoint(EndpointName="clusters", Body=b"1.5,16.0", ContentType=CSV)
    assert {"predictions": [dict(EXAMPLES["kmeans"].answers[0])]} == json.loads(reply["Body"].read())


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("kmeans", b"1.5,16.0", {"closest_cluster": 1.0, "distance_to_cluster": 3.0}),
        ("factorization-machines", b'{"instances":[{"features":[0]}]}', None),
        ("xgboost", b"0:1.5 1:16.0", {"score": 0.43}),
    ],
)
def test_body_without_a_content_type_is_of_the_algorithms_usual_one(
    runtime: Any, name: str, body: bytes, expected: dict[str, Any] | None
) -> None:
    """CSV; JSON where an algorithm reads no CSV; libsvm for XGBoost. boto3 then sends no header at all."""
    if expected is None:
        with pytest.raises(ClientError, match="row 1 has 1 values, the model takes 2000"):
            ask(runtime, name, body)
    else:
        assert {"predictions": [like(expected)]} == json.loads(ask(runtime, name, body, accept=JSON)[0])


def test_model_fits_whatever_other_algorithm_came_before_it(tmp_path: Path) -> None:
    """ONNX Runtime takes three times this budget: it is the worker's, also where the first model did without it."""
    words = tmp_path / "models" / "words"
    words.mkdir(parents=True)
    (words / "algorithm.json").write_text('{"Algorithm": "blazingtext", "Model": "vectors.txt"}')
    (words / "vectors.txt").write_text("1 2\nking 0.5 1.5\n")
    write(tmp_path / "models" / "kmeans", EXAMPLES["kmeans"], "kmeans")
    with serve(tmp_path, str(tmp_path / "models"), environment={"SERVING_MODEL_MEMORY": "10MB"}) as started:
        ask = client(started, "sagemaker-runtime").invoke_endpoint
        said = {"EndpointName": "default", "ContentType": JSON}
        first = ask(**said, TargetModel="words", Body=b'{"instances": ["king"]}')["Body"].read()
        assert [{"word": "king", "vector": [0.5, 1.5]}] == json.loads(first)
        rows = [{"features": row} for row in EXAMPLES["kmeans"].dense()]
        second = ask(**said, TargetModel="kmeans", Body=json.dumps({"instances": rows}).encode())["Body"].read()
        assert len(rows) == len(json.loads(second)["predictions"])
