"""What must be called so that a server has what a document says: look, compare, call.

In the server itself at its start, and over HTTP by ``serving deploy``: the calls are the same. Applying a document
again changes only what differs, and removes nothing: what it no longer names stays until it is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from serving.config import did_you_mean
from serving.declared import (
    CONFIG,
    ENDPOINT,
    MODEL,
    USUAL_INSTANCE,
    VARIANT_LISTS,
    Body,
    Document,
    Kind,
    local_path,
    variants,
    without_effect,
)
from serving.errors import ConfigError, ServiceUnavailable, ServingError
from serving.sections import POLICIES, TARGETS, Section

#: Makes one call of a control API: (operation, parameters) -> answer; an operation of another service than SageMaker
#: stands behind its prefix (``api/services.py``) and a dot. Raises ``ServingError``.
Call = Callable[[str, Body], Awaitable[Body]]


#: What AWS takes a member for when it is left out: to say so is no difference.
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "EnableCapture": (True,),
    "EnableNetworkIsolation": (False,),
    "InitialInstanceCount": (1,),
    "InstanceType": (USUAL_INSTANCE,),
    "InitialVariantWeight": (1.0,),
    "Mode": ("SingleModel", "Serial"),
    "ModelCacheSetting": ("Enabled",),
    "RoutingStrategy": ("RANDOM",),
}

#: What Describe answers beyond what Create was given; tags are compared by themselves.
_NOT_SENT = frozenset({"CreationTime", "DeploymentRecommendation", "EndpointConfigArn", "ModelArn", "Tags"})

#: States in which an endpoint takes no update, and leaves by itself.
IN_PROGRESS = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})

_POLL_SECONDS = 0.1


# --- what is there, and what differs --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Described:
    """What a server has of the things a document names: the answers of Describe*, by name in lower case. An answer
    has ``Tags`` where the document has them."""

    models: Mapping[str, Body]
    configs: Mapping[str, Body]
    endpoints: Mapping[str, Body]


class Step(NamedTuple):
    """A call to make. ``why``: a line for a person."""

    operation: str
    params: Body
    why: str


def plan(document: Document, described: Described, again: bool = False) -> tuple[Step, ...]:
    """The calls that turn what is described into what is wanted; none when nothing differs.

    A model or config that differs is deleted and made anew, as neither can be changed; endpoints that use it go on
    serving what they have until they are updated. ``again``: update the endpoints although nothing differs, as the
    artifacts may have changed. Raises ``ConfigError`` for a name that is neither in the document nor there.
    """
    _check_references(document, described)
    models = [step for body in document.models for step in _remade(MODEL, body, described.models)]
    configs = [step for body in document.configs for step in _remade(CONFIG, body, described.configs)]
    made = {step.params.get("ModelName", "").lower() for step in models if step.operation == "CreateModel"}
    endpoints = [
        step for body in document.endpoints for step in _endpoint_steps(body, document, described, made, again)
    ]
    return (*models, *configs, *endpoints)


def _check_references(document: Document, described: Described) -> None:
    """Every model and config that is named is in the document or there. Raises ``ConfigError``."""
    models = [str(body["ModelName"]) for body in document.models]
    configs = [str(body["EndpointConfigName"]) for body in document.configs]
    for i, config in enumerate(document.configs):
        for list_name in VARIANT_LISTS:
            for k, variant in enumerate(config.get(list_name, ())):
                if "ModelName" in variant:
                    where = f"{CONFIG.section}[{i}].{list_name}[{k}]"
                    _check_reference(where, MODEL, variant, models, described.models)
    for i, endpoint in enumerate(document.endpoints):
        _check_reference(f"{ENDPOINT.section}[{i}]", CONFIG, endpoint, configs, described.configs)


def _check_reference(where: str, kind: Kind, body: Body, own: list[str], existing: Mapping[str, Body]) -> None:
    name = body[kind.name]
    if name.lower() not in existing and name.lower() not in (one.lower() for one in own):
        expected = f"one of the {kind.section}, or one that the server has{did_you_mean(name, own)}"
        raise ConfigError(f"{where}.{kind.name} is {name!r}; expected {expected}.")


def _remade(kind: Kind, body: Body, existing: Mapping[str, Body]) -> Iterator[Step]:
    """How a model or config comes to be as the document has it."""
    name = body[kind.name]
    there = existing.get(name.lower())
    if there is None:
        yield Step(kind.create, body, f"{kind.noun} {name} is new")
    elif _essence(body) != _essence(there):
        yield Step(f"Delete{kind.resource}", {kind.name: name}, f"{kind.noun} {name} differs")
        yield Step(kind.create, body, f"{kind.noun} {name} is made anew")
    else:
        yield from _tagged(kind, body, there)


def _tagged(kind: Kind, body: Body, there: Body) -> Iterator[Step]:
    """Tags that are missing or have another value; others are left alone."""
    has = {tag["Key"]: tag["Value"] for tag in there.get("Tags", ())}
    wanted = [tag for tag in body.get("Tags", ()) if has.get(tag["Key"]) != tag["Value"]]
    if wanted:
        params = {"ResourceArn": there[f"{kind.resource}Arn"], "Tags": wanted}
        yield Step("AddTags", params, f"{kind.noun} {body[kind.name]} has other tags")


def _essence(value: object, name: str = "") -> object:
    """A body as it is compared: without what the answer adds, what says nothing, and what says the default; one
    spelling of paths and names. ``name``: the member that holds it."""
    if name == "Environment":
        return value  # names and texts of the model's own
    if name == "ModelDataUrl":
        return local_path(str(value))
    if name in ("ModelName", "EndpointConfigName"):
        return str(value).lower()
    if isinstance(value, Mapping):
        inner = {name: _essence(one, name) for name, one in value.items() if name not in _NOT_SENT}
        return {name: one for name, one in inner.items() if one not in (None, {}, [], *_DEFAULTS.get(name, ()))}
    return [_essence(one) for one in value] if isinstance(value, list | tuple) else value


def _endpoint_steps(
    body: Body, document: Document, described: Described, made: set[str], again: bool
) -> Iterator[Step]:
    """How an endpoint comes to serve what the document has. ``made``: models that are made (anew), in lower case."""
    name = body["EndpointName"]
    there = described.endpoints.get(name.lower())
    if there is None:
        yield Step("CreateEndpoint", body, f"endpoint {name} is new")
        return
    if there["EndpointStatus"] == "Failed":  # AWS: nothing but DeleteEndpoint works on it
        yield Step("DeleteEndpoint", {"EndpointName": name}, f"endpoint {name} had failed")
        yield Step("CreateEndpoint", body, f"endpoint {name} is made anew")
        return
    why = _stale(body, there, document, described, made) or ("is deployed again" if again else "")
    if why:
        params = {key: value for key, value in body.items() if key != "Tags"}
        yield Step("UpdateEndpoint", params, f"endpoint {name} {why}")
    yield from _tagged(ENDPOINT, body, there)


def _stale(body: Body, there: Body, document: Document, described: Described, made: set[str]) -> str:
    """Why an endpoint does not serve what it should; empty when it does.

    A config or model younger than the endpoint's last change has not been taken up: somebody who applied this
    document was interrupted before the update."""
    name = body["EndpointConfigName"].lower()
    serving = there.get("PendingDeploymentSummary", there).get("EndpointConfigName", "")
    if serving.lower() != name:
        return f"serves config {serving or '(none)'}, not {body['EndpointConfigName']}"
    old = described.configs.get(name)
    new = next((one for one in document.configs if one["EndpointConfigName"].lower() == name), old)
    if old is None or new is None or _essence(old) != _essence(new):
        return "has another config"
    used = {variant["ModelName"].lower() for variant in variants(new) if "ModelName" in variant}
    if used & made:
        return f"has another model ({', '.join(sorted(used & made))})"
    parts = [old, *(described.models[one] for one in used if one in described.models)]
    changed = _seconds(there.get("LastModifiedTime"))
    return "has not taken up its config" if any(_seconds(one.get("CreationTime")) > changed for one in parts) else ""


def _seconds(moment: Any) -> float:
    """Epoch seconds of a timestamp as the wire has it, or as boto3 reads it."""
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment or 0.0)


# --- asking and doing -----------------------------------------------------------------------------------------------


async def apply(
    document: Document,
    call: Call,
    log: Callable[[str], None] = lambda line: None,
    *,
    patience: float = 600.0,
    again: bool = False,
) -> tuple[Step, ...]:
    """Make the server have what the document says, by calls of its API; returns those that were made.

    ``log`` is told each step, and each field without effect. An endpoint in the middle of a change is waited for, up
    to ``patience`` seconds. Does not wait until endpoints are in service (``settled`` does). Raises ``ServingError``
    as the calls do, ``ConfigError`` as ``plan`` does; what was done until then stays, and applying again goes on.
    """
    for note in without_effect(document):
        log(note)
    until = time.monotonic() + patience
    steps = plan(document, await describe(document, call, until), again)
    for step in steps:
        log(step.why)
        await _made(step, call, until)
    return (*steps, *await scaled(document.scaling, call, log))


async def scaled(wanted: Sequence[tuple[Section, Body]], call: Call, log: Callable[[str], None]) -> tuple[Step, ...]:
    """Make what scales as it is wanted; returns the calls that were made. All of it is put, not created, and
    endpoints need not have settled."""
    steps = []
    for section, body in wanted:
        params = await _with_arns(body, wanted, call) if "AlarmActions" in body else body
        there = await _found(section, params, call)
        if there is not None:
            params = {name: value for name, value in params.items() if name != "Tags"}  # refused where there is one
        if there is None or not _covers(there, params):
            step = Step(section.operation, params, f"{section.spelt(body)} {'is new' if there is None else 'differs'}")
            log(step.why)
            await call(step.operation, step.params)
            steps.append(step)
    return tuple(steps)


async def _found(section: Section, body: Body, call: Call) -> Body | None:
    """What the server has of this key; None when there is no such thing."""
    asked: dict[str, Any] = {section.filter: [body[section.names[-1]]]} if section.filter else {}
    if section.is_scaling:
        asked |= {name: body[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
    if section is TARGETS:
        asked["ResourceIds"] = [asked.pop("ResourceId")]
    answer = await call(f"{section.prefix}.{section.describe}", asked)
    return next((one for one in answer.get(section.found, ()) if section.key(one) == section.key(body)), None)


def _covers(there: Body, wanted: Body) -> bool:
    """Does everything that is wanted stand there? What is there besides was given by others, or goes without
    saying."""
    return all(name in there and _same(there[name], value) for name, value in wanted.items() if name != "ResourceId")


def _same(there: object, wanted: object) -> bool:
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return _covers(there, wanted)
    if isinstance(wanted, list | tuple) and isinstance(there, list | tuple):
        return len(there) == len(wanted) and all(map(_same, there, wanted))
    return there == wanted


async def _with_arns(alarm: Body, wanted: Sequence[tuple[Section, Body]], call: Call) -> Body:
    """An alarm with the ARNs of the policies that its actions name."""
    named = {body["PolicyName"]: body for section, body in wanted if section is POLICIES}

    async def arn(action: str) -> str:
        policy = await _found(POLICIES, named[action], call) if action in named else None
        return str(policy["PolicyARN"]) if policy else action

    return {**alarm, "AlarmActions": [await arn(action) for action in alarm["AlarmActions"]]}


async def describe(document: Document, call: Call, until: float) -> Described:
    """What the server has of what a document names. An endpoint that is going is waited for, until the moment
    ``until`` (``time.monotonic``)."""
    endpoints: dict[str, Body] = {}
    for body in document.endpoints:
        there = await _described(ENDPOINT, body["EndpointName"], call, body)
        if there and there["EndpointStatus"] == "Deleting":
            await _gone(body["EndpointName"], call, until)
        elif there:
            endpoints[body["EndpointName"].lower()] = there
    wanted = {body["EndpointConfigName"]: body for body in document.configs}
    names = [*wanted, *(body["EndpointConfigName"] for body in document.endpoints)]
    configs = {name.lower(): await _described(CONFIG, name, call, wanted.get(name)) for name in dict.fromkeys(names)}
    made = {body["ModelName"]: body for body in document.models}
    used = (one for config in (*document.configs, *filter(None, configs.values())) for one in variants(config))
    names = [*made, *(one["ModelName"] for one in used if "ModelName" in one)]
    models = {name.lower(): await _described(MODEL, name, call, made.get(name)) for name in dict.fromkeys(names)}
    return Described(_present(models), _present(configs), endpoints)


def _present(found: Mapping[str, Body | None]) -> dict[str, Body]:
    return {name: one for name, one in found.items() if one is not None}


async def _described(kind: Kind, name: str, call: Call, wanted: Body | None = None) -> Body | None:
    """Describe's answer, with tags if ``wanted`` has some; None when there is no such thing."""
    try:
        there = await call(f"Describe{kind.resource}", {kind.name: name})
    except ServingError as error:
        if "Could not find" in error.message:
            return None
        raise
    if wanted and wanted.get("Tags"):
        tags = await call("ListTags", {"ResourceArn": there[f"{kind.resource}Arn"]})
        return {**there, "Tags": tags.get("Tags", [])}
    return there


async def _made(step: Step, call: Call, until: float) -> None:
    """One step; again while the endpoint is in the middle of a change."""
    while True:
        try:
            await call(step.operation, step.params)
            break
        except ServingError as error:
            if "in-progress" not in error.message or time.monotonic() > until:
                raise
        await asyncio.sleep(_POLL_SECONDS)
    if step.operation == "DeleteEndpoint":
        await _gone(step.params["EndpointName"], call, until)


async def _gone(name: str, call: Call, until: float) -> None:
    while await _described(ENDPOINT, name, call):
        if time.monotonic() > until:
            raise ServiceUnavailable(f"Endpoint {name} is still being deleted.")
        await asyncio.sleep(_POLL_SECONDS)


async def settled(names: Iterable[str], call: Call, patience: float) -> list[Body]:
    """The endpoints' descriptions once none of them is in the middle of a change (they may have failed). Raises
    ``ServiceUnavailable`` when that takes longer than ``patience`` seconds."""
    until = time.monotonic() + patience
    found = []
    for name in names:
        while (there := await call("DescribeEndpoint", {"EndpointName": name}))["EndpointStatus"] in IN_PROGRESS:
            if time.monotonic() > until:
                raise ServiceUnavailable(f"Endpoint {name} is still {there['EndpointStatus']}.")
            await asyncio.sleep(_POLL_SECONDS)
        found.append(there)
    return found
