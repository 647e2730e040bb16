"""Endpoints that an operator declares: a file of SageMaker request bodies, or just a path to models.

The file is one YAML, TOML or JSON mapping ``Models:``, ``EndpointConfigs:``, ``Endpoints:``, each a list of the very
bodies that CreateModel, CreateEndpointConfig and CreateEndpoint take (names, limits: SageMaker API, botocore's
service model). A field that has no meaning on one's own machine (a role, a tag) is accepted and ignored; one whose
effect this server does not have is refused, as silence would promise it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from serving.config import did_you_mean, read_document
from serving.errors import ConfigError
from serving.types import EndpointSpec, ModelSpec, RoutingStrategy, VariantSpec

#: Endpoint, endpoint config and variant names; model names (SageMaker API: both at most 63 characters).
ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", re.ASCII)
MODEL_NAME = re.compile(r"[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?", re.ASCII)
ENVIRONMENT_KEY = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,1023}", re.ASCII)

MAX_VARIANTS = 10
MAX_WEIGHT = 3.4e38  # a single-precision float on the wire
MAX_ENVIRONMENT = (100, 32 * 1024)  # pairs, characters of keys and values together

#: Fields that describe AWS's machinery, by body: accepted, without effect here.
_LABELS: Mapping[str, frozenset[str]] = {
    "Models": frozenset({"ExecutionRoleArn", "Tags", "VpcConfig", "EnableNetworkIsolation"}),
    "PrimaryContainer": frozenset({"Image", "ImageConfig", "ContainerHostname", "ContainerMetricsConfig"}),
    "EndpointConfigs": frozenset({"Tags", "KmsKeyId", "ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation"}),
    "ProductionVariants": frozenset(
        {
            "InstanceType",
            "VolumeSizeInGB",
            "AcceleratorType",
            "EnableSSMAccess",
            "InferenceAmiVersion",
            "ModelDataDownloadTimeoutInSeconds",
            "ContainerStartupHealthCheckTimeoutInSeconds",
        }
    ),
    "Endpoints": frozenset({"Tags"}),
}

#: Fields of SageMaker's that this version does not act on, and what they would have meant.
_NOT_YET: Mapping[str, str] = {
    "ScalableTargets": "scaling policies",
    "ScalingPolicies": "scaling policies",
    "ManagedInstanceScaling": "scaling policies",
    "Containers": "inference pipelines",
    "InferenceExecutionConfig": "inference pipelines",
    "ModelDataSource": "ModelDataSource (give the artifact as ModelDataUrl)",
    "AdditionalModelDataSources": "additional model data",
    "ModelPackageName": "model packages",
    "ShadowProductionVariants": "shadow variants",
    "DataCaptureConfig": "data capture",
    "AsyncInferenceConfig": "asynchronous inference",
    "ExplainerConfig": "online explanations",
    "ServerlessConfig": "serverless variants",
    "InstancePools": "instance pools",
    "CoreDumpConfig": "core dumps",
    "DeploymentConfig": "guarded deployments",
}

_Item = TypeVar("_Item")


class _Body:
    """One request body, read field by field: whatever nobody asked for by the end is refused with a suggestion."""

    def __init__(self, raw: object, where: str, labels: frozenset[str] = frozenset()) -> None:
        if not isinstance(raw, dict):
            raise ConfigError(f"{where} must be a mapping of fields.")
        self._raw: dict[Any, Any] = raw
        self._where = where
        self._known = set(labels)

    def take(self, field: str) -> Any:
        """The field's value, ``None`` when it is absent."""
        self._known.add(field)
        return self._raw.get(field)

    def refuse(self, field: str, expected: str) -> ConfigError:
        """The error for a field that is not what it should be."""
        value = self._raw.get(field)
        found = "missing" if value is None else repr(value)
        return ConfigError(f"{self._path(field)} is {found}; expected {expected}.")

    def _path(self, field: str) -> str:
        return f"{self._where}.{field}" if self._where else field

    def name(self, field: str, pattern: re.Pattern[str]) -> str:
        """A name of at most 63 characters in SageMaker's alphabet."""
        value = self.take(field)
        if not isinstance(value, str) or len(value) > 63 or not pattern.fullmatch(value):
            quoted = " in quotes" if isinstance(value, int | float) else ""
            raise self.refuse(field, f"a name{quoted} of letters, digits and hyphens, at most 63 characters")
        return value

    def text(self, field: str) -> str:
        """A text that is not empty."""
        value = self.take(field)
        if not isinstance(value, str) or not value:
            raise self.refuse(field, "a text")
        return value

    def choice(self, field: str, default: str, *words: str) -> Any:
        """One of ``words``; ``default`` when absent."""
        value = self.take(field)
        if value is not None and value not in words:
            raise self.refuse(field, " or ".join(words))
        return value or default

    def count(self, field: str) -> int:
        """A number of instances, 1 when absent."""
        value = self.take(field)
        if value is None:
            return 1
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(field, "a whole number of at least 1")
        return value

    def weight(self, field: str) -> float:
        """A share of the traffic, 1.0 when absent."""
        value = self.take(field)
        if value is None:
            return 1.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_WEIGHT:
            raise self.refuse(field, "a finite number of at least 0")
        return float(value)

    def child(self, field: str) -> _Body:
        """The body inside a field; empty when absent."""
        value = self.take(field)
        return _Body({} if value is None else value, self._path(field), _LABELS.get(field, frozenset()))

    def items(self, field: str) -> list[_Body]:
        """The bodies of a list; none when absent."""
        value = self.take(field)
        if value is not None and not isinstance(value, list):
            raise self.refuse(field, "a list")
        labels = _LABELS.get(field, frozenset())
        return [_Body(raw, f"{self._path(field)}[{index}]", labels) for index, raw in enumerate(value or [])]

    def close(self) -> None:
        """Refuse what is left."""
        where = self._where or "The file"
        for field in self._raw:
            if field in _NOT_YET and field not in self._known:
                raise ConfigError(f"{where} has {field}, but this version does not offer {_NOT_YET[field]}.")
            if field not in self._known:
                raise ConfigError(f"{where} has no field {field!r}{did_you_mean(str(field), sorted(self._known))}.")


def load_endpoints(path: Path) -> tuple[EndpointSpec, ...]:
    """The endpoints that ``path`` declares, in its order. A relative ModelDataUrl is meant from the file's folder.

    Raises ``ConfigError`` naming the field (``EndpointConfigs[0].ProductionVariants[1].ModelName``), what stands
    there and what was expected.
    """
    body = _Body(read_document(path), "")
    folder = path.absolute().parent
    models = _by_name("models", (_model(item, folder) for item in body.items("Models")), lambda model: model.name)
    configs = _by_name(
        "endpoint configs", [_config(item, models) for item in body.items("EndpointConfigs")], lambda config: config[0]
    )
    endpoints = [_endpoint(item, configs) for item in body.items("Endpoints")]
    body.close()
    return tuple(_by_name("endpoints", endpoints, lambda endpoint: endpoint.name).values())


def _by_name(what: str, items: Iterable[_Item], name_of: Callable[[_Item], str]) -> dict[str, _Item]:
    named: dict[str, _Item] = {}
    for item in items:
        if name_of(item) in named:
            raise ConfigError(f"There are two {what} named {name_of(item)!r}.")
        named[name_of(item)] = item
    return named


def _model(body: _Body, folder: Path) -> ModelSpec:
    name = body.name("ModelName", MODEL_NAME)
    container = body.child("PrimaryContainer")
    cache = container.child("MultiModelConfig")
    model = ModelSpec(
        name=name,
        model_data_url=_data_url(container, folder),
        mode=container.choice("Mode", "SingleModel", "SingleModel", "MultiModel"),
        environment=_environment(container),
        cache=cache.choice("ModelCacheSetting", "Enabled", "Enabled", "Disabled"),
    )
    for part in (cache, container, body):
        part.close()
    return model


def _data_url(container: _Body, folder: Path) -> str:
    url = container.text("ModelDataUrl")
    scheme, mark, rest = url.partition("://")
    if not mark:
        return str(folder / url)
    if scheme not in ("s3", "file") or not rest:
        raise container.refuse("ModelDataUrl", "a path, or an s3:// or file:// URL")
    return url


def _environment(container: _Body) -> dict[str, str]:
    raw = container.take("Environment")
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise container.refuse("Environment", "a mapping of names to texts")
    pairs, characters = MAX_ENVIRONMENT
    for key, value in raw.items():
        if not isinstance(key, str) or not ENVIRONMENT_KEY.fullmatch(key):
            raise container.refuse("Environment", f"names of letters, digits and underscores, not {key!r}")
        if not isinstance(value, str) or len(value) > 1024:
            raise container.refuse("Environment", f"a text of at most 1,024 characters for {key} (quote numbers)")
    if len(raw) > pairs or sum(len(key) + len(value) for key, value in raw.items()) > characters:
        raise container.refuse("Environment", f"at most {pairs} pairs and 32 KiB")
    return dict(raw)


def _config(body: _Body, models: Mapping[str, ModelSpec]) -> tuple[str, tuple[VariantSpec, ...]]:
    name = body.name("EndpointConfigName", ENDPOINT_NAME)
    variants = _by_name(
        f"variants of {name}",
        (_variant(item, models) for item in body.items("ProductionVariants")),
        lambda one: one.name,
    )
    if not 1 <= len(variants) <= MAX_VARIANTS:
        raise ConfigError(f"Endpoint config {name!r} has {len(variants)} production variants; 1 to 10 are allowed.")
    body.close()
    return name, tuple(variants.values())


def _variant(body: _Body, models: Mapping[str, ModelSpec]) -> VariantSpec:
    name = body.name("VariantName", ENDPOINT_NAME)
    model = body.name("ModelName", MODEL_NAME)
    if model not in models:
        raise body.refuse("ModelName", f"one of the Models{did_you_mean(model, list(models))}")
    variant = VariantSpec(
        name=name,
        model=models[model],
        weight=body.weight("InitialVariantWeight"),
        instance_count=body.count("InitialInstanceCount"),
        routing=_routing(body.child("RoutingConfig")),
    )
    body.close()
    return variant


def _routing(body: _Body) -> RoutingStrategy:
    strategy: RoutingStrategy = body.choice("RoutingStrategy", "RANDOM", "RANDOM", "LEAST_OUTSTANDING_REQUESTS")
    body.close()
    return strategy


def _endpoint(body: _Body, configs: Mapping[str, tuple[str, tuple[VariantSpec, ...]]]) -> EndpointSpec:
    name = body.name("EndpointName", ENDPOINT_NAME)
    config = body.name("EndpointConfigName", ENDPOINT_NAME)
    if config not in configs:
        raise body.refuse("EndpointConfigName", f"one of the EndpointConfigs{did_you_mean(config, list(configs))}")
    body.close()
    return EndpointSpec(name, config, configs[config][1])


def endpoints_from_path(
    models: Path, is_artifact: Callable[[Path], bool], workers: int = 1, endpoint: str = "default"
) -> tuple[EndpointSpec, ...]:
    """The one endpoint that ``serving up MODELS`` means: an artifact is served alone, a folder that holds artifacts
    as a multi-model endpoint whose TargetModel is the path relative to it. ``is_artifact`` recognises an artifact by
    content. Raises ``ConfigError`` when the path is neither."""
    if not models.exists():
        raise ConfigError(f"There is no file or folder {str(models)!r}.")
    mode: Literal["SingleModel", "MultiModel"] = "SingleModel"
    if not is_artifact(models):
        if not _holds_artifact(models, is_artifact):
            raise ConfigError(f"{str(models)!r} is no model this server knows, nor a folder that holds one.")
        mode = "MultiModel"
    model = ModelSpec(endpoint, str(models.absolute()), mode)
    variant = VariantSpec("AllTraffic", model, instance_count=workers)
    return (EndpointSpec(endpoint, endpoint, (variant,)),)


def _holds_artifact(folder: Path, is_artifact: Callable[[Path], bool], depth: int = 3) -> bool:
    """Whether an artifact lies in ``folder`` or up to ``depth`` folders below; hidden names are passed over. One is
    enough: thousands of models need not be looked at to start."""
    if not folder.is_dir():
        return False
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    return any(is_artifact(entry) for entry in entries) or (
        depth > 1 and any(_holds_artifact(entry, is_artifact, depth - 1) for entry in entries)
    )
