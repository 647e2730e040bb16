"""The algorithms in one visible table, by the names that ``algorithm.json`` gives them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from serving.errors import LoadFailed
from serving.runtimes import declaration
from serving.runtimes.base import Artifact, LoadSettings, Model
from serving.runtimes.declaration import Declaration

#: Algorithm -> the function that loads it, ``(Declaration, LoadSettings) -> Model``.
ALGORITHMS: dict[str, str] = {
    "blazingtext": "serving.runtimes.algorithms.blazingtext:load",
    "factorization-machines": "serving.runtimes.algorithms.arrays:load",
    "forecasting-deepar": "serving.runtimes.algorithms.deepar:load",
    "image-classification": "serving.runtimes.algorithms.vision:load_classification",
    "ipinsights": "serving.runtimes.algorithms.ipinsights:load",
    "kmeans": "serving.runtimes.algorithms.arrays:load",
    "knn": "serving.runtimes.algorithms.arrays:load",
    "lda": "serving.runtimes.algorithms.arrays:load",
    "linear-learner": "serving.runtimes.algorithms.arrays:load",
    "ntm": "serving.runtimes.algorithms.arrays:load",
    "object-detection": "serving.runtimes.algorithms.vision:load_detection",
    "object2vec": "serving.runtimes.algorithms.object2vec:load",
    "pca": "serving.runtimes.algorithms.arrays:load",
    "randomcutforest": "serving.runtimes.algorithms.arrays:load",
    "semantic-segmentation": "serving.runtimes.algorithms.vision:load_segmentation",
    "seq2seq": "serving.runtimes.algorithms.seq2seq:load",
    "xgboost": "serving.runtimes.algorithms.arrays:load",
}


def load(artifact: Artifact, settings: LoadSettings) -> Model:
    """The model that the folder's ``algorithm.json`` declares. Raises LoadFailed."""
    declared = declaration.read(artifact.root)
    if declared is None:
        raise LoadFailed(f"the artifact has no {declaration.NAME}")
    if declared.algorithm not in ALGORITHMS:
        known = ", ".join(sorted(ALGORITHMS))
        raise LoadFailed(f"{declaration.NAME}: there is no algorithm {declared.algorithm[:80]!r}; there are {known}")
    module, _, function = ALGORITHMS[declared.algorithm].partition(":")
    loader: Callable[[Declaration, LoadSettings], Model] = getattr(importlib.import_module(module), function)
    return loader(declared, settings)
