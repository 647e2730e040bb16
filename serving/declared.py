"""What an operator declares: a file of SageMaker request bodies, or just a path to models.

The file is one YAML, TOML or JSON mapping ``Models:``, ``EndpointConfigs:``, ``Endpoints:``, each a list of the very
bodies that CreateModel, CreateEndpointConfig and CreateEndpoint take; further sections say how they scale
(``sections.py``). They go the way of any client's calls: checked by AWS's own service models, kept in the same store
(``deploying.apply``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from serving.api.services import SERVICES
from serving.config import did_you_mean, read_document
from serving.errors import ConfigError, ValidationError
from serving.sections import SECTIONS, Section

if TYPE_CHECKING:
    from serving.api.schema import Schema
    from serving.api.shapes import Node

#: A request body or an answer: JSON values by member name.
Body = Mapping[str, Any]


class Kind(NamedTuple):
    """A section of the file: what its bodies make. ``noun`` names one in a message."""

    section: str
    resource: str
    noun: str

    @property
    def name(self) -> str:
        """The member that holds the name."""
        return f"{self.resource}Name"

    @property
    def create(self) -> str:
        """The operation whose bodies these are."""
        return f"Create{self.resource}"


MODEL = Kind("Models", "Model", "model")
CONFIG = Kind("EndpointConfigs", "EndpointConfig", "endpoint config")
ENDPOINT = Kind("Endpoints", "Endpoint", "endpoint")
KINDS = (MODEL, CONFIG, ENDPOINT)

VARIANT_LISTS = ("ProductionVariants", "ShadowProductionVariants")

#: A label here, but AWS's API wants one.
USUAL_INSTANCE = "ml.m5.large"

#: Fields that the API stores and returns, but that change nothing yet, and what they would have meant.
_NO_EFFECT_YET: Mapping[str, str] = {
    "CoreDumpConfig": "no core dumps are written",
    "InstancePools": "all workers are alike",
    "ManagedInstanceScaling": "copies scale by ScalableTargets; they need no instances to be on",
}

# --- what is wanted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """The bodies of CreateModel, CreateEndpointConfig and CreateEndpoint that there should be, as they are sent.
    ``scaling``: those of how they scale, in the order in which they are made."""

    models: tuple[Body, ...] = ()
    configs: tuple[Body, ...] = ()
    endpoints: tuple[Body, ...] = ()
    scaling: tuple[tuple[Section, Body], ...] = ()

    def __add__(self, other: Document) -> Document:
        """Both. Raises ``ConfigError`` when they give one name twice."""
        both = Document(
            self.models + other.models,
            self.configs + other.configs,
            self.endpoints + other.endpoints,
            self.scaling + other.scaling,
        )
        both.check_names()
        return both

    def bodies(self) -> Iterator[tuple[Kind, Body]]:
        """Every body with its kind, in the order in which they are made."""
        for kind, bodies in zip(KINDS, (self.models, self.configs, self.endpoints), strict=True):
            yield from ((kind, body) for body in bodies)

    def find(self, kind: Kind, name: str) -> Body | None:
        """The body of this name, whatever its case."""
        return next(
            (body for one, body in self.bodies() if one is kind and body[kind.name].lower() == name.lower()), None
        )

    def check_names(self) -> None:
        """Names are unique, whatever their case. Raises ``ConfigError``."""
        seen: set[tuple[str, str]] = set()
        for kind, body in self.bodies():
            name = body[kind.name]
            if (kind.noun, name.lower()) in seen:
                raise ConfigError(f"There are two {kind.noun}s named {name!r}.")
            seen.add((kind.noun, name.lower()))
        made: set[tuple[str, ...]] = set()
        for section, body in self.scaling:
            key = (section.section, *section.key(body))
            if key in made:
                raise ConfigError(f"There are two of {section.spelt(body)}.")
            made.add(key)


def load_document(path: Path) -> Document:
    """The bodies in ``path``. A relative ModelDataUrl is meant from the file's folder, and becomes absolute.

    Raises ``ConfigError`` naming the field (``EndpointConfigs[0].ProductionVariants[1].ModelName``), what stands
    there and what was expected. A name that the file does not define may be one the server has: ``plan`` tells.
    """
    from serving.api.schema import Schema  # AWS's model is read where a file is

    raw = read_document(path)
    for section in raw:
        if section not in (known := [kind.section for kind in (*KINDS, *SECTIONS)]):
            raise ConfigError(f"The file has no field {section!r}{did_you_mean(section, known)}.")
    schema = Schema.load(offered=[kind.create for kind in KINDS])
    models, configs, endpoints = (tuple(_checked(schema, kind, raw.get(kind.section))) for kind in KINDS)
    folder = path.absolute().parent
    scaling = tuple((one, body) for one in SECTIONS if one.section in raw for body in _scaling(one, raw[one.section]))
    document = Document(tuple(_absolute(model, folder) for model in models), configs, endpoints, scaling)
    document.check_names()
    return document


def _scaling(section: Section, raw: object) -> Iterator[Body]:
    """The bodies of a section about scaling."""
    from serving.api.schema import Schema

    bodies = [section.filled(body) for body in raw] if isinstance(raw, list) else raw
    yield from _checked(Schema.load(SERVICES[section.prefix].model, [section.create]), section, bodies)


def _checked(schema: Schema, kind: Kind | Section, raw: object) -> Iterator[Body]:
    """The bodies of a section, each as AWS's model has it. Raises ``ConfigError``."""
    if not isinstance(raw, list | None):
        raise ConfigError(f"{kind.section} is {raw!r}; expected a list.")
    for index, body in enumerate(raw or []):
        where = f"{kind.section}[{index}]"
        if not isinstance(body, dict):
            raise ConfigError(f"{where} must be a mapping of fields.")
        for place, name, known in _unknown(schema.input(kind.create), body, where):
            raise ConfigError(f"{place} has no field {name!r}{did_you_mean(name, known)}.")
        try:
            yield schema.check(kind.create, body, trusted=True)
        except ValidationError as error:
            raise ConfigError(_spelled(error.message, where)) from None


def _unknown(node: Node, value: object, where: str) -> Iterator[tuple[str, str, list[str]]]:
    """(where, name, names there are) for each field that AWS's model does not have, which its API would drop."""
    members: Mapping[str, Node] = getattr(node, "members", {})
    if members and isinstance(value, dict):
        for name, inner in value.items():
            if name in members:
                yield from _unknown(members[name], inner, f"{where}.{name}")
            else:
                yield where, str(name), list(members)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unknown(getattr(node, "item", node), inner, f"{where}[{index}]")


_COMPLAINT = re.compile(r"Value(?: (null|'.*?'))? at '([\w.]+)' failed to satisfy constraint: Member must ")


def _spelled(message: str, where: str) -> str:
    """A complaint in AWS's grammar as a sentence about the file: ``productionVariants.1.member.modelName`` is
    ``ProductionVariants[0].ModelName`` there."""

    def told(found: re.Match[str]) -> str:
        place = re.sub(r"\.(\d+)\.member\b", lambda step: f"[{int(step[1]) - 1}]", found[2])
        spelt = ".".join(step[:1].upper() + step[1:] for step in place.split("."))
        return f"{where}.{spelt} is {'missing' if found[1] == 'null' else found[1] or 'wrong'}; it must "

    return _COMPLAINT.sub(told, re.sub(r"^\d+ validation errors? detected: ", "", message)).replace("\n", " ") + "."


def containers(model: Body) -> tuple[Body, ...]:
    """The containers of a CreateModel body, in order."""
    return (*([model["PrimaryContainer"]] if "PrimaryContainer" in model else []), *model.get("Containers", ()))


def variants(config: Body) -> tuple[Body, ...]:
    """The variants of a CreateEndpointConfig body, those that serve before those that shadow."""
    return tuple(variant for name in VARIANT_LISTS for variant in config.get(name, ()))


def _with_urls(model: Body, change: Callable[[str], str]) -> Body:
    """The body with every ModelDataUrl changed."""

    def changed(container: Body) -> Body:
        url = container.get("ModelDataUrl")
        return container if url is None else {**container, "ModelDataUrl": change(url)}

    result = dict(model)
    if "PrimaryContainer" in model:
        result["PrimaryContainer"] = changed(model["PrimaryContainer"])
    if "Containers" in model:
        result["Containers"] = [changed(container) for container in model["Containers"]]
    return result


def _absolute(model: Body, folder: Path) -> Body:
    def absolute(url: str) -> str:
        scheme, mark, rest = url.partition("://")
        if not mark:
            return str(folder / url) + "/" * url.endswith("/")
        if scheme not in ("s3", "file") or not rest:
            raise ConfigError(
                f"Model {model['ModelName']!r} has ModelDataUrl {url!r}; expected a path, or an s3:// or file:// URL."
            )
        return url

    return _with_urls(model, absolute)


def document_from_path(
    models: Path, is_artifact: Callable[[Path], bool], workers: int = 1, endpoint: str = "default"
) -> Document:
    """The one endpoint that ``serving up MODELS`` means: an artifact is served alone, a folder that holds artifacts
    as a multi-model endpoint whose TargetModel is the path relative to it. ``is_artifact`` recognises an artifact by
    content. Raises ``ConfigError`` when the path is neither."""
    if not models.exists():
        raise ConfigError(f"There is no file or folder {str(models)!r}.")
    if is_artifact(models):
        return document_of(str(models.absolute()), "SingleModel", workers, endpoint)
    if not _holds_artifact(models, is_artifact):
        raise ConfigError(f"{str(models)!r} is no model this server knows, nor a folder that holds one.")
    return document_of(str(models.absolute()), "MultiModel", workers, endpoint)


def document_of(url: str, mode: str, workers: int, endpoint: str) -> Document:
    """One endpoint of one variant with one model, all of one name. ``mode``: SingleModel or MultiModel."""
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": endpoint,
        "InitialInstanceCount": workers,
        "InitialVariantWeight": 1.0,
    }
    return Document(
        ({"ModelName": endpoint, "PrimaryContainer": {"ModelDataUrl": url, "Mode": mode}},),
        ({"EndpointConfigName": endpoint, "ProductionVariants": [variant]},),
        ({"EndpointName": endpoint, "EndpointConfigName": endpoint},),
    )


def _holds_artifact(folder: Path, is_artifact: Callable[[Path], bool], depth: int = 3) -> bool:
    """Whether an artifact lies in ``folder`` or up to ``depth`` folders below; hidden names are passed over. One is
    enough: thousands of models need not be looked at to start."""
    if not folder.is_dir():
        return False
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    return any(is_artifact(entry) for entry in entries) or (
        depth > 1 and any(_holds_artifact(entry, is_artifact, depth - 1) for entry in entries)
    )


def named_paths(document: Document) -> tuple[str, ...]:
    """The paths and ``file://`` URLs that an operator names by declaring their models: a server may read there."""
    urls = [container.get("ModelDataUrl", "") for model in document.models for container in containers(model)]
    return tuple(url for url in urls if url and not url.startswith("s3://"))


def local_path(url: str) -> str:
    """The path of a ``file://`` URL; anything else as it is."""
    return unquote("/" + url.removeprefix("file://").partition("/")[2]) if url.startswith("file://") else url


def as_any_client_sends(document: Document) -> Document:
    """The document with what only an operator may leave out or write: a path becomes a ``file://`` URL (a server reads
    those below the folders that its operator named), and a variant says its instances."""

    def said(variant: Body) -> Body:
        needs = "ServerlessConfig" not in variant
        kind = {} if "InstancePools" in variant or not needs else {"InstanceType": USUAL_INSTANCE}
        return {**kind, **({"InitialInstanceCount": 1} if needs and "ModelName" in variant else {}), **variant}

    def config(body: Body) -> Body:
        lists = [name for name in VARIANT_LISTS if name in body]
        return {**body, **{name: [said(variant) for variant in body[name]] for name in lists}}

    return replace(
        document,
        models=tuple(
            _with_urls(model, lambda url: url if "://" in url else f"file://{quote(url)}") for model in document.models
        ),
        configs=tuple(map(config, document.configs)),
    )


def shown(document: Document) -> Iterator[tuple[str, str, bool]]:
    """Each endpoint for a person: its name, its variants in a line, whether a call has to name a model."""
    for endpoint in document.endpoints:
        config = document.find(CONFIG, endpoint["EndpointConfigName"]) or {}
        parts = {one["VariantName"]: _containers_of(document, one) for one in variants(config)}
        shadows = config.get(VARIANT_LISTS[1], ())
        texts = [_line(one, parts[one["VariantName"]]) + " (shadow)" * (one in shadows) for one in variants(config)]
        many = any(container.get("Mode") == "MultiModel" for inside in parts.values() for container in inside)
        yield endpoint["EndpointName"], ", ".join(texts), many


def _containers_of(document: Document, variant: Body) -> tuple[Body, ...]:
    return containers(document.find(MODEL, variant.get("ModelName", "")) or {})


def _line(variant: Body, parts: tuple[Body, ...]) -> str:
    count = variant.get("InitialInstanceCount", 1)
    inside = " > ".join(map(_label, parts)) or variant.get("ModelName", "components")
    return f"{variant['VariantName']}: {inside}, {count} worker{'s' * (count > 1)}"


def _label(container: Body) -> str:
    url = container.get("ModelDataUrl", "") or container.get("Image", "model")
    name = url if "://" in url else Path(url).name
    return f"models of {name}" if container.get("Mode") == "MultiModel" else name


def without_effect(document: Document) -> Iterator[str]:
    """A sentence for each field that is kept and returned, but changes nothing in this version."""
    for kind, body in document.bodies():
        for path, field in _fields(body, f"{kind.noun} {body[kind.name]}: "):
            if field in _NO_EFFECT_YET:
                yield f"{path} has no effect in this version: {_NO_EFFECT_YET[field]}."


def _fields(value: object, where: str) -> Iterator[tuple[str, str]]:
    """(path, name) of every field of a body, inner ones after outer ones."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{where}{name}", name
            if name != "Environment":  # names of the operator's own
                yield from _fields(inner, f"{where}{name}.")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _fields(inner, f"{where.removesuffix('.')}[{index}].")
