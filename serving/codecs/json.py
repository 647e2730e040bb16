"""``application/json`` and ``application/jsonlines``: every request shape that SageMaker's algorithms, TensorFlow
Serving, MLflow and the Open Inference Protocol use, told apart by one key of the document.

========================  ==============================================================================================
bare array                rows; a flat array is one row
``instances``             a list of rows: arrays, or objects ``{"features": [...]}``, ``{"data": {"features":
                          {"values": [...]}}}`` (with ``keys`` and ``shape``: sparse), or ``{input name: value}``
``inputs``                an array; ``{input name: array}``; or a list of ``{name, shape, datatype, data}``
``features``, ``data``    one instance without its envelope
``dataframe_split``       ``{"columns": [...], "data": [[...]]}``; columns go to inputs by name where there are several
``dataframe_records``     a list of ``{column: value}``; the first record gives the order of columns
========================  ==============================================================================================

``configuration`` beside ``instances`` is kept for the model. ``null`` and the strings NaN, Infinity, -Infinity are
values, as are the bare words NaN and Infinity that Python's own ``json`` writes. ``true`` is 1. Other text is not a
number, and a key the form does not know is ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from serving.codecs.base import Decoded, InputSpec, TensorSpec
from serving.codecs.fit import (
    PACK_ERRORS,
    RowPlan,
    check_widths,
    decoded,
    from_nested,
    from_rows,
    from_sparse,
    row_width,
)
from serving.errors import BadInput

Inputs = np.ndarray | dict[str, np.ndarray]


def pack(body: bytes, plan: RowPlan) -> bytes | None:
    """``[...]``, ``[[...], ...]``, ``{"instances": [[...], ...]}`` or instances that are objects of features, of plain
    numbers -> packed rows, else None."""
    try:
        document = orjson.loads(body)
        if type(document) is dict:
            rows = document["instances"] if len(document) == 1 else None
        elif type(document) is list and document and type(document[0]) is not list:
            rows = [document]
        else:
            rows = document
        if type(rows) is not list or not rows:
            return None
        row = plan.pack
        if type(rows[0]) is dict:
            return b"".join([row(*_plain(instance)) for instance in rows])
        # ``pack`` would also spread an object's keys or a string, but takes none of what it finds there.
        return b"".join([row(*cells) for cells in rows]) if type(rows[0]) is list else None
    except (*PACK_ERRORS, KeyError):
        return None


def pack_lines(body: bytes, plan: RowPlan) -> bytes | None:
    """Lines of ``[...]`` or of objects of features, of plain numbers -> packed rows, else None."""
    packed = []
    try:
        for line in body.split(b"\n"):
            if not line or line.isspace():
                continue
            row = orjson.loads(line)
            packed.append(plan.pack(*(row if type(row) is list else _plain(row))))
    except (*PACK_ERRORS, KeyError):
        return None
    return b"".join(packed) or None


def _plain(instance: Any) -> list[Any]:
    """The features of an object that holds a dense row and nothing else. Raises one of PACK_ERRORS or KeyError."""
    if type(instance) is not dict:
        raise TypeError
    outer = instance.get("data", instance)
    features = outer["features"]
    inner = features if type(features) is dict else {"values": features}
    values = inner["values"]
    if type(values) is not list or not len(instance) == len(outer) == len(inner) == 1:
        raise TypeError
    return values


def decode(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """Any JSON body. Raises ``BadInput``."""
    return _document(_parse(body), spec)


def decode_lines(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """One instance per line; blank lines are skipped. Raises ``BadInput`` naming the line."""
    rows = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if line and not line.isspace():
            try:
                rows.append(_parse(line))
            except BadInput as error:
                raise BadInput(f"line {number}: {error.message}") from None
    return decoded(_instances(rows, spec))


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise BadInput(f"the body is not JSON: {error}") from None
    try:
        document = json.loads(body.decode())
        # What orjson cannot write (lone surrogates, integers over 64 bits, endless depth) it would not have read.
        orjson.dumps(document)
    except (ValueError, TypeError, RecursionError):
        raise BadInput("the body is not JSON") from None
    return document


def _document(document: Any, spec: InputSpec) -> Decoded:
    if isinstance(document, list):
        return decoded(_rows(document, spec))
    if not isinstance(document, dict):
        raise BadInput("the body must be a JSON array or object")
    forms = [key for key in FORMS if key in document]
    if len(forms) > 1:
        raise BadInput(f"the body says both {forms[0]!r} and {forms[1]!r}")
    configuration = document.get("configuration", {})
    if not isinstance(configuration, dict):
        raise BadInput("'configuration' must be an object")
    if forms:
        return decoded(FORMS[forms[0]](document[forms[0]], spec), configuration)
    if all(tensor.name in document for tensor in spec.tensors):
        return decoded(_instances([document], spec), configuration)
    raise BadInput(f"the body has none of the keys {', '.join(FORMS)}")


def _rows(values: list[Any], spec: InputSpec) -> Inputs:
    """A bare array: rows, one flat row, or instance objects."""
    if values and isinstance(values[0], dict):
        return _instances(values, spec)
    if len(spec.tensors) == 1:
        return from_nested(values, spec.tensors[0])
    nested = values and isinstance(values[0], list)
    return from_rows(_cell_rows(values if nested else [values]), spec)


def _cell_rows(values: list[Any]) -> list[list[object]]:
    for number, row in enumerate(values, 1):
        if not isinstance(row, list):
            raise BadInput(f"row {number} is not an array")
    return values


def _instances(value: Any, spec: InputSpec) -> Inputs:
    if not isinstance(value, list) or not value:
        raise BadInput("'instances' must be a list of at least one instance")
    if not any(isinstance(instance, dict) for instance in value):
        if len(spec.tensors) > 1:
            return _rows(value, spec)
        return from_nested(value, spec.tensors[0], sample=False, column=True)
    if len(spec.tensors) > 1:
        return _named_rows(value, spec)
    features = [_features(instance, number, spec.tensors[0]) for number, instance in enumerate(value, 1)]
    if any(map(_is_sparse, features)):
        return _sparse(features, spec)
    return from_nested([_dense(row) for row in features], spec.tensors[0], sample=False, column=True)


def _features(instance: Any, row: int, tensor: TensorSpec) -> Any:
    """What an instance's envelope holds: an array, or a ``{"values": ...}`` object."""
    if not isinstance(instance, dict):
        return instance
    if isinstance(data := instance.get("data"), dict) and "features" in data:
        instance = data
    for key in ("features", tensor.name):
        if key in instance:
            features = instance[key]
            if isinstance(features, dict) and not isinstance(features.get("values"), list):
                raise BadInput(f"row {row}: 'features' has no list 'values'")
            return features
    raise BadInput(f"row {row} has neither 'features' nor {tensor.name!r}")


def _is_sparse(features: Any) -> bool:
    """Whether there are keys; or a shape without keys and values, which is a row of nothing but zeros."""
    return isinstance(features, dict) and bool(features.get("keys") or ("shape" in features and not features["values"]))


def _dense(features: Any) -> Any:
    return features["values"] if isinstance(features, dict) else features


def _sparse(features: list[Any], spec: InputSpec) -> np.ndarray:
    """Rows of which at least one is sparse. Each sparse row says its width in ``shape``."""
    rows, width = [], row_width(spec.tensors[0])
    for number, row in enumerate(features, 1):
        values = _dense(row)
        if not isinstance(values, list):
            raise BadInput(f"row {number} is not an array")
        if not _is_sparse(row):
            said, keys = len(values), list(range(len(values)))
        else:
            said, keys = _sparse_width(row, number), row.get("keys", [])
            if not isinstance(keys, list) or not all(type(key) is int for key in keys):
                raise BadInput(f"row {number}: 'keys' must be a list of integers")
        width = said if width is None else width
        if said != width:
            raise BadInput(f"row {number} has {said} values, {width} are expected")
        rows.append((keys, values))
    return from_sparse(rows, width, spec)


def _sparse_width(features: dict[str, Any], row: int) -> int:
    shape = features.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise BadInput(f"row {row}: sparse 'keys' need a 'shape' of positive sizes")
    return math.prod(shape)


def _named_rows(instances: list[Any], spec: InputSpec) -> Inputs:
    for number, instance in enumerate(instances, 1):
        if not isinstance(instance, dict):
            raise BadInput(f"row {number} is not an object of inputs by name")
        _check_names(instance, spec, f"row {number}")
    return {tensor.name: _by_row([one[tensor.name] for one in instances], tensor) for tensor in spec.tensors}


def _by_row(values: list[Any], tensor: TensorSpec) -> np.ndarray:
    """One value per row; where the model takes a single one, ``39`` and ``[39]`` are the same."""
    if len(tensor.shape) == 2 and tensor.shape[1] == 1:
        values = [value if isinstance(value, list) else [value] for value in values]
    return from_nested(values, tensor, sample=False, column=True)


def _check_names(names: Iterable[str], spec: InputSpec, where: str) -> None:
    given, wanted = set(names) - {"configuration"}, {tensor.name for tensor in spec.tensors}
    if missing := sorted(wanted - given):
        raise BadInput(f"{where} lacks input {missing[0]!r}; the model takes {', '.join(sorted(wanted))}")
    if unknown := sorted(given - wanted):
        raise BadInput(
            f"{where} has the unknown input {unknown[0][:40]!r}; the model takes {', '.join(sorted(wanted))}"
        )


def _inputs(value: Any, spec: InputSpec) -> Inputs:
    if isinstance(value, dict):
        return _by_name(value, spec)
    if isinstance(value, list) and value and all(isinstance(part, dict) and "data" in part for part in value):
        return _open_inference(value, spec)
    if isinstance(value, list):
        return _rows(value, spec)
    if len(spec.tensors) > 1:
        raise BadInput("'inputs' must name the model's inputs")
    return from_nested(value, spec.tensors[0])


def _by_name(arrays: Mapping[str, Any], spec: InputSpec) -> Inputs:
    _check_names(arrays, spec, "'inputs'")
    inputs = {tensor.name: from_nested(arrays[tensor.name], tensor, column=True) for tensor in spec.tensors}
    return inputs if len(spec.tensors) > 1 else inputs[spec.tensors[0].name]


def _open_inference(parts: list[dict[str, Any]], spec: InputSpec) -> Inputs:
    """Tensors of the Open Inference Protocol, v2: ``data`` flat in row order, or nested, beside its ``shape``."""
    arrays: dict[str, Any] = {}
    tensors = {tensor.name: tensor for tensor in spec.tensors}
    for part in parts:
        name = part.get("name")
        if len(parts) == len(tensors) == 1:
            # Clients of one-input models name it as they like ("input-0").
            name = spec.tensors[0].name
        if not isinstance(name, str) or name in arrays:
            raise BadInput("each of 'inputs' needs a name of its own")
        arrays[name] = _nest(part, name)
    return _by_name(arrays, spec)


def _nest(part: dict[str, Any], name: str) -> Any:
    data, shape = part["data"], part.get("shape")
    if shape is None or not isinstance(data, list) or (data and isinstance(data[0], list)):
        return data
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise BadInput(f"input {name[:40]!r}: 'shape' must be a list of positive sizes")
    if len(shape) > 32 or math.prod(shape) != len(data):
        raise BadInput(f"input {name[:40]!r} has {len(data)} values, its shape says otherwise")
    for size in reversed(shape[1:]):
        data = [data[start : start + size] for start in range(0, len(data), size)]
    return data


def _bare_features(value: Any, spec: InputSpec) -> Inputs:
    if isinstance(value, dict):
        return _instances([{"features": value}], spec)
    return _inputs(value, spec)


def _bare_data(value: Any, spec: InputSpec) -> Inputs:
    return _instances([{"data": value}], spec)


def _dataframe_split(value: Any, spec: InputSpec) -> Inputs:
    if not isinstance(value, dict) or not isinstance(rows := value.get("data"), list) or not rows:
        raise BadInput("'dataframe_split' needs 'data', a list of at least one row")
    columns = value.get("columns")
    if columns is not None and not isinstance(columns, list):
        raise BadInput("'dataframe_split' has 'columns' that are not a list")
    return _table(columns, _cell_rows(rows), spec)


def _dataframe_records(value: Any, spec: InputSpec) -> Inputs:
    if not isinstance(value, list) or not value or not all(isinstance(record, dict) for record in value):
        raise BadInput("'dataframe_records' must be a list of at least one object")
    columns = list(value[0])
    for number, record in enumerate(value, 1):
        if record.keys() != value[0].keys():
            raise BadInput(f"record {number} has other columns than record 1")
    return _table(columns, [[record[column] for column in columns] for record in value], spec)


def _table(columns: list[Any] | None, rows: list[list[object]], spec: InputSpec) -> Inputs:
    """Columns by name where the model has several inputs; else in the order they come."""
    if columns is not None:
        check_widths(rows, len(columns))
    if columns is None or len(spec.tensors) == 1:
        return from_rows(rows, spec)
    names = [str(column) for column in columns]
    if len(set(names)) != len(names):
        raise BadInput("'columns' names a column twice")
    _check_names(names, spec, "'columns'")
    return {tensor.name: _by_row([row[names.index(tensor.name)] for row in rows], tensor) for tensor in spec.tensors}


#: The document's key -> how to read what is under it.
FORMS: dict[str, Callable[[Any, InputSpec], Inputs]] = {
    "instances": _instances,
    "inputs": _inputs,
    "features": _bare_features,
    "data": _bare_data,
    "dataframe_split": _dataframe_split,
    "dataframe_records": _dataframe_records,
}
