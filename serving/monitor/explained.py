"""Attributions of a sample of captured calls, asked of the server's explain process, for the explainability monitor.

The explainer is the one that the analysis configuration describes (SageMaker Clarify's ``methods.shap``: ``baseline``,
``num_samples``, ``seed``, ``use_logit``; ``headers``, ``label_headers``; ``predictor.content_template``), or the
endpoint's own when it has no baseline.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serving.errors import ServingError, ValidationError
from serving.monitor.bodies import text_of
from serving.monitor.predictions import Attributes
from serving.monitor.tasks import Attributed, Means
from serving.monitor.values import Complaints, Record

#: Calls that are explained: each costs up to 2,088 rows of predictions and more (``behaviour/06``).
SAMPLE = 50


def attributions(
    records: Iterable[Record],
    endpoint: str,
    document: Mapping[str, Any],
    attributes: Attributes,
    means: Means,
    complaints: Complaints,
) -> Attributed | None:
    """What the features of a sample of calls added to their predictions; None when there is no call. Raises
    ``ServingError`` when nothing can be explained."""
    if means.attributions is None:
        raise ValidationError("Explanations need a running server.")
    sample = _sample(record for record in records if record.input is not None)
    if not sample:
        return None
    variant = max({one.variant for one in sample}, key=lambda name: sum(name == one.variant for one in sample))
    chosen = [one for one in sample if one.variant == variant]
    if len(chosen) < len(sample):
        complaints.add("a call of another variant than most is not explained", variant, len(sample) - len(chosen))
    calls, kept = [], []
    for record in chosen:
        try:
            calls.append(_call(record))
        except ServingError as error:
            complaints.add(error.message, record.event_id)
        else:
            kept.append(record)
    found = means.attributions(endpoint, variant, calls, configuration(document, attributes))
    for number, _ in found.refused:
        complaints.add("a call could not be explained", kept[number].event_id)
    return found


def _sample(records: Iterable[Record]) -> list[Record]:
    """So many records, each as likely as any other (Vitter 1985, algorithm R), the same for the same records."""
    dice, kept = random.Random(0), []
    for number, record in enumerate(records):
        if number < SAMPLE:
            kept.append(record)
        elif (place := dice.randrange(number + 1)) < SAMPLE:
            kept[place] = record
    return kept


def _call(record: Record) -> tuple[bytes, str, str, str]:
    """Body, Content-Type, Accept and target model of a call, as it was made."""
    assert record.input is not None
    text_of(record.input)  # of a body that is no text nothing can be explained
    accept = record.output.content_type.partition(";")[0].strip() if record.output else record.input.content_type
    return record.input.body, record.input.content_type, accept, str(record.metadata.get("targetModel") or "")


def configuration(document: Mapping[str, Any], attributes: Attributes) -> dict[str, Any] | None:
    """A ClarifyExplainerConfig of an analysis configuration; None: the endpoint's own. Raises ``ValidationError``."""
    methods = document.get("methods")
    shap = methods.get("shap") if isinstance(methods, dict) else None
    if not isinstance(shap, dict) or "baseline" not in shap:
        return None
    given: dict[str, Any] = {"ShapBaselineConfig": _baseline(shap["baseline"])}
    for name, member in (("num_samples", "NumberOfSamples"), ("seed", "Seed"), ("use_logit", "UseLogit")):
        if name in shap:
            given[member] = _checked(shap, name)
    return {"ShapConfig": given, "InferenceConfig": _inference(document, attributes)}


def _checked(document: Mapping[str, Any], name: str) -> Any:
    """A member, None if it is not there. Raises ``ValidationError`` for one that is not what it has to be."""
    wanted, holds = _MEMBERS[name]
    found = document.get(name)
    if found is not None and not holds(found):
        raise ValidationError(f"The analysis configuration's {name} is {wanted}.")
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


#: Member -> what it has to be.
_MEMBERS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "num_samples": ("a whole number from 1 on", lambda value: _is_whole(value) and value >= 1),
    "seed": ("a whole number", _is_whole),
    "use_logit": ("true or false", lambda value: isinstance(value, bool)),
    "headers": ("a list of names", _are_names),
    "label_headers": ("a list of names", _are_names),
    "content_template": ("a text", lambda value: isinstance(value, str)),
}


def _baseline(given: Any) -> dict[str, str]:
    """ShapBaselineConfig of Clarify's ``baseline``: rows, or the URL of a CSV file of them."""
    if isinstance(given, str) and given.startswith("s3://"):
        return {"ShapBaselineUri": given, "MimeType": "text/csv"}
    if isinstance(given, list) and given and all(isinstance(row, list) and row for row in given):
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(given)
        return {"ShapBaseline": lines.getvalue().removesuffix("\n"), "MimeType": "text/csv"}
    raise ValidationError("methods.shap.baseline is a list of rows, or the s3:// URL of a CSV file of rows.")


def _inference(document: Mapping[str, Any], attributes: Attributes) -> dict[str, Any]:
    headers = [name for name in _checked(document, "headers") or () if name != document.get("label")]
    found: dict[str, Any] = {"FeatureHeaders": headers} if headers else {}
    if _checked(document, "label_headers"):
        found["LabelHeaders"] = document["label_headers"]
    predictor = document.get("predictor")
    if isinstance(predictor, dict) and "content_template" in predictor:
        found["ContentTemplate"] = _checked(predictor, "content_template") or ""
    if attributes.features:
        found["FeaturesAttribute"] = attributes.features
    if attributes.probability.isdecimal():
        found["ProbabilityIndex"] = int(attributes.probability)
    elif attributes.probability:
        found["ProbabilityAttribute"] = attributes.probability
    return found
