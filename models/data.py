"""The data sets, all inside the scikit-learn wheel: loaded, split once with a fixed seed, described with their licence.

Features are float32 from the first step on: it is what a server hands a model, so the expected answers hold there too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 20240229
HELD_OUT = 0.25

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set split into training and held-out rows.

    ``train_x``/``held_x``: float32 ``[rows, columns]``; ``train_y``/``held_y``: float32 target, or the class number.
    """

    name: str
    source: str
    licence: str
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    train_x: Floats
    train_y: Floats
    held_x: Floats
    held_y: Floats


def breast_cancer() -> DataSet:
    """569 tumours, 30 measurements of cell nuclei; class 1 is benign."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return _split(
        name="Breast Cancer Wisconsin (Diagnostic)",
        source="sklearn.datasets.load_breast_cancer; Wolberg, Mangasarian, Street and Street (1995), UCI",
        licence="CC BY 4.0 (UCI); the copy in scikit-learn is distributed under BSD-3-Clause",
        columns=tuple(bunch.feature_names),
        classes=tuple(bunch.target_names),
        x=bunch.data,
        y=bunch.target,
    )


def diabetes() -> DataSet:
    """442 patients, 10 measurements in their original units; the target is disease progression after a year."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return _split(
        name="Diabetes (Efron, Hastie, Johnstone and Tibshirani 2004)",
        source="sklearn.datasets.load_diabetes(scaled=False); Least Angle Regression, Annals of Statistics 32(2)",
        licence="published with the article without a licence text; the copy in scikit-learn is under BSD-3-Clause",
        columns=tuple(bunch.feature_names),
        classes=(),
        x=bunch.data,
        y=bunch.target,
    )


def digits() -> DataSet:
    """1,797 handwritten digits, 8 x 8 pixels with ink from 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _split(
        name="Optical Recognition of Handwritten Digits (test part)",
        source="sklearn.datasets.load_digits; Alpaydin and Kaynak (1998), UCI",
        licence="CC BY 4.0 (UCI); the copy in scikit-learn is distributed under BSD-3-Clause",
        columns=tuple(bunch.feature_names),
        classes=tuple(str(name) for name in bunch.target_names),
        x=bunch.data,
        y=bunch.target,
    )


def wine() -> DataSet:
    """178 wines of three cultivars from one region, 13 chemical measurements."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    return _split(
        name="Wine",
        source="sklearn.datasets.load_wine; Forina and others, PARVUS (1991), UCI",
        licence="CC BY 4.0 (UCI); the copy in scikit-learn is distributed under BSD-3-Clause",
        columns=tuple(bunch.feature_names),
        classes=tuple(str(name) for name in bunch.target_names),
        x=bunch.data,
        y=bunch.target,
    )


def _split(
    *,
    name: str,
    source: str,
    licence: str,
    columns: tuple[str, ...],
    classes: tuple[str, ...],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> DataSet:
    """Split once, by class where there are classes. The seed is shared, so models of one data set agree on who is held
    out: the variants of an A/B test may be compared."""
    from sklearn.model_selection import train_test_split

    train_x, held_x, train_y, held_y = train_test_split(
        x.astype(np.float32),
        y.astype(np.float32),
        test_size=HELD_OUT,
        random_state=SEED,
        stratify=y if classes else None,
    )
    return DataSet(name, source, licence, columns, classes, train_x, train_y, held_x, held_y)
