"""A script model without any framework: class centres in JSON, and the four functions of SageMaker's script mode."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np

from models import baselines, data
from models.cards import Card, Sample, csv_body, json_body
from models.data import DataSet, Floats

SAMPLE_ROWS = 20
SCRIPT = Path(__file__).parent / "scripts" / "wine" / "inference.py"


def wine_script(into: Path) -> Card:
    """Train the centres, copy the script, and let the script itself give the expected answers."""
    table = data.wine()
    (into / "centres.json").write_text(json.dumps(_centres(table)) + "\n")
    (into / "code").mkdir()
    shutil.copyfile(SCRIPT, into / "code" / "inference.py")

    script = importlib.import_module("models.scripts.wine.inference")
    model = script.model_fn(str(into))
    answers = script.predict_fn(table.held_x, model)
    labels = np.array([table.classes.index(answer["label"]) for answer in answers])
    return Card(
        name=into.name,
        title="Wine cultivar (nearest class centre, a script)",
        artifact=into.name,
        framework="script",
        executes_code=True,
        data=table,
        score=baselines.against_majority(labels, table),
        inputs='13 numbers a row in the order of the columns, as text/csv or as JSON `{"instances": [[...]]}`',
        outputs='JSON `{"predictions": [{"label": "class_0", "distance": 1.9}]}`, or CSV `label,distance`',
        limits=("Three cultivars of one region: every wine gets one of them, however far away it is.",),
        samples=_samples(table.held_x[:SAMPLE_ROWS], script, model),
        training="The mean of each class in standardised columns.",
    )


def _centres(table: DataSet) -> dict[str, object]:
    mean, spread = table.train_x.mean(axis=0), table.train_x.std(axis=0)
    scaled = (table.train_x - mean) / spread
    centres = {name: scaled[table.train_y == label].mean(axis=0).tolist() for label, name in enumerate(table.classes)}
    return {"columns": table.columns, "mean": mean.tolist(), "spread": spread.tolist(), "centres": centres}


def _samples(rows: Floats, script: ModuleType, model: object) -> tuple[Sample, ...]:
    """The script reads text as doubles, so the answers to expect are those to the bodies, not to the float32 rows."""
    bodies = (
        ("request", ".csv", "text/csv", csv_body(rows[:1])),
        ("batch", ".json", "application/json", json_body({"instances": rows})),
    )
    return tuple(
        Sample(name, suffix, kind, body, {"predictions": script.predict_fn(script.input_fn(body, kind), model)})
        for name, suffix, kind, body in bodies
    )
