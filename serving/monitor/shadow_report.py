"""What a shadow variant would have answered, beside what production did: how often and how far they differ, and how
much longer it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.monitor.captures import read
from serving.monitor.difference import Comparison, Difference, Kind, Pair
from serving.monitor.joining import Both, Joined
from serving.monitor.predictions import Attributes, check
from serving.monitor.sequential import Moments
from serving.monitor.tasks import Means
from serving.monitor.values import Complaints, Record, Window
from serving.watch.metrics import Snapshot, snapshot

_CONFIDENCE = 0.95
_MOST_EXAMPLES = 100


class Question(NamedTuple):
    """What is asked. ``production``, ``shadows``: the endpoint's variants; ``shadow``: the one that is meant, empty
    where there is only one; ``bodies``: whether the examples are shown with what callers sent; ``since``: epoch
    seconds; ``metrics``: whether times may be those of all calls since the server started."""

    endpoint: str
    production: tuple[str, ...]
    shadows: tuple[str, ...]
    shadow: str = ""
    destination: str = ""
    since: float = 0.0
    metrics: bool = True
    kind: Kind | str = ""
    worst: int = 10
    bodies: bool = False
    attributes: Attributes = Attributes()


class Latency(NamedTuple):
    """Pairs of times, seconds: means of both, the mean difference (shadow minus production) and its confidence
    interval. ``source``: ``metrics`` (all calls since the server started) or ``captures``."""

    source: str
    pairs: int
    production: float
    shadow: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """How much longer the shadow takes."""
        return self.shadow - self.production

    def as_json(self) -> dict[str, Any]:
        """With the confidence it has."""
        return {
            "Source": self.source,
            "Pairs": self.pairs,
            "ProductionMeanSeconds": self.production,
            "ShadowMeanSeconds": self.shadow,
            "MeanDifferenceSeconds": self.difference,
            "MeanDifferenceLow": self.low,
            "MeanDifferenceHigh": self.high,
            "Confidence": _CONFIDENCE,
        }


# --- the task -------------------------------------------------------------------------------------------------------


def shadow_report(args: Mapping[str, Any], means: Means) -> dict[str, Any]:
    """The task: ``args`` are a ``Question``'s. Raises ``ValidationError`` for unknown variants."""
    asked = question(args)
    complaints = Complaints()
    times = Times()
    joined = Joined(*_streams(asked, means, complaints), complaints)
    found = compared(joined, asked, times, complaints)
    latency = None
    if means.metrics_folder is not None and asked.metrics:
        latency = of_cells(snapshot(means.metrics_folder), asked)
    latency = latency or times.latency
    return {
        "EndpointName": asked.endpoint,
        "ProductionVariants": list(asked.production),
        "ShadowVariant": asked.shadow,
        "Sentence": sentence(asked, found, latency),
        "ProductionCaptures": joined.records[False],
        "ShadowCaptures": joined.records[True],
        "UnmatchedProductionCaptures": joined.unmatched[False],
        "UnmatchedShadowCaptures": joined.unmatched[True],
        "Latency": latency.as_json() if latency else None,
        **found.as_json(asked.bodies),
        "Complaints": [{"Reason": one.reason, "Times": one.times} for one in complaints.all()],
    }


def question(args: Mapping[str, Any]) -> Question:
    """What is asked, made sure of. Raises ``ValidationError``."""
    asked = Question(
        **{
            **args,
            "production": tuple(args["production"]),
            "shadows": tuple(args["shadows"]),
            "attributes": Attributes(**args.get("attributes", {})),
        }
    )
    check(asked.attributes)
    if not asked.shadows:
        raise ValidationError(f"Endpoint {asked.endpoint} has no shadow variant.")
    known = ", ".join(asked.shadows)
    if asked.shadow and asked.shadow not in asked.shadows:
        raise ValidationError(f"Endpoint {asked.endpoint} has no shadow variant {asked.shadow!r}; it has {known}.")
    if not asked.shadow and len(asked.shadows) > 1:
        raise ValidationError(f"Endpoint {asked.endpoint} has several shadow variants, {known}: say which is meant.")
    return asked._replace(shadow=asked.shadow or asked.shadows[0], worst=max(0, min(asked.worst, _MOST_EXAMPLES)))


def _streams(asked: Question, means: Means, complaints: Complaints) -> tuple[list[Iterator[Record]], Iterator[Record]]:
    """The captures of each production variant, and of the shadow."""
    if not asked.destination:
        return [], iter(())
    window = Window(asked.since, math.inf)
    of = partial(read, means.objects, means.staging, asked.destination, asked.endpoint, window, complaints)
    return [of((name,)) for name in asked.production], of((asked.shadow,))


def compared(joined: Joined, asked: Question, times: Times, complaints: Complaints) -> Difference:
    """Compare the answers of all calls that both variants answered."""
    comparison = Comparison(asked.kind, asked.attributes, asked.worst, complaints)  # type: ignore[arg-type]  # checked there
    for both in joined:
        first, second = both.production.output, both.shadow.output
        if first is None or second is None:
            who = "both" if first is second else "production" if first is None else "the shadow"
            complaints.add(f"a call without an answer of {who}", both.production.key)
            continue
        times.add(both)
        comparison.add(Pair(first, second, both.production.key, both.production.input or both.shadow.input))
    return comparison.result()


# --- latency --------------------------------------------------------------------------------------------------------


class Times:
    """Times of captured pairs, where the server wrote them down (setting ``capture_details``)."""

    def __init__(self) -> None:
        self._differences = Moments()
        self._production = 0.0

    def add(self, both: Both) -> None:
        """One more pair, if both have a time."""
        first, second = (_total(one) for one in both)
        if first is not None and second is not None:
            self._differences = self._differences.plus(second - first)
            self._production += first

    @property
    def latency(self) -> Latency | None:
        """None of no times."""
        number = self._differences.number
        if not number:
            return None
        mean, radius = self._differences.mean, _radius(number, self._differences.variance)
        production = self._production / number
        return Latency("captures", number, production, production + mean, mean - radius, mean + radius)


def _total(record: Record) -> float | None:
    """Seconds from acceptance to answer."""
    timing = record.metadata.get("timing")
    total = timing.get("total") if isinstance(timing, dict) else None
    return total / 1e6 if isinstance(total, int | float) and math.isfinite(total) else None


def of_cells(cells: Snapshot, asked: Question) -> Latency | None:
    """By the moments that are counted of each pair (``shadows.py`` has the formula); None of no pairs."""

    def total(name: str, *more: str) -> float:
        labels = [(asked.endpoint, asked.shadow, production, *more) for production in asked.production]
        return sum(cells.get((f"sagemaker_shadow_{name}_total", one), [0.0])[0] for one in labels)

    pairs = int(total("pairs"))
    if pairs <= 0:
        return None
    production, shadow = total("pair_seconds", "production"), total("pair_seconds", "shadow")
    mean = (shadow - production) / pairs
    squares = max(total("pair_squared_difference") - pairs * mean * mean, 0.0)
    radius = _radius(pairs, squares / (pairs - 1) if pairs > 1 else 0.0)
    return Latency("metrics", pairs, production / pairs, shadow / pairs, mean - radius, mean + radius)


def _radius(number: int, variance: float) -> float:
    """Half of Student's interval for a mean; of one number there is none."""
    from scipy.special import stdtrit

    if number < 2:
        return 0.0
    return float(stdtrit(number - 1, (1 + _CONFIDENCE) / 2)) * math.sqrt(variance / number)


# --- in words -------------------------------------------------------------------------------------------------------


def sentence(asked: Question, found: Difference, latency: Latency | None) -> str:
    """How often, how far, how much longer."""
    return f"{_agreed(asked, found)}; {_slower(asked, latency)}."


def _agreed(asked: Question, found: Difference) -> str:
    if not asked.destination:
        return f"Endpoint {asked.endpoint} captures nothing (DataCaptureConfig), so no answers can be compared"
    if found.agreement is None:
        return f"No call that production and {asked.shadow} both answered was captured yet"
    how = {"classification": "the same class", "regression": "the same number", "text": "the same answer"}[found.kind]
    told = f"Production and {asked.shadow} gave {how} in {found.agreement:.2%} of {found.pairs:,} calls"
    if found.kind == "regression" and found.numbers.absolute.count:
        told += f", and differ by {found.numbers.absolute.at(0.5):.3g} in the median"
    return told


def _slower(asked: Question, latency: Latency | None) -> str:
    if latency is None:
        return "there are no times of both yet"
    if latency.pairs < 2:
        return "there is only one time of both yet"
    low, high = latency.low * 1e3, latency.high * 1e3
    if low <= 0 <= high:
        return (
            f"{asked.shadow} is as fast, as far as one can tell ({low:.3g} to {high:.3g} ms, {_CONFIDENCE:.0%} certain)"
        )
    word = "slower" if low > 0 else "faster"
    near, far = sorted((abs(low), abs(high)))
    return f"{asked.shadow} is {near:.3g} to {far:.3g} ms {word} in the mean ({_CONFIDENCE:.0%} certain)"
