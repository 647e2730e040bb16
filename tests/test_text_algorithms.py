"""BlazingText and Object2Vec behind one endpoint, packed as their training leaves them, asked by unmodified boto3."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import client
from tests.runtimes import pairs
from tests.runtimes.texts import FILMS, VECTORS, softmax, vectors_text
from tests.server import serve

JSON, LINES = "application/json", "application/jsonlines"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """boto3's sagemaker-runtime of a server with a classifier, a table of words and a model of pairs."""
    root = tmp_path_factory.mktemp("texts")
    files = {"labels": root / "model.bin", "words": root / "vectors.txt", "pairs": pairs.write(root / "pairs")}
    files["labels"].write_bytes(FILMS.content())
    files["words"].write_text(vectors_text())
    (root / "models").mkdir()
    for name, file in files.items():
        with tarfile.open(root / "models" / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(file, "." if file.is_dir() else file.name)
    with serve(root, str(root / "models")) as server:
        yield client(server, "sagemaker-runtime")


def ask(runtime: Any, model: str, body: str, content_type: str = JSON, accept: str = "") -> Any:
    """The answer: a document, or a list of the lines'."""
    wanted = {"Accept": accept} if accept else {}
    reply = runtime.invoke_endpoint(
        EndpointName="default", TargetModel=f"{model}.tar.gz", Body=body, ContentType=content_type, **wanted
    )
    said = reply["Body"].read()
    assert (accept or content_type.partition(";")[0]) == reply["ContentType"]
    return [json.loads(line) for line in said.splitlines()] if reply["ContentType"] == LINES else json.loads(said)


def test_texts_have_labels(runtime: Any) -> None:
    """BlazingText's documented request, as a document and as lines."""
    expected = [{"label": ["__label__praise", "__label__blame"], "prob": pytest.approx(softmax(2.0, 0.0))}]
    assert expected == ask(runtime, "labels", '{"instances": ["a good film"], "configuration": {"k": 2}}')
    assert expected == ask(runtime, "labels", '{"source": "a good film", "k": 2}', LINES, LINES)


def test_words_have_vectors(runtime: Any) -> None:
    """Zeros for one that is not known."""
    assert [
        {"word": "king", "vector": VECTORS["king"]},
        {"word": "qqq", "vector": [0.0, 0.0, 0.0]},
    ] == ask(runtime, "words", '{"instances": ["king", "qqq"]}')


def test_pairs_have_scores(runtime: Any) -> None:
    """Object2Vec's documented requests: both sides, or one for its embeddings."""
    both, one = '{"in0": [6, 1], "in1": [2, 1, 3]}', '{"in0": [6, 1]}'
    embedding = pytest.approx(pairs.embedding(0, [6, 1]).tolist(), abs=1e-6)
    assert [{"scores": [pytest.approx(pairs.score([6, 1], [2, 1, 3]), abs=1e-6)]}] == ask(
        runtime, "pairs", both, LINES, LINES
    )
    assert {"predictions": [{"embeddings": embedding}]} == ask(
        runtime, "pairs", f'{{"instances": [{one}]}}', f"{JSON}; infer_max_seqlens=20,20", JSON
    )


@pytest.mark.parametrize(
    ("model", "body", "why"),
    [
        ("labels", '{"instances": [""]}', "instance 1 is an empty text"),
        ("words", '{"instances": [7]}', "instance 1 must be a string"),
        ("pairs", '{"instances": [{"in0": [7]}]}', "'in0' of instance 1 has a token that is not from 0 to 6"),
    ],
)
def test_bad_input_is_a_model_error_with_a_sentence(runtime: Any, model: str, body: str, why: str) -> None:
    """424 to the client, 400 from the container."""
    with pytest.raises(ClientError) as refused:
        ask(runtime, model, body)
    assert "ModelError" == refused.value.response["Error"]["Code"]
    assert 400 == refused.value.response["OriginalStatusCode"]
    assert why in refused.value.response["OriginalMessage"]
