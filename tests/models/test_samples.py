"""The gallery's request bodies: as the reference writes them, and read back by the server's own decoders as sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models import flights, samples
from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.registry import decode

SPEC = InputSpec((TensorSpec("features", "float32", (None, 5)),), fill=0.0)
ROWS = st.integers(1, 4).flatmap(
    lambda count: arrays(
        np.float32, (count, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
    )
)
WRITERS = [
    (samples.features, samples.JSON),
    (samples.nested, samples.JSON),
    (samples.sparse, samples.JSON),
    (samples.lines, samples.LINES),
    (samples.recordio, samples.RECORDIO),
    (flights.csv, samples.CSV),
]


def test_record_is_the_references_bytes() -> None:
    """The example of the wire formats, byte by byte."""
    frame = bytes.fromhex("0a23d7ce180000000a160a0676616c756573120c120a0a080000c03f00008041")
    assert frame == samples.recordio(np.array([[1.5, 16.0]], np.float32))


@pytest.mark.parametrize(("write", "content_type"), WRITERS, ids=lambda value: getattr(value, "__name__", ""))
@given(rows=ROWS)
def test_rows_are_read_as_they_were_written(
    write: Callable[[NDArray[np.float32]], bytes], content_type: str, rows: NDArray[np.float32]
) -> None:
    """Writer and reader share no code: what the one means, the other must find."""
    np.testing.assert_array_equal(rows, decode(write(rows), content_type, SPEC).inputs)


def test_missing_value_is_an_empty_cell() -> None:
    """XGBoost's spelling, at both ends of a row too."""
    assert b",1.5,\n0.0,,2.0\n" == flights.csv(np.array([[np.nan, 1.5, np.nan], [0.0, np.nan, 2.0]]))


def test_every_documented_type_has_its_sample() -> None:
    """An algorithm that does not read CSV gets no CSV: its batch is JSON Lines."""
    rows, answers = np.ones((4, 5), np.float32), [{"score": 1.0}] * 4
    everything = {one.name: one.content_type for one in samples.of_rows(rows, answers)}
    without = {
        one.name: one.content_type for one in samples.of_rows(rows, answers, types=(samples.JSON, samples.LINES))
    }
    assert {"request", "batch", "nested", "sparse", "lines", "recordio"} == set(everything)
    assert (samples.CSV, samples.LINES) == (everything["batch"], without["batch"])
    assert {"request", "batch", "nested", "sparse"} == set(without)
