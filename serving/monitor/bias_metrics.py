"""Bias metrics by SageMaker Clarify's definitions (SageMaker Developer Guide, "Measure Pre-training Bias", "Measure
Post-training Data and Model Bias"; the paper: Das et al. 2021, "Fairness Measures for Machine Learning in Finance").

*a* is the advantaged facet, *d* the disadvantaged one, the sensitive group. ``n(1)`` counts positive labels, ``n'(1)``
positive predictions, ``n(0)`` and ``n'(0)`` the others. All metrics but the flip test are functions of one table of
counts: ``table[facet, label, prediction, group]``, each of the first three 0 or 1 (facet 1 = *d*).

0 of 0 counts as 0, and anything else of 0 as infinite, as in Clarify's open-source library; the distances of label
distributions (KL, JS, LP, TVD, KS) are over both labels, also where one of them does not occur in a facet, which that
library leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Table = Any


class Undefined(ValueError):
    """A metric that has no value for this data; the text says why."""


class Metric(NamedTuple):
    """A metric's full name, its function of the table, and whether it looks at the group variable."""

    description: str
    value: Callable[[Table], float]
    grouped: bool = False


def ratio(part: float, whole: float) -> float:
    """``part / whole``, and what that is of nothing."""
    if whole:
        return float(part / whole)
    return math.copysign(math.inf, part) if part else 0.0


def _difference(left: float, right: float) -> float:
    """Of two infinite ratios there is none."""
    return 0.0 if left == right else left - right


class _Side:
    """The counts of one facet: of rows, labels, predictions and both."""

    def __init__(self, cells: Any) -> None:
        ((self.tn, self.fp), (self.fn, self.tp)) = cells.sum(axis=-1).tolist()
        self.n = self.tn + self.fp + self.fn + self.tp
        self.positive, self.negative = self.fn + self.tp, self.tn + self.fp
        self.accepted, self.rejected = self.fp + self.tp, self.tn + self.fn


def _sides(table: Table) -> tuple[_Side, _Side]:
    """*a* and *d*. Raises ``Undefined`` where either is empty."""
    a, d = _Side(table[0]), _Side(table[1])
    if not a.n or not d.n:
        raise Undefined(f"No row is {'in' if a.n else 'outside'} the facet.")
    return a, d


# --- before training ------------------------------------------------------------------------------------------------


def _ci(table: Table) -> float:
    a, d = _sides(table)
    return float((a.n - d.n) / (a.n + d.n))


def _dpl(table: Table) -> float:
    a, d = _sides(table)
    return ratio(a.positive, a.n) - ratio(d.positive, d.n)


def _distributions(table: Table) -> tuple[Any, Any]:
    """The shares of the labels 0 and 1 in either facet."""
    a, d = _sides(table)
    return np.array([a.negative, a.positive]) / a.n, np.array([d.negative, d.positive]) / d.n


def _relative_entropy(p: Any, q: Any) -> float:
    """Σ p·ln(p/q), natural logarithm; infinite where q lacks what p has."""
    if ((p > 0) & (q == 0)).any():
        return math.inf
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def _kl(table: Table) -> float:
    return _relative_entropy(*_distributions(table))


def _js(table: Table) -> float:
    p, q = _distributions(table)
    middle = (p + q) / 2
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2


def _norm(order: float) -> Callable[[Table], float]:
    def value(table: Table) -> float:
        p, q = _distributions(table)
        return float(np.linalg.norm(p - q, order))

    return value


def _cdd(outcomes: Any) -> float:
    """Σ n_g·DD_g / n over the groups g; DD is *d*'s share of the rejected less its share of the accepted.
    ``outcomes[facet, outcome, group]``."""
    rejected, accepted = outcomes.sum(axis=0)
    if not rejected.sum() or not accepted.sum():
        raise Undefined(f"No outcome is {'positive' if rejected.sum() else 'negative'}.")
    disparities = [
        ratio(no, all_no) - ratio(yes, all_yes)
        for no, all_no, yes, all_yes in zip(outcomes[1, 0], rejected, outcomes[1, 1], accepted, strict=True)
    ]
    return float(np.average(disparities, weights=rejected + accepted))


def _cddl(table: Table) -> float:
    _sides(table)
    return _cdd(table.sum(axis=2))


# --- after training -------------------------------------------------------------------------------------------------


def _dppl(table: Table) -> float:
    a, d = _sides(table)
    return ratio(a.accepted, a.n) - ratio(d.accepted, d.n)


def _di(table: Table) -> float:
    a, d = _sides(table)
    return ratio(ratio(d.accepted, d.n), ratio(a.accepted, a.n))


def _dca(table: Table) -> float:
    a, d = _sides(table)
    return _difference(ratio(a.positive, a.accepted), ratio(d.positive, d.accepted))


def _dcr(table: Table) -> float:
    a, d = _sides(table)
    return _difference(ratio(d.negative, d.rejected), ratio(a.negative, a.rejected))


def _sd(table: Table) -> float:
    a, d = _sides(table)
    return ratio(d.tn, d.negative) - ratio(a.tn, a.negative)


def _rd(table: Table) -> float:
    a, d = _sides(table)
    return ratio(a.tp, a.positive) - ratio(d.tp, d.positive)


def _dar(table: Table) -> float:
    a, d = _sides(table)
    return ratio(a.tp, a.accepted) - ratio(d.tp, d.accepted)


def _drr(table: Table) -> float:
    a, d = _sides(table)
    return ratio(d.tn, d.rejected) - ratio(a.tn, a.rejected)


def _ad(table: Table) -> float:
    a, d = _sides(table)
    return ratio(a.tp + a.tn, a.n) - ratio(d.tp + d.tn, d.n)


def _te(table: Table) -> float:
    a, d = _sides(table)
    return _difference(ratio(d.fn, d.fp), ratio(a.fn, a.fp))


def _cddpl(table: Table) -> float:
    _sides(table)
    return _cdd(table.sum(axis=1))


def _ge(table: Table) -> float:
    """The generalised entropy index of the benefits b = prediction - label + 1, alpha = 2: half the squared
    coefficient of variation. Over all rows, whatever their facet."""
    (tn, fp), (fn, tp) = table.sum(axis=(0, 3)).tolist()
    benefits, rows = np.array([0.0, 1.0, 2.0]), np.array([fn, tn + tp, fp])
    mean = ratio(float(benefits @ rows), rows.sum())
    if not mean:
        raise Undefined("Every prediction is a false negative." if rows.sum() else "There are no rows.")
    return float(((benefits / mean) ** 2 - 1) @ rows / (2 * rows.sum()))


PRE_TRAINING: Mapping[str, Metric] = {
    "CDDL": Metric("Conditional Demographic Disparity in Labels (CDDL)", _cddl, grouped=True),
    "CI": Metric("Class Imbalance (CI)", _ci),
    "DPL": Metric("Difference in Positive Proportions in Labels (DPL)", _dpl),
    "JS": Metric("Jensen-Shannon Divergence (JS)", _js),
    "KL": Metric("Kullback-Liebler Divergence (KL)", _kl),
    "KS": Metric("Kolmogorov-Smirnov Distance (KS)", _norm(math.inf)),
    "LP": Metric("L-p Norm (LP)", _norm(2)),
    "TVD": Metric("Total Variation Distance (TVD)", lambda table: _norm(1)(table) / 2),
}
POST_TRAINING: Mapping[str, Metric] = {
    "AD": Metric("Accuracy Difference (AD)", _ad),
    "CDDPL": Metric("Conditional Demographic Disparity in Predicted Labels (CDDPL)", _cddpl, grouped=True),
    "DAR": Metric("Difference in Acceptance Rates (DAR)", _dar),
    "DCA": Metric("Difference in Conditional Acceptance (DCA)", _dca),
    "DCR": Metric("Difference in Conditional Rejection (DCR)", _dcr),
    "DI": Metric("Disparate Impact (DI)", _di),
    "DPPL": Metric("Difference in Positive Proportions in Predicted Labels (DPPL)", _dppl),
    "DRR": Metric("Difference in Rejection Rates (DRR)", _drr),
    "GE": Metric("Generalized Entropy (GE)", _ge),
    "RD": Metric("Recall Difference (RD)", _rd),
    "SD": Metric("Specificity Difference (SD)", _sd),
    "TE": Metric("Treatment Equality (TE)", _te),
}
FLIP_TEST = "Flip Test (FT)"
#: Neighbours that are asked, of ten advantaged rows or more; of fewer, one.
NEIGHBOURS, FEW = 5, 9
#: Rows of either facet that the flip test looks at, at most: a sample of them.
MOST_FLIPPED = 10_000


def table_of(facet: Any, label: Any, prediction: Any, group: Any) -> Table:
    """The table of rows. ``facet``, ``label``, ``prediction``: booleans; ``group``: numbers of groups, from 0."""
    groups = int(group.max()) + 1 if len(group) else 1
    shape = (2, 2, 2, groups)
    places = np.ravel_multi_index((facet.astype(int), label.astype(int), prediction.astype(int), group), shape)
    return np.bincount(places, minlength=math.prod(shape)).reshape(shape)


def flip_test(features: Any, facet: Any, prediction: Any, seed: int = 0) -> float:
    """(F+ - F-) / n_d: of the disadvantaged rows that the model rejects or accepts, those for which most of their
    nearest advantaged neighbours got the other prediction (Black, Yeom, Fredrikson 2020, "FlipTest"; k-nearest
    neighbours instead of a generative model, as Clarify has it). F+ are accepted ones whose neighbours were rejected.
    ``features``: numbers, a row each. Raises ``Undefined``."""
    from sklearn.neighbors import KNeighborsClassifier

    if not facet.any() or facet.all():
        raise Undefined(f"No row is {'outside' if facet.any() else 'in'} the facet.")
    if not features.shape[1] or not np.isfinite(features).all():
        raise Undefined("The flip test needs features that are all numbers.")
    dice = np.random.default_rng(seed)
    a, d = (_sampled(np.flatnonzero(one), dice) for one in (~facet, facet))
    neighbours = KNeighborsClassifier(NEIGHBOURS if len(a) > FEW else 1).fit(features[a], prediction[a])
    expected = neighbours.predict(features[d])
    return float((prediction[d].astype(int) - expected.astype(int)).mean())


def _sampled(rows: Any, dice: np.random.Generator) -> Any:
    return rows if len(rows) <= MOST_FLIPPED else np.sort(dice.choice(rows, MOST_FLIPPED, replace=False))


def interval(metric: Metric, table: Table, confidence: float, samples: int, seed: int) -> tuple[float, float]:
    """The normal bootstrap interval: the value ± z times the deviation over resampled tables (Efron, Tibshirani 1993,
    ch. 13; the Developer Guide's "Monitor Bias Drift"). Samples that have no finite value do not count; the interval is
    endless when there are too few. Raises ``Undefined``."""
    from scipy.stats import norm

    value, rows = metric.value(table), int(table.sum())
    dice = np.random.default_rng(seed)
    drawn = []
    for cells in dice.multinomial(rows, (table / rows).ravel(), size=samples):
        try:
            drawn.append(metric.value(cells.reshape(table.shape)))
        except Undefined:
            continue
    finite = [one for one in drawn if math.isfinite(one)]
    if not math.isfinite(value) or len(finite) < max(2, samples // 2):
        return -math.inf, math.inf
    reach = float(norm.ppf((1 + confidence) / 2)) * float(np.std(finite, ddof=1))
    return value - reach, value + reach
