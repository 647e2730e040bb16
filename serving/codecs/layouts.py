"""How a prediction is dressed: which outputs a reply shows, under which names, in which envelope.

Each built-in algorithm that answers with arrays is a row of ``LAYOUTS``, as AWS documents it; ``generic`` is for every
other model. A runtime names its row in ``TensorModel.layout`` and returns outputs under the names in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from serving.codecs.base import Outputs
from serving.errors import PredictionFailed

JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
_TYPES = (
    JSON,
    LINES,
    "application/x-ndjson",
    CSV,
    "application/x-npy",
    "application/x-npz",
    "application/x-recordio-protobuf",
    "application/octet-stream",
)


class Field(NamedTuple):
    """One key of a row's object: the output of that name.

    ``kind``: ``float`` and ``int`` are one number per row, printed ``1.0`` and ``1`` (a score with several columns
    stays a list); ``list`` is always a list; ``any`` is the output as it comes. ``verbose``: only shown when Accept
    says ``verbose=true``.
    """

    name: str
    kind: Literal["float", "int", "list", "any"] = "float"
    verbose: bool = False


class Layout(NamedTuple):
    """``envelope``: the key around the rows in a JSON document. ``fields`` empty: rows are bare values, or objects
    of all outputs when there are several. ``types``: media types offered, the preferred ones first. ``always``: the
    type that is written whichever of them is asked for. ``quoted``: in CSV a list is one quoted cell."""

    envelope: str
    fields: tuple[Field, ...] = ()
    types: tuple[str, ...] = _TYPES
    always: str = ""
    quoted: bool = False


_SCORE, _LABEL = Field("score"), Field("predicted_label", "int")
_CSV_FIRST = (CSV, *(kind for kind in _TYPES if kind != CSV))

LAYOUTS: dict[str, Layout] = {
    "generic": Layout("predictions"),
    # The container answers JSON Lines and RecordIO in one mode only; nothing is lost by always offering them.
    "xgboost": Layout("predictions", (_SCORE,), _CSV_FIRST),
    "xgboost-batch": Layout("predictions", (_SCORE,), _CSV_FIRST, always=CSV),
    "linear-learner": Layout("predictions", (_SCORE, _LABEL)),
    "factorization-machines": Layout("predictions", (_SCORE, _LABEL)),
    "kmeans": Layout("predictions", (Field("closest_cluster"), Field("distance_to_cluster"))),
    "knn": Layout(
        "predictions",
        (Field("predicted_label"), Field("distances", "list", verbose=True), Field("labels", "list", verbose=True)),
    ),
    "pca": Layout("projections", (Field("projection", "list"),)),
    "lda": Layout("predictions", (Field("topic_mixture", "list"),)),
    "ntm": Layout("predictions", (Field("topic_weights", "list"),)),
    "randomcutforest": Layout("scores", (_SCORE,)),
    "ipinsights": Layout(
        "predictions",
        (
            Field("dot_product"),
            Field("entity_embedding", "list", verbose=True),
            Field("ip_embedding", "list", verbose=True),
        ),
    ),
}


@lru_cache(maxsize=256)
def layout_of(name: str) -> Layout:
    """The row of that name; ``xgboost:KEY,KEY...``: objects of these keys (``runtimes/xgboost_output.py``)."""
    base, _, keys = name.partition(":")
    if not keys:
        return LAYOUTS[base]
    return LAYOUTS[base]._replace(fields=tuple(Field(key, "any") for key in keys.split(",")), quoted=True)


def shown(outputs: Outputs, layout: Layout, params: Mapping[str, str]) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays a reply shows, by key, each with the row on axis 0; and whether rows are objects or bare values.

    A single nameless output takes the name of the layout's first field. A field without an output is left out (a
    regression has no ``predicted_label``). Raises ``PredictionFailed`` when nothing is left.
    """
    if not layout.fields:
        named = outputs if isinstance(outputs, dict) else {"values": outputs}
        arrays = {name: _printable(array, "any") for name, array in named.items()}
        return _aligned(arrays), len(arrays) > 1
    named = outputs if isinstance(outputs, dict) else {layout.fields[0].name: outputs}
    verbose = params.get("verbose", "").lower() == "true"
    arrays = {
        field.name: _printable(named[field.name], field.kind)
        for field in layout.fields
        if field.name in named and (verbose or not field.verbose)
    }
    return _aligned(arrays), True


def _aligned(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not arrays:
        raise PredictionFailed("the model's outputs have none of the names its reply needs")
    rows = {array.shape[:1] for array in arrays.values()}
    if len(rows) > 1 or () in rows:
        raise PredictionFailed("the model's outputs do not agree on the number of rows")
    return arrays


def _printable(array: np.ndarray, kind: str) -> np.ndarray:
    """The array as its field's kind wants it, C-contiguous and in native byte order, as orjson needs it."""
    array = np.asarray(array)
    if kind in ("float", "int") and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if kind == "list" and array.ndim == 1:
        array = array[:, np.newaxis]
    if kind == "float" and array.dtype.kind in "iub":
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if kind == "int" and array.dtype.kind == "f" and np.isfinite(array).all():
        array = np.rint(array).astype(np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiubUOS":
        raise PredictionFailed(f"the model answered with {array.dtype.name} values, which no reply can show")
    if array.flags.c_contiguous and array.dtype.isnative:
        return array
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
