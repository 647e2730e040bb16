"""What a model has to beat, and the two yardsticks. Every card names one of these baselines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.cards import Score
from models.data import DataSet


def accuracy(predicted: NDArray[np.generic], actual: NDArray[np.generic]) -> float:
    """Share of rows whose class number is right."""
    return float(np.mean(predicted == actual))


def rmse(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Root of the mean squared error, in the target's unit."""
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))


def against_stump(predicted: NDArray[np.generic], data: DataSet) -> Score:
    """Held-out accuracy beside the best threshold on a single column."""
    from sklearn.tree import DecisionTreeClassifier

    stump = DecisionTreeClassifier(max_depth=1, random_state=0).fit(data.train_x, data.train_y)
    beaten = accuracy(stump.predict(data.held_x), data.held_y)
    return Score("accuracy", accuracy(predicted, data.held_y), "best threshold on one column", beaten)


def against_centroids(predicted: NDArray[np.generic], data: DataSet) -> Score:
    """Held-out accuracy beside "the class whose mean training image is nearest"."""
    means = np.stack([data.train_x[data.train_y == label].mean(axis=0) for label in range(len(data.classes))])
    distances = ((data.held_x[:, None, :] - means[None, :, :]) ** 2).sum(axis=2)
    beaten = accuracy(distances.argmin(axis=1), data.held_y)
    return Score("accuracy", accuracy(predicted, data.held_y), "nearest mean image", beaten)


def against_majority(predicted: NDArray[np.generic], data: DataSet) -> Score:
    """Held-out accuracy beside "always the commonest training class"."""
    labels, counts = np.unique(data.train_y, return_counts=True)
    beaten = accuracy(np.full(len(data.held_y), labels[counts.argmax()]), data.held_y)
    return Score("accuracy", accuracy(predicted, data.held_y), "always the commonest class", beaten)


def against_mean(error: float, data: DataSet) -> Score:
    """A held-out RMSE beside "always the training mean"."""
    beaten = rmse(np.full(len(data.held_y), data.train_y.mean()), data.held_y)
    return Score("rmse", error, "always the training mean", beaten, higher_is_better=False)
