"""What the terminal asks of a running server's control API. The calls are those of any AWS client."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.checking import declares, is_artifact
from serving.client import Refused, Server
from serving.declared import (
    Body,
    Document,
    as_any_client_sends,
    containers,
    document_from_path,
    document_of,
    load_document,
    variants,
)
from serving.deploying import Call, Step, apply, settled
from serving.errors import ConfigError
from serving.guardrails import progress

#: ``VARIANT=WEIGHT``, ``VARIANT:COUNT``, or both: neither sign can be part of a variant's name.
_CHANGE = re.compile(r"([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})(?:=(\d+\.?\d*|\.\d+))?(?::(\d{1,9}))?", re.ASCII)

HEADINGS = ("ENDPOINT", "STATUS", "VARIANT", "WEIGHT", "WORKERS")


def caller(server: Server) -> Call:
    """The server's control API, as ``deploying`` calls it."""

    async def call(operation: str, params: Body) -> Body:
        return server.call(operation, params)

    return call


# --- deploy ---------------------------------------------------------------------------------------------------------


def document_at(what: str, endpoint: str, instances: int) -> Document:
    """What ``serving deploy`` names: a file of endpoints, a path to models, or the URL of an artifact (of a prefix of
    many, if it ends in ``/``), which is served as ``endpoint``. Raises ``ConfigError``."""
    return as_any_client_sends(_document_at(what, endpoint, instances))


def is_artifact_at(what: str) -> bool:
    """Whether this is an artifact's place, rather than a file of endpoints: one may have changed behind its name."""
    return what.startswith(("s3://", "file://")) or not declares(Path(what))


def _document_at(what: str, endpoint: str, instances: int) -> Document:
    if what.startswith(("s3://", "file://")):
        return document_of(what, "MultiModel" if what.endswith("/") else "SingleModel", instances, endpoint)
    path = Path(what)
    return load_document(path) if declares(path) else document_from_path(path, is_artifact, instances, endpoint)


def deploy(
    server: Server, document: Document, log: Callable[[str], None], patience: float, again: bool = False
) -> tuple[Step, ...]:
    """Apply a document over HTTP (see ``deploying.apply``)."""
    return asyncio.run(apply(document, caller(server), log, patience=patience, again=again))


def look(server: Server, names: Sequence[str], patience: float) -> list[Body]:
    """The endpoints as they are once they have settled; with no ``patience``, as they are now."""
    if not patience:
        return [server.call("DescribeEndpoint", {"EndpointName": name}) for name in names]
    return asyncio.run(settled(names, caller(server), patience))


# --- look -----------------------------------------------------------------------------------------------------------


def endpoints(server: Server) -> list[Body]:
    """All endpoints by name, as DescribeEndpoint has them. One that goes in the meantime is left out."""
    found: list[Body] = []
    for name in _names(server):
        with suppress(Refused):
            found.append(server.call("DescribeEndpoint", {"EndpointName": name}))
    return found


def _names(server: Server) -> Iterator[str]:
    wanted: dict[str, Any] = {"SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 100}
    while True:
        page = server.call("ListEndpoints", wanted)
        yield from (one["EndpointName"] for one in page["Endpoints"])
        if not page.get("NextToken"):
            return
        wanted["NextToken"] = page["NextToken"]


def rows(endpoint: Body) -> list[tuple[str, ...]]:
    """An endpoint's lines in a table under ``HEADINGS``: one for each variant, one alone if it has none yet."""
    name, status = endpoint["EndpointName"], endpoint["EndpointStatus"]
    running = running_variants(endpoint)
    return [(name, status, *one) for one in running] or [(name, status, "-", "-", "-")]


def running_variants(endpoint: Body) -> list[tuple[str, str, str]]:
    """The cells of an endpoint's variants; those of its shadow variants say so."""
    shadows = [variant_cells(one) for one in endpoint.get("ShadowProductionVariants", ())]
    return [
        *(variant_cells(one) for one in endpoint.get("ProductionVariants", ())),
        *((name, f"{weight} (shadow)", workers) for name, weight, workers in shadows),
    ]


def variant_cells(variant: Body) -> tuple[str, str, str]:
    """Name, weight and workers of a running variant; what is on its way to another value shows both."""
    current, desired = variant.get("CurrentWeight", 0.0), variant.get("DesiredWeight", 0.0)
    weight = f"{current:g}" if current == desired else f"{current:g} > {desired:g}"
    workers = f"{variant.get('CurrentInstanceCount', 0)}/{variant.get('DesiredInstanceCount', 0)}"
    return variant["VariantName"], weight, workers


def artifacts(server: Server, endpoint: Body) -> dict[str, tuple[str, str]]:
    """Model and artifacts by variant, as far as config and models are still there (an endpoint runs without)."""
    found: dict[str, tuple[str, str]] = {}
    with suppress(Refused):
        config = server.call("DescribeEndpointConfig", {"EndpointConfigName": endpoint.get("EndpointConfigName", "")})
        for variant in variants(config):
            name = variant.get("ModelName", "")
            urls: tuple[str, ...] = ()
            with suppress(Refused):
                model = server.call("DescribeModel", {"ModelName": name})
                urls = tuple(one.get("ModelDataUrl", "-") for one in containers(model))
            found[variant["VariantName"]] = (name or "-", ", ".join(urls) or "-")
    return found


def facts(endpoint: Body) -> list[tuple[str, str]]:
    """What there is to say of an endpoint as a whole."""
    pending = endpoint.get("PendingDeploymentSummary", {})
    told = [
        ("endpoint", endpoint["EndpointName"]),
        ("status", endpoint["EndpointStatus"]),
        ("reason", endpoint.get("FailureReason", "")),
        ("config", endpoint.get("EndpointConfigName", "")),
        ("pending", progress(endpoint) or pending.get("EndpointConfigName", "")),
        ("created", _moment(endpoint["CreationTime"])),
        ("changed", _moment(endpoint["LastModifiedTime"])),
    ]
    return [(name, text) for name, text in told if text]


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- change ---------------------------------------------------------------------------------------------------------


def changes(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """DesiredWeightsAndCapacities of ``VARIANT=WEIGHT``, ``VARIANT:COUNT`` and ``VARIANT=WEIGHT:COUNT``. Raises
    ``ConfigError``."""
    found = []
    for argument in arguments:
        match = _CHANGE.fullmatch(argument)
        if match is None or (match[2] is None and match[3] is None):
            raise ConfigError(
                f"{argument!r} is no change of a variant; expected VARIANT=WEIGHT, VARIANT:WORKERS or both "
                "(blue=0.9, blue:2, blue=0.9:2)."
            )
        change: dict[str, Any] = {"VariantName": match[1]}
        if match[2] is not None:
            change["DesiredWeight"] = float(match[2])
        if match[3] is not None:
            change["DesiredInstanceCount"] = int(match[3])
        found.append(change)
    return found


def delete(server: Server, endpoint: str, everything: bool, log: Callable[[str], None]) -> list[str]:
    """Delete an endpoint; with ``everything`` also the config it has and that config's models, which others may not
    need any more. Returns what was deleted, as ``kind name``. Raises ``Refused``."""
    doomed = [("DeleteEndpoint", "EndpointName", endpoint), *(_belongings(server, endpoint) if everything else ())]
    done = []
    for operation, member, name in doomed:
        try:
            server.call(operation, {member: name})
        except Refused as error:
            if operation == "DeleteEndpoint" or "Could not find" not in error.message:
                raise
            continue
        done.append(f"{_NOUNS[operation]} {name}")
        log(f"{done[-1]} is deleted")
    return done


_NOUNS = {"DeleteEndpoint": "endpoint", "DeleteEndpointConfig": "endpoint config", "DeleteModel": "model"}


def _belongings(server: Server, endpoint: str) -> Iterator[tuple[str, str, str]]:
    """(operation, member, name) for the config and the models of an endpoint."""
    config = server.call("DescribeEndpoint", {"EndpointName": endpoint}).get("EndpointConfigName", "")
    if not config:
        return
    yield "DeleteEndpointConfig", "EndpointConfigName", config
    with suppress(Refused):
        described = server.call("DescribeEndpointConfig", {"EndpointConfigName": config})
        models = dict.fromkeys(one["ModelName"] for one in variants(described) if "ModelName" in one)
        yield from (("DeleteModel", "ModelName", model) for model in models)


def gone(server: Server, endpoint: str, patience: float) -> bool:
    """Whether the endpoint has ceased to be within ``patience`` seconds."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            server.call("DescribeEndpoint", {"EndpointName": endpoint})
        except Refused as error:
            if "Could not find" in error.message:
                return True
            raise
        time.sleep(0.1)  # a client's polling interval
    return False
