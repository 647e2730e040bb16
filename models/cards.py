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
    """A metric on held-out rows beside the same metric of a named baseline."""

    metric: str
    value: float
    baseline: str
    baseline_value: float
    higher_is_better: bool = True

    @property
    def beats_baseline(self) -> bool:
        """Whether the model earns its place."""
        if self.higher_is_better:
            return self.value > self.baseline_value
        return self.value < self.baseline_value

    def __str__(self) -> str:
        """The metric and its baseline, for a person."""
        return f"{self.metric} {self.value:.3f} ({self.baseline}: {self.baseline_value:.3f})"


@dataclass(frozen=True, slots=True)
class Sample:
    """A request body and the answer to it. ``expected``: the model's outputs by name, one entry a row, compared within
    ``tolerance`` (largest absolute difference); how a reply spells them is the server's business."""

    name: str
    suffix: str
    content_type: str
    body: bytes
    expected: Mapping[str, Any]
    tolerance: float = 1e-5


@dataclass(frozen=True, slots=True)
class Card:
    """Everything a card says. ``artifact``: the path to serve, relative to the output folder; ``target_model``: for a
    folder of many, the member that the samples are answered by."""

    name: str
    title: str
    artifact: str
    framework: str
    data: DataSet
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
        (folder / f"{sample.name}.expected.json").write_bytes(json_body(sample.expected))
    for file, content in card.extra.items():
        (folder / file).write_bytes(content)


def _described(card: Card) -> dict[str, Any]:
    data, score = card.data, card.score
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
            "rows_trained": len(data.train_x),
            "rows_held_out": len(data.held_x),
        },
        "score": {
            "metric": score.metric,
            "value": round(score.value, 6),
            "baseline": score.baseline,
            "baseline_value": round(score.baseline_value, 6),
            "higher_is_better": score.higher_is_better,
        },
        "facts": card.facts,
        "limits": card.limits,
        "samples": {
            sample.name: {
                "body": f"{sample.name}{sample.suffix}",
                "content_type": sample.content_type,
                "expected": f"{sample.name}.expected.json",
                "tolerance": sample.tolerance,
            }
            for sample in card.samples
        },
    }


def _markdown(card: Card) -> str:
    data, sample = card.data, card.samples[0]
    flag = " --allow-code" if card.executes_code else ""
    header = f" with the header `X-Amzn-SageMaker-Target-Model: {card.target_model}`" if card.target_model else ""
    parts = [
        f"# {card.title}",
        f"`{card.artifact}` ({card.framework}). {card.training}".rstrip(),
        f"- **Input**: {card.inputs}\n- **Output**: {card.outputs}",
        f"## Data\n{data.name}: {len(data.train_x)} rows to train on, {len(data.held_x)} held out.\n"
        f"Source: {data.source}.\nLicence: {data.licence}.",
        f"## Measured on held-out rows\n{card.score}",
        "## Limits\n" + "\n".join(f"- {limit}" for limit in card.limits),
        "## Try it\n"
        f"`serving up models/artifacts/{card.artifact}{flag}`, then send `{sample.name}{sample.suffix}` as "
        f"`{sample.content_type}`{header} to `/invocations`; the answer holds `{sample.name}.expected.json`.",
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
