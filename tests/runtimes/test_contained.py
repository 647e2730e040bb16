"""What a container adds to a model: the dress of the image's algorithm, and the answer's usual type."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from serving.errors import LoadFailed
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
    ("settings", "sentence"),
    [
        ({"Outputs": ["score"]}, "Outputs must map"),
        ({"Outputs": {"centre": "closest_cluster"}}, "Outputs names 'centre'; kmeans answers"),
        ({"Model": "../model.onnx"}, "which is no file beside it"),
        ({"Model": 5}, "Model must be a string"),
        ({"Model": "algorithm.json"}, "of no format"),
    ],
)
def test_declarations_that_cannot_work_are_told_at_load(
    tmp_path: Path, settings: dict[str, object], sentence: str
) -> None:
    """In one sentence."""
    artifact = write(tmp_path / "m", EXAMPLES["kmeans"], "kmeans", **settings)
    with pytest.raises(LoadFailed, match=sentence):
        contained(artifact)


def test_outputs_may_have_other_names_in_the_model(tmp_path: Path) -> None:
    """The declaration maps fields of the answer to them."""
    artifact = write(tmp_path / "m", EXAMPLES["linear-learner-regression"], "pca", Outputs={"projection": "score"})
    assert b'{"projections":[{"projection":[0.4]}]}' == ask(contained(artifact))[0]
