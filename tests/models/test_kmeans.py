"""K-Means over streams: what no merging loses, what few centres cost, and the graph that answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.kmeans import stream
from models.kmeans.train import graph
from models.packaging import onnx_bytes, onnx_run

Numbers = NDArray[np.float64]
#: Small whole numbers: many equal rows, and sums that are exact in any order.
ROWS = st.integers(1, 30).flatmap(lambda rows: arrays(np.float64, (rows, 2), elements=st.integers(-9, 9).map(float)))
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=60)


def dice(seed: int) -> np.random.Generator:
    """The same throws for the same seed."""
    return np.random.default_rng(seed)


def totals(summary: stream.Summary) -> tuple[float, list[float], float]:
    """How many rows, their sum, their squared lengths."""
    return float(summary.counts.sum()), summary.sums.sum(axis=0).tolist(), float(summary.squares.sum())


def of(rows: Numbers) -> tuple[float, list[float], float]:
    """The same of rows."""
    return float(len(rows)), rows.sum(axis=0).tolist(), float((rows**2).sum())


def placed(summary: stream.Summary) -> list[tuple[float, ...]]:
    """A summary without the order of its centres."""
    table = np.column_stack([summary.counts, summary.sums, summary.squares])
    return sorted(map(tuple, table.tolist()))


@FEW
@given(rows=ROWS, batch=st.integers(1, 9), most=st.integers(1, 6), seed=SEEDS)
def test_stream_is_summed_up_whole(rows: Numbers, batch: int, most: int, seed: int) -> None:
    """Count, sum and squares of all rows are kept, by at most so many centres, however the stream is cut."""
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    found = stream.absorb(batches, most, dice(seed))
    assert of(rows) == totals(found)
    assert most >= len(found.counts)
    assert (found.counts > 0).all()


@FEW
@given(rows=ROWS, parts=st.integers(1, 5), most=st.integers(1, 6), seed=SEEDS)
def test_merging_loses_nothing(rows: Numbers, parts: int, most: int, seed: int) -> None:
    """Several streams' states, merged one by one, sum up to what one stream of all would."""
    throws = dice(seed)
    states = [stream.absorb([part], most, throws) for part in np.array_split(rows, parts) if len(part)]
    merged = states[0]
    for state in states[1:]:
        merged = stream.merge(merged, state, most, throws)
    assert of(rows) == totals(merged)
    assert most >= len(merged.counts)


@FEW
@given(one=ROWS, other=ROWS, third=ROWS)
def test_merging_is_the_same_in_any_order(one: Numbers, other: Numbers, third: Numbers) -> None:
    """While there is room for all centres, merging commutes and associates."""
    a, b, c = map(stream.of_rows, (one, other, third))
    room, throws = 100, dice(0)
    assert placed(stream.merge(a, b, room, throws)) == placed(stream.merge(b, a, room, throws))
    left = stream.merge(stream.merge(a, b, room, throws), c, room, throws)
    right = stream.merge(a, stream.merge(b, c, room, throws), room, throws)
    assert placed(left) == placed(right)


@FEW
@given(rows=ROWS, seed=SEEDS)
def test_spread_is_what_rows_are_away_from_their_centres(rows: Numbers, seed: int) -> None:
    """Reckoned from three sums, without the rows."""
    groups = dice(seed).integers(0, 3, len(rows))
    summary = stream.of_rows(rows).grouped(groups)
    means = {group: rows[groups == group].mean(axis=0) for group in groups}
    expected = sum(float(((row - means[group]) ** 2).sum()) for row, group in zip(rows, groups, strict=True))
    assert pytest.approx(expected, abs=1e-8) == summary.spread


@FEW
@given(rows=ROWS, most=st.integers(2, 8), k=st.integers(1, 4), seed=SEEDS)
def test_stream_promises_no_less_than_it_costs(rows: Numbers, most: int, k: int, seed: int) -> None:
    """Rows are as near to the final centres as spread and weighted cost of the summary say, or nearer."""
    throws = dice(seed)
    summary = stream.absorb([rows], most, throws)
    centres = stream.reduce(summary, k, throws, trials=2)
    truth = stream.nearest(rows, centres)[1].sum()
    assert truth <= summary.spread + stream.cost(summary, centres) + 1e-6
    assert (k, 2) == centres.shape


@FEW
@given(rows=ROWS, k=st.integers(1, 4), steps=st.integers(1, 5), seed=SEEDS)
def test_steps_of_lloyd_never_cost_more(rows: Numbers, k: int, steps: int, seed: int) -> None:
    """Each step to the means of what is nearest is no step up."""
    summary = stream.of_rows(rows)
    seeds = stream.seeded(summary, k, dice(seed))
    assert stream.cost(summary, stream.lloyd(summary, seeds, steps)) <= stream.cost(summary, seeds) + 1e-9


def test_weight_counts_as_that_many_rows() -> None:
    """A centre of three rows pulls as three do: the mean of 0, 0, 0 and 4."""
    summary = stream.joined(
        stream.of_rows(np.zeros((3, 1))).grouped(np.zeros(3, np.intp)), stream.of_rows(np.array([[4.0]]))
    )
    assert [[1.0]] == stream.lloyd(summary, np.array([[2.0]]), 5).tolist()


def test_first_centres_are_drawn_by_weight_and_distance() -> None:
    """Of two equally far centres the heavy one is drawn, of two equally heavy ones the far one."""
    places, weights = np.array([[0.0], [10.0], [-10.0], [-1.0]]), np.array([1e9, 1e6, 1e3, 1e6])
    heavy = stream.Summary(weights, places * weights[:, np.newaxis], weights * places[:, 0] ** 2)
    drawn = [sorted(stream.seeded(heavy, 2, dice(seed))[:, 0].tolist()) for seed in range(20)]
    assert 18 <= drawn.count([0.0, 10.0])


def test_one_pass_finds_what_many_passes_find() -> None:
    """Six heaps, in three streams of small batches: within three parts in a hundred of Lloyd's steps over all rows."""
    throws = dice(11)
    middles = throws.uniform(-10, 10, (6, 3))
    rows = throws.permutation(np.concatenate([middle + throws.normal(size=(100, 3)) for middle in middles]))
    states = [stream.absorb(np.array_split(part, 5), 6 * 5, throws) for part in np.array_split(rows, 3)]
    merged = stream.merge(stream.merge(states[0], states[1], 30, throws), states[2], 30, throws)
    found = stream.nearest(rows, stream.reduce(merged, 6, throws))[1].sum()
    again_and_again = stream.nearest(rows, stream.reduce(stream.of_rows(rows), 6, throws))[1].sum()
    assert again_and_again * 1.03 > found


def test_stream_without_rows_is_refused() -> None:
    """There is nothing to be the mean of."""
    with pytest.raises(ValueError, match="the stream has no rows"):
        stream.absorb([], 3, dice(0))


@FEW
@given(rows=ROWS, centres=arrays(np.float64, (4, 2), elements=st.integers(-9, 9).map(float)))
def test_graph_answers_as_the_definition(rows: Numbers, centres: Numbers) -> None:
    """The number of the nearest centre, of equally near ones the first, and the Euclidean distance to it."""
    answer = onnx_run(onnx_bytes(graph(centres.astype(np.float32), "k")), {"features": rows.astype(np.float32)})
    far = [[float(np.linalg.norm(row - centre)) for centre in centres] for row in rows]
    assert [distances.index(min(distances)) for distances in far] == answer["closest_cluster"].tolist()
    np.testing.assert_allclose(answer["distance_to_cluster"], [min(distances) for distances in far], rtol=1e-6)


def test_close_rows_far_from_the_origin_keep_their_distance() -> None:
    """The graph takes differences first: the short form of the square would leave only rounding here."""
    centres = np.full((2, 2), 10_000, np.float32)
    rows = centres + np.array([[0.25, 0], [0, 0]], np.float32)
    answer = onnx_run(onnx_bytes(graph(centres, "k")), {"features": rows})
    assert [0.25, 0.0] == answer["distance_to_cluster"].tolist()
