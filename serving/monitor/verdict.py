"""Which variant is better, and what to do: errors and latency from the metrics, quality from labelled captures.

Compared are outcomes as they are, so variants must have got their calls by chance: by the weighted draw, or by a client
that picks the variant by a hash of the user (``behaviour/02``, A/B practice). Calls that name their TargetVariant for
another reason are in no way random, and a captured record does not say that it did: the numbers of all captured calls
are told, for those who know how they were sent. A shadow gets production's own calls; then the interval is wider than
need be.

One may look at any time (``sequential.py``). Several challengers share alpha evenly (Bonferroni). Guardrails are looked
at with the same alpha as the metric and act only beyond a margin, which a challenger as good as the baseline passes far
more rarely.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.monitor import histograms, sequential
from serving.monitor.captures import read
from serving.monitor.deciding import Decision, Facts, Guards, Limits, decide, overall
from serving.monitor.difference import finite
from serving.monitor.labels import merge, read_labels
from serving.monitor.outcomes import Arm, Metric, compared, find
from serving.monitor.predictions import Attributes, check
from serving.monitor.sequential import Estimate, Interval, Moments
from serving.monitor.sketches import Quantiles
from serving.monitor.tasks import Means
from serving.monitor.values import Complaints, Record, Window
from serving.watch.metrics import FAMILIES, Snapshot, snapshot

METHOD = "asymptotic confidence sequence (Waudby-Smith et al. 2024): valid however often one looks"
_LATENCY = "sagemaker_model_latency_seconds"
_QUANTILES = (0.5, 0.9, 0.99)
#: Below it a normal distribution is no approximation of anything, and 1 - alpha soon is 1.
_LEAST_ALPHA = 1e-9
#: Below so many calls of either a p99 says nothing: it rests on one of a hundred.
_LEAST_FOR_P99 = 500


class Question(NamedTuple):
    """What is asked. ``variants``: name -> weight, shadows too; ``challengers``: () = all but the baseline;
    ``destination``: where captures are, empty where there are none; ``since``: epoch seconds."""

    endpoint: str
    variants: Mapping[str, float]
    metric: str = "accuracy"
    baseline: str = ""
    challengers: tuple[str, ...] = ()
    destination: str = ""
    since: float = 0.0
    effect: float | None = None
    alpha: float = 0.05
    better: str = ""
    attributes: Attributes = Attributes()
    limits: Limits = Limits()


@dataclass(slots=True)
class Seen:
    """What is known of one variant. ``latency``: a bucket's calls, the sum last; ``arm``: its labelled calls."""

    name: str
    weight: float
    arm: Arm
    invocations: float = 0.0
    errors: float = 0.0
    latency: list[float] = field(default_factory=list)
    captured: int = 0
    times: Quantiles = field(default_factory=Quantiles)
    first: float = math.inf
    last: float = -math.inf

    @property
    def rate(self) -> float:
        """The share of its calls that failed."""
        return min(self.errors / self.invocations, 1.0) if self.invocations else 0.0

    def p(self, q: float) -> float | None:
        """A quantile of its model latency, seconds."""
        return histograms.quantile(FAMILIES[_LATENCY].buckets, self.latency[:-1], q)

    def capture(self, record: Record) -> None:
        """A captured call of it."""
        self.captured += 1
        self.first, self.last = min(self.first, record.time), max(self.last, record.time)
        timing = record.metadata.get("timing")
        total = timing.get("total") if isinstance(timing, dict) else None
        if isinstance(total, int | float) and 0 <= total < math.inf:
            self.times.add(total / 1e6)


# --- the task -------------------------------------------------------------------------------------------------------


def verdict(args: Mapping[str, Any], means: Means) -> dict[str, Any]:
    """The task: ``args`` are a ``Question``'s, as ``question`` reads them. Raises ``ValidationError`` for unknown
    variants and metrics."""
    asked = question(args)
    metric = find(asked.metric, asked.better)
    complaints = Complaints()
    seen = {
        name: Seen(name, weight, Arm(asked.metric, asked.attributes, complaints))
        for name, weight in asked.variants.items()
    }
    if means.metrics_folder is not None:
        count(seen.values(), snapshot(means.metrics_folder), asked.endpoint)
    if asked.destination:
        look_up(asked, metric, seen, means, complaints)
    return report(asked, metric, seen, complaints)


def question(args: Mapping[str, Any]) -> Question:
    """What is asked, made sure of. Raises ``ValidationError``."""
    asked = Question(
        **{
            **args,
            "challengers": tuple(args.get("challengers", ())),
            "attributes": Attributes(**args.get("attributes", {})),
            "limits": Limits(**args.get("limits", {})),
        }
    )
    check(asked.attributes)
    for name in (*filter(None, [asked.baseline]), *asked.challengers):
        if name not in asked.variants:
            known = ", ".join(asked.variants) or "none"
            raise ValidationError(f"Endpoint {asked.endpoint} has no variant {name!r}; it has {known}.")
    if asked.baseline in asked.challengers:
        raise ValidationError(f"Variant {asked.baseline} cannot be its own challenger.")
    if not _LEAST_ALPHA <= asked.alpha <= 0.5:
        raise ValidationError(f"alpha is a number between {_LEAST_ALPHA:g} and 0.5.")
    if asked.effect is not None and not 0 < asked.effect < math.inf:
        raise ValidationError("The minimum effect is a number above 0.")
    return asked


def count(variants: Iterable[Seen], cells: Snapshot, endpoint: str) -> None:
    """Take calls, errors and latencies from the metrics, which are those since the server started."""
    for one in variants:
        labels = (endpoint, one.name)
        one.invocations = cells.get(("sagemaker_invocations_total", labels), [0.0])[0]
        one.errors = cells.get(("sagemaker_invocation_model_errors_total", labels), [0.0])[0]
        one.latency = cells.get((_LATENCY, labels), [])


def look_up(asked: Question, metric: Metric, seen: Mapping[str, Seen], means: Means, complaints: Complaints) -> None:
    """Take outcomes from the captures, and their labels where the metric needs them."""
    window = Window(asked.since, math.inf)

    def captured() -> Iterator[Record]:
        for record in read(means.objects, means.staging, asked.destination, asked.endpoint, window, complaints):
            if record.variant in seen:
                seen[record.variant].capture(record)
                yield record

    if not metric.labels:
        for _ in captured():
            pass
        return
    labels = read_labels(
        means.objects, f"{means.settings.ground_truth.rstrip('/')}/{asked.endpoint}", window, complaints
    )
    for record in merge(captured(), labels, complaints):
        seen[record.variant].arm.add(record)


# --- what follows ---------------------------------------------------------------------------------------------------


def report(asked: Question, metric: Metric, seen: Mapping[str, Seen], complaints: Complaints) -> dict[str, Any]:
    """The answer: every variant's numbers, every challenger's decision, the endpoint's."""
    baseline = asked.baseline or max(seen, key=lambda name: seen[name].weight, default="")
    challengers = asked.challengers or tuple(name for name in seen if name != baseline)
    alpha = asked.alpha / max(len(challengers), 1)
    found = [_judged(asked, metric, seen[baseline], seen[name], alpha) for name in challengers]
    told: dict[str, Any] = {
        "EndpointName": asked.endpoint,
        "Metric": asked.metric,
        "Baseline": baseline,
        "Alpha": asked.alpha,
        "Method": METHOD,
        "Variants": [_variant(asked, one) for one in seen.values()],
        "Challengers": [body for _, _, body in found],
        "Complaints": [{"Reason": one.reason, "Times": one.times} for one in complaints.all()],
    }
    if not found:
        of = f"only variant {baseline}" if baseline else "no variant"
        return told | {
            "Decision": "Keep",
            "Variant": baseline,
            "Sentence": f"Endpoint {asked.endpoint} has {of}: there is nothing to compare.",
        }
    best = overall([(facts, decision) for facts, decision, _ in found])
    return told | {"Decision": best.action, "Variant": best.variant, "Sentence": best.sentence}


def _judged(
    asked: Question, metric: Metric, first: Seen, second: Seen, alpha: float
) -> tuple[Facts, Decision, dict[str, Any]]:
    """One challenger beside the baseline."""
    estimates = _estimates(asked.metric, first, second)
    signed = sequential.between(*estimates, alpha)
    gain = signed if metric.sign > 0 else Interval(-signed.difference, -signed.high, -signed.low)
    number, error = sum(one.number for one in estimates), sum(one.error for one in estimates)
    effect = asked.effect or abs(gain.difference)
    facts = Facts(
        first.name,
        second.name,
        metric,
        (estimates[0].value, estimates[1].value),
        gain,
        max(sequential.needed(error, number, effect, alpha) - number, 0),
        alpha,
        asked.effect,
        _missing(asked, metric, first, second, estimates),
        _guards(first, second, asked.limits, alpha),
        asked.limits,
    )
    decision = decide(facts)
    variances = [one.error * one.number if math.isfinite(one.error) else math.inf for one in estimates]
    floor = (
        sequential.fixed_size(variances[0], variances[1], effect, alpha) if math.isfinite(sum(variances)) else math.inf
    )
    body = {
        "VariantName": second.name,
        "Decision": decision.action,
        "Sentence": decision.sentence,
        "Gain": finite(gain.difference),
        "GainLow": finite(gain.low),
        "GainHigh": finite(gain.high),
        "MinimumEffect": asked.effect,
        "MoreCallsNeeded": finite(facts.more),
        "FixedSizeCallsPerVariant": finite(floor),
        "ErrorRateIncrease": finite(facts.guards.errors.difference),
        "ErrorRateIncreaseLow": finite(facts.guards.errors.low),
    }
    return facts, decision, body


def _estimates(metric: str, first: Seen, second: Seen) -> tuple[Estimate, Estimate]:
    if metric == "error-rate":
        return sequential.estimates(*(sequential.of_rate(one.errors, one.invocations) for one in (first, second)))
    if metric == "latency":
        return sequential.estimates(_latency(first), _latency(second))
    return compared(metric, first.arm, second.arm)


def _latency(one: Seen) -> Moments:
    if not one.latency:
        return Moments()
    return histograms.moments(FAMILIES[_LATENCY].buckets, one.latency[:-1], one.latency[-1])


def _missing(asked: Question, metric: Metric, first: Seen, second: Seen, estimates: tuple[Estimate, Estimate]) -> str:
    """Why there is nothing to compare by, if so."""
    name = asked.endpoint
    idle = [one.name for one, known in zip((first, second), estimates, strict=True) if not known.number]
    if not idle:
        unknown = [one.name for one, known in zip((first, second), estimates, strict=True) if math.isnan(known.value)]
        return f"{' and '.join(unknown)} had no calls of both classes yet" if unknown else ""
    if not metric.labels:
        return f"{' and '.join(idle)} had no calls yet"
    if not asked.destination:
        return f"the {metric.words} comes from captured calls, and endpoint {name} captures none (DataCaptureConfig)"
    if not any(one.captured for one in (first, second)):
        return f"no call of endpoint {name} was captured yet"
    if any(one.arm.labelled for one in (first, second) if one.name in idle):
        return f"no labelled call of {' or '.join(idle)} says anything of the {metric.words}; the complaints say why"
    return f"no captured call of {' or '.join(idle)} has a label yet (POST /endpoints/{name}/ground-truth)"


def _guards(first: Seen, second: Seen, limits: Limits, alpha: float) -> Guards:
    """How far the challenger is within its limits."""
    rates = [sequential.of_rate(one.errors, one.invocations) for one in (first, second)]
    errors = sequential.difference(rates[0], rates[1], alpha)
    p99 = (first.p(0.99) or 0.0, second.p(0.99) or 0.0)
    slow = False
    if all(sum(one.latency[:-1]) >= _LEAST_FOR_P99 for one in (first, second)):
        late = histograms.beyond(FAMILIES[_LATENCY].buckets, second.latency[:-1], p99[0] * limits.latency)
        slow = sequential.above(late, 0.01, alpha)
    return Guards(errors, slow, (first.rate, second.rate), p99)


def _variant(asked: Question, one: Seen) -> dict[str, Any]:
    """A variant's numbers."""
    value = _estimates(asked.metric, one, one)[0]
    told: dict[str, Any] = {
        "VariantName": one.name,
        "Weight": one.weight,
        "Invocations": int(one.invocations),
        "Errors": int(one.errors),
        "ErrorRate": one.rate,
        "ModelLatencySeconds": {f"P{q * 100:g}": one.p(q) for q in _QUANTILES},
        "CapturedCalls": one.captured,
        "LabelledCalls": one.arm.labelled,
        "Value": finite(value.value) if value.number else None,
        "StandardError": finite(math.sqrt(value.error)) if value.number else None,
    }
    if one.times.count:
        told["CapturedLatencySeconds"] = one.times.as_json(_QUANTILES)
    if one.captured:
        told["FirstCapture"], told["LastCapture"] = _moment(one.first), _moment(one.last)
    return told


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
