"""The container API's own names for models (POST /models): kept in the control process, told to every front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serving.errors import UnknownEndpoint, UnknownModel, ValidationError
from serving.workers import artifacts
from serving.workers.supervisor import Supervisor

#: Names that POST /models may give at once: every front holds them all.
_MOST_NAMES = 100_000


class ModelNames:
    """Names by endpoint, each meaning an artifact beneath the endpoint's model prefix."""

    def __init__(self, supervisor: Supervisor, on_change: Callable[[], None]) -> None:
        self._supervisor = supervisor
        self._on_change = on_change
        self._locations: dict[str, Path] = {}
        self._aliases: dict[str, dict[str, str]] = {}

    def locate(self, endpoint: str, location: Path) -> None:
        """The endpoint's models lie here."""
        self._locations[endpoint] = location

    def forget_endpoint(self, endpoint: str) -> None:
        """The endpoint has gone, and the names with it."""
        self._locations.pop(endpoint, None)
        self._aliases.pop(endpoint, None)

    def give(self, endpoint: str, name: str, url: str) -> str:
        """The container API's load: ``name`` shall mean the artifact at ``url``, a path relative to the prefix or an
        absolute one beneath it. Returns the TargetModel. Raises ``ServingError``."""
        location = self._locations.get(endpoint)
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

    def forget(self, endpoint: str, name: str) -> None:
        """The name means nothing any more."""
        if self._aliases.get(endpoint, {}).pop(name, None) is not None:
            self._on_change()

    def table(self) -> dict[str, dict[str, str]]:
        """Names and what they mean, by endpoint."""
        return {endpoint: dict(names) for endpoint, names in self._aliases.items()}
