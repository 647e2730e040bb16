"""What is written beside an artifact: the model card, sample requests and the answers to expect.

They live in ``cards/NAME/``, not in the artifact: what is served must hold only what a server recognises.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data import DataSet, Floats


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on held-out rows beside the same metric of a named baseline. ``aim``: what it must reach."""

    metric: str
    value: float
    baseline: str
    baseline_value: float
    higher_is_better: bool = True
    aim: float | None = None

    @property
    def beats_baseline(self) -> bool:
        """Whether the model earns its place."""
        if self.higher_is_better:
            return self.value > self.baseline_value
        return self.value < self.baseline_value

    @property
    def reaches_aim(self) -> bool:
        """Whether it is as good as it has to be."""
        if self.aim is None:
            return True
        return self.value >= self.aim if self.higher_is_better else self.value <= self.aim

    def __str__(self) -> str:
        """The metric and its baseline, for a person."""
        return f"{self.metric} {self.value:.3f} ({self.baseline}: {self.baseline_value:.3f})"


@dataclass(frozen=True, slots=True)
class Sample:
    """A request body and the answer to it. ``expected``: the model's outputs by name, one entry a row, compared within
    ``tolerance`` (largest absolute difference); how a reply spells them is the server's business.

    The built-in algorithms' samples have an ``accept``, and the whole answer for ``expected``: the JSON document (for
    JSON Lines and CSV a list of the lines' values), or the bytes of an image. The library that trained the model
    computes it, not the server."""

    name: str
    suffix: str
    content_type: str
    body: bytes
    expected: Mapping[str, Any] | list[Any] | bytes
    tolerance: float = 1e-5
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a family's data comes from: the package, who made it, under which licence; how much was trained on and held
    out, counted in ``unit``."""

    name: str
    source: str
    licence: str
    trained: int
    held: int
    unit: str = "rows"
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """Everything a card says. ``artifact``: the path to serve, relative to the output folder; ``target_model``: for a
    folder of many, the member that the samples are answered by."""

    name: str
    title: str
    artifact: str
    framework: str
    data: DataSet | Source
    score: Score
    inputs: str
    outputs: str
    limits: tuple[str, ...]
    samples: tuple[Sample, ...]
    executes_code: bool = False
    training: str = ""
    target_model: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, bytes] = field(default_factory=dict)


def tables(table: DataSet, target: str) -> dict[str, bytes]:
    """The data itself, for those who compare with it: ``train.csv`` and ``held.csv``, a header, the target first."""
    parts = {"train.csv": (table.train_x, table.train_y), "held.csv": (table.held_x, table.held_y)}
    header = ",".join((target, *table.columns)).encode() + b"\n"
    return {
        name: header + b"".join(b"%d,%b" % (y, csv_body(x[None])) for x, y in zip(*part, strict=True))
        for name, part in parts.items()
    }


def csv_body(rows: Floats) -> bytes:
    """CSV of float32 ``rows``: no header, the shortest digits that read back as the same float32."""
    return "".join(",".join(str(value) for value in row) + "\n" for row in rows).encode()


def npy_body(array: NDArray[np.generic]) -> bytes:
    """``array`` as a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def json_body(value: Any) -> bytes:
    """``value`` as one line of JSON; arrays become nested lists."""
    return json.dumps(value, default=_plain).encode() + b"\n"


def csv_samples(rows: Floats, outputs: Mapping[str, NDArray[np.generic]]) -> tuple[Sample, ...]:
    """``request`` (the first row) and ``batch`` (all of ``rows``), with their part of the model's ``outputs``."""
    return tuple(
        Sample(name, ".csv", "text/csv", csv_body(rows[:count]), {key: value[:count] for key, value in outputs.items()})
        for name, count in (("request", 1), ("batch", len(rows)))
    )


def write(card: Card, folder: Path) -> None:
    """Write ``card.json``, ``MODEL_CARD.md``, the samples and their expected answers into ``folder``."""
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(_described(card), indent=2, default=_plain) + "\n")
    (folder / "MODEL_CARD.md").write_text(_markdown(card))
    for sample in card.samples:
        (folder / f"{sample.name}{sample.suffix}").write_bytes(sample.body)
        (folder / _expected_file(sample)).write_bytes(
            sample.expected if isinstance(sample.expected, bytes) else json_body(sample.expected)
        )
    for file, content in card.extra.items():
        (folder / file).write_bytes(content)


def _expected_file(sample: Sample) -> str:
    return f"{sample.name}.expected.{'png' if isinstance(sample.expected, bytes) else 'json'}"


def _described(card: Card) -> dict[str, Any]:
    data, score = card.data, card.score
    trained, held = _counts(data)
    return {
        "name": card.name,
        "title": card.title,
        "artifact": card.artifact,
        "framework": card.framework,
        "executes_code": card.executes_code,
        "training": card.training,
        "target_model": card.target_model,
        "inputs": {"description": card.inputs, "columns": data.columns},
        "outputs": {"description": card.outputs, "classes": data.classes},
        "data": {
            "name": data.name,
            "source": data.source,
            "licence": data.licence,
            "unit": data.unit if isinstance(data, Source) else "rows",
            "rows_trained": trained,
            "rows_held_out": held,
        },
        "score": {
            "metric": score.metric,
            "value": round(score.value, 6),
            "baseline": score.baseline,
            "baseline_value": round(score.baseline_value, 6),
            "higher_is_better": score.higher_is_better,
            "aim": score.aim,
        },
        "facts": card.facts,
        "limits": card.limits,
        "samples": {
            sample.name: {
                "body": f"{sample.name}{sample.suffix}",
                "content_type": sample.content_type,
                "expected": _expected_file(sample),
                "tolerance": sample.tolerance,
                "accept": sample.accept,
            }
            for sample in card.samples
        },
    }


def _counts(data: DataSet | Source) -> tuple[int, int]:
    """How much was trained on, how much held out."""
    return (data.trained, data.held) if isinstance(data, Source) else (len(data.train_x), len(data.held_x))


def _markdown(card: Card) -> str:
    data, sample = card.data, card.samples[0]
    trained, held = _counts(data)
    unit = data.unit if isinstance(data, Source) else "rows"
    flag = " --allow-code" if card.executes_code else ""
    header = f" with the header `X-Amzn-SageMaker-Target-Model: {card.target_model}`" if card.target_model else ""
    parts = [
        f"# {card.title}",
        f"`{card.artifact}` ({card.framework}). {card.training}".rstrip(),
        f"- **Input**: {card.inputs}\n- **Output**: {card.outputs}",
        f"## Data\n{data.name}: {trained} {unit} to train on, {held} held out.\n"
        f"Source: {data.source}.\nLicence: {data.licence}.",
        f"## Measured on held-out {unit}\n{card.score}",
        "## Limits\n" + "\n".join(f"- {limit}" for limit in card.limits),
        "## Try it\n"
        f"`serving up models/artifacts/{card.artifact}{flag}`, then send `{sample.name}{sample.suffix}` as "
        f"`{sample.content_type}`{header} to `/invocations`; the answer holds `{_expected_file(sample)}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _plain(value: object) -> object:
    """NumPy values as JSON has them. float32 keeps its shortest digits instead of a double's seventeen."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.float32):
        return float(str(value))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
