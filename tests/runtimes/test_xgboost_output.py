"""XGBoost's container modes: chosen keys instead of scores, and plain lines in a batch job."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.codecs.recordio import LABEL, read_records
from serving.errors import LoadFailed, ModelError, NotAcceptable
from serving.runtimes.algorithms.arrays import dressed
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.xgboost import served
from serving.runtimes.xgboost_output import KEYS, Objective, value
from serving.workers import pipeline
from tests.runtimes.trained import data

CSV, JSON, LINES, RECORDIO = "text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf"
ALL_KEYS = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores", "predicted_score")
NAN = float("nan")


def trained(objective: str, **parameters: Any) -> Any:
    """A booster of five trees."""
    import xgboost

    rows, labels = data()
    target = np.minimum(labels, 1) if "binary" in objective else labels
    return xgboost.train({"objective": objective, "nthread": 1, **parameters}, xgboost.DMatrix(rows, target), 5)


def loaded(booster: Any, **environment: str) -> TensorModel:
    """The booster in a container with this environment."""
    return served(bytes(booster.save_raw("ubj")), LoadSettings(environment=environment))


def contained(booster: Any, **environment: str) -> TensorModel:
    """The same, declared to be of the algorithm, with all of its container's ways."""
    return dressed("xgboost", loaded(booster, **environment))


def ask(model: TensorModel, rows: np.ndarray, accept: str) -> tuple[bytes, str]:
    """The answer to CSV rows, and its type."""
    body = "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()
    outcome = pipeline.run(model, CSV, accept, [body])
    (answer,) = outcome.answers
    if isinstance(answer, Exception):
        raise answer
    return answer, outcome.content_type


def of_container(key: str, score: Any, objective: str, classes: int) -> Any:
    """The container's own formulas, one row at a time (``serve_utils.py``)."""
    several, binary = objective == "multi:softprob", objective.startswith("binary:")
    if key not in KEYS[objective]:
        return NAN
    if key == "predicted_label":
        thresholds = {"binary:logistic": 0.5, "binary:logitraw": 0.0}
        if objective in thresholds:
            return int(score > thresholds[objective])
        return int(np.argmax(score)) if several else score.item()
    if key == "labels":
        return [0, 1] if binary else list(range(classes))
    if key == "predicted_score":
        return score.item()
    if key in ("probability", "raw_score"):
        return max(score).item() if several else score.item()
    return score.tolist() if several else [1.0 - score.item(), score.item()]


@pytest.mark.parametrize("declare", [loaded, contained])
def test_a_declared_booster_keeps_its_modes(declare: Callable[..., TensorModel]) -> None:
    """The declaration adds refusals, and takes nothing away."""
    model = declare(trained("reg:squarederror"), SAGEMAKER_INFERENCE_OUTPUT="predicted_score")
    assert b'{"predictions":[{"predicted_score":' == ask(model, data()[0][:1], JSON)[0][:35]


@pytest.mark.parametrize("objective", KEYS)
@pytest.mark.parametrize("key", ALL_KEYS)
def test_each_key_has_the_containers_value(objective: str, key: str) -> None:
    """For every objective the container knows, NaN where it has no value."""
    dice = np.random.default_rng(3)
    scores = dice.random((6, 3) if objective == "multi:softprob" else 6, np.float32)
    if objective in ("binary:hinge", "multi:softmax"):
        scores = np.array([0, 1, 1, 0, 1, 0], np.float32)
    if objective == "binary:logitraw":
        scores -= 0.5
    classes = 2 if objective.startswith("binary:") else 3
    found = value(key, scores, Objective(objective, classes))
    for score, row in zip(scores, found.tolist(), strict=True):
        assert pytest.approx(of_container(key, score, objective, classes), nan_ok=True, abs=1e-7) == row


def test_chosen_keys_make_objects_in_each_type() -> None:
    """JSON, lines, records and CSV with its lists in one quoted cell; what does not apply is null, nan in CSV."""
    booster = trained("binary:logistic")
    model = loaded(booster, SAGEMAKER_INFERENCE_OUTPUT="predicted_label, labels, probabilities, predicted_score")
    rows = data()[0][:2]
    scores = booster.inplace_predict(rows)
    expected: list[dict[str, Any]] = [
        {
            "predicted_label": int(score > 0.5),
            "labels": [0, 1],
            "probabilities": pytest.approx([1 - score, score]),
            "predicted_score": None,
        }
        for score in scores
    ]
    document, answered = ask(model, rows, JSON)
    assert ({"predictions": expected}, JSON) == (json.loads(document), answered)
    assert expected == [json.loads(line) for line in ask(model, rows, LINES)[0].splitlines()]
    (first, _) = read_records(ask(model, rows, RECORDIO)[0], LABEL)
    assert [float(expected[0]["predicted_label"])] == first["predicted_label"].tolist()
    assert expected[0]["probabilities"] == first["probabilities"].tolist()
    text, answered = ask(model, rows, "")
    assert CSV == answered
    probabilities = json.dumps(json.loads(document)["predictions"][0]["probabilities"])
    assert f'{int(scores[0] > 0.5)},"[0, 1]","{probabilities}",nan' == text.decode().splitlines()[0]


def test_classes_are_counted_by_the_booster() -> None:
    """``labels`` of three classes, and the winner's probability."""
    booster = trained("multi:softprob", num_class=3)
    model = loaded(booster, SAGEMAKER_INFERENCE_OUTPUT="predicted_label,probability,labels")
    rows = data()[0][:5]
    scores = booster.inplace_predict(rows)
    (*_, last) = json.loads(ask(model, rows, JSON)[0])["predictions"]
    winner = int(scores[4].argmax())
    assert {"predicted_label": winner, "probability": pytest.approx(scores[4][winner]), "labels": [0, 1, 2]} == last


@pytest.mark.parametrize(
    ("objective", "keys", "sentence"),
    [
        ("rank:pairwise", "predicted_score", "not for the objective 'rank:pairwise'"),
        ("binary:logistic", " ,", "nothing"),
    ],
)
def test_modes_that_cannot_work_are_told_at_load(objective: str, keys: str, sentence: str) -> None:
    """Not at each call."""
    with pytest.raises(LoadFailed, match=sentence):
        loaded(trained(objective), SAGEMAKER_INFERENCE_OUTPUT=keys)


def test_batch_answers_are_lines_whatever_is_asked_for() -> None:
    """As the container's, with a final newline; a type that it does not know is still refused."""
    booster = trained("reg:squarederror")
    model, rows = loaded(booster, SAGEMAKER_BATCH="true"), data()[0][:3]
    for accept in (JSON, "*/*", LINES):
        text, answered = ask(model, rows, accept)
        assert (CSV, True) == (answered, text.endswith(b"\n"))
        assert pytest.approx(booster.inplace_predict(rows).tolist()) == list(map(float, text.splitlines()))
    with pytest.raises(NotAcceptable):
        ask(model, rows, "image/png")


def test_batch_answers_of_chosen_keys_keep_their_type() -> None:
    """There the type that was asked for counts."""
    environment = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_INFERENCE_OUTPUT": "predicted_score"}
    text, answered = ask(loaded(trained("reg:squarederror"), **environment), data()[0][:1], LINES)
    assert (LINES, ["predicted_score"]) == (answered, list(json.loads(text)))


def test_untyped_body_is_libsvm() -> None:
    """The container's default."""
    booster = trained("reg:squarederror")
    row = data()[0][:1]
    body = " ".join(f"{column}:{cell!r}" for column, cell in enumerate(row[0].tolist())).encode()
    (answer,) = pipeline.run(contained(booster), "", "", [body]).answers
    assert isinstance(answer, bytes)
    assert pytest.approx(booster.inplace_predict(row).item()) == float(answer)


def test_empty_body_has_an_empty_answer() -> None:
    """And its neighbour in the batch has its own."""
    model = contained(trained("reg:squarederror"))
    row = ",".join(map(repr, data()[0][0].tolist())).encode()
    nothing, something = pipeline.run(model, CSV, "", [b"", row]).answers
    assert b"" == nothing
    assert isinstance(something, bytes) and something


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"\n", 415), (b"1,two", 415), (b"1,2", 400), (b"1,2\n1,2,3", 415), (b"\xff", 415)],
)
def test_unreadable_body_is_another_types(body: bytes, status: int) -> None:
    """What no model could read is 415, as in the container; a row of another width than the model's is 400."""
    (answer,) = pipeline.run(contained(trained("reg:squarederror")), CSV, "", [body]).answers
    assert isinstance(answer, ModelError)
    assert status == answer.original_status
