"""The gallery's sample requests, as load: what to send to each family and how to judge its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import answers, gallery
from models.families import FAMILIES


@dataclass(frozen=True, slots=True)
class Asked:
    """A family's sample, and the answer that its card expects."""

    family: str
    body: bytes
    content_type: str
    accept: str
    expected: Any
    tolerance: float

    @property
    def member(self) -> str:
        """Its name in the multi-model endpoint: the TargetModel."""
        return f"{self.family}.tar.gz"

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with it."""
        headers = {"Content-Type": self.content_type}
        return {**headers, "Accept": self.accept} if self.accept else headers

    def fault(self, body: bytes, content_type: str) -> str:
        """What is wrong with an answer of status 200, in words; nothing when it is right."""
        try:
            found = answers.differences(self.expected, answers.read(body, content_type), self.tolerance)
        except ValueError as error:
            return f"{self.family}: an answer of {content_type} that cannot be read: {error}"
        return f"{self.family}: {found[0]}" if found else ""


def trained(out: Path = gallery.DEFAULT_OUT, which: str = "request") -> list[Asked]:
    """A sample of each family that lies trained in ``out``, in the order of their table."""
    there = [family.name for family in FAMILIES if (out / gallery.PACKED / f"{family.name}.tar.gz").is_file()]
    return [_asked(out / "cards" / name, name, which) for name in there]


def _asked(folder: Path, family: str, which: str) -> Asked:
    sample = json.loads((folder / "card.json").read_text())["samples"][which]
    file = folder / sample["expected"]
    return Asked(
        family,
        (folder / sample["body"]).read_bytes(),
        sample["content_type"],
        sample["accept"],
        file.read_bytes() if file.suffix == ".png" else json.loads(file.read_bytes()),
        sample["tolerance"],
    )
