"""``application/octet-stream``: the little-endian values of a model's one numeric input, row after row."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from serving.codecs.base import Decoded, InputSpec
from serving.codecs.fit import RowPlan, cast, decoded, row_plan
from serving.errors import BadInput, UnsupportedContentType


def pack(body: bytes, plan: RowPlan) -> bytes | None:
    """The body is its own packed rows where the machine is little-endian and the rows are whole."""
    return body if sys.byteorder == "little" and body and len(body) % plan.row_bytes == 0 else None


def decode(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """Whole rows of raw values. Raises ``BadInput``; ``UnsupportedContentType`` where the model has several inputs,
    a free size or no numbers, since nothing in the body would say what is what."""
    plan = row_plan(spec)
    if plan is None:
        raise UnsupportedContentType("raw values need a model with one numeric input whose rows have a fixed size")
    rows, rest = divmod(len(body), plan.row_bytes)
    if rest or not rows:
        raise BadInput(f"{len(body)} bytes are no whole number of rows: a row is {plan.row_bytes} bytes")
    values = np.frombuffer(body, plan.dtype.newbyteorder("<")).reshape(rows, *plan.shape)
    return decoded(cast(values, spec.tensors[0]))
