"""The example models for any test that wants a real artifact: built once, shared by every test process."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from models import families, gallery
from models.recipes import BY_NAME, RECIPES, Recipe

ROOT = Path(__file__).resolve().parents[1]


class Sample(NamedTuple):
    """A request and what to expect: the model's outputs by name, one entry a row, within ``tolerance``."""

    body: bytes
    content_type: str
    expected: dict[str, Any]
    tolerance: float


class Question(NamedTuple):
    """A sample of a built-in algorithm, as its card has it: the request, and the whole answer within ``tolerance``."""

    name: str
    body: bytes
    content_type: str
    accept: str
    expected: Any
    tolerance: float


@functools.cache
def artifacts(*names: str) -> Path:
    """The folder with the artifacts of ``names``, or of all plain models that can be built here, building what is
    missing. A name may also be that of a built-in algorithm's family.

    ``artifacts("wine-script") / "wine-script"`` is one artifact. Training happens in a process of its own, so that no
    framework or native thread is left in the caller's; two callers take turns.
    """
    chosen = [name for name in names if name in families.BY_NAME]
    plain = [name for name in names if name not in families.BY_NAME]
    if chosen and any(_is_stale(families.BY_NAME[name]) for name in chosen):
        _run("train", *chosen)
    wanted = [BY_NAME[name] for name in plain] or ([] if chosen else list(RECIPES))
    if any(_is_stale(recipe) for recipe in wanted):
        _run(*plain)
    return gallery.DEFAULT_OUT


def _is_stale(recipe: Recipe) -> bool:
    return gallery.state(recipe, gallery.DEFAULT_OUT) != "current"


def _run(*arguments: str) -> None:
    command = [sys.executable, "-m", "models", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the example models could not be built:\n{done.stdout}{done.stderr}")


def card(name: str) -> dict[str, Any]:
    """The model's ``card.json``."""
    content: dict[str, Any] = json.loads((artifacts(name) / "cards" / name / "card.json").read_text())
    return content


def sample(name: str, which: str = "request") -> Sample:
    """One row (``request``) or several (``batch``) for the model, from its card."""
    folder = artifacts(name) / "cards" / name
    described = card(name)["samples"][which]
    return Sample(
        (folder / described["body"]).read_bytes(),
        described["content_type"],
        json.loads((folder / described["expected"]).read_text()),
        described["tolerance"],
    )


def questions(name: str) -> list[Question]:
    """All samples of a built-in algorithm's family."""
    folder = artifacts(name) / "cards" / name
    return [
        Question(
            which,
            (folder / described["body"]).read_bytes(),
            described["content_type"],
            described["accept"],
            _expected(folder / described["expected"]),
            described["tolerance"],
        )
        for which, described in card(name)["samples"].items()
    ]


def _expected(file: Path) -> Any:
    return file.read_bytes() if file.suffix == ".png" else json.loads(file.read_bytes())
