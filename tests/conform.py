"""botocore's service model as the judge of an answer: what every client may rely on."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cache
from typing import Any

import orjson
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.parsers import create_parser

#: Members of answers that AWS's model does not have, by operation: clients pass over them.
OURS = {
    "DescribeMonitoringSchedule": {"NextExecutionTime", "MissedExecutions", "LastMonitoringExecution"},
    "ListMonitoringExecutions": {"Details"},
}


@cache
def service_model(service: str = "sagemaker") -> ServiceModel:
    """AWS's model of a service."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def assert_conforms(
    operation: str, body: bytes | str | Mapping[str, Any], sent_empty: Container[str] = (), service: str = "sagemaker"
) -> Any:
    """A 200 answer as an unmodified client reads it: botocore's own parser takes it, every required member is there,
    every member is modelled, none is null, and no structure is empty but those the client sent so (``sent_empty``:
    paths such as ``AsyncInferenceConfig.OutputConfig.NotificationConfig``). Returns what the client sees."""
    raw = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else orjson.dumps(body)
    shape = service_model(service).operation_model(operation).output_shape
    if shape is None:
        assert b"" == raw, f"{operation} answers with an empty body"
        return {}
    answered = {name: value for name, value in orjson.loads(raw).items() if name not in OURS.get(operation, ())}
    _conforms(shape, answered, "", sent_empty)
    answer = {"body": raw, "headers": {}, "status_code": 200}
    seen = create_parser("json").parse(answer, shape)
    seen.pop("ResponseMetadata", None)
    return seen


def _conforms(shape: Shape, value: Any, path: str, empty: Container[str]) -> None:
    check = _CHECKS.get(shape.type_name)
    if check is not None:
        check(shape, value, path, empty)
        return
    expected = _TYPES[shape.type_name]
    assert isinstance(value, expected) and not (bool not in expected and isinstance(value, bool)), (
        f"{path} is {value!r}"
    )
    words = shape.metadata.get("enum")
    if words and not words[0].startswith("ml."):
        assert value in words, f"{path} is {value!r}"


def _structure(shape: Any, value: Any, path: str, empty: Container[str]) -> None:
    assert isinstance(value, dict), f"{path} is {value!r}"
    missing = [f"{path}.{name}" for name in shape.required_members if name not in value]
    assert [] == missing, "required members are missing"
    assert [] == [f"{path}.{name}" for name in value if name not in shape.members], "members the model does not have"
    for name, inner in value.items():
        at = f"{path}.{name}".lstrip(".")
        assert inner is not None, f"{at} is null"
        unset = {} == inner and "structure" == shape.members[name].type_name and name not in shape.required_members
        assert not unset or at in empty, f"{at} is an empty structure"
        _conforms(shape.members[name], inner, at, empty)


def _list(shape: Any, value: Any, path: str, empty: Container[str]) -> None:
    assert isinstance(value, list), f"{path} is {value!r}"
    for at, item in enumerate(value):
        _conforms(shape.member, item, f"{path}[{at}]", empty)


def _map(shape: Any, value: Any, path: str, empty: Container[str]) -> None:
    assert isinstance(value, dict), f"{path} is {value!r}"
    for name, inner in value.items():
        _conforms(shape.value, inner, f"{path}[{name}]", empty)


_CHECKS = {"structure": _structure, "list": _list, "map": _map}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (int, float),
}
