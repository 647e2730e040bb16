"""Feature-attribution drift: whether features matter to the model's answers as much as they did in the baseline
(``behaviour/06``; Nigam, Feldman et al. 2021, "Amazon SageMaker Clarify: Machine Learning Bias Detection and
Explainability in the Cloud").

It works on attributions that somebody else has computed (SHAP values of live records); what a feature means to a model
as a whole is their aggregate over records, its global score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.errors import ValidationError
from serving.monitor.bodies import number
from serving.monitor.results import Document, Result
from serving.monitor.values import Complaints

#: NDCG below which there is drift (Developer Guide, "Monitor Feature Attribution Drift").
THRESHOLD = 0.9
#: ``agg_method`` of an analysis configuration -> the global score of each feature, of [records, features, outputs].
METHODS: Mapping[str, Callable[[Any], Any]] = {
    "mean_abs": lambda values: np.abs(values).mean(axis=0),
    "median": lambda values: np.median(values, axis=0),
    "mean_sq": lambda values: (values**2).mean(axis=0),
}


class Config(NamedTuple):
    """How attributions are put together: ``method`` is one of ``METHODS``; ``labels``: names of the model's outputs,
    where there are any."""

    method: str = "mean_abs"
    labels: tuple[str, ...] = ()


def parse_config(document: Any) -> Config:
    """What an analysis_config.json says of it: ``methods.shap.agg_method`` and ``label_headers``. Raises
    ``ValidationError``."""
    if not isinstance(document, dict):
        raise ValidationError("An explainability configuration is a JSON object.")
    methods = document.get("methods") or {}
    shap = (methods.get("shap") if isinstance(methods, dict) else None) or {}
    method = shap.get("agg_method", "mean_abs") if isinstance(shap, dict) else None
    if not isinstance(method, str) or method not in METHODS:
        raise ValidationError(f"agg_method is one of {', '.join(METHODS)}.")
    labels = document.get("label_headers") or ()
    if not isinstance(labels, list | tuple) or not all(isinstance(one, str) for one in labels):
        raise ValidationError("label_headers is a list of names.")
    return Config(method, tuple(labels))


def attribution_run(
    header: Sequence[str],
    values: Any,
    expected: Sequence[float],
    config: Config,
    constraints: Document | None,
    complaints: Complaints,
) -> Result:
    """One execution. ``values``: float [records, features, outputs] (or [records, features]); ``expected``: what the
    model predicts of the SHAP baseline, for each output; ``constraints``: the baseline's analysis. Both documents are
    this data's analysis. Raises ``ValidationError`` for constraints that are none, and for shapes that do not fit."""
    limits = dict(_scores(constraints)) if constraints is not None else {}
    analysis = analysed(header, values, expected, config, complaints)
    scores = dict(_scores(analysis))
    found = [one for label, live in scores.items() for one in _drifted(label, live, limits, complaints)]
    violations = {"version": "1.0", "violations": found}
    suggestion = analysis if scores else None
    return Result(analysis, suggestion, violations, _metrics(analysis), complaints.all(), len(values))


def analysed(
    header: Sequence[str], values: Any, expected: Sequence[float], config: Config, complaints: Complaints
) -> Document:
    """The analysis document: for each output (``label0``, ... without names) every feature's global score, and the
    expected value. Records with an attribution that is no finite number do not count; of none there are no scores."""
    matrix = np.asarray(values, float)
    matrix = matrix[:, :, None] if matrix.ndim == 2 else matrix
    if matrix.ndim != 3 or matrix.shape[1] != len(header) or (len(matrix) and matrix.shape[2] != len(expected)):
        raise ValidationError("Attributions come for each record, feature and output.")
    finite = np.isfinite(matrix).all(axis=(1, 2))
    if not finite.all():
        complaints.add("an attribution is no finite number", "", int((~finite).sum()))
    explained: Document = {}
    if not finite.any():
        complaints.add("there is no explained record at all", "")
    else:
        scores = METHODS[config.method](matrix[finite])
        named = len(config.labels) == scores.shape[1]
        for place in range(scores.shape[1]):
            explained[config.labels[place] if named else f"label{place}"] = {
                "global_shap_values": dict(zip(header, scores[:, place].tolist(), strict=True)),
                "expected_value": _plain(expected[place]),
            }
    return {"version": "1.0", "explanations": {"kernel_shap": explained}}


def ndcg(baseline: Mapping[str, float], live: Mapping[str, float]) -> float | None:
    """Normalised discounted cumulative gain of the live order of features, where the gain of a feature is its baseline
    score: 1 when the order is the same. A feature that one side lacks has a score of 0 there; by their size alone do
    negative scores count. None where the baseline is all 0. Ties in the live order are averaged (scikit-learn's
    ``ndcg_score``, which SageMaker uses)."""
    from sklearn.metrics import ndcg_score

    names = sorted({*baseline, *live})
    gains = np.array([abs(baseline.get(name, 0.0)) for name in names])
    if not gains.any():
        return None
    if len(names) == 1:
        return 1.0
    return float(ndcg_score([gains], [[abs(live.get(name, 0.0)) for name in names]]))


def _drifted(
    label: str, live: Mapping[str, float], limits: Mapping[str, Mapping[str, float]], complaints: Complaints
) -> Iterator[Document]:
    baseline = limits.get(label)
    if baseline is None:
        if limits:
            complaints.add("an output that the baseline does not have", label)
        return
    if set(baseline) != set(live):
        complaints.add("the baseline has other features", label)
    score = ndcg(baseline, live)
    if score is None:
        complaints.add("the baseline's attributions are all 0", label)
    elif score < THRESHOLD:
        yield {
            "label": label,
            "metric_name": "shap",
            "constraint_check_type": "feature_attribution_drift_check",
            "description": f"Feature attribution drift {score} exceeds threshold {THRESHOLD}",
        }


def _scores(document: Document) -> Iterator[tuple[str, dict[str, float]]]:
    """(label, global scores) of an analysis. Raises ``ValidationError`` for a document that is none."""
    try:
        for label, one in document.get("explanations", {}).get("kernel_shap", {}).items():
            found = {str(name): number(value) for name, value in one["global_shap_values"].items()}
            yield label, {name: value for name, value in found.items() if value is not None}
    except (AttributeError, KeyError, TypeError):
        raise ValidationError("The constraints of an explainability monitor do not have its form.") from None


def _metrics(analysis: Document) -> dict[str, float]:
    """``feature_{f}`` and ``ExpectedValue``; where there are several outputs, with ``_{label}`` behind."""
    explained = analysis["explanations"]["kernel_shap"]
    found: dict[str, float] = {}
    for label, one in explained.items():
        tail = f"_{label}" if len(explained) > 1 else ""
        found |= {f"feature_{name}{tail}": value for name, value in one["global_shap_values"].items()}
        if isinstance(one["expected_value"], float):
            found[f"ExpectedValue{tail}"] = one["expected_value"]
    return found


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
