"""Model quality: predictions against ground truth (``behaviour/06``; metrics by scikit-learn).

Sections of documents are SageMaker's: each metric ``{"value": v, "standard_deviation": s}``; what cannot be said (the
AUC of one class, a deviation under 200 rows) is the text ``"NaN"``, so that documents stay valid JSON. ``s`` is the
population deviation over five random samples of 80 % without replacement, the same ones for the same seed.

The best constant classifier: of two classes, the one that always answers the positive one (AWS's example: its recall is
1, its accuracy the share of positives); of more, the one that always answers the most frequent one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.errors import ValidationError
from serving.monitor.bodies import number
from serving.monitor.labels import Labels, merge
from serving.monitor.predictions import Attributes, Prediction, decided, labelled
from serving.monitor.results import Document, Result
from serving.monitor.values import Complaints, Record

#: ProblemType (API, ModelQualityAppSpecification) -> what its sections' names begin with.
PROBLEMS: Mapping[str, str] = {
    "Regression": "regression",
    "BinaryClassification": "binary_classification",
    "MulticlassClassification": "multiclass_classification",
}
#: Rows from which a deviation is told, samples it is told from, and the share of rows in each.
LEAST_ROWS, SAMPLES, SHARE = 200, 5, 0.8
#: Points of a curve in a document, at most.
MOST_POINTS = 1000
_MOST_CLASSES = 100
#: Metrics of which less is better; of all others that get constraints, more.
_LESS_IS_BETTER = {"mae", "mse", "rmse", "false_positive_rate", "false_negative_rate"}
_POSITIVES = ("1", "true", "yes", "y", "positive")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
}

Values = dict[str, float]


class Pair(NamedTuple):
    """A true label, as ``label_text`` writes it, and what was predicted. ``place``: what complaints name."""

    label: str
    prediction: Prediction
    place: str = ""


class Classes(NamedTuple):
    """Rows of a classification: indices into ``names``, and the scores of the positive class where all rows have
    one. ``positive``: of two classes, the index of the one that counts as positive."""

    names: list[str]
    truth: Any
    said: Any
    scores: Any = None
    positive: int = 1


# --- a run ----------------------------------------------------------------------------------------------------------


def model_quality_run(
    records: Iterable[Record],
    labels: Labels,
    attributes: Attributes,
    problem_type: str,
    constraints: Document | None,
    complaints: Complaints,
    merged: Callable[[Record], None] = lambda record: None,
    seed: int = 0,
) -> Result:
    """One execution: captures of a window, their labels, the baseline's constraints. ``merged``: what to do with each
    merged record. Raises ``ValidationError`` for a problem type or constraints that are none."""

    def kept() -> Iterator[Record]:
        for record in merge(records, labels, complaints):
            merged(record)
            yield record

    def told() -> Iterator[Pair]:
        for row in labelled(kept(), attributes, complaints):
            yield Pair(row.label, row.prediction, row.record.event_id)

    return quality_of(told(), problem_type, constraints, complaints, attributes.threshold, seed)


def quality_of(
    pairs: Iterable[Pair],
    problem_type: str,
    constraints: Document | None,
    complaints: Complaints,
    threshold: float | None = None,
    seed: int = 0,
) -> Result:
    """The quality of (true label, prediction) pairs, of captures or of a baseline's data set; compared with the
    constraints, if there are any, and with those that it suggests itself. Raises ``ValidationError``."""
    limits = _limits(constraints, problem_type)
    rows, section = measured(pairs, problem_type, complaints, threshold, seed)
    name = PROBLEMS[problem_type]
    statistics = {"version": 0.0, "dataset": {"item_count": rows}, f"{name}_metrics": section}
    suggestion = {"version": 0.0, f"{name}_constraints": suggested(section)} if rows else None
    numbers = {name: one["value"] for name, one in section.items() if isinstance(one.get("value"), float)}
    return Result(statistics, suggestion, {"violations": violations(section, limits)}, numbers, complaints.all(), rows)


def measured(
    pairs: Iterable[Pair], problem_type: str, complaints: Complaints, threshold: float | None = None, seed: int = 0
) -> tuple[int, Document]:
    """How many rows counted, and their section of statistics.json; empty of none."""
    if problem_type not in PROBLEMS:
        raise ValidationError(f"A model quality monitor's ProblemType is one of {', '.join(PROBLEMS)}.")
    if problem_type == "Regression":
        truth, said = _numbers(pairs, complaints)
        section = _deviated(lambda rows: _regression(truth[rows], said[rows]), len(truth), seed)
    else:
        binary = problem_type == "BinaryClassification"
        found = _classes(pairs, complaints, threshold, binary)
        truth = found.truth
        metrics = _binary if binary else _multiclass
        section = _deviated(lambda rows: metrics(_part(found, rows)), len(truth), seed)
        if len(truth):
            section = {"confusion_matrix": _confusion(found)} | (_curves(found) if binary else {}) | section
    if not len(truth):
        complaints.add("there is no labelled prediction at all", "")
    return len(truth), section


def _deviated(metrics: Callable[[Any], Values], rows: int, seed: int) -> Document:
    """Values over all rows, and their deviations over samples."""
    if not rows:
        return {}
    values = metrics(slice(None))
    deviations: Values = {}
    if rows >= LEAST_ROWS:
        dice = np.random.default_rng(seed)
        drawn = [metrics(np.sort(dice.permutation(rows)[: int(rows * SHARE)])) for _ in range(SAMPLES)]
        with np.errstate(invalid="ignore"):  # of an infinite value there is none
            deviations = {name: float(np.std([one[name] for one in drawn])) for name in values}
    return {
        name: {"value": _plain(value), "standard_deviation": _plain(deviations.get(name, math.nan))}
        for name, value in values.items()
    }


def _plain(value: float) -> float | str:
    """As JSON has it."""
    return float(value) if math.isfinite(value) else "NaN"


# --- constraints ----------------------------------------------------------------------------------------------------


def suggested(section: Document) -> Document:
    """The constraints that a baseline's section suggests: no metric worse than there."""
    found = {}
    for name, one in section.items():
        if name.endswith("_best_constant_classifier") or not isinstance(one.get("value"), float):
            continue
        operator = "GreaterThanThreshold" if name in _LESS_IS_BETTER else "LessThanThreshold"
        found[name] = {"threshold": one["value"], "comparison_operator": operator}
    return found


def violations(section: Document, limits: Document) -> list[Document]:
    """Entries of constraint_violations.json: each metric whose value is as its constraint says that it must not be."""
    found = []
    for name, limit in limits.items():
        value, operator, threshold = (
            section.get(name, {}).get("value"),
            limit["comparison_operator"],
            limit["threshold"],
        )
        if isinstance(value, float) and _OPERATORS[operator](value, threshold):
            text = f"Metric {name} with {value} was {operator} {threshold}"
            found.append({"constraint_check_type": operator, "description": text, "metric_name": name})
    return found


def _limits(constraints: Document | None, problem_type: str) -> Document:
    """The constraints for this type of problem; those that somebody took the threshold out of are none."""
    if constraints is None:
        return {}
    if not isinstance(constraints, dict):
        raise ValidationError("The constraints of a model quality monitor are no JSON object.")
    found = constraints.get(f"{PROBLEMS.get(problem_type, '')}_constraints", {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ValidationError("The constraints of a model quality monitor do not have its form.")
    kept = {}
    for name, one in found.items():
        threshold, operator = number(one.get("threshold")), one.get("comparison_operator")
        if threshold is None:
            continue
        if not isinstance(operator, str) or operator not in _OPERATORS:
            raise ValidationError(f"The comparison_operator of a constraint is one of {', '.join(_OPERATORS)}.")
        kept[name] = {"threshold": threshold, "comparison_operator": operator}
    return kept


# --- rows -----------------------------------------------------------------------------------------------------------


def _numbers(pairs: Iterable[Pair], complaints: Complaints) -> tuple[Any, Any]:
    """True and predicted values; rows without either are complained about."""
    truth, said = [], []
    for label, prediction, place in pairs:
        right, guess = number(label), prediction.score if prediction.score is not None else number(prediction.label)
        if right is None:
            complaints.add("a label of a regression is not a number", place)
        elif guess is None:
            complaints.add("a prediction of a regression is not a number", place)
        else:
            truth.append(right)
            said.append(guess)
    return np.asarray(truth, float), np.asarray(said, float)


def _classes(pairs: Iterable[Pair], complaints: Complaints, threshold: float | None, binary: bool) -> Classes:
    """Rows as indices of classes, which are in their natural order."""
    truth: list[str] = []
    said: list[str] = []
    scores: list[float] = []
    shared: dict[str, str] = {}
    for label, prediction, place in pairs:
        guess = decided(prediction, threshold)
        if guess is None:
            complaints.add("a prediction has no class", place)
            continue
        truth.append(shared.setdefault(label, label))  # a million rows have few different texts
        said.append(shared.setdefault(guess, guess))
        if prediction.score is not None and len(prediction.scores) in (0, 2):
            scores.append(prediction.score)
    said = aligned(truth, said)
    if truth and not set(truth) & set(said):
        complaints.add("no predicted label is one of the true labels", "", len(truth))
    names = sorted({*truth, *said} | ({"0", "1"} if binary and {*truth, *said} <= {"0", "1"} else set()), key=_order)
    index = {name: place for place, name in enumerate(names)}
    positive = _positive(names, truth)
    if binary and scores and len(scores) < len(truth):
        complaints.add("a prediction has no score: there is no curve", "", len(truth) - len(scores))
    kept = np.asarray(scores, float) if binary and truth and len(scores) == len(truth) else None
    right, guessed = (np.fromiter((index[one] for one in column), np.int64, len(column)) for column in (truth, said))
    return Classes(names, right, guessed, kept, index.get(positive, 0))


def _order(name: str) -> tuple[int, float, str]:
    value = number(name)
    return (1, 0.0, name) if value is None else (0, value, name)


def _positive(names: Sequence[str], truth: Sequence[str]) -> str:
    """Which of two classes counts: 1, true, yes; else the later one."""
    return next((name for name in names if name.lower() in _POSITIVES), names[-1] if names else "")


def aligned(truth: list[str], said: list[str]) -> list[str]:
    """Predicted classes as the true ones are called: where these have two names while those are 0 and 1, the name that
    means yes, else the later one, is 1."""
    names = sorted(set(truth), key=_order)
    if not set(said) <= {"0", "1"} or set(names) & {"0", "1"} or len(names) > 2:
        return said
    positive = _positive(names, truth)
    if len(names) == 1 and positive.lower() not in _POSITIVES:
        return said
    negative = next((name for name in names if name != positive), "0")
    return [positive if one == "1" else negative for one in said]


def _part(found: Classes, rows: Any) -> Classes:
    scores = None if found.scores is None else found.scores[rows]
    return found._replace(truth=found.truth[rows], said=found.said[rows], scores=scores)


# --- metrics --------------------------------------------------------------------------------------------------------


def _regression(truth: Any, said: Any) -> Values:
    """Errors and the coefficient of determination, which two rows at least have. What no float holds is infinite."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    with np.errstate(over="ignore", invalid="ignore"):
        squared = float(mean_squared_error(truth, said))
        return {
            "mae": float(mean_absolute_error(truth, said)),
            "mse": squared,
            "rmse": math.sqrt(squared),
            "r2": float(r2_score(truth, said)) if len(truth) > 1 else math.nan,
        }


class _Cells(NamedTuple):
    """The cells of a confusion matrix that are not empty: scikit-learn gets them as rows with a weight, as there may be
    a million real ones."""

    truth: Any
    said: Any
    rows: Any


def _cells(truth: Any, said: Any, size: int) -> _Cells:
    places, counts = np.unique(truth * size + said, return_counts=True)
    return _Cells(places // size, places % size, counts)


def _binary(found: Classes) -> Values:
    """Metrics of the positive class against all others."""
    from sklearn.metrics import confusion_matrix, roc_auc_score

    truth, said = (found.truth == found.positive).astype(int), (found.said == found.positive).astype(int)
    cells = _cells(truth, said, 2)
    counts = confusion_matrix(cells.truth, cells.said, labels=[0, 1], sample_weight=cells.rows)
    (tn, fp), (fn, tp) = counts.tolist()
    values = _class_metrics(cells) | {
        "true_positive_rate": _ratio(tp, tp + fn),
        "true_negative_rate": _ratio(tn, tn + fp),
        "false_positive_rate": _ratio(fp, tn + fp),
        "false_negative_rate": _ratio(fn, tp + fn),
    }
    if found.scores is not None:
        both = truth.any() and not truth.all()
        values["auc"] = float(roc_auc_score(truth, found.scores)) if both else math.nan
    constant = _class_metrics(cells._replace(said=np.ones_like(cells.said)))
    return values | {f"{name}_best_constant_classifier": value for name, value in constant.items()}


def _class_metrics(cells: _Cells) -> Values:
    """What would be a ratio of nothing to nothing is not said, but for the precision of a model that never answers
    positive: that is 0."""
    from sklearn.metrics import accuracy_score, fbeta_score, precision_score, recall_score

    truth, said, rows = cells
    scores = {"f0_5": 0.5, "f1": 1.0, "f2": 2.0}
    return {
        "recall": float(recall_score(truth, said, sample_weight=rows, zero_division=np.nan)),
        "precision": float(precision_score(truth, said, sample_weight=rows, zero_division=0.0)),
        "accuracy": float(accuracy_score(truth, said, sample_weight=rows)),
    } | {
        name: float(fbeta_score(truth, said, beta=beta, sample_weight=rows, zero_division=np.nan))
        for name, beta in scores.items()
    }


def _multiclass(found: Classes) -> Values:
    """Metrics of each class, weighted by how often it is the true one."""
    cells = _cells(found.truth, found.said, len(found.names))
    most = np.bincount(found.truth).argmax()
    constant = _weighted(cells._replace(said=np.full_like(cells.said, most)))
    return _weighted(cells) | {f"{name}_best_constant_classifier": value for name, value in constant.items()}


def _weighted(cells: _Cells) -> Values:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    truth, said, rows = cells
    values = {"accuracy": float(accuracy_score(truth, said, sample_weight=rows))}
    for name, beta in (("f0_5", 0.5), ("f1", 1.0), ("f2", 2.0)):
        precision, recall, score, _ = precision_recall_fscore_support(
            truth, said, beta=beta, average="weighted", sample_weight=rows, zero_division=0.0
        )
        values |= {"weighted_recall": float(recall), "weighted_precision": float(precision)}
        values[f"weighted_{name}"] = float(score)
    return values


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _confusion(found: Classes) -> Document:
    """True class -> predicted class -> rows; of many classes only the cells that are not empty."""
    names, few = found.names, len(found.names) <= _MOST_CLASSES
    table: Document = {name: dict.fromkeys(names, 0) if few else {} for name in names}
    cells = _cells(found.truth, found.said, len(names))
    for truth, said, rows in zip(*(column.tolist() for column in cells), strict=True):
        table[names[truth]][names[said]] = rows
    return table


def _curves(found: Classes) -> Document:
    """The receiver operating characteristic, and precision by recall; none of one class, or without scores."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth = found.truth == found.positive
    if found.scores is None or truth.all() or not truth.any():
        return {}
    false, true, _ = roc_curve(truth, found.scores)
    precisions, recalls, _ = precision_recall_curve(truth, found.scores)
    return {
        "receiver_operating_characteristic_curve": {
            "false_positive_rates": _thinned(false),
            "true_positive_rates": _thinned(true),
        },
        "precision_recall_curve": {"precisions": _thinned(precisions[::-1]), "recalls": _thinned(recalls[::-1])},
    }


def _thinned(points: Any) -> list[float]:
    """So many points, first and last among them, that a document stays small."""
    if len(points) <= MOST_POINTS:
        return [float(one) for one in points]
    return [float(points[place]) for place in np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)]
