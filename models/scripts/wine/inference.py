"""Which cultivar a wine is: the nearest class centre. Runs in any SageMaker script-mode container, NumPy is enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Centres(NamedTuple):
    """``mean`` and ``spread``: ``[columns]``, for standardising; ``points``: ``[classes, columns]``."""

    labels: tuple[str, ...]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    points: NDArray[np.float64]


def model_fn(model_dir: str) -> Centres:
    """Read ``centres.json`` from the unpacked artifact."""
    stored = json.loads((Path(model_dir) / "centres.json").read_text())
    points = np.array(list(stored["centres"].values()))
    return Centres(tuple(stored["centres"]), np.array(stored["mean"]), np.array(stored["spread"]), points)


def input_fn(body: str | bytes, content_type: str) -> NDArray[np.float64]:
    """Rows ``[n, columns]`` from CSV, or from JSON as ``{"instances": [...]}`` or a bare list of rows."""
    text = body.decode() if isinstance(body, bytes) else body
    if content_type == "text/csv":
        return np.array([[float(cell) for cell in line.split(",")] for line in text.splitlines() if line.strip()])
    if content_type == "application/json":
        parsed = json.loads(text)
        return np.array(parsed["instances"] if isinstance(parsed, dict) else parsed, dtype=np.float64)
    raise ValueError(f"Content type {content_type} is not supported by this model.")


def predict_fn(data: NDArray[np.floating], model: Centres) -> list[dict[str, Any]]:
    """The nearest centre of each row and the distance to it, in standard deviations."""
    if data.ndim != 2 or data.shape[1] != len(model.mean):
        raise ValueError(f"This model takes rows of {len(model.mean)} numbers.")
    scaled = (data.astype(np.float64) - model.mean) / model.spread
    distances = np.linalg.norm(scaled[:, None, :] - model.points[None, :, :], axis=2)
    return [
        {"label": model.labels[nearest], "distance": round(float(row[nearest]), 6)}
        for nearest, row in zip(distances.argmin(axis=1), distances, strict=True)
    ]


def output_fn(prediction: list[dict[str, Any]], accept: str) -> tuple[str, str]:
    """CSV where it is asked for, else JSON."""
    if accept == "text/csv":
        return "".join(f"{row['label']},{row['distance']}\n" for row in prediction), "text/csv"
    return json.dumps({"predictions": prediction}), "application/json"
