"""What every workload needs: how long, where the models are, taking turns, and not trusting fast wrong answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from loadtests.client import Count
from loadtests.generator import Call, load
from loadtests.processes import Answer


@dataclass(frozen=True, slots=True)
class Bench:
    """How a run is measured. Sides take turns for ``rounds`` of ``seconds`` each."""

    artifacts: Path
    rounds: int
    seconds: int
    console: Console
    tool: str

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        self.console.print(f"[dim]{text}[/]")

    def load(self, port: int, calls: Sequence[Call], connections: int, seconds: int = 0) -> Count:
        """Load of this run's tool and length."""
        return load(port, calls, connections, seconds or self.seconds, self.tool)

    def take_turns(self, sides: Mapping[str, Callable[[], Count]]) -> dict[str, list[Count]]:
        """A B A B ...: every side once a round, so that what else the machine does meets all alike."""
        counts: dict[str, list[Count]] = {name: [] for name in sides}
        for number in range(self.rounds):
            for name, measure in sides.items():
                counts[name].append(measure())
                last = counts[name][-1]
                self.say(f"  round {number + 1} {name}: {last.per_second:,.0f}/s p50 {last.p50_us:,.0f} µs")
        return counts


def failures(*runs: Sequence[Count]) -> int:
    """Failed calls over all rounds of all sides."""
    return sum(count.failures for run in runs for count in run)


def numbers(body: bytes) -> np.ndarray:
    """Every number in a CSV or JSON answer, in order, as float64."""
    return np.array(re.findall(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?|NaN", body), dtype=np.float64)


def is_right(answer: Answer, expected: Sequence[float]) -> bool:
    """Whether an answer is a 200 with these numbers, to a ten-thousandth of each."""
    if answer.status != 200:
        return False
    found = numbers(answer.body)
    return len(found) == len(expected) and bool(np.allclose(found, expected, rtol=1e-4, atol=1e-6))


class Card:
    """The sample requests that lie beside a model, and the answers to expect (``models/cards.py``)."""

    def __init__(self, artifacts: Path, name: str) -> None:
        self._folder = artifacts / "cards" / name

    def body(self, name: str) -> bytes:
        """The body of a sample: ``request.csv``, ``batch.csv`` ..."""
        return (self._folder / name).read_bytes()

    def expected(self, name: str) -> list[float]:
        """The model's only output for ``request`` or ``batch``, flat."""
        (output,) = json.loads((self._folder / f"{name}.expected.json").read_bytes()).values()
        return [float(value) for value in np.ravel(output)]

    def member_answers(self) -> dict[str, list[float]]:
        """For the zoo: each member's own answer to ``request``."""
        answers: dict[str, list[float]] = json.loads(self.body("members.json"))
        return answers


def per_second(value: float) -> str:
    """A rate for the table."""
    return f"{value:,.0f}/s"


def microseconds(value: float) -> str:
    """A time for the table: µs below 10 ms."""
    return f"{value:,.0f} µs" if value < 10_000 else f"{value / 1000:,.1f} ms"


def megabytes(value: float) -> str:
    """A size for the table."""
    return f"{value / 1e6:,.1f} MB" if math.isfinite(value) else "-"
