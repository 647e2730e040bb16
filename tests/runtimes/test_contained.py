"""What a container adds to a model: the dress of the image's algorithm, and the answer's usual type."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import LoadFailed, ModelError
from serving.fleet.resolve import repository
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.formats import recognise
from serving.runtimes.registry import load_contained
from serving.workers import pipeline
from tests.algorithms import EXAMPLES, graph, write


def contained(artifact: Path, image: str = "", **environment: str) -> TensorModel:
    """The artifact in a container of this image and environment."""
    model = load_contained(recognise(artifact), LoadSettings(environment=environment), repository(image))
    assert isinstance(model, TensorModel)
    return model


def ask(model: TensorModel, accept: str = "") -> tuple[object, str]:
    """The answer to the first row of most examples."""
    outcome = pipeline.run(model, "text/csv", accept, [b"1.5,16.0"])
    return outcome.answers[0], outcome.content_type


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The clusters' model without ``algorithm.json``."""
    onnx.save(graph(EXAMPLES["kmeans"]), tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1", "kmeans"),
        ("387376663083.dkr.ecr.cn-north-1.amazonaws.com.cn/linear-learner@sha256:00ff", "linear-learner"),
        ("382416733822.dkr.ecr.us-east-1.amazonaws.com/knn", "knn"),
        ("kmeans:1", ""),
        ("evil.example/382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1", ""),
        ("any", ""),
        ("", ""),
    ],
)
def test_algorithm_is_the_repository_of_a_stock_image(image: str, expected: str) -> None:
    """In ECR's own form, with a tag, a digest or none; other images are labels."""
    assert expected == repository(image)


def test_plain_model_in_an_algorithms_image_answers_as_that(plain: Path) -> None:
    """The same file under any other image answers with all its outputs as they are called."""
    dressed = contained(plain, "382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1")
    assert b"1.0,3.0\n" == ask(dressed, "text/csv")[0]
    assert b"1,3.0\n" == ask(contained(plain, "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"), "text/csv")[0]


def test_declaration_counts_before_the_image(tmp_path: Path) -> None:
    """What lies beside the model knows better than what deployed it."""
    model = contained(
        write(tmp_path / "m", EXAMPLES["pca"], "pca"), "1" * 12 + ".dkr.ecr.us-east-1.amazonaws.com/knn:1"
    )
    assert b'{"projections":[{"projection":[1.0,2.0]}]}' == ask(model)[0]


@pytest.mark.parametrize("accept", ["", "*/*"])
def test_usual_answer_is_the_environments(plain: Path, accept: str) -> None:
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT counts where a caller names no type."""
    model = contained(plain, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv")
    assert (b"1,3.0\n", "text/csv") == ask(model, accept)
    assert "application/json" == ask(model, "application/json")[1]


def test_usual_answer_that_no_model_gives_is_told_at_load(plain: Path) -> None:
    """With the types there are."""
    with pytest.raises(
        LoadFailed, match=re.escape("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: cannot answer in 'image/png'")
    ):
        contained(plain, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="image/png")


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({"Outputs": ["score"]}, "Outputs must map"),
        ({"Outputs": {"centre": "closest_cluster"}}, "Outputs names 'centre'; kmeans answers"),
        ({"Model": "../model.onnx"}, "which is no file beside it"),
        ({"Model": 5}, "Model must be a string"),
        ({"Model": "algorithm.json"}, "of no format"),
    ],
)
def test_declarations_that_cannot_work_are_told_at_load(
    tmp_path: Path, declared: dict[str, object], sentence: str
) -> None:
    """In one sentence."""
    artifact = write(tmp_path / "m", EXAMPLES["kmeans"], "kmeans", **declared)
    with pytest.raises(LoadFailed, match=sentence):
        contained(artifact)


def test_outputs_may_have_other_names_in_the_model(tmp_path: Path) -> None:
    """The declaration maps fields of the answer to them."""
    artifact = write(tmp_path / "m", EXAMPLES["linear-learner-regression"], "pca", Outputs={"projection": "score"})
    assert b'{"projections":[{"projection":[0.4]}]}' == ask(contained(artifact))[0]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TensorModel]:
    """Every example, loaded."""
    root = tmp_path_factory.mktemp("examples")
    return {
        name: contained(write(root / name, example, name))
        for name, example in EXAMPLES.items()
        if not name.startswith("linear-learner-")
    }


_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just("NaN"), st.lists(st.integers())
)
_FEATURES = st.one_of(
    st.lists(_CELLS, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "values": st.one_of(_CELLS, st.lists(_CELLS, max_size=3)),
            "keys": st.one_of(_CELLS, st.lists(st.integers(-1, 2001), max_size=3)),
            "shape": st.one_of(_CELLS, st.lists(st.integers(-1, 10**18), max_size=3)),
        },
    ),
)
_INSTANCES = st.one_of(
    _CELLS,
    st.lists(_CELLS, max_size=3),
    st.fixed_dictionaries({"features": _FEATURES}),
    st.fixed_dictionaries({"data": st.one_of(_CELLS, st.fixed_dictionaries({"features": _FEATURES}))}),
)
_DOCUMENTS = st.fixed_dictionaries({"instances": st.one_of(_CELLS, st.lists(_INSTANCES, max_size=3))})
_TYPES = ("text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf", "text/libsvm")
_ACCEPTS = ("", "application/json", "application/json; verbose=true", "text/csv", "application/x-recordio-protobuf")


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(set(EXAMPLES) - {"linear-learner-multiclass", "linear-learner-regression"})),
    body=st.one_of(st.binary(max_size=40), _DOCUMENTS.map(lambda document: json.dumps(document).encode())),
    content_type=st.sampled_from(_TYPES),
    accept=st.sampled_from(_ACCEPTS),
)
def test_whatever_comes_in_is_answered_or_refused(
    examples: dict[str, TensorModel], name: str, body: bytes, content_type: str, accept: str
) -> None:
    """Never a failure of the model's or of ours."""
    (answer,) = pipeline.run(examples[name], content_type, accept, [body]).answers
    if not isinstance(answer, bytes):
        assert isinstance(answer, ModelError)
        assert answer.original_status in (400, 415)
        assert answer.message


@pytest.mark.parametrize("name", ["kmeans", "knn", "randomcutforest", "pca"])
@pytest.mark.parametrize("accept", ["application/json; verbose=true", "text/csv", "application/jsonlines"])
def test_stacked_calls_get_what_each_would_alone(examples: dict[str, TensorModel], name: str, accept: str) -> None:
    """Calls of one, two and no good rows, run as one batch: the bad one fails alone, the others hear nothing of it."""
    model = examples[name]
    bodies = [b"1.5,16.0", b"3.0,8.0\n1.5,16.0", b"1.5", b"3.0,8.0"]
    alone = [pipeline.run(model, "text/csv", accept, [body]).answers[0] for body in bodies]
    together = pipeline.run(model, "text/csv", accept, bodies).answers
    assert list(map(str, alone)) == list(map(str, together))
    assert [True, True, False, True] == [isinstance(answer, bytes) for answer in together]
    good = [body for at, body in enumerate(bodies) if at != 2]
    assert [answer for at, answer in enumerate(alone) if at != 2] == pipeline.run(
        model, "text/csv", accept, good
    ).answers
