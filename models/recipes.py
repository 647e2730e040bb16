"""The table of what can be built, and the digest that says whether a built model is still that recipe's."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.cards import Card

HERE = Path(__file__).parent
# Every recipe depends on these: a change of the split or of the card's form makes all of them stale.
SHARED = ("baselines.py", "cards.py", "data.py", "packaging.py")
# Importable name -> what to install. torch is no part of the `models` extra: it is the one heavy framework.
INSTALL = {"torch": "serving[torch]"}
LIGHT_EXTRA = "serving[models]"
GALLERY_EXTRA = "serving[gallery]"


#: Whom to tell how far the training is: the part done, from 0 to 1, and what is being done.
Tell = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one artifact. ``build``: ``module:function`` in this package, taking the folder to fill;
    ``needs``: importable packages; ``sources``: its further files, part of the digest.

    The built-in algorithms (``families.py``) have a ``family``, the folder of their recipe, and a function that also
    takes whom to tell how far it is (``Tell``); ``quick``: trained in seconds; ``npm``: packages of data."""

    name: str
    build: str
    needs: tuple[str, ...]
    summary: str
    sources: tuple[str, ...] = ()
    family: str = ""
    quick: bool = True
    npm: tuple[str, ...] = ()

    def digest(self) -> str:
        """Changes when the code that makes the artifact changes, and only then."""
        total = hashlib.sha256(self.name.encode())
        for file in self.files():
            total.update(hashlib.sha256((HERE / file).read_bytes()).digest())
        return total.hexdigest()

    def files(self) -> tuple[str, ...]:
        """The files whose change makes the artifact another, relative to this folder."""
        if self.family:
            own = sorted(path.name for path in (HERE / self.family).glob("*.py") if path.name != "show.py")
            return (*(f"{self.family}/{name}" for name in own), *self.sources)
        return (*SHARED, self.build.partition(":")[0] + ".py", *self.sources)

    def lacking(self) -> tuple[str, ...]:
        """The packages it needs that are not installed."""
        return tuple(package for package in self.needs if importlib.util.find_spec(package) is None)

    def run(self, into: Path, tell: Tell | None = None, effort: float = 1.0) -> Card:
        """Train, and fill the empty folder ``into``, whose name is the model's; a family may be trained with less
        ``effort``. Raises NotGoodEnough."""
        module, _, function = self.build.partition(":")
        build = getattr(importlib.import_module(f"models.{module}"), function)
        card: Card = build(into, tell or _nobody, effort) if self.family else build(into)
        if not card.score.reaches_aim:
            raise NotGoodEnough(f"{self.name}: {card.score}, but {card.score.aim} is the least that will do")
        return card


class NotGoodEnough(Exception):
    """A model was trained, and is worse on held-out data than it has to be."""


def _nobody(done: float, what: str) -> None:
    """Tells nobody."""


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


def advice(lacking: tuple[str, ...], extra: str = LIGHT_EXTRA) -> str:
    """What to type to get the missing packages; ``extra``: of ours, where one has them all."""
    extras = dict.fromkeys(INSTALL.get(package, extra) for package in lacking)
    missing = " and ".join(lacking)
    return f"{missing} {'is' if len(lacking) == 1 else 'are'} not installed (pip install {' '.join(map(repr, extras))})"
