"""An endpoint's explainer: its ClarifyExplainerConfig as one value, and what must hold in it beyond AWS's own model
(SageMaker API, ClarifyExplainerConfig; ``behaviour/06``, online explanations). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from serving.errors import ValidationError
from serving.explain import expressions, records
from serving.explain.records import Cell

#: What stands in a ContentTemplate for the list of features.
FEATURES = "$features"
_MEGABYTE = 2**20

Granularity = Literal["token", "sentence", "paragraph", ""]


@dataclass(frozen=True, slots=True)
class Explainer:
    """How an endpoint's calls are explained. Empty string, empty tuple and None: not given. ``probability`` and
    ``label``: a column of CSV, or a JMESPath expression. ``granularity`` empty: no feature is text."""

    enable: str
    baseline: str
    baseline_uri: str
    baseline_type: str
    samples: int | None
    seed: int | None
    logit: bool
    granularity: Granularity
    features: str
    template: str
    most_records: int | None
    most_bytes: int
    probability_index: int | None
    probability: str
    label_index: int | None
    label: str
    label_headers: tuple[str, ...]
    feature_headers: tuple[str, ...]
    feature_types: tuple[str, ...]


def explainer(config: Mapping[str, Any]) -> Explainer:
    """The value of a ClarifyExplainerConfig that AWS's model has found well-formed."""
    shap, inference = config["ShapConfig"], config.get("InferenceConfig", {})
    baseline, text = shap["ShapBaselineConfig"], shap.get("TextConfig", {})
    return Explainer(
        enable=config.get("EnableExplanations", "`true`"),
        baseline=baseline.get("ShapBaseline", ""),
        baseline_uri=baseline.get("ShapBaselineUri", ""),
        baseline_type=baseline.get("MimeType") or records.CSV,
        samples=shap.get("NumberOfSamples"),
        seed=shap.get("Seed"),
        logit=shap.get("UseLogit", False),
        granularity=text.get("Granularity", ""),
        features=inference.get("FeaturesAttribute", ""),
        template=inference.get("ContentTemplate", ""),
        most_records=inference.get("MaxRecordCount"),
        most_bytes=inference.get("MaxPayloadInMB", 6) * _MEGABYTE,
        probability_index=inference.get("ProbabilityIndex"),
        probability=inference.get("ProbabilityAttribute", ""),
        label_index=inference.get("LabelIndex"),
        label=inference.get("LabelAttribute", ""),
        label_headers=tuple(inference.get("LabelHeaders", ())),
        feature_headers=tuple(inference.get("FeatureHeaders", ())),
        feature_types=tuple(inference.get("FeatureTypes", ())),
    )


def check(config: Mapping[str, Any]) -> None:
    """A ClarifyExplainerConfig's members fit each other. Raises ``ValidationError``."""
    baseline = config["ShapConfig"]["ShapBaselineConfig"]
    if ("ShapBaseline" in baseline) == ("ShapBaselineUri" in baseline):
        raise ValidationError("ShapBaselineConfig needs either a ShapBaseline or a ShapBaselineUri.")
    made = explainer(config)
    if made.baseline_uri and not made.baseline_uri.startswith("s3://"):
        raise ValidationError("ShapBaselineUri must be an s3:// URI.")
    if made.baseline_type.lower() not in (records.CSV, records.LINES):
        raise ValidationError(f"MimeType of the SHAP baseline must be {records.CSV} or {records.LINES}.")
    for name, text in (
        ("FeaturesAttribute", made.features),
        ("ProbabilityAttribute", made.probability),
        ("LabelAttribute", made.label),
    ):
        if text:
            expressions.parsed(text, name)
    expressions.enabling(made.enable)
    _check_template(made.template)
    _check_features(made)
    if made.baseline:
        check_baseline(made, baseline_of(made, made.baseline.encode()))


def _check_template(template: str) -> None:
    if not template:
        return
    if FEATURES not in template:
        raise ValidationError(f"ContentTemplate must hold {FEATURES}, for which the features are put in.")
    try:
        orjson.loads(template.replace(FEATURES, "[]"))
    except ValueError:
        raise ValidationError(f"ContentTemplate {template!r} is not JSON once features stand for {FEATURES}.") from None


def _check_features(made: Explainer) -> None:
    headers, types = made.feature_headers, made.feature_types
    if headers and types and len(headers) != len(types):
        raise ValidationError(f"There are {len(headers)} FeatureHeaders and {len(types)} FeatureTypes.")
    if types and "text" not in types:
        raise ValidationError("FeatureTypes are for models of text: at least one of them must be text.")
    if types and not made.granularity:
        raise ValidationError("FeatureTypes with text need a TextConfig.")


def baseline_of(made: Explainer, data: bytes) -> list[list[Cell]]:
    """The rows of the baseline. Raises ``ValidationError``."""
    return records.read(data, made.baseline_type, made.features, "The SHAP baseline").rows


def check_baseline(made: Explainer, rows: Sequence[Sequence[Cell]]) -> None:
    """A baseline has one width, that of the names and types given. Raises ``ValidationError``."""
    width = len(rows[0])
    for what, given in (("FeatureHeaders", made.feature_headers), ("FeatureTypes", made.feature_types)):
        if given and len(given) != width:
            raise ValidationError(f"The SHAP baseline has {width} features, and there are {len(given)} {what}.")


def types_of(made: Explainer, rows: Sequence[Sequence[Cell]]) -> tuple[str, ...]:
    """FeatureTypes, given or seen in the baseline; empty for a model without text."""
    if not made.granularity:
        return ()
    if made.feature_types:
        return made.feature_types
    return tuple(
        "text" if any(isinstance(records.value(cell), str) for cell in column) else "numerical"
        for column in zip(*rows, strict=True)
    )


def template_of(made: Explainer) -> str:
    """How a record of JSON Lines is written: as ContentTemplate says, else as FeaturesAttribute reads it. Raises
    ``ValidationError``."""
    if made.template:
        return made.template
    if not made.features:
        return FEATURES
    if made.features.isidentifier():
        return f'{{"{made.features}":{FEATURES}}}'
    raise ValidationError(
        "Explaining records of JSON Lines needs a ContentTemplate in the explainer's InferenceConfig."
    )
