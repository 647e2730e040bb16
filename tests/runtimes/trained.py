"""Real small models of every format, each with what its own framework predicts: the members of the runtime contract."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FEATURES = 6


class Case(NamedTuple):
    """An artifact, rows for it, and its framework's own answers to them, by output name where it has several."""

    path: Path
    rows: np.ndarray
    expected: np.ndarray | dict[str, np.ndarray]
    format: str
    executes_code: bool = False


def data(missing: bool = False, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Rows [200, FEATURES] and three classes that depend on them."""
    dice = np.random.default_rng(7)
    rows = dice.normal(size=(200, FEATURES)).astype(dtype)
    labels = np.digitize(rows[:, 0] + rows[:, 1] * rows[:, 2], [-0.4, 0.4])
    if missing:
        rows[dice.random(rows.shape) < 0.1] = np.nan
    return rows, labels


def booster(objective: str, rounds: int = 12, **more: Any) -> Any:
    """An XGBoost booster trained on ``data(missing=True)``."""
    import xgboost

    rows, labels = data(missing=True)
    target = np.minimum(labels, 1) if objective.startswith("binary") else labels
    parameters = {"objective": objective, "max_depth": 4, "nthread": 1, **more}
    return xgboost.train(parameters, xgboost.DMatrix(rows, target), rounds)


def _xgboost(path: Path, trained: Any) -> Case:
    trained.save_model(path.with_name("saved.ubj") if path.suffix == "" else path)
    if path.suffix == "":
        path.with_name("saved.ubj").rename(path)
    rows = data(missing=True)[0]
    return Case(path, rows, trained.inplace_predict(rows), "xgboost")


def xgboost_binary(folder: Path) -> Case:
    """UBJSON."""
    return _xgboost(folder / "model.ubj", booster("binary:logistic"))


def xgboost_regression(folder: Path) -> Case:
    """JSON."""
    return _xgboost(folder / "model.json", booster("reg:squarederror"))


def xgboost_softprob(folder: Path) -> Case:
    """The legacy name of SageMaker's container, in its folder."""
    case = _xgboost(folder / "xgboost-model", booster("multi:softprob", num_class=3))
    return case._replace(path=folder)


def xgboost_linear(folder: Path) -> Case:
    """A linear booster, which only predicts through a DMatrix."""
    import xgboost

    rows, labels = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(rows, labels), 5)
        trained.save_model(folder / "model.json")
        return Case(folder / "model.json", rows, trained.predict(xgboost.DMatrix(rows)), "xgboost")


def lightgbm_binary(folder: Path) -> Case:
    """Text."""
    return _lightgbm(folder, {"objective": "binary"})


def lightgbm_multiclass(folder: Path) -> Case:
    """Text, three classes."""
    return _lightgbm(folder, {"objective": "multiclass", "num_class": 3})


def _lightgbm(folder: Path, parameters: dict[str, Any]) -> Case:
    import lightgbm

    rows, labels = data(missing=True, dtype="float64")
    target = np.minimum(labels, 1) if parameters["objective"] == "binary" else labels
    fixed = {"num_threads": 1, "verbosity": -1, "min_data_in_leaf": 5}
    trained = lightgbm.train({**fixed, **parameters}, lightgbm.Dataset(rows, target), 8)
    trained.save_model(folder / "model.txt")
    return Case(folder / "model.txt", rows, trained.predict(rows), "lightgbm")


def estimator() -> tuple[Any, np.ndarray]:
    """A scikit-learn pipeline and the rows it was trained on, float64."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = data(dtype="float64")
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels), rows


def _to_onnx(model: Any, path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType

        graph = convert_sklearn(model, initial_types=[("rows", FloatTensorType([None, FEATURES]))], **options)
    path.write_bytes(graph.SerializeToString())


def onnx_regressor(folder: Path) -> Case:
    """One output."""
    from sklearn.ensemble import RandomForestRegressor

    rows, labels = data()
    model = RandomForestRegressor(8, max_depth=4, random_state=0).fit(rows, labels)
    _to_onnx(model, folder / "model.onnx")
    return Case(folder / "model.onnx", rows, model.predict(rows).astype(np.float32)[:, None], "onnx")


def onnx_classifier(folder: Path) -> Case:
    """Label and probabilities, the latter as ZipMap's list of dictionaries."""
    model, rows = estimator()
    _to_onnx(model, folder / "model.onnx")
    expected = {"output_label": model.predict(rows), "output_probability": model.predict_proba(rows)}
    return Case(folder / "model.onnx", rows.astype(np.float32), expected, "onnx")


def joblib_plain(folder: Path) -> Case:
    """joblib without compression."""
    return _joblib(folder, 0)


def joblib_compressed(folder: Path) -> Case:
    """joblib through zlib."""
    return _joblib(folder, 3)


def _joblib(folder: Path, compress: int) -> Case:
    import joblib

    model, rows = estimator()
    joblib.dump(model, folder / "model.joblib", compress=compress)
    return Case(folder / "model.joblib", rows, model.predict(rows), "pickle", True)


def pickled_booster(folder: Path) -> Case:
    """A pickled XGBoost booster under the legacy name."""
    trained = booster("binary:logistic")
    (folder / "xgboost-model").write_bytes(pickle.dumps(trained))
    rows = data(missing=True)[0]
    return Case(folder, rows, trained.inplace_predict(rows), "pickle", True)


def skops_file(folder: Path) -> Case:
    """skops, all of whose types are trusted."""
    import skops.io

    model, rows = estimator()
    skops.io.dump(model, folder / "model.skops")
    return Case(folder / "model.skops", rows, model.predict(rows), "skops")


def net() -> Any:
    """A small torch network in evaluation mode."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()


def torchscript(folder: Path) -> Case:
    """TorchScript."""
    import torch

    model, rows = net(), data()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(folder / "model.pt"))
    return Case(folder / "model.pt", rows, model(torch.tensor(rows)).detach().numpy(), "torchscript", True)


def pt2(folder: Path) -> Case:
    """torch.export with free rows."""
    import torch

    model, rows = net(), data()[0]
    free = ({0: torch.export.Dim("rows", max=512)},)
    program = torch.export.export(model, (torch.zeros(2, FEATURES),), dynamic_shapes=free)
    torch.export.save(program, folder / "model.pt2")
    return Case(folder / "model.pt2", rows, model(torch.tensor(rows)).detach().numpy(), "pt2", True)


def _mlflow(folder: Path, flavours: dict[str, Any], case: Case) -> Case:
    """The MLmodel file as MLflow writes it; ``python_function`` is listed first, as a trap."""
    described = {"flavors": {"python_function": {"loader_module": "os", "data": "../.."}, **flavours}}
    (folder / "MLmodel").write_text(json.dumps(described))  # JSON is YAML
    (folder / "python_env.yaml").write_text("python: 3.11\n")
    return case._replace(path=folder)


def mlflow_xgboost(folder: Path) -> Case:
    """MLflow's xgboost flavour."""
    trained = xgboost_binary(folder)
    (folder / "model.ubj").rename(folder / "model.xgb")
    return _mlflow(folder, {"xgboost": {"data": "model.xgb", "model_format": "ubj"}}, trained)


def mlflow_onnx(folder: Path) -> Case:
    """MLflow's onnx flavour."""
    return _mlflow(folder, {"onnx": {"data": "model.onnx"}}, onnx_regressor(folder))


def mlflow_sklearn(folder: Path) -> Case:
    """MLflow's sklearn flavour: a pickle."""
    flavour = {"pickled_model": "model.joblib", "serialization_format": "cloudpickle"}
    return _mlflow(folder, {"sklearn": flavour}, joblib_plain(folder))


MAKERS: dict[str, Callable[[Path], Case]] = {
    maker.__name__: maker
    for maker in (
        xgboost_binary,
        xgboost_regression,
        xgboost_softprob,
        xgboost_linear,
        lightgbm_binary,
        lightgbm_multiclass,
        onnx_regressor,
        onnx_classifier,
        joblib_plain,
        joblib_compressed,
        pickled_booster,
        skops_file,
        torchscript,
        pt2,
        mlflow_xgboost,
        mlflow_onnx,
        mlflow_sklearn,
    )
}
