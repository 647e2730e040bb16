"""Building what is missing. A manifest beside the artifacts remembers each model's recipe digest and its files.

Layout of the output folder::

    NAME/...               the artifact, only what a server is meant to load
    cards/NAME/...         card.json, MODEL_CARD.md, sample requests, expected answers
    gallery/NAME.tar.gz    of a built-in algorithm: the artifact, packed (trainer.py)
    manifest.json          {"models": {NAME: {"recipe", "seconds", "built_with", "files"}}}

A model is built in a hidden folder and moved into place whole; two builders take turns by a lock on the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from models import cards
from models.cards import Card
from models.recipes import HERE, Recipe, advice

DEFAULT_OUT = HERE / "artifacts"
MANIFEST = "manifest.json"
SCRATCH = ".building-"
#: Where the packed built-in algorithms lie: what a multi-model endpoint serves.
PACKED = "gallery"

State = Literal["current", "stale", "missing"]


class Reporter(Protocol):
    """Who is told how the building goes."""

    def building(self, recipe: Recipe) -> AbstractContextManager[object]:
        """``recipe`` is being trained for as long as the context is open."""

    def built(self, recipe: Recipe, seconds: float, card: Card) -> None:
        """It lies in place."""

    def kept(self, recipe: Recipe) -> None:
        """It was there already."""

    def skipped(self, recipe: Recipe, why: str) -> None:
        """It cannot be built here."""


def state(recipe: Recipe, out: Path) -> State:
    """Whether the model is in ``out``, whole, and made by today's recipe. Reads no artifact, only file sizes."""
    entry = _entries(out).get(recipe.name)
    if entry is None:
        return "missing"
    if any(not _has_size(out / file, facts["bytes"]) for file, facts in entry["files"].items()):
        return "missing"
    return "current" if entry["recipe"] == recipe.digest() else "stale"


def entry(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What the manifest remembers of a model. Raises KeyError when it knows nothing of it."""
    found: dict[str, Any] = _entries(out)[recipe.name]
    return found


def build(recipes: Sequence[Recipe], out: Path, report: Reporter, *, force: bool = False) -> list[Recipe]:
    """Build those of ``recipes`` that are not current (all of them with ``force``), and return the ones that could not
    be built because a package is missing. A current model needs no package."""
    out.mkdir(parents=True, exist_ok=True)
    skipped = []
    with _turn(out):
        for recipe in recipes:
            if not force and state(recipe, out) == "current":
                report.kept(recipe)
            elif lacking := recipe.lacking():
                report.skipped(recipe, advice(lacking))
                skipped.append(recipe)
            else:
                _build_one(recipe, out, report)
    return skipped


def _build_one(recipe: Recipe, out: Path, report: Reporter) -> None:
    began = time.perf_counter()
    digest = recipe.digest()
    with report.building(recipe), tempfile.TemporaryDirectory(prefix=SCRATCH, dir=out) as scratch:
        staged = Path(scratch)
        artifact = staged / recipe.name
        artifact.mkdir()
        with one_thread():
            card = recipe.run(artifact)
        cards.write(card, staged / "cards" / recipe.name)
        seconds = time.perf_counter() - began
        _place(recipe, staged, out, seconds, digest)
    report.built(recipe, seconds, card)


def place(recipe: Recipe, staged: Path, out: Path, seconds: float, made_by: str) -> None:
    """Move what a model consists of from the folder ``staged`` into ``out``, and remember it. ``made_by``: the recipe's
    digest when the training began, or another word, which makes it stale."""
    with _turn(out):
        _place(recipe, staged, out, seconds, made_by)


def _place(recipe: Recipe, staged: Path, out: Path, seconds: float, made_by: str) -> None:
    files = {str(file.relative_to(staged)): _facts(file) for file in sorted(staged.rglob("*")) if file.is_file()}
    for part in (recipe.name, f"cards/{recipe.name}", f"{PACKED}/{recipe.name}.tar.gz"):
        if (staged / part).exists():
            _move(staged / part, out / part)
    _remember(out, recipe, seconds, made_by, files)


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and OpenMP on one thread: several add in an order of their own, and the last bits of a sum then vary."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    with threadpool_limits(limits=1):
        yield


@contextmanager
def _turn(out: Path) -> Iterator[None]:
    """Wait until nobody else builds in ``out``, and clear away what a killed builder left."""
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, or with the process
        for left in out.glob(f"{SCRATCH}*"):
            shutil.rmtree(left)
        yield


def _move(source: Path, target: Path) -> None:
    """Put ``source`` where ``target`` is. What was there leaves whole, before the new one arrives."""
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        target.rename(source.with_name(f"{source.name}.old"))
    source.rename(target)


def _remember(out: Path, recipe: Recipe, seconds: float, made_by: str, files: dict[str, Any]) -> None:
    entries = _entries(out)
    entries[recipe.name] = {
        "recipe": made_by,
        "seconds": round(seconds, 2),
        "built_with": {package: _version(package) for package in recipe.needs},
        "files": files,
    }
    fresh = out / f"{MANIFEST}.new"
    fresh.write_text(json.dumps({"models": entries}, indent=1, sort_keys=True) + "\n")
    fresh.replace(out / MANIFEST)


def near(path: Path) -> Path:
    """``path`` as a person standing in the current folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _entries(out: Path) -> dict[str, Any]:
    """The manifest's models. A manifest that is absent or cannot be read remembers nothing: all is built again."""
    try:
        entries: dict[str, Any] = json.loads((out / MANIFEST).read_text())["models"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return entries


def _facts(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _version(package: str) -> str:
    """The version of an importable package, whose distribution may be called otherwise (xgboost in xgboost-cpu)."""
    names = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.version(names[0]) if names else "unknown"
