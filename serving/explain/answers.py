"""Explanations as the answer to a call has them (``behaviour/06``, online explanations). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.explain import form, outputs
from serving.explain.players import Feature
from serving.explain.records import Records
from serving.explain.settings import Explainer


class Subject(NamedTuple):
    """What a call was, all of it read: its records, the model's answer to each, and what kind that answer is."""

    read: Records
    found: list[Any]
    kind: str


class Explained(NamedTuple):
    """A record's features and what each of their players added: float64 [players, outputs]; ``base``: float64
    [outputs], the prediction they started from, in the same units."""

    features: tuple[Feature, ...]
    values: np.ndarray
    base: np.ndarray


def answer(
    made: Explainer, subject: Subject, prediction: bytes, content_type: str, told: Sequence[Explained | None]
) -> bytes:
    """The JSON body. ``told``: an explanation for each record, None where none was wanted. Raises
    ``ValidationError`` for a prediction that is no text."""
    labels = outputs.label_headers(subject.found[0], subject.kind, made)
    names = made.feature_headers or subject.read.names
    explained = [None if one is None else _features(one, names, made) for one in told]
    explanations = {"kernel_shap": explained} if any(one is not None for one in told) else {}
    return form.answer(prediction, content_type, explanations, labels)


def by_feature(features: Sequence[Feature], values: np.ndarray) -> np.ndarray:
    """Players' values added up by feature: float64 [features, outputs]."""
    made_of, at = np.zeros((len(features), values.shape[1])), 0
    for index, one in enumerate(features):
        made_of[index] = values[at : at + one.players].sum(0)
        at += one.players
    return made_of


def _features(one: Explained, names: Sequence[str], made: Explainer) -> list[dict[str, Any]]:
    told, at = [], 0
    for index, feature in enumerate(one.features):
        row: dict[str, Any] = {"feature_header": names[index]} if names else {}
        if made.granularity:
            row["feature_type"] = _type(feature, index, made)
        row["attributions"] = _attributions(feature, one.values[at : at + feature.players])
        at += feature.players
        told.append(row)
    return told


def _type(feature: Feature, index: int, made: Explainer) -> str:
    if made.feature_types:
        return made.feature_types[index]
    return "numerical" if feature.units is None else "text"


def _attributions(feature: Feature, values: np.ndarray) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [{"attribution": row} for row in values.tolist()]
    for row, unit in zip(told, feature.units or (), strict=False):
        row["description"] = {"partial_text": unit.text, "start_idx": unit.start}
    return told
