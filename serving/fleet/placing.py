"""Where a fleet's artifact lies and which frameworks its workers should be forked with."""

from __future__ import annotations

from pathlib import Path

from serving.errors import ConfigError, ServingError
from serving.storage import ArtifactStore
from serving.types import FleetSpec
from serving.workers import artifacts

_SAMPLED = 64


def place(spec: FleetSpec, store: ArtifactStore, allow_code: bool) -> tuple[Path, frozenset[str]]:
    """The real path of a fleet's artifact or model prefix (fetched if need be, so this may take as long as a load) and
    its frameworks. Raises ``ServingError`` for what is missing, unknown or not allowed."""
    multi_model = spec.model.mode == "MultiModel"
    location = (
        store.locate_prefix(spec.model.model_data_url) if multi_model else store.locate(spec.model.model_data_url)
    )
    return location, frameworks_of(location, multi_model, allow_code)


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
