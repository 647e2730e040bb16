"""K-Means over rows that come once: many centres are kept, states of several streams merge, in the end few remain.

What SageMaker's K-Means describes, with x times as many centres as are wanted (``extra_center_factor``)::

    rows ---> absorb ---> Summary of k * x centres --+
    rows ---> absorb ---> Summary of k * x centres --+-- merge --> Summary --> reduce --> k centres

- A row goes to the nearest centre, and a centre is the mean of all it was given: Sculley, "Web-Scale K-Means
  Clustering", WWW 2010, whose learning rate is one over a centre's count.
- Merging groups nearby centres and adds their statistics, as clustering features add up: Zhang, Ramakrishnan and Livny,
  "BIRCH", SIGMOD 1996. Why few weighted centres may stand for many rows: Ailon, Jaiswal and Monteleoni, "Streaming
  k-means approximation", NIPS 2009.
- Starting centres are drawn by k-means++ (Arthur and Vassilvitskii, SODA 2007), ends found by Lloyd's steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is kept of a stream, a row a centre: how many rows it was given, their sum, their squared lengths.

    ``counts`` float64 [centres], all above 0; ``sums`` [centres, columns]; ``squares`` [centres]. Two of disjoint
    streams add up: no statistic is lost by ``merge``, whichever way the stream was split.
    """

    counts: Numbers
    sums: Numbers
    squares: Numbers

    @property
    def centres(self) -> Numbers:
        """[centres, columns]"""
        means: Numbers = self.sums / self.counts[:, np.newaxis]
        return means

    @property
    def spread(self) -> float:
        """The squared distances of all rows from the centres they were given to, summed: squares less what the means
        explain (Koenig and Huygens)."""
        return float((self.squares - np.einsum("ij,ij->i", self.sums, self.sums) / self.counts).clip(0).sum())

    def grouped(self, groups: NDArray[np.intp]) -> Summary:
        """The centres of one number in ``groups`` as one. Nothing is lost: all three statistics are sums."""
        used, place = np.unique(groups, return_inverse=True)
        belongs = np.zeros((len(used), len(place)))
        belongs[place, np.arange(len(place))] = 1.0
        return Summary(belongs @ self.counts, belongs @ self.sums, belongs @ self.squares)


def of_rows(rows: Numbers) -> Summary:
    """Each of ``rows`` as a centre of its own."""
    return Summary(np.ones(len(rows)), rows.astype(np.float64), np.einsum("ij,ij->i", rows, rows))


def joined(one: Summary, other: Summary) -> Summary:
    """The centres of both."""
    return Summary(
        np.concatenate([one.counts, other.counts]),
        np.concatenate([one.sums, other.sums]),
        np.concatenate([one.squares, other.squares]),
    )


def absorb(batches: Iterable[Numbers], most: int, dice: np.random.Generator) -> Summary:
    """One pass over a stream, a batch of rows at a time, each looked at once; at most ``most`` centres.

    The first batch chooses the centres. Raises ValueError for a stream without rows."""
    found: Summary | None = None
    for batch in batches:
        rows = of_rows(batch)
        if found is None:
            found = shrunk(rows, most, dice)
        elif len(batch):
            near = nearest(batch, found.centres)[0]
            found = joined(found, rows).grouped(np.concatenate([np.arange(len(found.counts)), near]))
    if found is None:
        raise ValueError("the stream has no rows")
    return found


def merge(one: Summary, other: Summary, most: int, dice: np.random.Generator) -> Summary:
    """The state of both streams, with at most ``most`` centres."""
    return shrunk(joined(one, other), most, dice)


def shrunk(summary: Summary, most: int, dice: np.random.Generator) -> Summary:
    """``summary`` with at most ``most`` centres: the others are added to the nearest of ``most`` chosen ones."""
    if len(summary.counts) <= most:
        return summary
    seeds = seeded(summary, most, dice)
    return summary.grouped(nearest(summary.centres, seeds)[0])


def reduce(summary: Summary, k: int, dice: np.random.Generator, trials: int = 10, steps: int = 100) -> Numbers:
    """The ``k`` centres that serve: the best of some ``trials`` of Lloyd's algorithm over the weighted centres."""
    tried = (lloyd(summary, seeded(summary, k, dice), steps) for _ in range(trials))
    return min(tried, key=lambda centres: cost(summary, centres))


def lloyd(summary: Summary, centres: Numbers, steps: int) -> Numbers:
    """Weighted Lloyd's steps until nothing changes. A centre that nothing is near to stays where it is."""
    points = summary.centres
    given: NDArray[np.intp] | None = None
    for _ in range(steps):
        now = nearest(points, centres)[0]
        if given is not None and bool((now == given).all()):
            break
        given, centres = now, centres.copy()
        centres[np.unique(now)] = summary.grouped(now).centres
    return centres


def seeded(summary: Summary, k: int, dice: np.random.Generator) -> Numbers:
    """``k`` centres by k-means++, each drawn with a chance in proportion to its weight times its squared distance from
    those before; of a few candidates, the one that leaves the least. Where fewer places differ, some are drawn twice.
    """
    points, weights = summary.centres, summary.counts
    chosen = [int(dice.choice(len(points), p=weights / weights.sum()))]
    distance = _squared(points, points[chosen])[:, 0]
    candidates = 2 + int(np.log(k))
    for _ in range(1, k):
        chance = weights * distance
        total = chance.sum()
        drawn = dice.choice(len(points), candidates, p=chance / total if total > 0 else None)
        left = np.minimum(distance[:, np.newaxis], _squared(points, points[drawn]))
        best = int(np.argmin(weights @ left))
        chosen.append(int(drawn[best]))
        distance = left[:, best]
    return points[chosen]


def nearest(rows: Numbers, centres: Numbers) -> tuple[NDArray[np.intp], Numbers]:
    """For each row the number of the nearest centre, the first of equals, and the squared distance from it."""
    squared = _squared(rows, centres)
    found = squared.argmin(axis=1)
    return found, squared[np.arange(len(rows)), found]


def cost(summary: Summary, centres: Numbers) -> float:
    """The squared distances of the summary's centres from the nearest of ``centres``, by weight."""
    return float(summary.counts @ nearest(summary.centres, centres)[1])


def _squared(rows: Numbers, centres: Numbers) -> Numbers:
    """[rows, centres], by one matrix product; what rounding makes negative is 0."""
    lengths = np.einsum("ij,ij->i", rows, rows)[:, np.newaxis] + np.einsum("ij,ij->i", centres, centres)
    squared: Numbers = (lengths - 2.0 * rows @ centres.T).clip(0.0)
    return squared
