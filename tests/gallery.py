"""The example models for any test that wants a real artifact: built once, shared by every test process."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from models import gallery
from models.recipes import BY_NAME, RECIPES

ROOT = Path(__file__).resolve().parents[1]


class Sample(NamedTuple):
    """A request and what to expect: the model's outputs by name, one entry a row, within ``tolerance``."""

    body: bytes
    content_type: str
    expected: dict[str, Any]
    tolerance: float


@functools.cache
def artifacts(*names: str) -> Path:
    """The folder with the artifacts of ``names``, or of all models that can be built here, building what is missing.

    ``artifacts("wine-script") / "wine-script"`` is one artifact. Training happens in a process of its own, so that no
    framework or native thread is left in the caller's; two callers take turns.
    """
    wanted = [BY_NAME[name] for name in names] or list(RECIPES)
    if any(gallery.state(recipe, gallery.DEFAULT_OUT) != "current" for recipe in wanted):
        command = [sys.executable, "-m", "models", *names]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the example models could not be built:\n{done.stdout}{done.stderr}")
    return gallery.DEFAULT_OUT


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
