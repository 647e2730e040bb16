"""Linear Learner, k-NN and PCA: the graphs of the gallery against their formulas; flights that trees learn from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models import flights
from models.knn import train as knn
from models.linear_learner import train as linear_learner
from models.packaging import onnx_bytes, onnx_run
from models.pca import train as pca

Floats = NDArray[np.float32]
#: Small whole numbers: many ties, and sums that float32 holds exactly.
POINTS = arrays(np.float32, (9, 3), elements=st.integers(-4, 4).map(float))
ASKED = arrays(np.float32, (4, 3), elements=st.integers(-6, 6).map(float))
LABELS = arrays(np.int64, 9, elements=st.integers(0, 3))
FEW = settings(max_examples=40)


def nearest(
    kept: Floats, labels: NDArray[np.int64], asked: Floats, count: int
) -> list[tuple[int, list[float], list[int]]]:
    """The definition: sort all by distance, equal ones by age; count votes, equal ones to the smaller label."""
    found = []
    for row in asked:
        far = [float(np.linalg.norm(row.astype(float) - one.astype(float))) for one in kept]
        order = sorted(range(len(kept)), key=lambda at: (far[at], at))[:count]
        votes = [labels[at] for at in order]
        winner = max(range(4), key=lambda label: (votes.count(label), -label))
        found.append((winner, [far[at] for at in order], [int(label) for label in votes]))
    return found


@FEW
@given(kept=POINTS, labels=LABELS, asked=ASKED)
def test_neighbours_are_those_of_the_definition(kept: Floats, labels: NDArray[np.int64], asked: Floats) -> None:
    """Distances ascend, ties keep the order of training, the smaller label wins an even vote."""
    answer = onnx_run(onnx_bytes(knn.graph_of(kept, labels, 3, "knn")), {"features": asked})
    for row, (winner, far, votes) in enumerate(nearest(kept, labels, asked, 3)):
        assert winner == answer["predicted_label"][row]
        assert votes == answer["labels"][row].tolist()
        np.testing.assert_allclose(answer["distances"][row], far, atol=1e-6)


def test_rounding_makes_no_distance_a_root_of_less_than_nothing() -> None:
    """Rows far from the origin and close to each other lose digits, but their distances stay numbers."""
    kept = np.random.default_rng(7).normal(1000, 0.1, (20, 6)).astype(np.float32)
    labels = np.arange(20)
    answer = onnx_run(onnx_bytes(knn.graph_of(kept, labels, 2, "knn")), {"features": kept})
    assert np.isfinite(answer["distances"]).all()


@FEW
@given(
    mean=arrays(np.float32, 3, elements=st.floats(-5000, 5000, width=32)),
    weights=arrays(np.float32, 3, elements=st.floats(-2, 2, width=32)),
    bias=st.floats(-3, 3, width=32),
    offsets=arrays(np.float32, (5, 3), elements=st.floats(-8, 8, width=32)),
)
def test_linear_score_is_the_logistic_of_the_weighted_sum(
    mean: Floats, weights: Floats, bias: float, offsets: Floats
) -> None:
    """Columns of thousands lose no digits, and the label is 1 just above one half."""
    rows = mean + offsets
    answer = onnx_run(onnx_bytes(linear_learner.graph_of(mean, weights, bias, "linear")), {"features": rows})
    margin = (rows.astype(float) - mean.astype(float)) @ weights.astype(float) + bias
    np.testing.assert_allclose(answer["score"], 1 / (1 + np.exp(-margin)), atol=2e-6)
    assert (answer["score"] > 0.5).tolist() == answer["predicted_label"].astype(bool).tolist()


def test_projections_are_coordinates_along_right_angled_directions() -> None:
    """The mean is the origin, a unit step along a direction is one there and none elsewhere."""
    directions = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0][:4].astype(np.float32)
    mean = np.arange(6, dtype=np.float32)
    rows = np.concatenate((mean[None], mean + directions))
    answer = onnx_run(onnx_bytes(pca.graph_of(mean, directions, "pca")), {"features": rows})
    np.testing.assert_allclose(answer["projection"], np.concatenate((np.zeros((1, 4)), np.eye(4))), atol=1e-6)


def test_graphs_say_the_same_of_a_row_alone_and_among_others() -> None:
    """The batcher may stack the rows of several calls."""
    draw = np.random.default_rng(11)
    kept, asked = (draw.integers(0, 17, (count, 64)).astype(np.float32) for count in (300, 16))
    graph = onnx_bytes(knn.graph_of(kept, np.arange(300) % 10, 5, "knn"))
    together = onnx_run(graph, {"features": asked})
    alone = [onnx_run(graph, {"features": asked[row : row + 1]}) for row in range(0, 16, 5)]
    for name, values in together.items():
        np.testing.assert_array_equal(values[::5], np.concatenate([one[name] for one in alone]))


@pytest.fixture(scope="module")
def some_flights() -> flights.Flights:
    """A fiftieth of the rows that are trained on."""
    return flights.load(0.02)


def test_flights_are_what_their_columns_say(some_flights: flights.Flights) -> None:
    """Months, days of the week, minutes of the day and numbers of names in bounds; only weather is missing."""
    columns = dict(zip(flights.COLUMNS, np.concatenate((some_flights.train_x, some_flights.held_x)).T, strict=True))
    assert set(range(1, 13)) == set(columns["month"])
    assert set(range(7)) == set(columns["weekday"])
    assert max(columns["departure"].max(), columns["arrival"].max()) <= 24 * 60
    assert {"EWR", "JFK", "LGA"} == set(some_flights.codes["origin"])
    for name in flights.CODED:
        assert columns[name].max() < len(some_flights.codes[name])
    weather = flights.COLUMNS[flights.COLUMNS.index("delay") + 1 :]
    assert {name for name, values in columns.items() if np.isnan(values).any()} <= set(weather)
    assert all(np.isnan(columns[name]).mean() < 0.2 for name in weather)


def test_saturdays_have_the_fewest_flights(some_flights: flights.Flights) -> None:
    """Monday is 0: the week's quiet day is where it belongs, so that days are counted rightly."""
    weekday = some_flights.held_x[:, flights.COLUMNS.index("weekday")].astype(int)
    assert 5 == np.bincount(weekday, minlength=7).argmin()
