"""What happens where a script defines no function of its own: AWS's inference toolkit's decoders and encoders.

Two things are deliberately not the toolkit's: one CSV row stays a matrix of one row, so that ``predict`` takes it, and
NaN is ``null`` in JSON, so that every reply is valid.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from serving.codecs import registry as codecs
from serving.codecs.base import InputSpec, TensorSpec
from serving.errors import BadInput, NotAcceptable, PredictionFailed, UnsupportedContentType
from serving.runtimes.base import TensorModel

_MATRIX = InputSpec((TensorSpec("input", "float64", (None, None)),))
TEXT_TYPES = frozenset({"application/json", "text/csv"})


def decode(body: bytes | str, content_type: str, model: object) -> Any:
    """``input_fn``'s default: by content type, and to what a model of ours reads if ``model`` is one.

    Raises UnsupportedContentType in the toolkit's words, BadInput for a body that cannot be read.
    """
    raw = body.encode() if isinstance(body, str) else body
    if isinstance(model, TensorModel):
        return codecs.decode(raw, content_type, model.spec).inputs
    media_type = codecs.parse_media_type(content_type)[0] if content_type else ""
    if media_type not in _DECODERS:
        raise UnsupportedContentType(f"Content type {content_type[:100]} is not supported by this framework.")
    try:
        return _DECODERS[media_type](raw)
    except (ValueError, OSError, EOFError, KeyError, RecursionError) as error:
        raise BadInput(f"the body cannot be read as {media_type}") from error


def predict(data: Any, model: Any) -> Any:
    """``predict_fn``'s default: the framework's own. Raises PredictionFailed for an object without one."""
    if callable(getattr(model, "predict", None)):
        return model.predict(data)
    torch = sys.modules.get("torch")  # a model that is torch's has imported it
    if torch is not None and isinstance(model, torch.nn.Module):
        parameter = next(model.parameters(), None)
        with torch.inference_mode():
            return model(torch.as_tensor(data, dtype=None if parameter is None else parameter.dtype))
    if callable(model):
        return model(data)
    raise PredictionFailed("the script has no predict_fn, and its model has no predict")


def encode(prediction: Any, accept: str, default: str) -> tuple[bytes, str]:
    """``output_fn``'s default: in the first writable type of ``accept``. Raises NotAcceptable if there is none."""
    media_type, _ = codecs.negotiate(accept, default if default in _ENCODERS else "application/json", tuple(_ENCODERS))
    if hasattr(prediction, "detach"):  # a torch tensor
        prediction = prediction.detach().cpu().numpy()
    try:
        return _ENCODERS[media_type](prediction), media_type
    except (TypeError, ValueError) as error:
        raise NotAcceptable(f"the prediction cannot be written as {media_type}") from error


def _from_json(body: bytes) -> Any:
    found = json.loads(body)
    return np.array(found) if isinstance(found, list) else found


def _from_csv(body: bytes) -> Any:
    return codecs.decode(body, "text/csv", _MATRIX).inputs


def _from_npy(body: bytes) -> Any:
    return np.load(io.BytesIO(body), allow_pickle=False)


def _from_npz(body: bytes) -> Any:
    return importlib.import_module("scipy.sparse").load_npz(io.BytesIO(body))


def _to_json(prediction: Any) -> bytes:
    return orjson.dumps(_plain(prediction), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    """What orjson writes: arrays it does not know as lists, sets and other iterables as they are listed."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _to_csv(prediction: Any) -> bytes:
    array = np.atleast_1d(np.asarray(prediction))
    if array.ndim > 2 or array.dtype == object:
        raise ValueError("not a table")
    return codecs.encode(array, "text/csv", "generic")


def _to_npy(prediction: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(prediction), allow_pickle=False)
    return buffer.getvalue()


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "application/json": _from_json,
    "text/csv": _from_csv,
    "application/x-npy": _from_npy,
    "application/x-npz": _from_npz,
}
_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "application/json": _to_json,
    "text/csv": _to_csv,
    "application/x-npy": _to_npy,
}
