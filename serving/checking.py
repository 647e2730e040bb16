"""What ``serving check`` finds out, and how an artifact on the command line is told from a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from serving.config import Settings
from serving.declared import (
    CONFIG,
    MODEL,
    Body,
    Document,
    containers,
    document_from_path,
    load_document,
    named_paths,
    variants,
)
from serving.errors import LoadFailed, ServingError, UnknownModel
from serving.runtimes.formats import check_allowed, recognise
from serving.storage import ArtifactStore, open_store
from serving.watch.logs import printable
from serving.workers.trial import Trial, attempt

_ARCHIVES = (".tar.gz", ".tgz")
_DECLARED = (".yaml", ".yml", ".toml")

#: Models of a multi-model prefix that are tried: each takes a process.
SOME = 10


class Subject(NamedTuple):
    """An artifact to be tried, for the variant that would serve it. ``error``: why there is none."""

    endpoint: str
    variant: str
    path: Path
    error: str = ""


def is_artifact(path: Path) -> bool:
    """By content; an archive by its name, as looking inside means unpacking. A folder that holds a ``model.tar.gz``
    and nothing else is what a training job leaves: one artifact, not a prefix of many."""
    if path.name.endswith(_ARCHIVES):
        return path.is_file()
    if path.is_dir() and [entry.name for entry in path.iterdir()] == ["model.tar.gz"]:
        return True
    try:
        recognise(path)
    except LoadFailed:
        return False
    return True


def refuse_code(path: Path, allow_code: bool) -> None:
    """Say now what a server would say later, whose only model may not load. Raises ``CodeNotAllowed``."""
    if not path.name.endswith(_ARCHIVES) and not (path / "model.tar.gz").is_file():
        check_allowed(recognise(path), allow_code)


def subjects(path: Path, settings: Settings) -> Iterator[Subject]:
    """What would be loaded for a file of endpoints, an artifact, or a folder of them; of a multi-model prefix the
    first ``SOME``. Raises ``ServingError`` when ``path`` is none of these."""
    document = _document(path)
    store = open_store(settings, named_paths(document))
    for endpoint in document.endpoints:
        name, config = endpoint["EndpointName"], document.find(CONFIG, endpoint["EndpointConfigName"])
        if config is None:
            missing = f"Its config {endpoint['EndpointConfigName']} is not in the file; a server may have it."
            yield Subject(name, "", Path(endpoint["EndpointConfigName"]), missing)
        for variant in variants(config or {}):
            yield from _variant_subjects(name, variant, document.find(MODEL, variant.get("ModelName", "")), store)


def declares(path: Path) -> bool:
    """Whether this is a file of endpoints, by its ending; one in JSON may be a model as well."""
    return path.suffix in _DECLARED or (path.suffix == ".json" and path.is_file() and not is_artifact(path))


def _document(path: Path) -> Document:
    if declares(path):
        return load_document(path)
    if path.is_file() and not is_artifact(path):
        recognise(path)  # says in a sentence why it is none
    return document_from_path(path, is_artifact)


def _variant_subjects(endpoint: str, variant: Body, model: Body | None, store: ArtifactStore) -> Iterator[Subject]:
    name = variant["VariantName"]
    if model is None and "ModelName" in variant:
        missing = f"Its model {variant['ModelName']} is not in the file; a server may have it."
        yield Subject(endpoint, name, Path(variant["ModelName"]), missing)
    for container in containers(model or {}):
        try:
            places = _places(container, store)
        except ServingError as error:
            yield Subject(endpoint, name, Path(container.get("ModelDataUrl", "model")), error.message)
            continue
        yield from (Subject(endpoint, name, place) for place in places)


def _places(container: Body, store: ArtifactStore) -> Sequence[Path]:
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    url = container.get("ModelDataUrl") or source.get("S3Uri")
    if not url:
        raise UnknownModel("It has no ModelDataUrl to look at.")
    place = store.locate(url)
    return sorted(_artifacts_in(place))[:SOME] if container.get("Mode") == "MultiModel" else [place]


def _artifacts_in(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if is_artifact(entry):
            yield entry
        elif entry.is_dir():
            yield from _artifacts_in(entry)


def tried(subject: Subject, settings: Settings) -> Trial:
    """Load it in a child process: whatever it does, this one goes on."""
    if subject.error:
        return Trial(subject.path.name, error=subject.error)
    return attempt(
        subject.path,
        allow_code=settings.allow_code,
        threads=settings.threads,
        timeout=settings.load_timeout_seconds,
    )


def told(trial: Trial) -> str:
    """A trial for a person. A model's own words reach the terminal escaped."""
    return "\n".join(printable(line) for line in _lines(trial))


def _lines(trial: Trial) -> list[str]:
    lines = [f"{trial.artifact}: {'would not load' if trial.error else 'loads'}"]
    if trial.format:
        engine = f" through {trial.engine}" if trial.engine else ""
        lines.append(f"  format  {trial.format}{engine}{', executes code' if trial.executes_code else ''}")
    if trial.inputs:
        lines.append(f"  input   {'; '.join(trial.inputs)}")
    if trial.error:
        return [*lines, f"  why     {trial.error}"]
    frameworks = " + ".join(trial.frameworks) or "Python"
    return [
        *lines,
        f"  memory  {_bytes_text(trial.memory_bytes)}, and {_bytes_text(trial.framework_bytes)} for {frameworks} "
        "once in each worker",
        f"  disk    {_bytes_text(trial.artifact_bytes)}",
        f"  time    {trial.load_seconds * 1e3:.0f} ms to load",
    ]


def _bytes_text(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
