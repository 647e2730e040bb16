"""The endpoints this server should have, kept in the control process: deploy, reweigh, resize, name models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving.errors import ConfigError, ServingError, UnknownEndpoint, UnknownModel, UnknownVariant, ValidationError
from serving.fleet.table import endpoint_row
from serving.storage import ArtifactStore
from serving.types import EndpointSpec, VariantSpec
from serving.workers import artifacts
from serving.workers.supervisor import Supervisor

_SAMPLED = 64
#: Names that POST /models may give at once: every front holds them all.
_MOST_NAMES = 100_000


def frameworks_of(location: Path, multi_model: bool, allow_code: bool) -> frozenset[str]:
    """Frameworks a variant's workers should be forked with: its artifact's, or those of the first few under its prefix
    (the others are imported when a model first needs them). Raises ``ServingError`` for a single artifact that is none
    or is not allowed, so that it never gets as far as a worker."""
    if not multi_model:
        if location.name.endswith((".tar.gz", ".tgz")) or (location / "model.tar.gz").is_file():
            return frozenset()  # unpacked by its worker
        artifact = artifacts.recognise(location)
        artifacts.check_allowed(artifact, allow_code)
        return artifact.frameworks
    if not location.is_dir():
        raise ConfigError(f"the model prefix {location.name!r} is no folder")
    found: set[str] = set()
    for at, path in enumerate(sorted(location.iterdir())):
        if at >= _SAMPLED:
            break
        try:
            found |= artifacts.recognise(path).frameworks
        except ServingError:
            continue
    return frozenset(found)


class Endpoints:
    """What there should be, and the table that tells the fronts."""

    def __init__(self, supervisor: Supervisor, store: ArtifactStore, on_change: Callable[[], None]) -> None:
        self._supervisor = supervisor
        self._store = store
        self._on_change = on_change
        self._specs: dict[str, EndpointSpec] = {}
        self._weights: dict[str, dict[str, float]] = {}
        self._locations: dict[tuple[str, str], Path] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._allow_code = supervisor.settings.allow_code

    def deploy(self, spec: EndpointSpec) -> None:
        """There shall be this endpoint. Raises ``ServingError`` when an artifact is missing, unknown or not allowed."""
        prepared = [(variant, *self._prepare(variant)) for variant in spec.variants]
        for variant, location, frameworks in prepared:
            self._locations[spec.name, variant.name] = location
            self._supervisor.put(spec.name, variant, str(location), frameworks)
        self._specs[spec.name] = spec
        self._weights[spec.name] = {variant.name: variant.weight for variant in spec.variants}
        self._on_change()

    def _prepare(self, variant: VariantSpec) -> tuple[Path, frozenset[str]]:
        location = self._store.locate(variant.model.model_data_url)
        return location, frameworks_of(location, variant.model.mode == "MultiModel", self._allow_code)

    def update(self, endpoint: str, changes: Mapping[str, Mapping[str, float]]) -> None:
        """UpdateEndpointWeightsAndCapacities: per variant ``weight`` and/or ``count``, live, all or nothing."""
        spec = self._specs.get(endpoint)
        if spec is None:
            raise UnknownEndpoint(f"Could not find endpoint {endpoint!r}.")
        for variant in changes:
            if variant not in self._weights[endpoint]:
                raise UnknownVariant(f"Variant {variant} of endpoint {endpoint} not found.")
        for variant, change in changes.items():
            if "weight" in change:
                self._weights[endpoint][variant] = change["weight"]
            if "count" in change:
                self._supervisor.resize(endpoint, variant, int(change["count"]))
        self._on_change()

    def name_model(self, endpoint: str, name: str, url: str) -> str:
        """The container API's load: ``name`` shall mean the artifact at ``url``, a path relative to the prefix or an
        absolute one beneath it. Returns the TargetModel. Raises ``ServingError``."""
        location = next((self._locations[key] for key in self._locations if key[0] == endpoint), None)
        if location is None:
            raise UnknownEndpoint(f"Endpoint {endpoint} not found.")
        target = url.removeprefix(f"{location}/").removeprefix("file://").removeprefix(f"{location}/")
        if target.startswith("/"):
            raise UnknownModel("The model's url is not under the endpoint's model prefix.")
        artifacts.locate(location, target)
        names = self._aliases.setdefault(endpoint, {})
        if name != target and names.get(name) != target:
            if len(names) >= _MOST_NAMES:
                raise ValidationError(f"Endpoint {endpoint} has {_MOST_NAMES} named models; unload some first.")
            names[name] = target
            self._on_change()
        return target

    def forget_model(self, endpoint: str, name: str) -> None:
        """The name means nothing any more."""
        if self._aliases.get(endpoint, {}).pop(name, None) is not None:
            self._on_change()

    def table(self, version: int) -> dict[str, Any]:
        """The routing table (``table.py``)."""
        now = time.monotonic()
        rows = []
        for name, spec in self._specs.items():
            fleets = {one.name: self._supervisor.fleets[name, one.name] for one in spec.variants}
            rows.append(endpoint_row(spec, fleets, self._weights[name], now))
        return {
            "version": version,
            "aliases": {name: dict(names) for name, names in self._aliases.items()},
            "endpoints": rows,
        }

    async def handle(self, what: str, args: Mapping[str, Any]) -> Any:
        """A front's question, by name. Raises ``ServingError``; an unknown one is a ``ValidationError``."""
        if what == "update":
            return self.update(args["endpoint"], args["changes"])
        if what == "name_model":
            target = self.name_model(args["endpoint"], args["name"], args["url"])
            await asyncio.sleep(0)  # the table is sent at the end of this tick: before the answer
            return target
        if what == "forget_model":
            self.forget_model(args["endpoint"], args["name"])
            return await asyncio.sleep(0)
        raise ValidationError(f"unknown question {what!r}")
