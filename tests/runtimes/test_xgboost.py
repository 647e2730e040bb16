"""XGBoost: equal to its own Python package, and what happens when another engine takes over."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.runtimes import registry, trees_to_onnx
from serving.runtimes.base import LoadSettings
from serving.runtimes.formats import recognise
from serving.runtimes.xgboost import XGBoostModel, from_bytes, probe_rows
from tests.runtimes.trained import FEATURES, Case, booster, data

OBJECTIVES = [
    ("binary:logistic", {}),
    ("binary:logistic", {"base_score": 0.013}),
    ("binary:logitraw", {}),
    ("reg:squarederror", {}),
    ("reg:squarederror", {"base_score": -7.5}),
    ("reg:logistic", {"base_score": 0.4}),
    ("reg:absoluteerror", {}),
    ("reg:pseudohubererror", {}),
    ("reg:quantileerror", {"quantile_alpha": 0.4}),
    ("rank:pairwise", {}),
    ("count:poisson", {}),
    ("reg:tweedie", {}),
    ("multi:softprob", {"num_class": 3}),
    ("binary:logistic", {"num_parallel_tree": 3, "subsample": 0.5}),
]


def served(trained: Any) -> XGBoostModel:
    """A trained booster behind our runtime."""
    return from_bytes(bytes(trained.save_raw("ubj")), threads=1)


def trained_on(objective: str, **parameters: Any) -> Any:
    """A booster for an objective, its labels scaled into what the objective takes."""
    import xgboost

    rows, labels = data(missing=True)
    target = labels / 2 if objective == "reg:logistic" else np.minimum(labels, 1) if "binary" in objective else labels
    settings = {"objective": objective, "max_depth": 4, "nthread": 1, **parameters}
    return xgboost.train(settings, xgboost.DMatrix(rows, target), 10)


@pytest.mark.parametrize(("objective", "parameters"), OBJECTIVES)
def test_every_convertible_objective_answers_the_same_in_onnx(objective: str, parameters: dict[str, Any]) -> None:
    """On splits, beside splits, with values missing and with infinities, few rows equal XGBoost's to 1e-6."""
    trained = trained_on(objective, **parameters)
    model = served(trained)
    assert model.optimise()
    assert "onnxruntime" in model.engine
    converted = trees_to_onnx.convert(bytes(trained.save_raw("json")))
    assert converted is not None
    probes = probe_rows(converted)
    expected = trained.inplace_predict(probes)
    found = np.concatenate([model.predict(probes[index : index + 1]) for index in range(len(probes))])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    model.close()


@pytest.mark.parametrize(("objective", "parameters"), OBJECTIVES)
def test_without_another_engine_the_answers_are_bit_for_bit_xgboosts(
    objective: str, parameters: dict[str, Any]
) -> None:
    """The same library, asked more directly."""
    trained = trained_on(objective, **parameters)
    model = served(trained)
    rows = data(missing=True)[0]
    np.testing.assert_array_equal(trained.inplace_predict(rows), model.predict(rows))
    np.testing.assert_array_equal(trained.inplace_predict(rows[:1]), model.predict(rows[:1]))


def categorical() -> Any:
    """Trees that split on sets of categories."""
    import xgboost

    rows, labels = data()
    rows[:, 0] = np.floor(np.abs(rows[:, 0]) * 4) % 5
    kinds = ["c"] + ["q"] * (FEATURES - 1)
    matrix = xgboost.DMatrix(rows, labels, feature_types=kinds, enable_categorical=True)
    return xgboost.train({"max_depth": 4, "nthread": 1, "max_cat_to_onehot": 1}, matrix, 5)


def several_targets() -> Any:
    """Leaves that hold a vector."""
    import xgboost

    rows, labels = data()
    targets = np.stack([labels, -labels], axis=1)
    settings = {"max_depth": 3, "nthread": 1, "multi_strategy": "multi_output_tree", "tree_method": "hist"}
    return xgboost.train(settings, xgboost.DMatrix(rows, targets), 4)


STAYS_NATIVE: dict[str, Callable[[], Any]] = {
    "categorical": categorical,
    "several targets": several_targets,
    "dart": lambda: booster("binary:logistic", booster="dart", rate_drop=0.5),
    "softmax": lambda: booster("multi:softmax", num_class=3),
    "hinge": lambda: booster("binary:hinge"),
}


@pytest.mark.parametrize("name", sorted(STAYS_NATIVE))
def test_what_the_converter_does_not_know_stays_with_xgboost(name: str) -> None:
    """None is the answer, and the model goes on as before."""
    trained = STAYS_NATIVE[name]()
    model = served(trained)
    assert trees_to_onnx.convert(bytes(trained.save_raw("json"))) is None
    assert not model.optimise()
    assert "xgboost C API" == model.engine
    rows = np.abs(np.floor(data()[0]))
    np.testing.assert_array_equal(trained.inplace_predict(rows), model.predict(rows))


def test_an_engine_that_answers_otherwise_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison on probe rows is what decides, not the table of objectives."""
    wrong = dict(trees_to_onnx.OBJECTIVES)
    wrong["binary:logistic"] = ("identity", wrong["binary:logistic"][1])
    monkeypatch.setattr(trees_to_onnx, "OBJECTIVES", wrong)
    model = served(booster("binary:logistic"))
    assert not model.optimise()
    assert "xgboost C API" == model.engine


def test_without_onnxruntime_the_model_stays_with_xgboost(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime is an extra of its own."""
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not served(booster("binary:logistic")).optimise()


def test_the_graph_is_valid_onnx(trained: Callable[[str], Case]) -> None:
    """Our bytes satisfy ONNX's own checker."""
    import onnx

    converted = trees_to_onnx.convert(trained("xgboost_regression").path.read_bytes())
    assert converted is not None
    onnx.checker.check_model(onnx.load_from_string(converted.model), full_check=True)


def test_a_hostile_tree_does_not_convert_forever() -> None:
    """Children that point back to the root are an error, not an endless walk."""
    described = json.loads(bytes(booster("binary:logistic").save_raw("json")))
    tree = described["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"][1] = 0
    with pytest.raises(ValueError, match="cycle"):
        trees_to_onnx.convert(json.dumps(described).encode())


def test_predictions_go_on_while_the_model_is_improved_and_its_threads_change() -> None:
    """Every answer comes wholly from one engine or the other."""
    trained = booster("binary:logistic")
    model, rows = served(trained), data(missing=True)[0][:4]
    expected, stop, wrong = trained.inplace_predict(rows), threading.Event(), []

    def predict() -> None:
        while not stop.is_set():
            if not np.allclose(model.predict(rows), expected, rtol=1e-6):
                wrong.append(1)

    callers = [threading.Thread(target=predict) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        model.optimise()
        for threads in (2, 1):
            model.set_threads(threads)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert not wrong


def test_an_empty_batch_has_an_empty_answer() -> None:
    """No row, no library call; the shape is still that of an answer."""
    nothing = np.empty((0, FEATURES), np.float32)
    assert (0,) == served(booster("binary:logistic")).predict(nothing).shape
    assert (0, 3) == served(booster("multi:softprob", num_class=3)).predict(nothing).shape


def test_indented_json_loads(trained: Callable[[str], Case], tmp_path: Path) -> None:
    """XGBoost itself reads it by its name only; we go by content."""
    case = trained("xgboost_regression")
    (tmp_path / "xgboost-model").write_text(json.dumps(json.loads(case.path.read_bytes()), indent=1))
    model = registry.load(recognise(tmp_path), LoadSettings())
    assert isinstance(model, XGBoostModel)
    np.testing.assert_array_equal(case.expected, model.predict(case.rows))


def test_the_reply_is_that_of_sagemakers_container(trained: Callable[[str], Case]) -> None:
    """CSV unless the caller asks otherwise."""
    model = registry.load(recognise(trained("xgboost_binary").path), LoadSettings())
    assert isinstance(model, XGBoostModel)
    assert ("xgboost", "text/csv") == (model.layout, model.default_accept)
