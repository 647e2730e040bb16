"""The table of what can be built, and the digest that says whether a built model is still that recipe's."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from models.cards import Card

HERE = Path(__file__).parent
# Every recipe depends on these: a change of the split or of the card's form makes all of them stale.
SHARED = ("baselines.py", "cards.py", "data.py", "packaging.py")
# Importable name -> what to install. torch is no part of the `models` extra: it is the one heavy framework.
INSTALL = {"torch": "serving[torch]"}
LIGHT_EXTRA = "serving[models]"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one artifact. ``build``: ``module:function`` in this package, taking the folder to fill;
    ``needs``: importable packages; ``sources``: its further files, part of the digest."""

    name: str
    build: str
    needs: tuple[str, ...]
    summary: str
    sources: tuple[str, ...] = ()

    def digest(self) -> str:
        """Changes when the code that makes the artifact changes, and only then."""
        own = self.build.partition(":")[0] + ".py"
        total = hashlib.sha256(self.name.encode())
        for file in (*SHARED, own, *self.sources):
            total.update(hashlib.sha256((HERE / file).read_bytes()).digest())
        return total.hexdigest()

    def lacking(self) -> tuple[str, ...]:
        """The packages it needs that are not installed."""
        return tuple(package for package in self.needs if importlib.util.find_spec(package) is None)

    def run(self, into: Path) -> Card:
        """Train, and fill the empty folder ``into``, whose name is the model's."""
        module, _, function = self.build.partition(":")
        card: Card = getattr(importlib.import_module(f"models.{module}"), function)(into)
        return card


XGBOOST = ("xgboost", "sklearn")
SKL2ONNX = ("sklearn", "skl2onnx", "onnx", "onnxruntime")
CONVNET = ("torch", "sklearn")
CONVNET_SCRIPT = "scripts/digits_convnet/inference.py"

RECIPES = (
    Recipe(
        "breast-cancer-xgboost", "tabular:breast_cancer_xgboost", XGBOOST, "XGBoost classifier, .ubj", ("boosting.py",)
    ),
    Recipe("breast-cancer-linear-onnx", "linear:breast_cancer_linear_onnx", SKL2ONNX, "the same task, linear, as ONNX"),
    Recipe(
        "diabetes-xgboost", "tabular:diabetes_xgboost", XGBOOST, "XGBoost regressor, model.tar.gz", ("boosting.py",)
    ),
    Recipe("digits-pipeline-onnx", "linear:digits_pipeline_onnx", SKL2ONNX, "scikit-learn pipeline as ONNX"),
    Recipe(
        "digits-convnet-onnx",
        "convnet:digits_convnet_onnx",
        (*CONVNET, "onnx", "onnxscript", "onnxruntime"),
        "torch convolution net as ONNX",
        (CONVNET_SCRIPT,),
    ),
    Recipe(
        "digits-convnet-script",
        "convnet:digits_convnet_script",
        CONVNET,
        "the same net, weights and script",
        (CONVNET_SCRIPT,),
    ),
    Recipe("wine-script", "wine:wine_script", ("sklearn",), "a script, NumPy only", ("scripts/wine/inference.py",)),
    Recipe("zoo", "zoo:zoo", XGBOOST, "500 XGBoost models for one multi-model endpoint", ("boosting.py",)),
    Recipe(
        "bench-xgboost", "bench_xgboost:bench_xgboost", XGBOOST, "100 trees x depth 6, 30 columns", ("boosting.py",)
    ),
    Recipe(
        "bench-convnet", "bench_convnet:bench_convnet", ("sklearn", "onnx", "onnxruntime"), "a net of about 5 ms, ONNX"
    ),
)

BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def advice(lacking: tuple[str, ...]) -> str:
    """What to type to get the missing packages."""
    extras = dict.fromkeys(INSTALL.get(package, LIGHT_EXTRA) for package in lacking)
    missing = " and ".join(lacking)
    return f"{missing} {'is' if len(lacking) == 1 else 'are'} not installed (pip install {' '.join(map(repr, extras))})"
